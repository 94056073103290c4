# SPDX-License-Identifier: Apache-2.0
"""Bring the index of a repository up to date: one listing, and only what is new is read.

Documents are create-only, so a folder whose names and sizes are the same holds the same. It can die anywhere: what was
read is kept in batches, sources that were not counted anew are marked, and the next refresh goes on from there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from typing import Final

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import utc_text
from airflow_provider_dockerbackup.core.freshness import CLOCK_TOLERANCE
from airflow_provider_dockerbackup.core.page.events import Events
from airflow_provider_dockerbackup.core.page.index import BLOB, LAYER, chain_ids
from airflow_provider_dockerbackup.core.page.reading import Told, batches
from airflow_provider_dockerbackup.core.page.rows import (
    Aside,
    BackupRow,
    IndexedBackup,
    row_of,
    source_row,
)
from airflow_provider_dockerbackup.core.places import (
    BLOBS_FOLDER,
    RECORD_FILE,
    blob_path,
    id_in,
    place_of,
    source_from_path,
)
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository

_READERS: Final = 8
_LARGEST: Final = 2**63 - 1  # that SQLite takes; a record may say anything

_TEMPORARY: Final = """
DROP TABLE IF EXISTS temp.seen;
DROP TABLE IF EXISTS temp.folder;
DROP TABLE IF EXISTS temp.blob_seen;
CREATE TEMP TABLE seen (folder TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TEMP TABLE folder (path TEXT PRIMARY KEY, fingerprint BLOB NOT NULL) WITHOUT ROWID;
CREATE TEMP TABLE blob_seen (digest BLOB PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
"""


def refresh(connection: sqlite3.Connection, repository: Repository, *, told: Told) -> None:
    """Bring an index up to date; nobody else may write to it meanwhile.

    :raises DockerBackupError: when the storage fails; what was read until then stays, and nothing is forgotten.
    """
    now = repository.clock.now()
    _require_same(connection, repository.document.repository_id)
    _note_clock(connection, now)
    backups = _Backups(connection, repository, told=told, now=now)
    backups.list()
    backups.forget()
    backups.read()
    backups.compare_blobs()
    backups.tidy()
    with connection:
        _set(connection, "as_of", utc_text(now))
    Events(connection, repository.storage, told=told).read(now)


def _require_same(connection: sqlite3.Connection, repository_id: str) -> None:
    """Empty an index that is one of another repository: somebody made a new one at the same place."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'repository_id'").fetchone()
    if found is not None and found[0] == repository_id:
        return
    with connection:
        for table in ("meta", "source", "backup", "part", "part_of", "event", "policy", "closed_day"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608
        _set(connection, "repository_id", repository_id)


def _note_clock(connection: sqlite3.Connection, now: datetime) -> None:
    """Have every source counted anew when the clock went back: other points are yet to come then."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
    latest = datetime.fromisoformat(found[0]) if found is not None else now
    with connection:
        if latest > now + CLOCK_TOLERANCE:
            connection.execute("UPDATE source SET dirty = 1")
            latest = now
        _set(connection, "clock", utc_text(max(latest, now)))


def _set(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


class _Backups:
    """Folders of backups, and what their images are made of."""

    def __init__(self, connection: sqlite3.Connection, repository: Repository, *, told: Told, now: datetime) -> None:
        self._connection = connection
        self._repository = repository
        self._told = told
        self._now = now
        self._dropped = False

    def list(self) -> None:
        """List folders and then blobs: whatever a listed record needs was there before it."""
        connection, storage = self._connection, self._repository.storage
        connection.executescript(_TEMPORARY)
        connection.executemany("INSERT INTO temp.seen VALUES (?, ?, ?)", self._files())
        connection.execute("CREATE INDEX temp.seen_folder ON seen (folder, name)")
        rows = connection.execute("SELECT folder, name, size FROM temp.seen ORDER BY folder, name")
        folders = ((path, _fingerprint(files)) for path, files in groupby(rows, key=itemgetter(0)))
        connection.executemany("INSERT INTO temp.folder VALUES (?, ?)", folders)
        if self._repository.document.layout == "layers":
            blobs = ((_blob_key(info.path), info.size_bytes) for info in storage.list(BLOBS_FOLDER))
            connection.executemany("INSERT OR REPLACE INTO temp.blob_seen VALUES (?, ?)", blobs)
        connection.commit()

    def _files(self) -> Iterator[tuple[str, str, int]]:
        for number, info in enumerate(self._repository.storage.list("backups")):
            place = place_of(info.path)
            if place is not None:
                # Names that are no UTF-8 are none of ours, but may lie there.
                yield place[0], place[1].encode(errors="backslashreplace").decode(), info.size_bytes
            if number % 10_000 == 0:
                self._told("objects listed", number, 0)

    def forget(self) -> None:
        """Take out the folders that are no more."""
        gone = self._connection.execute("SELECT id FROM backup WHERE path NOT IN (SELECT path FROM temp.folder)")
        with self._connection:
            for (number,) in gone.fetchall():
                self._drop(number)
            self._count_dirty()

    def read(self) -> None:
        """Read the folders that are new or changed, and once more those with an unreadable record."""
        paths = [
            path
            for (path,) in self._connection.execute(
                "SELECT folder.path FROM temp.folder LEFT JOIN backup ON backup.path = folder.path"
                " WHERE backup.fingerprint IS NOT folder.fingerprint OR backup.again ORDER BY folder.path"
            )
        ]
        done = 0
        with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="dockerbackup-page") as pool:
            for batch in batches(paths):
                self._told("backups read", done, len(paths))
                found = list(pool.map(self._read_folder, batch, [self._listed(path) for path in batch]))
                with self._connection:
                    for path, (row, backup) in zip(batch, found, strict=True):
                        self._keep(path, row, backup)
                    self._count_dirty()
                done += len(batch)

    def compare_blobs(self) -> None:
        """Note whose blobs are missing or have another size now."""
        if self._repository.document.layout != "layers":
            return
        with self._connection:
            self._connection.execute(
                "UPDATE part SET found = (SELECT size FROM temp.blob_seen WHERE digest = part.digest) WHERE kind = 1"
                " AND found IS NOT (SELECT size FROM temp.blob_seen WHERE digest = part.digest)"
            )
            self._connection.execute("DROP TABLE IF EXISTS temp.lacking")
            self._connection.execute(
                "CREATE TEMP TABLE lacking AS SELECT DISTINCT part_of.backup AS id FROM part"
                " JOIN part_of ON part_of.part = part.id WHERE part.kind = 1 AND part.found IS NOT part_of.size"
            )
            self._connection.execute(
                "UPDATE source SET dirty = 1 WHERE id IN"
                " (SELECT source FROM backup WHERE lacks_blobs != (id IN (SELECT id FROM temp.lacking)))"
            )
            self._connection.execute(
                "UPDATE backup SET lacks_blobs = NOT lacks_blobs"
                " WHERE lacks_blobs != (id IN (SELECT id FROM temp.lacking))"
            )
            self._count_dirty()

    def tidy(self) -> None:
        """Take out layers and blobs that no backup has any more."""
        if self._dropped:
            with self._connection:
                self._connection.execute(
                    "DELETE FROM part WHERE NOT EXISTS (SELECT 1 FROM part_of WHERE part_of.part = part.id)"
                )

    def _listed(self, path: str) -> dict[str, int]:
        return dict(self._connection.execute("SELECT name, size FROM temp.seen WHERE folder = ?", (path,)).fetchall())

    def _read_folder(self, path: str, files: Mapping[str, int]) -> tuple[BackupRow, Backup | None]:
        aside = _aside(files)
        if aside:
            return BackupRow(backup_id=id_in(path), aside=aside, folder_bytes=sum(files.values())), None
        backup = self._repository.catalog.read(path, files)
        return row_of(backup), backup

    def _keep(self, path: str, row: BackupRow, backup: Backup | None) -> None:
        found = self._connection.execute("SELECT id FROM backup WHERE path = ?", (path,)).fetchone()
        if found is not None:
            self._drop(found[0])
        parts = list(_parts(backup))
        number = self._connection.execute(
            "INSERT INTO backup (path, source, backup_id, fingerprint, again, lacks_blobs, facts)"
            " SELECT path, ?, ?, fingerprint, ?, ?, ? FROM temp.folder WHERE path = ?",
            (
                self._source(source_from_path(path)),
                row.backup_id,
                bool(row.problem),
                any(self._blob_size(digest) != size for kind, digest, size in parts if kind == BLOB),
                row.model_dump_json(exclude_defaults=True),
                path,
            ),
        ).lastrowid
        for kind, digest, size in parts:
            self._connection.execute("INSERT OR IGNORE INTO part (kind, digest) VALUES (?, ?)", (kind, digest))
            self._connection.execute(
                "INSERT OR IGNORE INTO part_of SELECT id, ?, ? FROM part WHERE kind = ? AND digest = ?",
                (number, size, kind, digest),
            )

    def _drop(self, number: int) -> None:
        self._connection.execute(
            "UPDATE source SET dirty = 1 WHERE id = (SELECT source FROM backup WHERE id = ?)", (number,)
        )
        self._dropped = True
        self._connection.execute("DELETE FROM part_of WHERE backup = ?", (number,))
        self._connection.execute("DELETE FROM backup WHERE id = ?", (number,))

    def _source(self, source: Source) -> int:
        key = (source.host, source.kind.value, source.name)
        self._connection.execute(
            "INSERT INTO source (host, kind, name) VALUES (?, ?, ?)"
            " ON CONFLICT (host, kind, name) DO UPDATE SET dirty = 1",
            key,
        )
        found = self._connection.execute("SELECT id FROM source WHERE host = ? AND kind = ? AND name = ?", key)
        return int(found.fetchone()[0])

    def _blob_size(self, digest: bytes) -> int | None:
        found = self._connection.execute("SELECT size FROM temp.blob_seen WHERE digest = ?", (digest,)).fetchone()
        return None if found is None else int(found[0])

    def _count_dirty(self) -> None:
        """Count anew each source of which a backup changed; one without folders goes."""
        for number, host, kind, name in self._connection.execute(
            "SELECT id, host, kind, name FROM source WHERE dirty"
        ).fetchall():
            source = Source(host=host, kind=kind, name=name)
            rows = self._connection.execute("SELECT lacks_blobs, facts FROM backup WHERE source = ?", (number,))
            found = [(bool(lacks), BackupRow.model_validate_json(facts)) for lacks, facts in rows.fetchall()]
            if not any(row.aside != "deleted" for _, row in found):
                # All deleted: the source was ended on purpose. Its row stays for a backup that comes again.
                facts = "{}"
            else:
                facts = source_row(
                    (
                        IndexedBackup(source=source, row=row, whole=row.files_whole and not lacks)
                        for lacks, row in found
                        if not row.aside
                    ),
                    leftovers=sum(row.aside in {"quarantined", "unfinished"} for _, row in found),
                    now=self._now,
                ).model_dump_json(exclude_defaults=True)
            self._connection.execute("UPDATE source SET dirty = 0, facts = ? WHERE id = ?", (facts, number))


def _aside(files: Mapping[str, int]) -> Aside:
    if RECORD_FILE not in files:
        return "unfinished"
    if any(name.startswith("deleted-") for name in files):
        return "deleted"
    return "quarantined" if any(name.startswith("quarantined-") for name in files) else ""


def _parts(backup: Backup | None) -> Iterator[tuple[int, bytes, int]]:
    """Yield what a backup is made of: kind, digest and size of each layer and blob."""
    record = backup.record if backup is not None else None
    if record is None:
        return
    if record.image is not None:
        for layer, chain in zip(record.image.layers, chain_ids(record.image.layers), strict=True):
            yield LAYER, chain, min(layer.size_bytes, _LARGEST)
    for digest, size_bytes in record.blob_sizes.items():
        yield BLOB, _blob_key(blob_path(digest)), min(size_bytes, _LARGEST)


def _blob_key(path: str) -> bytes:
    return blake2b(path.encode(errors="backslashreplace"), digest_size=16).digest()


def _fingerprint(files: Iterable[tuple[str, str, int]]) -> bytes:
    digest = blake2b(digest_size=16)
    for _, name, size in files:
        digest.update(f"{name}\n{size}\n".encode())
    return digest.digest()
