# SPDX-License-Identifier: Apache-2.0
"""Which blobs are needed: by backups, by removals that can still be taken back, by tries at work.

Pins are listed before records. A try that ends meanwhile creates its record before it removes its pins, so whoever
misses the pins sees the record; the other way round both could be missed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from airflow_provider_dockerbackup.core.catalog import check_place
from airflow_provider_dockerbackup.core.gc.documents import PIN_PATH, PINS, PinDocument
from airflow_provider_dockerbackup.core.gc.several import several
from airflow_provider_dockerbackup.core.places import RECORD_FILE, place_of, source_from_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.record import BackupRecord
from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS
from airflow_provider_dockerbackup.core.since import Deletion
from airflow_provider_dockerbackup.core.storage import Storage
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError

_DELETED: Final = "deleted-"
_QUARANTINED: Final = "quarantined-"
_KEEPING: Final = ("confirmed-", "hold-")
_SHOWN: Final = 5

_Times = dict[str, datetime]  # file name → when it was written


def key_of(digest: str) -> bytes:
    """Return the 32 bytes of ``sha256:<hex>``: a hundred thousand of them fit into little memory.

    :raises IntegrityError: when it is none.
    """
    try:
        key = bytes.fromhex(digest.removeprefix("sha256:"))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise IntegrityError(f"{digest!r} is not a sha256 digest; nothing was removed")
    return key


def digest_of(key: bytes) -> str:
    """Return ``sha256:<hex>`` of what :func:`key_of` gave."""
    return f"sha256:{key.hex()}"


class References:
    """What is needed, as far as it was looked at; each look adds what is new, and reads no record twice.

    :param storage: the repository's storage.
    :param now: gives the storage's own time.
    :param grace: how long a deleted backup counts like any other.
    :param progress: told what is passed over.
    :param threads: how many records to read at once.
    """

    def __init__(
        self, storage: Storage, *, now: Callable[[], datetime], grace: timedelta, progress: Progress, threads: int
    ) -> None:
        self._storage = storage
        self._now = now
        self._grace = grace
        self._progress = progress
        self._threads = threads
        self._counted: set[str] = set()
        self._gone: set[str] = set()
        self._pinned: set[bytes] = set()
        self.blobs: set[bytes] = set()
        self.diff_ids: set[bytes] = set()
        self.dead_pins: tuple[str, ...] = ()
        self.gone: dict[str, tuple[str, ...]] = {}

    @property
    def backups(self) -> int:
        """How many backups count."""
        return len(self._counted)

    def needs(self, key: bytes) -> bool:
        """Tell whether a blob is needed."""
        return key in self.blobs or key in self._pinned

    def look(self) -> None:
        """Look at all pins, and at all backups that were not seen before; afterwards ``gone`` is up to date as well.

        :raises IntegrityError: when pins or a record cannot be read: nobody can say what they need.
        """
        self._pinned = self._live_pins()
        new, gone = [], {}
        for path, times in self._folders().items():
            if self._is_gone(path, times):
                gone[path] = tuple(times)
            elif path not in self._counted:
                new.append((path, any(name.startswith(_QUARANTINED) for name in times)))
        self.gone = gone
        self._count(new)

    def _count(self, folders: Iterable[tuple[str, bool]]) -> None:
        unreadable: list[str] = []
        for path, record, problem in several(self._read, folders, threads=self._threads):
            if problem:
                unreadable.append(problem)
            if record is not None:
                self.blobs.update(map(key_of, record.blob_sizes))
                if record.blobs is not None:
                    self.diff_ids.update(key_of(each.diff_id) for each in record.blobs.layers)
            self._counted.add(path)
        if unreadable:
            more = f" and {len(unreadable) - _SHOWN} more" if len(unreadable) > _SHOWN else ""
            raise IntegrityError(
                f"{self._storage.url}: {'; '.join(unreadable[:_SHOWN])}{more}. Nobody can say which blobs they need, "
                "so none was removed. Repair them, or put them aside with 'dockerbackup quarantine'"
            )

    def _read(self, folder: tuple[str, bool]) -> tuple[str, BackupRecord | None, str]:
        """Return the folder, its record, and what is wrong with it, unless somebody put it aside."""
        path, aside = folder
        try:
            where = f"{self._storage.url}/{path}{RECORD_FILE}"
            record = BackupRecord.from_bytes(self._storage.read(path + RECORD_FILE), where=where)
            check_place(record, source_from_path(path), path)
        except (IntegrityError, NotFoundError) as err:
            if aside:
                self._progress.note(f"{path} is in quarantine and cannot be read; what it needs cannot be told")
            return path, None, "" if aside else str(err)
        return path, record, ""

    def _folders(self) -> dict[str, _Times]:
        folders: dict[str, _Times] = defaultdict(dict)
        for info in self._storage.list("backups"):
            place = place_of(info.path)
            if place is not None:
                folders[place[0]][place[1]] = info.modified
            elif info.path.endswith(f"/{RECORD_FILE}"):
                raise IntegrityError(
                    f"{self._storage.url}/{info.path} is no record of a backup of this release: nobody can say which "
                    "blobs it needs, so none was removed. Use the release that wrote it, or move it elsewhere"
                )
        return {path: times for path, times in folders.items() if RECORD_FILE in times}

    def _is_gone(self, path: str, times: _Times) -> bool:
        """Tell whether a backup was deleted for good: nothing and nobody can take that back."""
        deletions = [name for name in times if name.startswith(_DELETED)]
        if not deletions or path in self._counted:
            return False
        if path not in self._gone and self._is_final(path, times, deletions):
            self._gone.add(path)
        return path in self._gone

    def _is_final(self, path: str, times: _Times, deletions: Collection[str]) -> bool:
        if self._now() - max(times[name] for name in deletions) <= self._grace:
            return False
        try:
            dead = all(self._is_abandoned(path + name) for name in deletions)
            return dead and not self._can_be_taken_back(path, times, deletions)
        except NotFoundError:
            return False  # taken back since it was listed

    def _can_be_taken_back(self, path: str, times: _Times, deletions: Collection[str]) -> bool:
        """Tell whether a confirmation or hold came before a deletion that knew nothing of it."""
        keeping = [name for name in times if name.startswith(_KEEPING)]
        if not keeping:
            return False
        for name in deletions:
            deletion = Deletion.from_bytes(self._storage.read(path + name), where=f"{self._storage.url}/{path}{name}")
            if any(each not in deletion.seen and times[each] <= times[name] for each in keeping):
                return True
        return False

    def _live_pins(self) -> set[bytes]:
        pinned: set[bytes] = set()
        dead = []
        for info in self._storage.list(PINS):
            try:
                if self._is_abandoned(info.path):
                    dead += [info.path] if PIN_PATH.fullmatch(info.path) else []
                else:
                    where = f"{self._storage.url}/{info.path}"
                    pinned.update(
                        map(key_of, PinDocument.from_bytes(self._storage.read(info.path), where=where).digests)
                    )
            except NotFoundError:
                continue  # its try is done: the record it wrote is listed after this
        self.dead_pins = tuple(dead)
        return pinned

    def _is_abandoned(self, path: str) -> bool:
        return self._storage.is_abandoned(path, older_than_seconds=ABANDONED_AFTER_SECONDS)
