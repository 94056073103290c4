# SPDX-License-Identifier: Apache-2.0
"""The audit events that the index of a repository holds: read once each, to be shown and not to be proven."""

from __future__ import annotations

import json
import sqlite3
from datetime import date, datetime, timedelta
from typing import Final

from airflow_provider_dockerbackup.core.audit.event import TRAIL, AuditEvent
from airflow_provider_dockerbackup.core.audit.reading import StoredEvent, events_at
from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.page.reading import Told, batches
from airflow_provider_dockerbackup.core.page.rows import EventRow
from airflow_provider_dockerbackup.core.ports import Storage

EVENT_DAYS: Final = 35
"""Audit events of how many days the index holds: of any month and some days, for rotations that run once a month."""
# A worker whose clock is slow writes into an earlier day; none is slow by this much.
_DAYS_OPEN: Final = 2
_PLANNED: Final[dict[str, object]] = {"policy": {}, "hosts": [], "names": []}


class Events:
    """Those of the last :data:`EVENT_DAYS` days.

    :param connection: to the index, of its only writer.
    :param storage: the repository's.
    """

    def __init__(self, connection: sqlite3.Connection, storage: Storage, *, told: Told) -> None:
        self._connection = connection
        self._storage = storage
        self._told = told

    def read(self, now: datetime) -> None:
        """Read what is new, the newest day first, and forget what is too old, the policies of rotations with it."""
        first = (now - timedelta(days=EVENT_DAYS)).date()
        with self._connection:
            for table in ("event", "closed_day"):
                self._connection.execute(f"DELETE FROM {table} WHERE day < ?", (first.isoformat(),))  # noqa: S608
            self._connection.execute("DELETE FROM policy WHERE time < ?", (first.isoformat(),))
        last = (now + timedelta(days=1)).date()
        closed = {day for (day,) in self._connection.execute("SELECT day FROM closed_day")}
        for back in range((last - first).days + 1):
            day = last - timedelta(days=back)
            if day.isoformat() not in closed:
                self._read_day(day, close=day < (now - timedelta(days=_DAYS_OPEN)).date())

    def _read_day(self, day: date, *, close: bool) -> None:
        listed = [info.path for info in self._storage.list(f"{TRAIL}/{day.isoformat()}")]
        known = {
            path for (path,) in self._connection.execute("SELECT path FROM event WHERE day = ?", (day.isoformat(),))
        }
        fresh = sorted(path for path in listed if path not in known)
        done = 0
        for batch in batches(fresh):
            self._told(f"audit events of {day.isoformat()} read", done, len(fresh))
            found = list(events_at(self._storage, batch, keys={}))
            with self._connection:
                for stored in found:
                    self._keep(stored, day)
            done += len(batch)
        if close:
            with self._connection:
                self._connection.execute("INSERT OR IGNORE INTO closed_day VALUES (?)", (day.isoformat(),))

    def _keep(self, stored: StoredEvent, day: date) -> None:
        event = stored.event if stored.sound else None
        if event is None:
            # Not believed, and not read again: the trail's own proof tells of it.
            self._connection.execute(
                "INSERT OR REPLACE INTO event VALUES (?, ?, '', '', '', '{}')", (stored.path, day.isoformat())
            )
            return
        row = _event_row(stored.digest, event)
        self._connection.execute(
            "INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?, ?)",
            (
                stored.path,
                day.isoformat(),
                utc_text(event.time),
                row.backup_id,
                row.source,
                row.model_dump_json(exclude_defaults=True),
            ),
        )
        if event.type == "rotate.planned":
            facts = {key: event.object.get(key) or default for key, default in _PLANNED.items()}
            # Older releases did not write it; that they apply is the default.
            facts["own_policies_apply"] = event.object.get("own_policies_apply") is not False
            self._connection.execute(
                "INSERT OR REPLACE INTO policy VALUES (?, ?, ?)", (stored.path, utc_text(event.time), json.dumps(facts))
            )


def _event_row(digest: str, event: AuditEvent) -> EventRow:
    actor = event.actor
    run = f"{actor['dag_id']} {actor.get('run_id', '')}" if actor.get("dag_id") else actor.get("user", "")
    return EventRow(
        digest=digest,
        time=event.time,
        type=event.type,
        outcome=event.outcome,
        source=event.source,
        backup_id=str(event.object.get("backup_id", "")),
        who=run.strip(),
        problem=str(event.object.get("problem", "")),
    )
