# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup check``: compare the catalog with the storage, and with the hosts on which archives lie."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from airflow_provider_dockerbackup.cli.archive_hosts import named_archive_host_option
from airflow_provider_dockerbackup.cli.options import json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import print_json, print_table
from airflow_provider_dockerbackup.core.check import BAD, Oddity, check_repository
from airflow_provider_dockerbackup.exceptions import DockerBackupError, IntegrityError

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command()
@repository_option
@named_archive_host_option
@json_option
def check(*, repository: str, archive_hosts: HostFilesFactory, host_names: Collection[str], as_json: bool) -> None:
    """Compare every record with the files that are there, and name what belongs to nobody.

    Archives are not read: 'dockerbackup verify --level digests' does that. Of those that lie on a Docker host only the
    hosts that are named are asked, once each. Exit code 5 when a backup is damaged, 1 when a named host did not let us
    look.

    \b
    Examples:
      dockerbackup check -r s3://backups/docker
      dockerbackup check -r s3://backups/docker --archive-host web1
    """
    found = check_repository(open_repository(repository, archive_hosts=archive_hosts), hosts=host_names)
    if as_json:
        print_json([asdict(each) for each in found])
    elif found:
        rows = [(each.problem, each.path, each.detail, each.advice) for each in found]
        print_table(["PROBLEM", "PATH", "DETAIL", "WHAT TO DO"], rows)
    else:
        click.echo("nothing is odd")
    _require_sound(found)


def _require_sound(found: Sequence[Oddity]) -> None:
    bad = len({each.path for each in found if each.problem in BAD})
    if bad:
        raise IntegrityError(f"{bad} backups are damaged")
    unknown = sum(each.problem == "unknown" for each in found)
    if unknown:
        raise DockerBackupError(f"in {unknown} cases nobody can say whether archives are on their host; see 'unknown'")
