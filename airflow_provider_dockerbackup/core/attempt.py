# SPDX-License-Identifier: Apache-2.0
"""One try at one backup: it owns its files, publishes them in order, and cleans up after itself.

The order is law: archive, documents, record, event; each durable before the next. Creating the record is the commit,
and of several tries at the same work exactly one creates it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from airflow_provider_dockerbackup.core.archive.compression import Compression, compressor
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import canonical_json, compact_time, sha256_of
from airflow_provider_dockerbackup.core.encryption.stream import SUFFIX, Encryptor, encrypted
from airflow_provider_dockerbackup.core.places import RECORD_FILE, backup_path, blob_path, source_path
from airflow_provider_dockerbackup.core.ports import ObjectWriter, Progress, Storage
from airflow_provider_dockerbackup.core.record import ArchiveFile, BackupRecord, DocumentFile, Source
from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS, Repository
from airflow_provider_dockerbackup.exceptions import (
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
    TransientError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupKey:
    """The work that a backup is the result of; the same for every try.

    :param backup_id: ``<UTC time of the run>-<16 hex of the idempotency key>``.
    :param idempotency_key: sha256, hex, over what makes the work the same: run, task, host and source.
    """

    source: Source
    backup_id: str
    idempotency_key: str

    @classmethod
    def of(cls, source: Source, *, run_time: datetime, work: Sequence[str]) -> BackupKey:
        """Return the key of one piece of work.

        :param run_time: time of the run, aware; the same for every try.
        :param work: what names the work: ``(dag_id, run_id, task_id, map_index)``, or a random name outside of DAGs.
        """
        identity = canonical_json([*work, source.host, source.kind.value, source.name])
        key = hashlib.sha256(identity).hexdigest()
        return cls(source=source, backup_id=f"{compact_time(run_time)}-{key[:16]}", idempotency_key=key)

    @property
    def path(self) -> str:
        """Folder of the backup in the repository, with a trailing ``/``."""
        return backup_path(self.source, self.backup_id)


class ArchiveSink:
    """Compresses and writes one archive, and knows its sizes and its digest.

    :param writer: the object to fill.
    :param compression: how it is stored.
    :param level: compression level, None for the default.
    :param encryptor: encrypts what is stored; None leaves it plain. Whoever made it closes it.
    """

    def __init__(
        self,
        writer: ObjectWriter,
        *,
        compression: Compression,
        level: int | None,
        encryptor: Encryptor | None = None,
    ) -> None:
        self._writer = writer
        self._encryptor = encryptor
        self._compression = compression
        self._compressor = None if compression is Compression.NONE else compressor(compression, level=level)
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.stored_size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Append ``chunk`` of the uncompressed archive."""
        self.size_bytes += len(chunk)
        self._encrypt(chunk if self._compressor is None else self._compressor.compress(chunk))

    def _encrypt(self, data: bytes) -> None:
        self._store(data if self._encryptor is None or not data else self._encryptor.encrypt(data))

    def _store(self, data: bytes) -> None:
        if data:
            if self._has_own_digest:
                self._sha256.update(data)
            self.stored_size_bytes += len(data)
            self._writer.write(data)

    @property
    def _has_own_digest(self) -> bool:
        """Whether the file is something else than the archive, whose digest is taken elsewhere."""
        return self._compressor is not None or self._encryptor is not None

    def publish(self, *, content_digest: str) -> ArchiveFile:
        """Make the archive durable and visible, and return what the record says of it.

        :param content_digest: digest over the uncompressed tar.
        """
        if self._compressor is not None:
            self._encrypt(self._compressor.flush())
        if self._encryptor is not None:
            self._store(self._encryptor.finish())
        self._writer.commit()
        return ArchiveFile(
            name=self._writer.path.rsplit("/", 1)[1],
            compression=self._compression,
            size_bytes=self.size_bytes,
            stored_size_bytes=self.stored_size_bytes,
            stored_sha256=f"sha256:{self._sha256.hexdigest()}" if self._has_own_digest else None,
            content_digest=content_digest,
        )


