# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup undelete``: bring a deleted backup back."""

from __future__ import annotations

import click

from airflow_provider_dockerbackup.cli.completion import deleted_backup_ids
from airflow_provider_dockerbackup.cli.options import actor, json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.gc.undelete import undelete


@click.command("undelete")
@click.argument("backup_id", shell_complete=deleted_backup_ids)
@repository_option
@json_option
def undelete_verb(*, backup_id: str, repository: str, as_json: bool) -> None:
    """Bring a deleted backup back into the catalog of a repository of layout 'layers'.

    Possible until its bytes have left the trash. The next rotation decides about it anew: 'hold' keeps it.

    \b
    Example:
      dockerbackup undelete 20261123T210400Z-1f -r /srv/backups
    """
    opened = open_repository(repository)
    backup = undelete(opened, backup_id, actor=actor(), progress=BarProgress())
    if as_json:
        print_json({"backup_id": backup.backup_id, "source": str(backup.source), "audit_head": opened.audit_head})
        return
    click.echo(plain(f"{backup.backup_id} of {backup.source} is in the catalog again"))
