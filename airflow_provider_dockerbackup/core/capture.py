# SPDX-License-Identifier: Apache-2.0
"""What saving images and exporting containers have in common: the stream, the events, the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from airflow_provider_dockerbackup.core.attempt import BackupKey, winner_of
from airflow_provider_dockerbackup.core.audit.event import Outcome
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import EngineInfo
from airflow_provider_dockerbackup.core.ports import Progress, RemoteStream
from airflow_provider_dockerbackup.core.record import BackupRecord, Engine
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.throttle import Throttle, check_bandwidth
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError, problem_of

# A tar header holds a NUL after its first two fields at the latest: a name of 100 bytes and a mode of 7.
_TEXT_BYTES = 108


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOutcome:
    """What a task did for its source.

    :param status: ``committed`` now, found ``unchanged`` and confirmed, or ``already`` committed by another try.
    :param audit_head: digest of the newest audit event of this try; None when there is none.
    """

    status: Literal["committed", "unchanged", "already"]
    backup: Backup
    audit_head: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How bytes are moved.

    :param level: compression level, None for the compression's default.
    :param threads: how many threads may compress; layout ``layers`` uses them.
    :param bandwidth_limit: bytes a second that may come from the host, None for no limit.
    """

    level: int | None = None
    threads: int = 2
    bandwidth_limit: int | None = None

    def check(self) -> None:
        """Refuse what cannot be meant.

        :raises ConfigurationError: names the value.
        """
        if self.threads < 1:
            raise ConfigurationError(f"compression_threads: expected a number >= 1, got {self.threads}")
        check_bandwidth(self.bandwidth_limit)


class Telling:
    """Tells the audit trail and the reader what becomes of one backup.

    A backup goes on when the trail cannot be written, and says so loudly: losing the backup would be worse.

    :param trail: the events of this try.
    :param key: the work.
    :param access: how the host is reached.
    :param progress: the reader.
    :param asked: how the capture is to be taken, told when it starts and when it fails.
    """

    def __init__(
        self,
        trail: Trail,
        *,
        key: BackupKey,
        access: Mapping[str, str],
        progress: Progress,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        self._asked = dict(asked or {})
        self._trail = trail
        self._key = key
        self._access = access
        self.progress = progress

    def tell(self, type_: str, *, outcome: Outcome, **subject: Any) -> None:
        """Write one event about the backup."""
        self._trail.tell(
            type_,
            progress=self.progress,
            outcome=outcome,
            source=str(self._key.source),
            subject=subject,
            access=self._access,
        )

    @contextmanager
    def of_backup(self) -> Iterator[None]:
        """Tell that a backup starts and, when the body raises, that it failed."""
        self.started()
        with self.of_rest():
            yield

    def started(self) -> None:
        """Tell that a backup starts."""
        self.tell("backup.started", outcome="intent", backup_id=self._key.backup_id, **self._asked)

    @contextmanager
    def of_rest(self) -> Iterator[None]:
        """Tell, when the body raises, that a backup failed that was told to have started."""
        try:
            yield
        except BaseException as err:
            problem = problem_of(err)
            self.tell("backup.failed", outcome="failure", backup_id=self._key.backup_id, problem=problem, **self._asked)
            raise

    def committed(self, backup: Backup, *, attempt: str) -> BackupOutcome:
        """Tell that the backup is committed, by us or by the winner, and return the outcome."""
        record = backup.whole()
        ours = record.attempt == attempt
        self.tell(
            "backup.committed" if ours else "backup.superseded",
            outcome="success",
            backup_id=record.backup_id,
            attempt=attempt,
            content_digest=record.content_digest,
            diff_ids=list(record.diff_ids),
            size_bytes=record.size_bytes,
            stored_size_bytes=record.stored_size_bytes,
            encryption=record.encryption,
            recipients=list(record.recipients),
            **(_moved(record) | _taken(record)),
        )
        return BackupOutcome(status="committed" if ours else "already", backup=backup, audit_head=self._trail.head)


def _moved(record: BackupRecord) -> dict[str, Any]:
    """Return how the bytes came and how many were new, in layout ``layers``; of an archive on a host, where it lies."""
    if record.blobs is None:
        return {} if record.path_on_host is None else {"path_on_host": record.path_on_host}
    return {
        "manifest": record.blobs.manifest.digest,
        "capture": record.capture,
        "received_bytes": record.blobs.received_bytes,
        "new_bytes": record.blobs.new_bytes,
    }


def _taken(record: BackupRecord) -> dict[str, Any]:
    """Return how far the files of a container's backup agree with each other; nothing for an image."""
    if record.container is None:
        return {}
    return {
        "capture": record.capture,
        "consistency": record.consistency,
        "quiesced": record.consistency == "quiesced",
        "pause_seconds": record.container.pause_seconds,
    }


def earlier_outcome(repository: Repository, key: BackupKey) -> BackupOutcome | None:
    """Return what an earlier try of the same work came to: the backup it committed or confirmed; None for neither.

    :raises ConflictError: when it committed one that was deleted since.
    :raises IntegrityError: when nobody can say what it committed.
    """
    if (standing := winner_of(repository, key)) is not None:
        return BackupOutcome(status="already", backup=standing, audit_head=None)
    for backup in repository.catalog.each(source=key.source):
        if any(each.idempotency_key == key.idempotency_key for each in backup.confirmations):
            return BackupOutcome(status="unchanged", backup=backup, audit_head=None)
    return None


class Sink(Protocol):
    """What takes an uncompressed archive, or layer."""

    def write(self, chunk: bytes) -> None:
        """Append a piece."""


def pour(
    stream: RemoteStream,
    scan: Callable[[bytes], int | None],
    sink: Sink | None,
    *,
    throttle: Throttle,
    progress: Progress,
    what: str,
    estimate_bytes: int | None,
) -> None:
    """Move a stream through the scanner into the sink; returns only after a proper end of the stream.

    :param scan: takes each piece before it is written; raises when it is not what it must be. It returns how many
        bytes of the archive were in the piece, None for the piece's own.
    :param sink: None when the scanner keeps what is to be kept.
    :param throttle: limits how fast it is read.
    :param estimate_bytes: about how much will come, for the reader.
    :raises ConfigurationError: when the stream begins with text, as a remote shell's greeting does.
    """
    progress.start(what, estimate_bytes)
    head = b""
    try:
        for chunk in stream:
            head = head or chunk[: 2 * _TEXT_BYTES]
            done = scan(chunk)
            if sink is not None:
                sink.write(chunk)
            progress.advance(len(chunk) if done is None else done)
            throttle.passed(len(chunk))
    except IntegrityError as err:
        _refuse_text(head, what, err)
        raise
    finally:
        stream.close()
        progress.finish()


def _refuse_text(head: bytes, what: str, err: IntegrityError) -> None:
    """Name what a refused stream is when it begins with a line of text."""
    text = head.partition(b"\0")[0]
    if b"\n" in text or len(text) >= _TEXT_BYTES:
        line = text.splitlines()[0][:80].decode("utf-8", "replace")
        raise ConfigurationError(
            f"{what}: the stream begins with text and not with an archive: {line!a}; keep start-up files such as "
            "~/.bashrc, and the Docker command, silent for commands run through SSH"
        ) from err


def engine_part(engine: EngineInfo) -> Engine:
    """Return what a record says of the daemon."""
    return Engine(
        version=engine.version,
        api_version=engine.api_version,
        store=engine.store,
        storage_driver=engine.storage_driver,
        os=engine.os,
        architecture=engine.architecture,
        engine_id=engine.engine_id,
    )
