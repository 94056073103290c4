# SPDX-License-Identifier: Apache-2.0
"""``dockerbackup convert``: every backup of a repository into another one of the other layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import click

from airflow_provider_dockerbackup.cli.options import (
    actor,
    identity_option,
    json_option,
    open_or_create_repository,
    open_repository,
    recipient_options,
    tuning_options,
)
from airflow_provider_dockerbackup.cli.output import BarProgress, plain, print_json, print_table
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.conversion.convert import (
    ConvertRequest,
    convert,
    require_apart,
)
from airflow_provider_dockerbackup.core.conversion.plan import Decision
from airflow_provider_dockerbackup.core.conversion.run import Result, RunOutcome
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.repository import Layout, Repository
from airflow_provider_dockerbackup.core.sizes import size_text
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.storage import place_of

_WOULD = {"convert": "would be converted", "finish": "would be finished"}


@click.command("convert")
@click.argument("source_url", metavar="SOURCE_URL")
@click.argument("target_url", metavar="TARGET_URL")
@click.option("--layout", type=click.Choice(get_args(Layout)), required=True, help="Of the target; made if need be.")
@tuning_options
@recipient_options
@identity_option
@click.option("--dry-run", is_flag=True, help="Show what would be converted; write nothing.")
@json_option
def convert_verb(
    *,
    source_url: str,
    target_url: str,
    layout: str,
    compression: str | None,
    tuning: Tuning,
    recipients: tuple[Recipient, ...],
    age_identity: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy every backup of a repository into another one of the other layout; the source is not changed.

    Each backup keeps its id, points and holds, and is read back before it counts; run it again after an interruption,
    or for what came since. Backups start as 'checked' there: verify them before a rotation. Exit code 5 when one could
    not be converted, after all were tried.

    \b
    Example:
      dockerbackup convert /srv/backups s3://backups/layers --layout layers --dry-run
    """
    require_apart(place_of(source_url), place_of(target_url))
    request = ConvertRequest(
        layout=layout,
        compression=Compression(compression) if compression else None,
        recipients=recipients,
        tuning=tuning,
        dry_run=dry_run,
        actor=actor(),
    )
    source = open_repository(source_url, age_identity=age_identity)
    target = _target(target_url, request, source, age_identity=age_identity)
    outcome = convert(request, source=source, target=target, progress=BarProgress())
    if as_json:
        print_json(_json(outcome, source, target, dry_run=dry_run))
    elif dry_run:
        _print(_planned_rows(outcome.planned), Counter(each.state for each in outcome.planned), dry_run=True)
    else:
        _print(_rows(outcome.results), Counter(each.state for each in outcome.results), dry_run=False)
    failed = [each.backup_id for each in _failed(outcome)]
    if failed:
        raise IntegrityError(f"{len(failed)} of {len(outcome.planned)} backups fail: {', '.join(failed[:5])}")


def _target(url: str, request: ConvertRequest, source: Repository, *, age_identity: Path | None) -> Repository | None:
    """Return the repository to convert into, made if need be and if it fits; None for a dry run where there is none."""
    try:
        standing = open_repository(url, age_identity=age_identity)
    except NotFoundError:
        standing = None
    request.check(source, standing)
    if request.dry_run:
        return standing
    open_or_create_repository(
        url, compression=request.compression, layout=request.layout, recipients=request.recipients
    )
    return open_repository(url, age_identity=age_identity)


def _failed(outcome: RunOutcome) -> list[Decision]:
    if outcome.results:
        return [each.decision for each in outcome.failed]
    return [each for each in outcome.planned if each.state == "failed"]


def _rows(results: Iterable[Result]) -> list[tuple[str, str, str, str, str]]:
    return [_row(each.decision, each.state, each.reason) for each in results if each.state != "already"]


def _planned_rows(planned: Iterable[Decision]) -> list[tuple[str, str, str, str, str]]:
    return [_row(each, _WOULD.get(each.state, each.state), each.reason) for each in planned if each.state != "already"]


def _row(decision: Decision, state: str, reason: str) -> tuple[str, str, str, str, str]:
    size = size_text(decision.size_bytes) if decision.size_bytes else "?"
    return state, str(decision.source), decision.backup_id, size, reason


def _print(rows: list[tuple[str, str, str, str, str]], counts: Counter[str], *, dry_run: bool) -> None:
    if rows:
        print_table(["STATE", "SOURCE", "BACKUP", "SIZE", "WHY"], rows, right=["SIZE"])
    names = ("convert", "finish") if dry_run else ("converted", "finished")
    said = [f"{counts[name]} {_WOULD.get(name, name)}" for name in names]
    said += [f"{counts[name]} {text}" for name, text in (("already", "there already"), ("skipped", "skipped"))]
    click.echo(plain(", ".join([*said, f"{counts['failed']} failed"])))


def _json(outcome: RunOutcome, source: Repository, target: Repository | None, *, dry_run: bool) -> dict[str, Any]:
    results = [
        *({**_about(each.decision), "state": each.state, "reason": each.reason} for each in outcome.results),
        *({**_about(each), "state": each.state, "reason": each.reason} for each in outcome.planned if dry_run),
    ]
    return {
        "dry_run": dry_run,
        "source": {"repository_id": source.document.repository_id, "url": source.storage.url},
        "target": {"repository_id": target.document.repository_id, "url": target.storage.url} if target else None,
        "backups": results,
        "new_bytes": sum(each.new_bytes for each in outcome.results),
        "audit_head": outcome.audit_head,
    }


def _about(decision: Decision) -> dict[str, Any]:
    return {
        "backup_id": decision.backup_id,
        "host": decision.source.host,
        "kind": decision.source.kind.value,
        "source": decision.source.name,
        "size_bytes": decision.size_bytes,
    }
