# SPDX-License-Identifier: Apache-2.0
"""The report as JSON, CSV and one self-contained HTML page."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.report.model import Report

SCHEMA_VERSION = "1.0"
COLUMNS = ("section", "item", "status", "detail", "evidence")
# What spreadsheets take for a formula when a cell begins with it (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_dict(report: Report) -> dict[str, Any]:
    """Return the report as JSON takes it; times are RFC 3339 in UTC."""
    return {"schema_version": SCHEMA_VERSION, **_plain(report), "job_counts": job_counts(report)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value


def job_counts(report: Report) -> dict[str, int]:
    """Return how many jobs of each type ended in the period."""
    return dict(sorted(Counter(each.type for each in report.jobs).items()))


def to_csv(report: Report) -> str:
    """Return one table of everything; no cell begins as a formula does."""
    return csv_table(COLUMNS, rows(report))


def csv_table(columns: Sequence[str], table: Iterable[Sequence[str]]) -> str:
    """Return a table as CSV (RFC 4180); no cell begins as a formula does."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for row in table:
        writer.writerow([_harmless(cell) for cell in row])
    return text.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def rows(report: Report) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the report as rows of :data:`COLUMNS`."""
    for control in report.controls:
        yield ("control", control.name, control.status, control.detail, " ".join(control.evidence))
    for each in report.coverage:
        yield ("coverage", str(each.thing.source), each.how, each.thing.state, each.backup_id)
    for state in report.sources:
        newest = utc_text(state.newest_verified) if state.newest_verified else "never"
        detail = f"newest verified {newest}, RPO {state.rpo}, {state.backups} backups, {state.held} held"
        yield ("source", str(state.source), state.freshness, detail, state.newest_backup_id)
    for job in report.jobs:
        detail = f"{utc_text(job.time)} {job.source} {job.who} {job.problem}".strip()
        yield ("job", f"{job.type} {job.backup_id}".strip(), job.outcome, detail, job.event)
    for drill in report.drills:
        seconds = "" if drill.restore_seconds is None else f", {drill.restore_seconds} s"
        detail = f"{utc_text(drill.time)} level {drill.level}{seconds}, clean-up {drill.cleanup}"
        yield ("restore drill", str(drill.source), drill.result, detail, drill.backup_id)
    for gone in report.deletions:
        detail = f"{utc_text(gone.time)} {gone.source} {'; '.join(gone.rules)}, {gone.age_days} days old, {gone.who}"
        yield ("deletion", gone.backup_id, gone.how, detail, gone.event)
    for held in report.holds:
        yield ("hold", str(held.source), "held", f"{held.hold}, by {held.by}", held.backup_id)
    for override in report.overrides:
        yield ("override", override.what, "allowed", f"{utc_text(override.time)} {override.who}", override.event)
    trail = report.trail
    signatures = "signatures checked" if trail.signatures_checked else "signatures not checked"
    detail = f"{trail.events} events, {trail.checkpoints} checkpoints, {signatures}, {trail.anchors} anchors compared"
    yield ("trail", report.repository, trail.state, detail, " ".join(trail.heads[:20]))
    for finding in trail.findings:
        yield ("trail", finding.event, finding.kind, finding.detail, "")


def to_html(report: Report) -> str:
    """Return one page that needs nothing else: no script, no other file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("airflow_provider_dockerbackup.core.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["utc"] = lambda moment: moment.strftime("%Y-%m-%d %H:%M:%S") if moment else "never"
    return environment.get_template("report.html").render(report=report, counts=job_counts(report))
