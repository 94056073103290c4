# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup list``: the catalog of a repository."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from airflow_provider_dockerbackup.cli.options import (
    json_option,
    open_repository,
    period_options,
    repository_option,
)
from airflow_provider_dockerbackup.cli.output import print_json, print_table
from airflow_provider_dockerbackup.core.ages import age_text
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.period import Period
from airflow_provider_dockerbackup.core.sizes import size_text


@click.command("list")
@repository_option
@click.option("--host", "host_name", metavar="NAME", help="Only backups of this Docker host.")
@click.option("--source", metavar="NAME", help="Only backups of this image reference or container name.")
@period_options
@json_option
def list_backups(
    *, repository: str, host_name: str | None, source: str | None, period: Period | None, as_json: bool
) -> None:
    """List the backups in a repository, newest first.

    A backup is of a period when it was captured in it, or its source was found unchanged then.

    \b
    Examples:
      dockerbackup list --repository s3://backups/docker --host web1
      dockerbackup list --repository s3://backups/docker --since 2026-10-01 --until 2026-11-01
    """
    opened = open_repository(repository)
    found = (
        each
        for each in opened.catalog.each(host=host_name)
        if (source is None or each.source.name == source) and (period is None or period.has(each))
    )
    if as_json:
        print_json(
            [row for _, row in sorted(((each.order, _row_json(each)) for each in found), key=_order, reverse=True)]
        )
        return
    now = opened.clock.now()
    # Rows instead of records: a large repository would not fit into memory.
    rows = sorted(((each.order, _row(each, now)) for each in found), key=_order, reverse=True)
    print_table(
        ["HOST", "KIND", "SOURCE", "BACKUP", "SIZE", "STORED", "LAYERS", "STATE", "AGE"],
        [row for _, row in rows],
        right=["SIZE", "STORED", "LAYERS", "AGE"],
    )


def _order(item: tuple[tuple[str, str], Any]) -> tuple[str, str]:
    return item[0]


def _row(backup: Backup, now: datetime) -> tuple[str, ...]:
    head = (backup.source.host, backup.source.kind.value, backup.source.name, backup.backup_id)
    if backup.record is None:
        return (*head, "?", "?", "?", "unreadable", "?")
    return (
        *head,
        size_text(backup.record.size_bytes),
        size_text(backup.record.stored_size_bytes),
        str(len(backup.record.diff_ids)),
        "not verified" if backup.trust == "none" else backup.trust,
        age_text((now - backup.newest_point).total_seconds()),
    )


def _row_json(backup: Backup) -> dict[str, Any]:
    row: dict[str, Any] = {
        "backup_id": backup.backup_id,
        "host": backup.source.host,
        "kind": backup.source.kind.value,
        "source": backup.source.name,
        "path": backup.path,
        "trust": backup.trust,
        "problem": backup.problem,
    }
    if backup.record is not None:
        document = backup.record.model_dump(mode="json")
        row |= {key: document[key] for key in ("captured_at", "capture", "archive", "blobs")}
        row["diff_ids"] = list(backup.record.diff_ids)
        row["confirmed_at"] = [each.model_dump(mode="json")["confirmed_at"] for each in backup.confirmations]
    return row
