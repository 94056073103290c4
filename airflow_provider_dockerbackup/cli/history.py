# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup history``: an archived image's history, without a Docker daemon."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from airflow_provider_dockerbackup.cli.archive_hosts import archive_host_option
from airflow_provider_dockerbackup.cli.completion import backup_ids
from airflow_provider_dockerbackup.cli.options import identity_option, json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress, print_columns, print_json
from airflow_provider_dockerbackup.core.look.history import HistoryStep, image_history

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory

_CREATED_BY_WIDTH = 45


@click.command()
@click.argument("backup_id", shell_complete=backup_ids)
@repository_option
@archive_host_option
@identity_option
@click.option("--no-trunc", is_flag=True, help="Do not cut IDs and commands short.")
@click.option("--steps", "numbered", is_flag=True, help="Number the steps, as rollback --step takes them.")
@json_option
def history(
    *,
    backup_id: str,
    repository: str,
    archive_hosts: HostFilesFactory,
    age_identity: Path | None,
    no_trunc: bool,
    numbered: bool,
    as_json: bool,
) -> None:
    """Show the history of an archived image as docker history does, newest step first.

    It is read from the archive, every byte compared with the record. Commands in it may hold secrets.

    \b
    Example:
      dockerbackup history 20261123T210400Z-1f --no-trunc -r /srv/backups
    """
    opened = open_repository(repository, age_identity=age_identity, archive_hosts=archive_hosts)
    steps = image_history(opened, opened.catalog.find(backup_id), progress=BarProgress())
    if as_json:
        print_json([asdict(step) for step in steps])
        return
    now = opened.clock.now()
    titles = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    rows = [_row(step, now, no_trunc=no_trunc) for step in steps]
    if numbered:
        titles = ["STEP", *titles]
        rows = [(str(step.step), *row) for step, row in zip(steps, rows, strict=True)]
    print_columns(titles, rows)


def _row(step: HistoryStep, now: datetime, *, no_trunc: bool) -> tuple[str, ...]:
    image, created_by = step.image, step.created_by.replace("\t", " ")
    if not no_trunc:
        image = image if image.startswith("<") else image.removeprefix("sha256:")[:12]
        if len(created_by) > _CREATED_BY_WIDTH:
            created_by = created_by[: _CREATED_BY_WIDTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return (image, _since(step.created, now), created_by, docker_size(step.size_bytes), step.comment)


def docker_size(size_bytes: int | None) -> str:
    """Return a size as Docker's listings print it, three significant digits: ``0B``, ``98.1MB``."""
    if size_bytes is None:
        return "?"
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g}TB"


def _since(created: str, now: datetime) -> str:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return "N/A"
    if moment.tzinfo is None or moment.year <= 1:
        return "N/A"
    return f"{docker_duration(int((now - moment.astimezone(UTC)).total_seconds()))} ago"


def docker_duration(seconds: int) -> str:
    """Return a duration in the words of Docker's listings: ``About an hour``, ``3 weeks``."""
    minutes, hours = seconds // 60, int(seconds / 3600 + 0.5)
    if seconds < 60:
        return {0: "Less than a second", 1: "1 second"}.get(max(0, seconds), f"{seconds} seconds")
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for limit, divisor, unit in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // divisor} {unit}"
    return f"{seconds // 3600 // 24 // 365} years"
