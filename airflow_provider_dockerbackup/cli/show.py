# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup show``: everything known of one backup."""

from __future__ import annotations

import click

from airflow_provider_dockerbackup.cli.completion import backup_ids
from airflow_provider_dockerbackup.cli.options import json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import plain, print_json, print_table
from airflow_provider_dockerbackup.core.look.facts import backup_facts, fidelity_rows, layer_rows


@click.command()
@click.argument("backup_id", shell_complete=backup_ids)
@repository_option
@json_option
def show(*, backup_id: str, repository: str, as_json: bool) -> None:
    """Show one backup: what it is, what a restore gives back, and how far it is proven.

    BACKUP_ID may be the beginning of an id. Configuration is shown by name, never by value.

    \b
    Example:
      dockerbackup show 20261123T210400Z-1f --repository /srv/backups
    """
    opened = open_repository(repository)
    backup = opened.catalog.find(backup_id)
    record = backup.whole()
    if as_json:
        print_json(
            {
                "record": record.model_dump(mode="json"),
                "confirmations": [each.model_dump(mode="json") for each in backup.confirmations],
                "verifications": [each.model_dump(mode="json") for each in backup.verifications],
                "holds": [each.model_dump(mode="json") for each in backup.held(opened.clock.now())],
                "trust": backup.trust,
            }
        )
        return
    for name, value in backup_facts(backup, opened.document.recipients, now=opened.clock.now()):
        click.echo(plain(f"{name + ':':<15}{value}"))
    click.echo()
    print_table(["FIDELITY", "OF", "WHAT", "WHY"], fidelity_rows(record.fidelity))
    if layers := layer_rows(record):
        click.echo()
        print_table(["LAYER", "SIZE", "STORED AS"], layers, right=["SIZE"])
