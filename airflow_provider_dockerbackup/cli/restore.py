# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup restore``: a backup onto a Docker host."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

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
from airflow_provider_dockerbackup.core.restore import Method, RestoreRequest, restore_backup

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command()
@click.argument("backup_id", shell_complete=backup_ids)
@repository_option
@archive_host_option
@identity_option
@host_options
@click.option("--tag", "tags", multiple=True, metavar="NAME:TAG", help="Name to give it; may be repeated.")
@click.option("--recorded-tags", is_flag=True, help="Also give it the tags that the source image had.")
@click.option("--replace-tags", is_flag=True, help="Take over tags of other images, which are kept as NAME:before-ID.")
@click.option(
    "--method",
    type=click.Choice(get_args(Method)),
    default="load",
    show_default=True,
    help="'import' restores a container's filesystem without its configuration.",
)
@click.option("--all-layers", is_flag=True, help="Send every layer, also those that the host says it has.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and touch nothing.")
@json_option
def restore(
    *,
    backup_id: str,
    repository: str,
    archive_hosts: HostFilesFactory,
    age_identity: Path | None,
    host: HostOptions,
    tags: tuple[str, ...],
    recorded_tags: bool,
    replace_tags: bool,
    method: Method,
    all_layers: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Load a backup into the daemon of a Docker host and compare it with its record.

    Without --tag it is found there as dockerbackup-restored:<backup id>. No container is touched, and no tag is taken
    from another image unless asked for.

    \b
    Example:
      dockerbackup restore 20261123T210400Z-1f -r s3://backups/docker --host web1 --recorded-tags
    """
    opened = open_repository(repository, age_identity=age_identity, archive_hosts=archive_hosts)
    backup = opened.catalog.find(backup_id)
    request = RestoreRequest(
        tags=tags,
        recorded_tags=recorded_tags,
        replace_tags=replace_tags,
        method=method,
        all_layers=all_layers,
        dry_run=dry_run,
        actor=actor(),
    )
    with host.connected() as docker:
        outcome = restore_backup(backup, request, host=docker, repository=opened, progress=BarProgress())
        name = docker.name
    if as_json:
        print_json(asdict(outcome) | {"kept": dict(outcome.kept), "host": name, "dry_run": dry_run})
        return
    verb = "would restore" if dry_run else "restored"
    click.echo(plain(f"{verb} backup {outcome.backup_id} of {backup.source} to {name} as {', '.join(outcome.tags)}"))
    for tag, kept in outcome.kept.items():
        click.echo(plain(f"{'would keep' if dry_run else 'kept'} what {tag} stood for as {kept}"))
    if not dry_run:
        proof = "configuration and layers equal to the recorded ones"
        if not outcome.identical:
            proof = "layers equal to the recorded ones, configuration not"
        click.echo(f"image {outcome.image_id}: {proof}, {outcome.seconds:.1f} s")
    for note in outcome.notes:
        click.echo(plain(f"note: {note}"))
