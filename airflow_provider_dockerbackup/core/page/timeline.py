# SPDX-License-Identifier: Apache-2.0
"""One source: its backups through time, and why each one is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.freshness import CLOCK_TOLERANCE
from airflow_provider_dockerbackup.core.page.events import EVENT_DAYS
from airflow_provider_dockerbackup.core.page.rows import IndexedBackup, PlannedPolicy
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.plan import Plan, plan_rotation
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.sizes import size_text
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError

COLUMNS: Final = (
    *("backup", "captured_at", "newest_point", "points", "capture", "state", "decision", "rules"),
    *("size_bytes", "stored_bytes", "problem"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """One backup of the source.

    :param state: ``unreadable``, ``incomplete``, ``failed``, ``unscanned``, ``checked``, ``verified``, or not verified.
    :param decision: ``keep`` or ``remove`` by the policy of the latest rotation; empty when none is known.
    :param rules: why.
    """

    backup: IndexedBackup
    state: str
    decision: str
    rules: tuple[str, ...]

    @property
    def size(self) -> str:
        """What it takes, as text."""
        return size_text(self.backup.row.stored_size_bytes) if self.backup.row.points else "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One point on the drawn line of time.

    :param x: from 0 for the oldest to 100 for now.
    """

    x: float
    state: str
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The backups of a source, newest first.

    :param policy: by which the decisions were made, as text; empty when none is known.
    :param own_policy: the source's own by its label, which comes before the other; empty when it has none, or when that
        rotation ignored it.
    :param planned: the rotation it is from.
    :param unknown: why there are no decisions; empty when there are.
    :param marks: every point of every backup that is not yet to come.
    """

    source: Source
    rows: tuple[TimelineRow, ...]
    policy: str
    own_policy: str
    planned: PlannedPolicy | None
    unknown: str
    marks: tuple[Mark, ...]


def timeline(
    source: Source, backups: Sequence[IndexedBackup], *, planned: PlannedPolicy | None, now: datetime
) -> Timeline:
    """Return the backups of a source with what a rotation by the latest one's policies would decide about it now.

    Whether a rotation would be refused, because its whole plan removes more than its share, is not asked.

    :param backups: newest capture first.
    :param planned: the latest rotation that looked at the source.
    """
    plan, unknown = _plan(source, backups, planned, now)
    decisions = {each.candidate.backup_id: each for each in plan.decisions}
    own = plan.policies.get(source)
    rows = []
    for each in backups:
        decided = decisions.get(each.row.backup_id)
        rows.append(
            TimelineRow(
                backup=each,
                state=state_of(each),
                decision=("keep" if decided.keep else "remove") if decided else "",
                rules=decided.reasons if decided else _held(each, now),
            )
        )
    return Timeline(
        source=source,
        rows=tuple(rows),
        policy=", ".join(f"{key}={value}" for key, value in planned.policy.items()) if planned else "",
        own_policy=own or "",
        planned=planned,
        unknown=unknown,
        marks=tuple(_marks(rows, now)),
    )


def state_of(backup: IndexedBackup) -> str:
    """Return the word for how far a backup can be relied upon."""
    if not backup.row.points:
        return "unreadable"
    if not backup.whole:
        return "incomplete"
    return "not verified" if backup.row.trust == "none" else backup.row.trust


def csv_rows(rows: Iterable[TimelineRow]) -> Iterator[tuple[str, ...]]:
    """Yield backups as rows of :data:`COLUMNS`; times are RFC 3339 in UTC."""
    for each in rows:
        row = each.backup.row
        yield (
            row.backup_id,
            utc_text(row.points[0]) if row.points else "",
            utc_text(row.points[-1]) if row.points else "",
            *(str(len(row.points)), row.capture, each.state, each.decision, "; ".join(each.rules)),
            *(str(row.size_bytes), str(row.stored_size_bytes), row.problem),
        )


def _plan(
    source: Source, backups: Sequence[IndexedBackup], planned: PlannedPolicy | None, now: datetime
) -> tuple[Plan, str]:
    if planned is None:
        return Plan(decisions=()), f"no rotation looked at this source in the last {EVENT_DAYS} days"
    candidates = [each.row.candidate(source, whole=each.whole, now=now) for each in backups]
    try:
        policy = RetentionPolicy.of(planned.policy)
        return plan_rotation(candidates, policy, now=now, own_policies=planned.own_policies_apply), ""
    except (ConfigurationError, ConflictError) as err:
        return Plan(decisions=()), str(err)


def _held(backup: IndexedBackup, now: datetime) -> tuple[str, ...]:
    return tuple(each.text for each in backup.row.holds if each.until is None or now < each.until)


def _marks(rows: Sequence[TimelineRow], now: datetime) -> Iterator[Mark]:
    latest = now + CLOCK_TOLERANCE
    points = [(point, row.state) for row in rows for point in row.backup.row.points if point <= latest]
    if not points:
        return
    first = min(point for point, _ in points)
    length = max(1.0, (now - first).total_seconds())
    for point, state in sorted(points):
        x = min(100.0, 100 * (point - first).total_seconds() / length)
        yield Mark(x=round(x, 2), state=state, time=point)
