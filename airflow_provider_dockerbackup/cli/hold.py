# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup hold`` and ``release``: exempt a backup from rotation, and end that."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from airflow_provider_dockerbackup.cli.completion import backup_ids
from airflow_provider_dockerbackup.cli.options import actor, json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.hold import HoldRequest, ReleaseRequest, hold_backup, release_backup


@click.command()
@click.argument("backup_id", shell_complete=backup_ids)
@repository_option
@click.option("--reason", required=True, help="Why; kept with the backup and in the audit trail.")
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]),
    help="When it ends by itself, UTC.  [default: never]",
)
@click.option("--legal", is_flag=True, help="Only 'release --legal' ends it before its time.")
@json_option
def hold(*, backup_id: str, repository: str, reason: str, until: datetime | None, legal: bool, as_json: bool) -> None:
    """Exempt a backup from rotation.

    \b
    Example:
      dockerbackup hold 20261123T210400Z-1f -r /srv/backups --reason "claim 17" --until 2027-12-31 --legal
    """
    opened = open_repository(repository)
    backup = opened.catalog.find(backup_id)
    end = until.replace(tzinfo=UTC) if until else None
    request = HoldRequest(reason=reason, until=end, legal=legal, actor=actor())
    held = hold_backup(opened, backup, request, progress=BarProgress())
    if as_json:
        print_json({**held.model_dump(mode="json"), "audit_head": opened.audit_head})
        return
    click.echo(plain(f"{backup.backup_id} of {backup.source} is {held}"))


@click.command()
@click.argument("backup_id", shell_complete=backup_ids)
@repository_option
@click.option("--reason", required=True, help="Why; kept with the backup and in the audit trail.")
@click.option("--legal", is_flag=True, help="Also legal holds.")
@json_option
def release(*, backup_id: str, repository: str, reason: str, legal: bool, as_json: bool) -> None:
    """End all holds of a backup.

    \b
    Example:
      dockerbackup release 20261123T210400Z-1f -r /srv/backups --reason "claim 17 settled" --legal
    """
    opened = open_repository(repository)
    backup = opened.catalog.find(backup_id)
    request = ReleaseRequest(reason=reason, release_legal=legal, actor=actor())
    released = release_backup(opened, backup, request, progress=BarProgress())
    if as_json:
        released_json = [each.model_dump(mode="json") for each in released]
        print_json({"backup_id": backup.backup_id, "released": released_json, "audit_head": opened.audit_head})
        return
    for each in released:
        click.echo(plain(f"{backup.backup_id} of {backup.source} is no longer {each}"))
