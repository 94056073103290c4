# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup gc``: move blobs that no backup needs to the trash, and empty that in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from airflow_provider_dockerbackup.cli.options import actor, json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json, print_table
from airflow_provider_dockerbackup.core.gc.collect import GcOutcome, GcRequest, collect_garbage
from airflow_provider_dockerbackup.core.sizes import size_text

_COLUMNS = ("WHAT", "NUMBER", "SIZE")


@click.command("gc")
@repository_option
@click.option("--dry-run", is_flag=True, help="Say what would be done; write, move and remove nothing.")
@click.option(
    "--grace-hours",
    type=float,
    default=24.0,
    show_default=True,
    metavar="N",
    help="Younger blobs stay, and those of backups deleted since.",
)
@click.option(
    "--trash-days", type=float, default=7.0, show_default=True, metavar="N", help="How long the trash is kept."
)
@json_option
def gc_verb(*, repository: str, dry_run: bool, grace_hours: float, trash_days: float, as_json: bool) -> None:
    """Collect the garbage of a repository of layout 'layers'.

    Blobs that no backup needs go to the trash, and leave it for ever after its time; until then 'undelete' brings a
    deleted backup back. Backups may be made meanwhile; a second collection at the same time is refused.

    \b
    Example:
      dockerbackup gc -r /srv/backups --dry-run
    """
    request = GcRequest(grace_hours=grace_hours, trash_days=trash_days, dry_run=dry_run, actor=actor())
    request.check()
    outcome = collect_garbage(open_repository(repository), request, progress=BarProgress())
    if as_json:
        found = {**outcome.plan.summary(), "missing_digests": list(outcome.plan.missing)}
        print_json(
            {
                "dry_run": dry_run,
                "gc": outcome.gc,
                "found": found,
                "done": asdict(outcome.done),
                "audit_head": outcome.audit_head,
            }
        )
        return
    print_table(_COLUMNS, _rows(outcome, dry_run=dry_run))
    if outcome.done.trashed:
        click.echo(plain(f"what went is in trash/{outcome.gc} for {trash_days:g} days"))


def _rows(outcome: GcOutcome, *, dry_run: bool) -> Iterator[tuple[str, str, str]]:
    plan, done = outcome.plan, outcome.done
    yield "backups that count", str(plan.backups), ""
    yield "blobs", str(plan.blobs), ""
    yield "blobs that nobody needs", str(len(plan.garbage)), size_text(plan.garbage_bytes)
    if plan.missing:
        yield "blobs that are missing", str(len(plan.missing)), ""
    if dry_run:
        yield "would leave the trash", str(plan.summary()["purged"]), size_text(plan.expired_bytes)
        return
    yield "went to the trash", str(done.trashed), size_text(done.trashed_bytes)
    if done.needed_after_all:
        yield "needed meanwhile", str(done.needed_after_all), ""
    if done.returned:
        yield "came back from the trash", str(done.returned), ""
    yield "left the trash for ever", str(done.purged), size_text(done.purged_bytes)
    yield "maps, hints, files and pins", str(done.maps + done.hints + done.files + done.pins + done.reaped), ""
