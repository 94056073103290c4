# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup check``: compare the catalog with the storage."""

from __future__ import annotations

from dataclasses import asdict

import click

from airflow_provider_dockerbackup.cli.options import json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import print_json, print_table
from airflow_provider_dockerbackup.core.check import BAD, check_repository
from airflow_provider_dockerbackup.exceptions import IntegrityError


@click.command()
@repository_option
@json_option
def check(*, repository: str, as_json: bool) -> None:
    """Compare every record with the files that are there, and name what belongs to nobody.

    Archives are not read: 'dockerbackup verify --level digests' does that. Exit code 5 when a backup is damaged.

    \b
    Example:
      dockerbackup check -r s3://backups/docker
    """
    found = check_repository(open_repository(repository))
    if as_json:
        print_json([asdict(each) for each in found])
    elif found:
        rows = [(each.problem, each.path, each.detail, each.advice) for each in found]
        print_table(["PROBLEM", "PATH", "DETAIL", "WHAT TO DO"], rows)
    else:
        click.echo("nothing is odd")
    bad = sum(each.problem in BAD for each in found)
    if bad:
        raise IntegrityError(f"{bad} backups are damaged")