def new_attempt() -> str:
    """Return the name of a new try, random."""
    return uuid.uuid4().hex[:12]


class Attempt:
    """A context in which one try writes its files; without :meth:`commit` none of them stays.

    :param repository: where to.
    :param key: the work.
    :param progress: told when something could not be cleaned up.
    :param name: of a try that began in another process; None for a new one.
    """

    def __init__(self, repository: Repository, key: BackupKey, *, progress: Progress, name: str | None = None) -> None:
        self.name = name or new_attempt()
        self.key = key
        self.repository = repository
        self._progress = progress
        self._writers = ExitStack()
        self._files: list[str] = []
        self._record_sent = False
        self._before_record: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        """Return the attempt."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take back every file unless a record names it, then let go of the locks."""
        try:
            self._withdraw()
        finally:
            self._writers.close()

    def archive(self, stem: str, *, compression: Compression, level: int | None) -> ArchiveSink:
        """Begin the archive ``<stem>-<attempt>.tar[.gz|.zst][.age]``."""
        writer = self.stored_archive(stem, compression=compression)
        recipients = self.repository.document.recipients
        encryptor = Encryptor(recipients) if recipients else None
        if encryptor is not None:
            self._writers.callback(encryptor.close)
        return ArchiveSink(writer, compression=compression, level=level, encryptor=encryptor)

    def stored_archive(self, stem: str, *, compression: Compression) -> ObjectWriter:
        """Begin the same file, to be given bytes that are compressed and encrypted already, as the repository has it.

        :param compression: how they are.
        """
        path = f"{self.key.path}{stem}-{self.name}.tar{compression.suffix}{self._suffix}"
        writer = self.repository.storage.writer(path)
        self._writers.callback(writer.close)
        self._files.append(path)
        return writer

    def document(self, stem: str, data: bytes) -> DocumentFile:
        """Write the document ``<stem>-<attempt>.json[.age]`` beside the record."""
        recipients = self.repository.document.recipients
        return self.stored_document(stem, encrypted(data, recipients) if recipients else data)

    def stored_document(self, stem: str, data: bytes) -> DocumentFile:
        """Write the same document, which is plain or encrypted already, as the repository has it."""
        return self.file(f"{stem}-{self.name}.json{self._suffix}", data)

    @property
    def _suffix(self) -> str:
        return SUFFIX if self.repository.document.recipients else ""

    def file(self, name: str, data: bytes) -> DocumentFile:
        """Write a small file in the record's folder.

        :param name: must carry the try's name, ``oci-<attempt>/index.json``.
        """
        # By a writer that stays open, although it is small: until the record stands, only that keeps reap() away.
        writer = self.repository.storage.writer(self.key.path + name)
        self._writers.callback(writer.close)
        self._files.append(self.key.path + name)
        writer.write(data)
        writer.commit()
        return DocumentFile(name=name, size_bytes=len(data), sha256=sha256_of(data))

    def before_record(self, check: Callable[[], None]) -> None:
        """Have ``check`` called right before the record is created; what it raises ends the try."""
        self._before_record.append(check)

    def commit(self, record: BackupRecord) -> Backup:
        """Create the record, and return the backup that stands under the key now: ours, or the winner's.

        :raises DockerBackupError: when the record could not be created, or whether it was cannot be told.
        """
        path = self.key.path + RECORD_FILE
        self._require_files(record)
        for check in self._before_record:
            check()
        # From here until an answer came the record may still appear, even after our own end: files stay if none comes.
        self._record_sent = True
        try:
            self.repository.storage.create(path, record.to_bytes())
        except ConflictError:
            self._progress.note(f"another try committed backup {self.key.backup_id} first; this one withdraws")
        winner = self.repository.catalog.at(self.key.path)
        if winner is not None and winner.record is not None and winner.record.blobs and not winner.complete:
            raise IntegrityError(
                f"the record {path} was created, and bytes that it names are gone since; what deletes in the "
                "repository? The backup counts for nothing; look into it, and start a new run"
            )
        if winner is None:
            raise NotFoundError(f"the record {path} was created and is gone again; who deletes in the repository?")
        if winner.record is not None and winner.record.attempt == self.name:
            self._files.clear()
        elif winner.record is not None:
            self._record_sent = False
        return winner

    @property
    def may_stand(self) -> bool:
        """Whether the record of this try stands, or was sent and nobody can tell yet."""
        return self._record_sent

    def _require_files(self, record: BackupRecord) -> None:
        """Look once more that all that the record will name is there with its size."""
        storage = self.repository.storage
        for digest, size_bytes in record.blob_sizes.items():
            self._require_blob(digest, size_bytes)
        for name, size_bytes in record.files.items():
            path = self.key.path + name
            found = storage.stat(path).size_bytes
            if found != size_bytes:
                raise IntegrityError(
                    f"{storage.url}/{path} has {found} bytes and not the {size_bytes} that were written; nothing was "
                    "committed. Is something else writing in the repository?"
                )

    def _require_blob(self, digest: str, size_bytes: int) -> None:
        """Ask for another try when a blob is not there any more: a verification may have put a damaged one aside."""
        where = f"{self.repository.storage.url}/{blob_path(digest)}"
        try:
            found = self.repository.storage.stat(blob_path(digest)).size_bytes
        except NotFoundError as err:
            raise TransientError(
                f"{where} was put aside as damaged, or deleted, since this try counted on it; nothing was committed. "
                "Try again: what is missing is fetched anew"
            ) from err
        if found != size_bytes:
            raise TransientError(
                f"{where} has {found} bytes and not the {size_bytes} that this try counted on; nothing was committed. "
                "Try again: it is put aside and fetched anew"
            )

    def _withdraw(self) -> None:
        """Delete this try's files, unless a record names them or that cannot be told."""
        if not self._files:
            return
        if self._record_sent:
            self._progress.note(
                f"whether the record in {self.key.path} was created is not known; files of try {self.name} stay, "
                "and the next run removes them if no record names them"
            )
            return
        try:
            standing = self.repository.catalog.at(self.key.path)
            if standing is not None and (standing.record is None or standing.record.attempt == self.name):
                return
            for path in self._files:
                self.repository.storage.delete(path)
        except DockerBackupError as err:
            self._progress.note(f"files of try {self.name} in {self.key.path} stay for the next run to remove: {err}")


