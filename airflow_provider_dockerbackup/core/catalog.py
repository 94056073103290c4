# SPDX-License-Identifier: Apache-2.0
"""The catalog: which backups a repository holds, derived by listing and never a separate truth.

A backup is in it when its record is there and no ``deleted`` or ``quarantined`` document is. A folder that is not one
of ours is left alone; an unreadable record is shown as such.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from airflow_provider_dockerbackup.core.document import compact_time, time_of
from airflow_provider_dockerbackup.core.places import (
    ATTEMPT_FILE,
    BLOBS_FOLDER,
    OUR_FILE,
    RECORD_FILE,
    blob_path,
    host_path,
    id_in,
    place_of,
    source_from_path,
    source_path,
    takes_aside,
)
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.record import BackupRecord, Source
from airflow_provider_dockerbackup.core.since import Confirmation, Hold, Release, Verification
from airflow_provider_dockerbackup.exceptions import ConflictError, IntegrityError, NotFoundError

_Folder = dict[str, int]  # file name → size in bytes; in a folder below it, with that folder's name
_CONFIRMED = re.compile(r"confirmed-(\d{8}T\d{6}Z)-")
Trust = Literal["failed", "unscanned", "verified", "checked", "none"]
BlobSize = Callable[[str], int | None]
"""Returns the size of the blob of a digest, None when it is not there."""


def _no_blob(digest: str) -> int | None:
    del digest
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One backup in the catalog: its record, or why that cannot be read, and what happened to it since.

    :param path: folder in the repository, with a trailing ``/``.
    :param record: None when it is unreadable; ``problem`` then says why.
    :param deleted: whether it is out of the catalog, and its bytes are gone or go.
    :param quarantined: whether it is out of the catalog because somebody put it aside.
    :param holds: those that were not released, by the names of their files.
    :param sizes: size in bytes of every file in its folder.
    :param blob_size: tells the sizes of the repository's blobs.
    """

    path: str
    backup_id: str
    source: Source
    record: BackupRecord | None
    problem: str = ""
    deleted: bool = False
    quarantined: bool = False
    confirmations: tuple[Confirmation, ...] = ()
    verifications: tuple[Verification, ...] = ()
    holds: Mapping[str, Hold] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    blob_size: BlobSize = field(default=_no_blob, compare=False, repr=False)

    @property
    def last_verification(self) -> Verification | None:
        """Return the newest verification, whatever its outcome."""
        return max(self.verifications, key=lambda each: each.verified_at, default=None)

    @property
    def trust(self) -> Trust:
        """How far the backup is proven.

        ``verified`` when a verification proved that it restores and none failed since, ``checked`` when only its
        digests were read again, ``failed`` when the newest verification failed, ``unscanned`` when it lies on its host
        and no verification read it: nobody but that host has seen a byte of it.
        """
        last = self.last_verification
        if last is None:
            return "none" if self.record is None or self.record.path_on_host is None else "unscanned"
        if last.verification == "failed":
            return "failed"
        since_failure = [each for each in self.verifications if each.verification == "passed"]
        failed_at = max((v.verified_at for v in self.verifications if v.verification == "failed"), default=None)
        if any(v.proves_restore and (failed_at is None or v.verified_at > failed_at) for v in since_failure):
            return "verified"
        return "checked"

    def held(self, now: datetime) -> tuple[Hold, ...]:
        """Return the holds that stand now, oldest first."""
        return tuple(hold for _, hold in sorted(self.holds.items()) if hold.stands(now))

    @property
    def order(self) -> tuple[str, str]:
        """What sorts backups by their capture; an unreadable one by the time in its id."""
        captured = compact_time(self.record.captured_at, fraction=True) if self.record else self.backup_id
        return (captured, self.backup_id)

    @property
    def points(self) -> tuple[datetime, ...]:
        """The moments for which this backup is known to be the state of its source, oldest first."""
        return tuple(sorted([self.whole().captured_at, *(each.confirmed_at for each in self.confirmations)]))

    @property
    def newest_point(self) -> datetime:
        """The last moment for which this backup is known to be the state of its source."""
        return max([self.whole().captured_at, *(each.confirmed_at for each in self.confirmations)])

    @property
    def newest_run(self) -> datetime:
        """Time of the newest run that made this backup or found its source unchanged; to the second, told by names."""
        try:
            return time_of(_newest_run(self.path, self.sizes))
        except ValueError:  # somebody named a file by hand
            return self.newest_point

    @property
    def told(self) -> tuple[datetime, str] | None:
        """The newest point at which the source's own retention policy was known, and that policy; None when at none."""
        record = self.whole()
        known = [(record.captured_at, record.retention), *((e.confirmed_at, e.retention) for e in self.confirmations)]
        return max(((at, text) for at, text in known if text is not None), default=None)

    @property
    def complete(self) -> bool:
        """Whether the files and blobs that the record names are there with their recorded sizes; they are not read.

        What lies on a Docker host is not asked for: a listing must not depend on hosts.
        """
        record = self.whole()
        files = all(self.sizes.get(name) == size_bytes for name, size_bytes in record.files.items())
        return files and all(self.blob_size(digest) == size_bytes for digest, size_bytes in record.blob_sizes.items())

    def whole(self) -> BackupRecord:
        """Return the record.

        :raises IntegrityError: when it is unreadable.
        """
        if self.record is None:
            raise IntegrityError(
                f"the record of backup {self.backup_id} of {self.source} is unreadable: {self.problem}"
            )
        return self.record


