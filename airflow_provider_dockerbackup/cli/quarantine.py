# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup quarantine``: put a damaged backup aside."""

from __future__ import annotations

import click

from airflow_provider_dockerbackup.cli.completion import backup_ids
from airflow_provider_dockerbackup.cli.options import actor, json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.quarantine import lift_quarantine, quarantine


@click.command("quarantine")
@click.argument("backup_id", shell_complete=backup_ids)
@repository_option
@click.option("--reason", required=True, help="Why; kept with the backup and in the audit trail.")
@click.option("--lift", is_flag=True, help="Bring it back into the catalog instead.")
@json_option
def quarantine_verb(*, backup_id: str, repository: str, reason: str, lift: bool, as_json: bool) -> None:
    """Take a damaged backup out of the catalog: it blocks its source no more, and nothing of it is deleted.

    \b
    Example:
      dockerbackup quarantine 20261123T210400Z-1f -r /srv/backups --reason "record lost in disk failure"
    """
    opened = open_repository(repository)
    act = lift_quarantine if lift else quarantine
    backup = act(opened, backup_id, reason=reason, actor=actor(), progress=BarProgress())
    state = "is back in the catalog" if lift else "is in quarantine"
    if as_json:
        print_json({"backup_id": backup.backup_id, "quarantined": not lift, "audit_head": opened.audit_head})
        return
    click.echo(plain(f"{backup.backup_id} of {backup.source} {state}"))
