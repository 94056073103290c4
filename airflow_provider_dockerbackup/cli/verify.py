# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup verify``: prove that backups restore."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from airflow_provider_dockerbackup.cli.archive_hosts import archive_host_option
from airflow_provider_dockerbackup.cli.completion import backup_ids
from airflow_provider_dockerbackup.cli.options import (
    actor,
    identity_option,
    json_option,
    open_repository,
    period_options,
    repository_option,
    words,
)
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.drill import DrillPlan
from airflow_provider_dockerbackup.core.period import Period
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Level, Verification
from airflow_provider_dockerbackup.core.verify import VerifyRequest, verify_backup
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.given_daemon import test_daemon_at

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command("verify")
@click.argument("backup_ids", nargs=-1, shell_complete=backup_ids, metavar="[BACKUP_ID]...")
@repository_option
@archive_host_option
@identity_option
@click.option("--newest", is_flag=True, help="The newest backup of every source instead, in a period if one is given.")
@period_options
@click.option("--level", type=click.Choice(get_args(Level)), default="load", show_default=True, help="How far to go.")
@click.option("--probe", metavar="WORDS", help="At level run: run in the container until it exits with 0.")
@click.option("--stay-up", type=float, metavar="SECONDS", help="At level run, without probe and HEALTHCHECK; 5.")
@click.option("--deadline", type=float, metavar="SECONDS", help="At level run: how long it may take to pass; 120.")
@click.option("--test-daemon", metavar="URL", help="A Docker daemon to load it into.  [default: a throw-away one]")
@json_option
def verify(
    *,
    backup_ids: tuple[str, ...],
    repository: str,
    archive_hosts: HostFilesFactory,
    age_identity: Path | None,
    newest: bool,
    period: Period | None,
    level: Level,
    probe: str | None,
    stay_up: float | None,
    deadline: float | None,
    test_daemon: str | None,
    as_json: bool,
) -> None:
    """Read every byte of backups again and prove that they restore; exit code 5 when one fails, after all were tried.

    Level digests reads; load also loads it into a test daemon and compares; run also runs it there, without network.
    Without --test-daemon a throw-away dockerd is started, which needs root and docker.io.

    \b
    Examples:
      dockerbackup verify 20261123T210400Z-1f -r /srv/backups
      dockerbackup verify --newest --level digests -r s3://backups/docker
      dockerbackup verify --since 2026-10-01 --until 2026-11-01 -r /srv/backups
    """
    if bool(backup_ids) == (newest or period is not None):
        raise ConfigurationError("expected either ids of backups, or --newest, or a period (--since, --until)")
    given = {"probe": words("--probe", probe), "stay_up_seconds": stay_up, "deadline_seconds": deadline}
    drill = DrillPlan.of({name: value for name, value in given.items() if value is not None})
    opened = open_repository(repository, age_identity=age_identity, archive_hosts=archive_hosts)
    chosen = _of_period(opened, period, newest=newest) if not backup_ids else _of_ids(opened, backup_ids)
    results: list[dict[str, Any]] = []
    for backup in chosen:
        progress = BarProgress()
        found = verify_backup(
            backup,
            VerifyRequest(level=level, drill=drill, actor=actor()),
            repository=opened,
            test_daemon=lambda: test_daemon_at(test_daemon, progress=BarProgress()),
            progress=progress,
        )
        results.append({**found.model_dump(mode="json"), "audit_head": opened.audit_head})
        if not as_json:
            click.echo(plain(_line(backup, found)))
    if as_json:
        print_json(results)
    failed = [each["backup_id"] for each in results if each["verification"] == "failed"]
    if failed:
        raise IntegrityError(f"{len(failed)} of {len(results)} backups failed: {', '.join(failed[:5])}")


def _of_ids(repository: Repository, backup_ids: Sequence[str]) -> list[Backup]:
    return [repository.catalog.find(each) for each in backup_ids]


def _of_period(repository: Repository, period: Period | None, *, newest: bool) -> list[Backup]:
    """Return all backups of a period, or the newest one of every source.

    An unreadable one is among them: its verification says so.

    :raises NotFoundError: when there is a period and nothing in it: nothing would be proven by that.
    """
    found = [each for each in repository.catalog.backups() if period is None or period.has(each)]
    if period is not None and not found:
        raise NotFoundError(f"no backup in {repository.storage.url} has a point {period}")
    if not newest:
        return found
    chosen: dict[Source, Backup] = {}
    for backup in found:
        chosen.setdefault(backup.source, backup)
    return list(chosen.values())


def _line(backup: Backup, found: Verification) -> str:
    seconds = f", restored in {found.restore_seconds} s" if found.restore_seconds is not None else ""
    ran = f", ran ({found.drill.passed_by})" if found.drill else ""
    problem = f": {found.problem}" if found.problem else ""
    return f"{backup.backup_id} of {backup.source}: {found.verification} level {found.level}{seconds}{ran}{problem}"
