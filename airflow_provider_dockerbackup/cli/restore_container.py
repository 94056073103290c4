# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup restore-container``: a container made anew on a Docker host."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from airflow_provider_dockerbackup.cli.archive_hosts import archive_host_option
from airflow_provider_dockerbackup.cli.completion import backup_ids
from airflow_provider_dockerbackup.cli.options import (
    HostOptions,
    actor,
    host_options,
    identity_option,
    json_option,
    open_repository,
    repository_option,
)
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.recreate import RecreateRequest, restore_container

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command(name="restore-container")
@click.argument("backup_id", shell_complete=backup_ids)
@repository_option
@archive_host_option
@identity_option
@host_options
@click.option("--name", metavar="NAME", help="Name of the new container.  [default: the name it had]")
@click.option("--replace", is_flag=True, help="Stop a container of that name and keep it as NAME-before-ID.")
@click.option("--network", metavar="NAME", help="Network or network mode to use instead of its own.")
@click.option("--healthy-within", default=60, show_default=True, metavar="SECONDS", help="Time to get healthy.")
@click.option(
    "--running-for", default=5, show_default=True, metavar="SECONDS", help="Time to run, without a health check."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and touch nothing.")
@json_option
def restore_container_verb(
    *,
    backup_id: str,
    repository: str,
    archive_hosts: HostFilesFactory,
    age_identity: Path | None,
    host: HostOptions,
    name: str | None,
    replace: bool,
    network: str | None,
    healthy_within: int,
    running_for: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a container anew from its backup, start it and wait until it is healthy.

    A container of that name is refused, or replaced with --replace: then it is stopped and kept, and put back when the
    new one does not get healthy. Run it again when it was interrupted.

    \b
    Example:
      dockerbackup restore-container 20261123T210400Z-5f -r s3://backups/docker --host web1 --replace
    """
    opened = open_repository(repository, age_identity=age_identity, archive_hosts=archive_hosts)
    backup = opened.catalog.find(backup_id)
    request = RecreateRequest(
        name=name,
        replace=replace,
        network=network,
        healthy_within_seconds=healthy_within,
        running_seconds=running_for,
        dry_run=dry_run,
        actor=actor(),
    )
    with host.connected() as docker:
        outcome = restore_container(backup, request, host=docker, repository=opened, progress=BarProgress())
        where = docker.name
    if as_json:
        print_json(asdict(outcome) | {"host": where, "dry_run": dry_run})
        return
    verb = "would be" if dry_run else "is"
    click.echo(plain(f"container {outcome.name} on {where} {verb} {outcome.status} from backup {outcome.backup_id}"))
    if outcome.kept:
        click.echo(plain(f"the container it replaces {'would be' if dry_run else 'is'} kept as {outcome.kept}"))
    click.echo(plain(f"options: {' '.join(outcome.options) or 'none'}"))
    for lost in outcome.not_carried_over:
        click.echo(plain(f"not carried over: {lost}"))