def winner_of(repository: Repository, key: BackupKey) -> Backup | None:
    """Return the backup that an earlier try of the same work committed, or None.

    :raises ConflictError: when it was committed and deleted since.
    :raises IntegrityError: when its record is unreadable: nobody can say what was committed.
    """
    standing = repository.catalog.at(key.path)
    if standing is not None and standing.deleted:
        raise ConflictError(
            f"backup {key.backup_id} of {key.source} was made by this run and deleted since; start a new run"
        )
    if standing is not None and standing.record is None:
        raise IntegrityError(
            f"backup {key.backup_id} of {key.source} was made by this run, but its record is unreadable: "
            f"{standing.problem}; look into it, and start a new run for a new backup"
        )
    if standing is not None and standing.record is not None and not standing.complete:
        raise IntegrityError(
            f"backup {key.backup_id} of {key.source} was made by this run, but its files are not there as recorded; "
            "look into it, and start a new run for a new backup"
        )
    return standing


def reap(repository: Repository, source: Source) -> tuple[str, ...]:
    """Remove what dead tries left behind in a source's folder, and return the paths."""
    storage = repository.storage
    removed = list(storage.reap(source_path(source), older_than_seconds=ABANDONED_AFTER_SECONDS))
    abandoned = [path for path in repository.catalog.orphans(source) if _is_abandoned(storage, path)]
    if abandoned:
        # A writer may have created its record between our listing and its letting go of the lock: look again.
        still = set(repository.catalog.orphans(source))
        for path in abandoned:
            if path in still:
                storage.delete(path)
                removed.append(path)
    return tuple(removed)


def _is_abandoned(storage: Storage, path: str) -> bool:
    try:
        return storage.is_abandoned(path, older_than_seconds=ABANDONED_AFTER_SECONDS)
    except NotFoundError:
        return False  # its own try withdrew it since it was listed, or another run reaped it
