# SPDX-License-Identifier: Apache-2.0
"""The index of a repository: a cache in SQLite that is derived from a listing and can be thrown away at any time.

It holds rows, never a record, so that pages are made without reading the repository. See docs/adr/0028.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final

from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.page.rows import (
    BackupRow,
    EventRow,
    IndexedBackup,
    PlannedPolicy,
    SourceRow,
)
from airflow_provider_dockerbackup.core.record import Layer, Source

VERSION: Final = 4
"""Of the schema below and of the rows in it; a file of another version is not read."""
LAYER: Final = 0
BLOB: Final = 1

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS source (
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    dirty INTEGER NOT NULL DEFAULT 1, facts TEXT NOT NULL DEFAULT '{}', UNIQUE (host, kind, name));
CREATE TABLE IF NOT EXISTS backup (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, source INTEGER NOT NULL, backup_id TEXT NOT NULL,
    fingerprint BLOB NOT NULL, again INTEGER NOT NULL, lacks_blobs INTEGER NOT NULL, facts TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS backup_of_source ON backup (source);
CREATE INDEX IF NOT EXISTS backup_by_id ON backup (backup_id);
CREATE TABLE IF NOT EXISTS part (
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, digest BLOB NOT NULL, found INTEGER, UNIQUE (kind, digest));
CREATE TABLE IF NOT EXISTS part_of (
    part INTEGER NOT NULL, backup INTEGER NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (part, backup)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS part_of_backup ON part_of (backup);
CREATE TABLE IF NOT EXISTS event (
    path TEXT PRIMARY KEY, day TEXT NOT NULL, time TEXT NOT NULL, backup_id TEXT NOT NULL, source TEXT NOT NULL,
    facts TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS event_of_backup ON event (backup_id, time) WHERE backup_id != '';
CREATE INDEX IF NOT EXISTS event_of_source ON event (source, time) WHERE source != '';
CREATE TABLE IF NOT EXISTS policy (path TEXT PRIMARY KEY, time TEXT NOT NULL, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS closed_day (day TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class Index:
    """What an index answers.

    :param connection: to a database that has :data:`SCHEMA`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def as_of(self) -> datetime | None:
        """When the repository was listed for what the index holds; None before the first listing was read whole."""
        text = self._meta("as_of")
        return datetime.fromisoformat(text) if text else None

    def sources(self) -> list[tuple[Source, SourceRow]]:
        """Return every source with what lists say of it."""
        found = self._connection.execute("SELECT host, kind, name, facts FROM source ORDER BY host, kind, name")
        return [(_source(host, kind, name), _source_row(facts)) for host, kind, name, facts in found]

    def source(self, source: Source) -> SourceRow | None:
        """Return what lists say of one source; None when it is not known."""
        found = self._connection.execute(
            "SELECT facts FROM source WHERE host = ? AND kind = ? AND name = ?",
            (source.host, source.kind.value, source.name),
        ).fetchone()
        return None if found is None else _source_row(found[0])

    def backups(self, source: Source) -> list[IndexedBackup]:
        """Return the backups of a source that are in the catalog, newest capture first; unreadable ones first."""
        found = [
            IndexedBackup(source=source, row=row, whole=row.files_whole and not lacks_blobs)
            for lacks_blobs, row in self._rows(source)
            if not row.aside
        ]
        found.sort(key=lambda each: each.row.backup_id, reverse=True)
        return sorted(found, key=_captured, reverse=True)

    def aside(self, source: Source) -> dict[str, int]:
        """Return how many folders of a source are out of the catalog, by the reason."""
        counts: dict[str, int] = {}
        for _, row in self._rows(source):
            if row.aside:
                counts[row.aside] = counts.get(row.aside, 0) + 1
        return counts

    def find(self, beginning: str, *, limit: int) -> list[tuple[Source, str]]:
        """Return source and id of backups whose id begins so, the newest first, also of those out of the catalog."""
        found = self._connection.execute(
            "SELECT host, kind, name, backup_id FROM backup JOIN source ON source.id = backup.source"
            " WHERE backup_id >= ? AND backup_id < ? ORDER BY backup_id DESC LIMIT ?",
            (beginning, beginning + "\x7f", limit),
        )
        return [(_source(host, kind, name), backup_id) for host, kind, name, backup_id in found]

    def holders(self, layers: tuple[Layer, ...]) -> list[int]:
        """Return for each layer of an image, lowest first, how many backups have it at the same place."""
        counted = []
        for chain in chain_ids(layers):
            (count,) = self._connection.execute(
                "SELECT count(*) FROM part JOIN part_of ON part_of.part = part.id WHERE kind = ? AND digest = ?",
                (LAYER, chain),
            ).fetchone()
            counted.append(int(count))
        return counted

    def events_of(self, *, backup_id: str = "", source: Source | None = None, limit: int) -> list[EventRow]:
        """Return the newest audit events of a backup, or of a source, newest first."""
        column, value = ("backup_id", backup_id) if source is None else ("source", str(source))
        found = self._connection.execute(
            f"SELECT facts FROM event WHERE {column} = ? AND {column} != '' ORDER BY time DESC LIMIT ?",  # noqa: S608
            (value, limit),
        )
        return [EventRow.model_validate_json(facts) for (facts,) in found]

    def policy_for(self, source: Source) -> PlannedPolicy | None:
        """Return the policy of the latest rotation that looked at a source; None when none is known."""
        for time, facts in self._connection.execute("SELECT time, facts FROM policy ORDER BY time DESC"):
            known = json.loads(facts)
            planned = PlannedPolicy(
                time=datetime.fromisoformat(time),
                policy=known["policy"],
                hosts=tuple(known["hosts"]),
                names=tuple(known["names"]),
                own_policies_apply=known["own_policies_apply"],
            )
            if planned.covers(source):
                return planned
        return None

    def _rows(self, source: Source) -> Iterator[tuple[bool, BackupRow]]:
        found = self._connection.execute(
            "SELECT lacks_blobs, backup.facts FROM backup JOIN source ON source.id = backup.source"
            " WHERE host = ? AND kind = ? AND name = ?",
            (source.host, source.kind.value, source.name),
        )
        for lacks_blobs, facts in found:
            yield bool(lacks_blobs), BackupRow.model_validate_json(facts)

    def _meta(self, key: str) -> str | None:
        found = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])


def chain_ids(layers: tuple[Layer, ...]) -> Iterator[bytes]:
    """Yield what stands for each layer together with all below it, lowest first."""
    chain = b""
    for layer in layers:
        chain = sha256(chain + layer.diff_id.encode()).digest()[:16]
        yield chain


# Most sources are as they were when the page was made last. Both are frozen.
@lru_cache(maxsize=16384)
def _source_row(facts: str) -> SourceRow:
    return SourceRow.model_validate_json(facts)


@lru_cache(maxsize=16384)
def _source(host: str, kind: str, name: str) -> Source:
    return Source(host=host, kind=SourceKind(kind), name=name)


def _captured(backup: IndexedBackup) -> tuple[bool, float]:
    captured = backup.row.captured_at
    return (captured is None, captured.timestamp() if captured else 0.0)
