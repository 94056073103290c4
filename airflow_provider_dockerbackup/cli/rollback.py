# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup rollback``: a tag back to an earlier backup, or to an earlier step of an archived image."""

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
from airflow_provider_dockerbackup.core.drill import DrillPlan
from airflow_provider_dockerbackup.core.rollback import (
    PREVIOUS,
    Proof,
    RollbackOutcome,
    RollbackRequest,
    find_backup,
    roll_back,
)
from airflow_provider_dockerbackup.transport.given_daemon import test_daemon_at

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory


@click.command()
@click.argument("tag", metavar="NAME:TAG")
@click.argument("backup_id", default=PREVIOUS, shell_complete=backup_ids)
@repository_option
@archive_host_option
@identity_option
@host_options
@click.option("--step", type=int, metavar="N", help="Keep the first N steps of the image's history only.")
@click.option(
    "--prove",
    type=click.Choice(get_args(Proof)),
    default="run",
    show_default=True,
    help="What a test daemon does with the image before the tag moves.",
)
@click.option("--stay-up", type=float, metavar="SECONDS", help="How long it must run there without HEALTHCHECK; 5.")
@click.option("--test-daemon", metavar="URL", help="A Docker daemon to prove it in.  [default: a throw-away one]")
@click.option("--dry-run", is_flag=True, help="Say what would be done and touch nothing.")
@json_option
def rollback(
    *,
    tag: str,
    backup_id: str,
    repository: str,
    archive_hosts: HostFilesFactory,
    age_identity: Path | None,
    host: HostOptions,
    step: int | None,
    prove: Proof,
    stay_up: float | None,
    test_daemon: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Point a tag of a host back to an earlier backup; what it stood for is kept under a second tag.

    BACKUP_ID is an id, the beginning of one, or 'previous', the default: the newest backup of this tag of this host
    that holds another image than the tag stands for now; run again it changes nothing. No container is touched.

    \b
    Examples:
      dockerbackup rollback app:1 -r s3://backups/docker --host web1 --dry-run
      dockerbackup rollback app:1 20261123T210400Z-1f --step 3 -r s3://backups/docker --host web1
    """
    request = RollbackRequest(
        tag=tag,
        step=step,
        prove=prove,
        drill=DrillPlan.of({} if stay_up is None else {"stay_up_seconds": stay_up}),
        dry_run=dry_run,
        actor=actor(),
    )
    opened, progress = (
        open_repository(repository, age_identity=age_identity, archive_hosts=archive_hosts),
        BarProgress(),
    )
    with host.connected() as docker:
        backup = find_backup(opened, backup_id, tag=tag, host=docker, step=step)
        outcome = roll_back(
            backup,
            request,
            host=docker,
            repository=opened,
            test_daemon=lambda: test_daemon_at(test_daemon, progress=progress),
            progress=progress,
        )
        name = docker.name
    if as_json:
        print_json(asdict(outcome) | {"host": name, "dry_run": dry_run})
    else:
        _tell(outcome, host=name, dry_run=dry_run)


def _tell(outcome: RollbackOutcome, *, host: str, dry_run: bool) -> None:
    step = "" if outcome.step is None else f" at step {outcome.step}"
    verb = "would stand" if dry_run and not outcome.image_id else "stands"
    click.echo(plain(f"{outcome.tag} on {host} {verb} for backup {outcome.backup_id}{step}"))
    if outcome.kept:
        click.echo(plain(f"{'would keep' if dry_run else 'kept'} what it stood for as {outcome.kept}"))
    if outcome.proven:
        ran = f", ran there ({outcome.drill.passed_by})" if outcome.drill else ""
        click.echo(f"image {outcome.image_id}: proven in {', '.join(outcome.proven)}{ran}, {outcome.seconds:.1f} s")
    if outcome.guessed:
        click.echo(plain(f"not told by the history, so guessed: {', '.join(outcome.guessed)}"))
    for note in outcome.notes:
        click.echo(plain(f"note: {note}"))