class Catalog:
    """The backups on a storage.

    :param storage: the repository's storage.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def backups(self, *, host: str | None = None, source: Source | None = None) -> list[Backup]:
        """Return the backups, newest capture first; those with unreadable records among them.

        :param host: only of this Docker host.
        :param source: only of this source.
        """
        return sorted(self.each(host=host, source=source), key=lambda each: each.order, reverse=True)

    def each(self, *, host: str | None = None, source: Source | None = None) -> Iterator[Backup]:
        """Yield the backups by source, without holding all of them in memory.

        :param host: only of this Docker host.
        :param source: only of this source.
        """
        prefix = "backups" if host is None else host_path(host)
        if source is not None:
            prefix = source_path(source)
        blob_size = self._stat_blob if source is not None else _Listing(self._storage).size
        for path, files in self._folders(prefix).items():
            if RECORD_FILE in files and not any(takes_aside(name) for name in files):
                yield self._read(path, files, blob_size)

    def quarantined(self) -> list[Backup]:
        """Return the backups that were put aside."""
        return [
            self._read(path, files)
            for path, files in self._folders("backups").items()
            if RECORD_FILE in files and any(name.startswith("quarantined-") for name in files)
        ]

    def foreign(self) -> Iterator[str]:
        """Yield the paths of objects below ``backups`` that this package does not write."""
        for info in self._storage.list("backups"):
            place = place_of(info.path)
            if place is None or not OUR_FILE.fullmatch(place[1]):
                yield info.path

    def deleted(self) -> list[Backup]:
        """Return the backups that are out of the catalog because they were deleted; their bytes may still be there."""
        return [
            self._read(path, files)
            for path, files in self._folders("backups").items()
            if RECORD_FILE in files and any(name.startswith("deleted-") for name in files)
        ]

    def unfinished_deletions(self) -> list[Backup]:
        """Return the deleted backups of which bytes are still there: somebody works on them, or died over it.

        In layout ``layers`` these are all that garbage collection has not come to yet.
        """
        return [
            self._read(path, files)
            for path, files in self._folders("backups").items()
            if RECORD_FILE in files
            and any(name.startswith("deleted-") for name in files)
            and any(ATTEMPT_FILE.fullmatch(name) for name in files)
        ]

    def names(self) -> Iterator[tuple[str, Source]]:
        """Yield id and source of each backup from names alone; nothing is read, so its record may be unreadable."""
        for path, files in self._folders("backups").items():
            if RECORD_FILE in files and not any(takes_aside(name) for name in files):
                yield id_in(path), source_from_path(path)

    def deleted_names(self) -> Iterator[tuple[str, Source]]:
        """Yield id and source of each deleted backup from names alone."""
        for path, files in self._folders("backups").items():
            if RECORD_FILE in files and any(name.startswith("deleted-") for name in files):
                yield id_in(path), source_from_path(path)

    def aside(self) -> Iterator[tuple[str, Literal["deleted", "quarantined"]]]:
        """Yield the folder of each backup that is out of the catalog, and why; from names alone, nothing is read."""
        for path, files in self._folders("backups").items():
            if RECORD_FILE in files and any(takes_aside(name) for name in files):
                yield path, "deleted" if any(name.startswith("deleted-") for name in files) else "quarantined"

    def sources(self) -> list[Source]:
        """Return every source that has a folder, also when it holds no backup."""
        found = {source_from_path(path) for path in self._folders("backups")}
        return sorted(found, key=lambda each: (each.host, each.kind.value, each.name))

    def find(self, backup_id: str) -> Backup:
        """Return the backup with this id, or with an id that begins with it.

        :raises NotFoundError: when there is none, or when it was deleted.
        :raises ConflictError: when several begin with it.
        """
        folders = {
            path: files
            for path, files in self._folders("backups").items()
            if RECORD_FILE in files and id_in(path).startswith(backup_id)
        }
        where = self._storage.url
        if not backup_id or not folders:
            raise NotFoundError(f"no backup {backup_id!r} in {where}; 'dockerbackup list' shows what is there")
        if len(folders) > 1:
            names = ", ".join(sorted(id_in(path) for path in folders)[:5])
            raise ConflictError(f"backup id {backup_id!r} is not unique in {where}: {names}; write more of it")
        backup = self._read(*next(iter(folders.items())))
        if backup.deleted:
            raise NotFoundError(f"backup {backup.backup_id} of {backup.source} was deleted from {where}")
        if backup.quarantined:
            raise NotFoundError(
                f"backup {backup.backup_id} of {backup.source} is in quarantine; "
                "'dockerbackup quarantine --lift' brings it back into the catalog"
            )
        return backup

    def read(self, path: str, files: Mapping[str, int]) -> Backup:
        """Return the backup in a folder that was listed; its documents are read.

        :param path: folder in the repository, with a trailing ``/``; it has a record.
        :param files: size in bytes of every file in it.
        """
        return self._read(path, dict(files))

    def at(self, path: str) -> Backup | None:
        """Return the backup whose record is in the folder ``path``, deleted or not; None when there is none."""
        files = self._folders(path.rstrip("/")).get(path)
        return self._read(path, files) if files is not None and RECORD_FILE in files else None

    def newest(self, source: Source) -> Backup | None:
        """Return the newest backup of a source that has a readable record, or None."""
        return next((each for each in self.backups(source=source) if each.record is not None), None)

    def by_run(self, source: Source) -> Iterator[Backup]:
        """Yield the backups of a source, that of the newest run first; each is read only when it is asked for."""
        folders = self._folders(source_path(source))
        for path in sorted(folders, key=lambda path: _newest_run(path, folders[path]), reverse=True):
            if RECORD_FILE in folders[path] and not any(takes_aside(name) for name in folders[path]):
                yield self._read(path, folders[path], self._stat_blob)

    def orphans(self, source: Source) -> Iterator[str]:
        """Yield the paths of attempts' files of a source that belong to no record; whose record is unreadable stay."""
        for path, files in self._folders(source_path(source)).items():
            winner = None
            if RECORD_FILE in files:
                record = self._read(path, files).record
                if record is None:
                    continue
                winner = record.attempt
            for name in files:
                match = ATTEMPT_FILE.fullmatch(name)
                if match and (match["file"] or match["folder"]) != winner:
                    yield path + name

    def _folders(self, prefix: str) -> dict[str, _Folder]:
        """List once, and return the folders of backups below ``prefix`` with their files."""
        folders: dict[str, _Folder] = defaultdict(dict)
        for info in self._storage.list(prefix):
            place = place_of(info.path)
            if place is not None:
                folders[place[0]][place[1]] = info.size_bytes
        return dict(sorted(folders.items()))

    def _stat_blob(self, digest: str) -> int | None:
        try:
            return self._storage.stat(blob_path(digest)).size_bytes
        except NotFoundError:
            return None

    def _read(self, path: str, files: _Folder, blob_size: BlobSize | None = None) -> Backup:
        source = source_from_path(path)
        record, problem = None, ""
        confirmations: list[Confirmation] = []
        verifications: list[Verification] = []
        holds: dict[str, Hold] = {}
        released: set[str] = set()
        where = f"{self._storage.url}/{path}"
        try:
            record = BackupRecord.from_bytes(self._storage.read(path + RECORD_FILE), where=where + RECORD_FILE)
            check_place(record, source, path)
            for name in files:
                if name.startswith("confirmed-"):
                    data = self._storage.read(path + name)
                    confirmations.append(Confirmation.from_bytes(data, where=where + name))
                elif name.startswith("verification-"):
                    data = self._storage.read(path + name)
                    verifications.append(Verification.from_bytes(data, where=where + name))
                elif name.startswith("hold-"):
                    holds[name] = Hold.from_bytes(self._storage.read(path + name), where=where + name)
                elif name.startswith("release-"):
                    released |= set(Release.from_bytes(self._storage.read(path + name), where=where + name).holds)
        except (IntegrityError, NotFoundError) as err:
            record, problem = None, str(err)
        return Backup(
            path=path,
            backup_id=id_in(path),
            source=source,
            record=record,
            problem=problem,
            deleted=any(name.startswith("deleted-") for name in files),
            quarantined=any(name.startswith("quarantined-") for name in files),
            holds={name: hold for name, hold in holds.items() if name not in released},
            confirmations=tuple(sorted(confirmations, key=lambda each: each.confirmed_at)),
            verifications=tuple(sorted(verifications, key=lambda each: each.verified_at)),
            sizes=files,
            blob_size=blob_size or self._stat_blob,
        )


def _newest_run(path: str, files: Iterable[str]) -> str:
    """Return the newest of the runs that a backup's folder and its confirmations are named by, as they stand there."""
    confirmed = (match[1] for name in files if (match := _CONFIRMED.match(name)))
    return max([id_in(path).partition("-")[0], *confirmed])


class _Listing:
    """Sizes of blobs by one listing, made when first asked: for a look at many backups."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._sizes: dict[str, int] | None = None

    def size(self, digest: str) -> int | None:
        """Return the size of a blob, None when it is not there."""
        if self._sizes is None:
            self._sizes = {info.path: info.size_bytes for info in self._storage.list(BLOBS_FOLDER)}
        return self._sizes.get(blob_path(digest))


def check_place(record: BackupRecord, source: Source, folder: str) -> None:
    """Refuse a record that is not of the folder it is in.

    :raises IntegrityError: when it is not.
    """
    if record.source != source or record.backup_id != id_in(folder):
        raise IntegrityError(
            f"the record in {folder} is that of {record.source} {record.backup_id}: it was moved or copied by hand"
        )
