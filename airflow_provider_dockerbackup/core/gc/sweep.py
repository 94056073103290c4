# SPDX-License-Identifier: Apache-2.0
"""Take away what a plan found, so that a death at any moment, or a writer at any moment, loses nothing.

Blobs go in rounds: condemn, look for pins and records again, move to the trash what still nobody needs, clear the
marks. A layer's map goes before its blob: a layer without a map is fetched again, a map without a blob would be in the
way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeVar

from airflow_provider_dockerbackup.core.gc.documents import (
    CLOSED_PATH,
    CONDEMNED,
    CONDEMNED_PATH,
    LEASES,
    PINS,
    ClosedDocument,
    CondemnedDocument,
    batched,
    closed_path,
    condemned_path,
    trash_path,
)
from airflow_provider_dockerbackup.core.gc.lease import LEASE_SECONDS, Lease
from airflow_provider_dockerbackup.core.gc.plan import GcPlan
from airflow_provider_dockerbackup.core.gc.references import References, digest_of, key_of
from airflow_provider_dockerbackup.core.gc.several import several
from airflow_provider_dockerbackup.core.layers.documents import HINTS_FOLDER, MAPS_FOLDER, LayerMap
from airflow_provider_dockerbackup.core.places import BLOBS_FOLDER, blob_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS, Repository
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, NotFoundError, TransientError

_I = TypeVar("_I")
_T = TypeVar("_T")
_FIRST_ROUND: Final = 1000
_LARGEST_ROUND: Final = 32000
_RENEW_AFTER_SECONDS: Final = LEASE_SECONDS / 3
_QUICK_SECONDS: Final = LEASE_SECONDS / 20  # a round that was as quick may be twice as large the next time
_STEPS: Final = 500  # between two looks at the lease
_REAPED: Final = (BLOBS_FOLDER, "staging", MAPS_FOLDER, HINTS_FOLDER, PINS, LEASES, CONDEMNED)


@dataclass(slots=True, kw_only=True)
class Swept:
    """What was done so far.

    :param trashed: blobs that went to the trash; with their bytes in ``trashed_bytes``.
    :param needed_after_all: blobs that somebody needed since the plan was made.
    :param returned: needed blobs that came back from the trash.
    :param purged: what left the trash for ever.
    :param maps: layer maps that were removed, ``hints`` engine hints, ``files`` files of deleted backups.
    :param pins: pins of dead tries.
    :param reaped: what dead writers had left unfinished.
    """

    trashed: int = 0
    trashed_bytes: int = 0
    needed_after_all: int = 0
    returned: int = 0
    purged: int = 0
    purged_bytes: int = 0
    maps: int = 0
    hints: int = 0
    files: int = 0
    pins: int = 0
    reaped: int = 0


@dataclass(slots=True, kw_only=True)
class Sweeper:
    """Does what a plan says, under a lease.

    :param gc: name of this collection.
    :param threads: how many requests at once.
    """

    repository: Repository
    lease: Lease
    references: References
    plan: GcPlan
    gc: str
    progress: Progress
    threads: int
    done: Swept = field(default_factory=Swept)
    _marks: list[str] = field(default_factory=list)
    _marks_made: int = 0
    _dirty: bool = False

    def sweep(self) -> None:
        """Do all of it.

        :raises TransientError: when the lease ends, or the storage fails; the next collection goes on.
        :raises IntegrityError: when pins or a new record cannot be read.
        :raises ConflictError: when another collection took over.
        """
        try:
            self._clear_left_marks()
            self._bring_back()
            self._close_left_trash()
            for batch in self._rounds():
                self._round(batch)
            self._end_backups()
            self._clear_maps_and_hints()
            self._purge()
            self._clear_the_dead()
        finally:
            self._close_trash()

    def _rounds(self) -> Iterator[tuple[bytes, ...]]:
        """Yield the garbage in rounds: small ones first, so that a slow storage holds up writers for a short time."""
        left = iter(self.plan.garbage)
        size = _FIRST_ROUND
        while batch := tuple(islice(left, size)):
            self._renew()
            before = self.lease.age_seconds
            yield batch
            if self.lease.age_seconds - before < _QUICK_SECONDS:
                size = min(2 * size, _LARGEST_ROUND)

    def _round(self, batch: Sequence[bytes]) -> None:
        surviving: list[bytes] = []
        try:
            self._condemn(batch)
            self.references.look()
            surviving += [key for key in batch if not self.references.needs(key)]
            self.done.needed_after_all += len(batch) - len(surviving)
            self._dirty = self._dirty or bool(surviving)
            for size_bytes, maps in self._each(self._trash_blob, surviving):
                self.done.maps += maps
                if size_bytes is not None:
                    self.done.trashed += 1
                    self.done.trashed_bytes += size_bytes
                    self.progress.advance(size_bytes)
            self.lease.require()
        except BaseException:
            self._take_back_if_late(surviving)
            raise
        finally:
            self._clear_marks()

    def _condemn(self, batch: Sequence[bytes]) -> None:
        for digests in batched(map(digest_of, batch)):
            self.lease.require()
            path = condemned_path(self.gc, self._marks_made)
            document = CondemnedDocument(gc=self.gc, lease=self.lease.number, digests=digests)
            self._marks.append(path)
            self._marks_made += 1
            self.repository.storage.create(path, document.to_bytes())

    def _trash_blob(self, key: bytes) -> tuple[int | None, int]:
        """Move the maps that name a blob, then the blob; return its size if it was there, and how many maps were."""
        maps = 0
        for path in self.plan.maps.get(key, ()):
            self.lease.require()
            maps += self._to_trash(path)
        self.lease.require()
        return (self.plan.garbage[key] if self._to_trash(blob_path(digest_of(key))) else None), maps

    def _to_trash(self, path: str) -> bool:
        try:
            self.repository.storage.move(path, to=trash_path(self.gc, path))
        except NotFoundError:
            return False  # somebody else had it removed
        return True

    def _take_back_if_late(self, moved: Iterable[bytes]) -> None:
        """Put back what is needed when a step hung so long that writers may have taken us for dead."""
        try:
            self.lease.require()
        except TransientError:
            try:
                self.references.look()
                for key in moved:
                    if self.references.needs(key):
                        path = blob_path(digest_of(key))
                        self._return(path, trash_path(self.gc, path))
            except DockerBackupError as err:
                self.progress.note(f"what {self.gc} took away too late comes back with the next collection: {err}")

    def _clear_marks(self) -> None:
        """Remove our condemnations; those that stay mean nothing once the lease is over."""
        marks, self._marks = self._marks, []
        try:
            for path in marks:
                self.repository.storage.delete(path)
        except DockerBackupError as err:
            self.progress.note(f"condemnations of {self.gc} stay until the next garbage collection: {err}")

    def _clear_left_marks(self) -> None:
        for info in self.repository.storage.list(CONDEMNED):
            if CONDEMNED_PATH.fullmatch(info.path):
                self.repository.storage.delete(info.path)

    def _bring_back(self) -> None:
        for path, where in self.plan.returning.items():
            self._renew()
            self._return(path, where)

    def _return(self, path: str, where: str) -> None:
        try:
            self.repository.storage.move(where, to=path)
        except (ConflictError, NotFoundError):
            return  # it is there again already
        self.done.returned += 1
        self.progress.note(f"{path} is needed and came back from the trash")

    def _end_backups(self) -> None:
        """Move the files of backups that were deleted for good; their records stay as tombstones."""
        paths = [path + name for path, names in self.plan.ended.items() for name in names]
        for moved in self._each(self._to_trash, paths, renew=True):
            self.done.files += moved
        self._dirty = self._dirty or bool(paths)

    def _clear_maps_and_hints(self) -> None:
        for removed in self._each(self._delete_dangling, self.plan.dangling, renew=True):
            self.done.maps += removed
        for _ in self._each(self.repository.storage.delete, self.plan.hints, renew=True):
            self.done.hints += 1

    def _delete_dangling(self, path: str) -> bool:
        """Delete a map whose blob is not there, if that is still so."""
        storage = self.repository.storage
        try:
            named = LayerMap.from_bytes(storage.read(path), where=f"{storage.url}/{path}")
        except NotFoundError:
            return False
        try:
            storage.stat(blob_path(digest_of(key_of(named.digest))))
        except NotFoundError:
            storage.delete(path)
            return True
        return False

    def _purge(self) -> None:
        for path in self._each(self._delete, self.plan.expired, renew=True):
            if not CLOSED_PATH.fullmatch(path):
                self.done.purged += 1
                self.done.purged_bytes += self.plan.expired[path]

    def _delete(self, path: str) -> str:
        self.repository.storage.delete(path)
        return path

    def _clear_the_dead(self) -> None:
        """Remove pins of tries that are gone, and what writers that are gone left unfinished."""
        for _ in self._each(self.repository.storage.delete, self.references.dead_pins, renew=True):
            self.done.pins += 1
        for folder in _REAPED:
            self._renew()
            self.done.reaped += len(self.repository.storage.reap(folder, older_than_seconds=ABANDONED_AFTER_SECONDS))

    def _close_left_trash(self) -> None:
        """Let the trash of collections that died begin to age."""
        for gc in self.plan.unclosed:
            self._write_closed(gc)

    def _close_trash(self) -> None:
        if not self._dirty:
            return
        try:
            self._write_closed(self.gc)
        except DockerBackupError as err:
            self.progress.note(f"the trash of {self.gc} begins to age with the next garbage collection: {err}")

    def _write_closed(self, gc: str) -> None:
        document = ClosedDocument(gc=gc, closed_at=self.repository.clock.now())
        try:
            self.repository.storage.create(closed_path(gc), document.to_bytes())
        except ConflictError:
            return  # another collection closed it

    def _each(self, action: Callable[[_I], _T], items: Iterable[_I], *, renew: bool = False) -> Iterator[_T]:
        """Yield what ``action`` returns for each item; look at the lease now and then, and ``renew`` it on request."""
        left = iter(items)
        while chunk := tuple(islice(left, _STEPS)):
            if renew:
                self._renew()
            else:
                self.lease.require_there()
            yield from several(action, chunk, threads=self.threads)

    def _renew(self) -> None:
        """Make sure of the lease; nothing may be condemned now."""
        if self.lease.age_seconds > _RENEW_AFTER_SECONDS:
            self.lease.renew()
        else:
            self.lease.require_there()
