# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup rotate``: remove what a retention policy does not keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from airflow_provider_dockerbackup.cli.archive_hosts import archive_host_option
from airflow_provider_dockerbackup.cli.options import actor, json_option, open_repository, repository_option
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json, print_table
from airflow_provider_dockerbackup.core.retention.plan import COLUMNS, Plan
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateOutcome, RotateRequest, rotate
from airflow_provider_dockerbackup.core.sizes import size_text

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory

_COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def policy_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for each field of a retention policy."""
    for name in reversed(_COUNTS[1:]):
        function = click.option(
            f"--keep-within-{name}", metavar="DURATION", help=f"The newest {name} ones within this of the newest."
        )(function)
    function = click.option("--keep-within", metavar="DURATION", help="All within this of the newest: 7d, 1y6m.")(
        function
    )
    for name in reversed(_COUNTS):
        function = click.option(f"--keep-{name}", metavar="N", help=f"How many of the newest {name} ones stay.")(
            function
        )
    return function


@click.command("rotate")
@repository_option
@archive_host_option
@policy_options
@click.option("--min-verified", type=int, default=1, show_default=True, help="Verified backups that stay in any case.")
@click.option("--min-age", metavar="DURATION", help="Nothing younger goes.")
@click.option("--require-verified", is_flag=True, help="Only verified backups count for the rules.")
@click.option("--timezone", default="UTC", show_default=True, help="Whose calendar counts, such as Europe/Berlin.")
@click.option("--host", "hosts", multiple=True, metavar="PATTERN", help="Only these Docker hosts; may be repeated.")
@click.option("--source", "names", multiple=True, metavar="PATTERN", help="Only these sources; may be repeated.")
@click.option(
    "--max-removed-share", type=float, default=0.5, show_default=True, help="Refuse a plan that removes more, 0 to 1."
)
@click.option(
    "--ignore-own-policies", is_flag=True, help="Do not let a source's own policy take the place of this one."
)
@click.option("--dry-run", is_flag=True, help="Show the plan; write and remove nothing.")
@json_option
def rotate_verb(
    *,
    repository: str,
    archive_hosts: HostFilesFactory,
    hosts: tuple[str, ...],
    names: tuple[str, ...],
    max_removed_share: float,
    ignore_own_policies: bool,
    dry_run: bool,
    as_json: bool,
    **policy: Any,
) -> None:
    """Remove the backups that a retention policy does not keep.

    Rules are ORed and mean what they mean in restic; a source is one image or container of one host. Held backups and
    the newest verified one of each source stay in any case. N may be 'unlimited'.

    \b
    Example:
      dockerbackup rotate -r /srv/backups --keep-daily 7 --keep-weekly 5 --keep-within 2d --dry-run
    """
    request = RotateRequest(
        policy=RetentionPolicy.of(_given(policy)),
        hosts=hosts or ("*",),
        names=names or ("*",),
        max_removed_share=max_removed_share,
        own_policies=not ignore_own_policies,
        dry_run=dry_run,
        actor=actor(),
    )
    request.check()
    opened = open_repository(repository, archive_hosts=archive_hosts)
    outcome = rotate(opened, request, progress=BarProgress())
    if as_json:
        print_json(_json(outcome, dry_run=dry_run))
        return
    print_table(COLUMNS, outcome.plan.rows())
    for source, text in outcome.plan.policies.items():
        click.echo(plain(f"{source} has a policy of its own: {text}"))
    removed = len(outcome.plan.removed) if dry_run else len(outcome.removed)
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{len(outcome.plan.kept)} kept, {removed} {verb}, {size_text(_freed(outcome, dry_run=dry_run))}")
    for backup_id in outcome.kept_after_all:
        click.echo(plain(f"{backup_id} stays: confirmed, held or needed meanwhile"))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the policy as a dict, as DAG authors write it; counts as numbers where they are."""
    known = {each.name for each in fields(RetentionPolicy)}
    given = {name: value for name, value in options.items() if name in known and value is not None}
    for name in (f"keep_{each}" for each in _COUNTS):
        if isinstance(given.get(name), str) and given[name].removeprefix("-").isdigit():
            given[name] = int(given[name])
    return given


def _freed(outcome: RotateOutcome, *, dry_run: bool) -> int:
    return sum(each.size_bytes for each in outcome.plan.removed) if dry_run else outcome.freed_bytes


def _json(outcome: RotateOutcome, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "decisions": _decisions(outcome.plan),
        "own_policies": {str(source): text for source, text in outcome.plan.policies.items()},
        "removed": [each.backup_id for each in outcome.plan.removed] if dry_run else list(outcome.removed),
        "kept_after_all": list(outcome.kept_after_all),
        "freed_bytes": _freed(outcome, dry_run=dry_run),
        "reaped": list(outcome.reaped),
        "audit_head": outcome.audit_head,
    }


def _decisions(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "backup_id": each.candidate.backup_id,
            "host": each.candidate.source.host,
            "kind": each.candidate.source.kind.value,
            "source": each.candidate.source.name,
            "decision": "keep" if each.keep else "remove",
            "rules": list(each.reasons),
        }
        for each in plan.decisions
    ]
