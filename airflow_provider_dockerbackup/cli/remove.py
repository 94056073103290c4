# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup remove``: an image or a container from its Docker host, once a verified backup of it exists."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import click

from airflow_provider_dockerbackup.cli.archive_hosts import archive_host_option
from airflow_provider_dockerbackup.cli.options import (
    HostOptions,
    actor,
    host_options,
    json_option,
    open_repository,
    repository_option,
)
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.remove import RemoveRequest, remove_source
from airflow_provider_dockerbackup.core.since import Level

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command()
@click.argument("kind", type=click.Choice([each.value for each in SourceKind]))
@click.argument("name")
@repository_option
@archive_host_option
@host_options
@click.option(
    "--required-level",
    type=click.Choice(get_args(Level)),
    default="load",
    show_default=True,
    help="The verification its backup must have passed, or a higher one.",
)
@click.option("--compare-files", is_flag=True, help="Export a container once more and compare it with its backup.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and touch nothing.")
@json_option
def remove(
    *,
    kind: str,
    name: str,
    repository: str,
    archive_hosts: HostFilesFactory,
    host: HostOptions,
    required_level: Level,
    compare_files: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove an image or a stopped container from a host, if a verified backup of exactly it exists.

    Volumes stay, anonymous ones too, and nothing is forced. Of a container only an export counts that was taken after
    it stopped.

    \b
    Example:
      dockerbackup remove container app -r s3://backups/docker --host web1 --dry-run
    """
    opened = open_repository(repository, archive_hosts=archive_hosts)
    request = RemoveRequest(
        kind=SourceKind(kind),
        name=name,
        required_level=required_level,
        compare_files=compare_files,
        dry_run=dry_run,
        actor=actor(),
    )
    with host.connected() as docker:
        outcome = remove_source(request, host=docker, repository=opened, progress=BarProgress())
    if as_json:
        print_json(
            {
                "host": outcome.source.host,
                "kind": outcome.source.kind.value,
                "source": outcome.source.name,
                "status": outcome.status,
                "object_id": outcome.object_id,
                "backup_id": outcome.backup.backup_id,
                "backup_source": str(outcome.backup.source),
                "trust": outcome.backup.trust,
                "volumes_left": list(outcome.volumes_left),
                "dry_run": dry_run,
                "audit_head": outcome.audit_head,
            }
        )
        return
    done = "was not there" if outcome.status == "already" else f"{'would be' if dry_run else 'is'} {outcome.status}"
    click.echo(plain(f"{outcome.source} {done}"))
    click.echo(plain(f"covered by backup {outcome.backup.backup_id} of {outcome.backup.source}"))
    for volume in outcome.volumes_left:
        click.echo(plain(f"stays: volume {volume}"))
