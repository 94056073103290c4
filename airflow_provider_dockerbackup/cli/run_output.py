# SPDX-License-Identifier: Apache-2.0
"""What a conversion or a copy did, or would do, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from airflow_provider_dockerbackup.cli.output import plain, print_json, print_table
from airflow_provider_dockerbackup.core.bringing.plan import Decision
from airflow_provider_dockerbackup.core.bringing.run import RunOutcome, Words
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.sizes import size_text
from airflow_provider_dockerbackup.exceptions import IntegrityError


def show_outcome(
    outcome: RunOutcome, words: Words, *, source: Repository, target: Repository | None, dry_run: bool, as_json: bool
) -> None:
    """Print what was done, or would be.

    :raises IntegrityError: when a backup failed, or would.
    """
    if as_json:
        print_json(_json(outcome, source, target, dry_run=dry_run))
    else:
        _print(outcome, words, dry_run=dry_run)
    _require_none_failed(outcome)


def _print(outcome: RunOutcome, words: Words, *, dry_run: bool) -> None:
    """Print each backup that was not there already, and how many there are of each kind."""
    would = _would(words)
    rows = [
        (would.get(state, state), str(each.source), each.backup_id, _size(each), reason)
        for each, state, reason in _states(outcome, dry_run=dry_run)
        if state != "already"
    ]
    if rows:
        print_table(["STATE", "SOURCE", "BACKUP", "SIZE", "WHY"], rows, right=["SIZE"])
    counts = Counter(state for _, state, _ in _states(outcome, dry_run=dry_run))
    names = (words.todo, "finish") if dry_run else (words.done, "finished")
    said = [f"{counts[name]} {would.get(name, name)}" for name in names]
    said += [f"{counts[name]} {text}" for name, text in (("already", "there already"), ("skipped", "skipped"))]
    click.echo(plain(", ".join([*said, f"{counts['failed']} failed"])))


def _json(outcome: RunOutcome, source: Repository, target: Repository | None, *, dry_run: bool) -> dict[str, Any]:
    """Return it for programs."""
    return {
        "dry_run": dry_run,
        "source": {"repository_id": source.document.repository_id, "url": source.storage.url},
        "target": {"repository_id": target.document.repository_id, "url": target.storage.url} if target else None,
        "backups": [
            {**_about(each), "state": state, "reason": reason}
            for each, state, reason in _states(outcome, dry_run=dry_run)
        ],
        "new_bytes": sum(each.new_bytes for each in outcome.results),
        "audit_head": outcome.audit_head,
    }


def _require_none_failed(outcome: RunOutcome) -> None:
    """Refuse to end well when a backup failed, or would.

    :raises IntegrityError: names the first few.
    """
    if failed := outcome.failed:
        names = ", ".join(each.decision.backup_id for each in failed[:5])
        raise IntegrityError(f"{len(failed)} of {len(outcome.planned)} backups fail: {names}")


def _states(outcome: RunOutcome, *, dry_run: bool) -> Iterator[tuple[Decision, str, str]]:
    """Yield what became, or would become, of each backup, and why."""
    if dry_run:
        yield from ((each, each.state, each.reason) for each in outcome.planned)
    else:
        yield from ((each.decision, each.state, each.reason) for each in outcome.results)


def _size(decision: Decision) -> str:
    return size_text(decision.size_bytes) if decision.size_bytes else "?"


def _would(words: Words) -> dict[str, str]:
    return {words.todo: f"would be {words.done}", "finish": "would be finished"}


def _about(decision: Decision) -> dict[str, Any]:
    return {
        "backup_id": decision.backup_id,
        "host": decision.source.host,
        "kind": decision.source.kind.value,
        "source": decision.source.name,
        "size_bytes": decision.size_bytes,
    }
