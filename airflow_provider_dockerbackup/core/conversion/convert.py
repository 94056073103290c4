# SPDX-License-Identifier: Apache-2.0
"""Convert a repository: copy every backup into another one of the other layout, each read back before it counts.

The source is never changed. A backup keeps its id, so the record in the target is the note that says how far the work
is: run again after a death anywhere, it goes on with what is not there, and of several runs at once each backup is
committed by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import Attempt, BackupKey, reap
from airflow_provider_dockerbackup.core.audit.event import Outcome
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.conversion.documents import carry_documents, converted_record
from airflow_provider_dockerbackup.core.conversion.plan import Decision, Standing, State, carried, decide, decisions
from airflow_provider_dockerbackup.core.conversion.transfer import Transfer, read_back
from airflow_provider_dockerbackup.core.document import sha256_of, utc_text
from airflow_provider_dockerbackup.core.encryption.identity import require_identity
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient
from airflow_provider_dockerbackup.core.layers.damage import put_right
from airflow_provider_dockerbackup.core.places import RECORD_FILE
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.reading import container_bytes
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository, check_layers_compression
from airflow_provider_dockerbackup.core.since import Verification
from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.core.verify import put_down
from airflow_provider_dockerbackup.exceptions import (
    BadBlobError,
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
)

Ended = Literal["converted", "finished", "already", "skipped", "failed"]
_ENDED: dict[State, Ended] = {
    "convert": "converted",
    "finish": "finished",
    "already": "already",
    "skipped": "skipped",
    "failed": "failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """How to convert.

    :param layout: of the target.
    :param compression: of archives in the target, None for its own.
    :param recipients: to whom backups are encrypted in a target that is to be made.
    :param tuning: how bytes are moved; its limit is on what is read from the source.
    :param dry_run: plan only; nothing is written.
    :param actor: who does it, and software versions.
    """

    layout: str
    compression: Compression | None = None
    recipients: Sequence[Recipient] = ()
    tuning: Tuning = field(default_factory=Tuning)
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)

    def check(self, source: Repository, target: Repository | None = None) -> None:
        """Refuse what cannot be converted, or not into this.

        :param target: None when there is none yet.
        :raises ConfigurationError: names what is wrong.
        """
        self.tuning.check()
        if self.layout == "layers":
            check_layers_compression(self.compression)
        if source.document.layout == self.layout:
            raise ConfigurationError(
                f"layout: the repository at {source.storage.url} is of layout {self.layout!r} already: nothing to do"
            )
        self._check_encryption(source, target)
        if target is None:
            return
        if target.document.repository_id == source.document.repository_id:
            raise ConfigurationError(f"{target.storage.url} is the very repository to convert; give another place")
        if target.document.layout != self.layout:
            raise ConfigurationError(
                f"layout: the repository at {target.storage.url} is of layout {target.document.layout!r}, not "
                f"{self.layout!r}; give another place, where a new one is made"
            )

    def _check_encryption(self, source: Repository, target: Repository | None) -> None:
        """Refuse to leave plain what was encrypted, and to write what cannot be read back."""
        if source.recipients and not (target.document.recipients if target is not None else self.recipients):
            raise ConfigurationError(
                f"recipients: backups in {source.storage.url} are encrypted, in the target they would not be; nothing "
                "was converted"
            )
        for repository in (source, target):
            if repository is not None and repository.recipients:
                require_identity(repository.identities, repository.recipients, where=repository.storage.url)


def require_apart(source: str, target: str) -> None:
    """Refuse a target that is the source, lies in it, or around it.

    :param source: URL without links and relative parts, as the target's.
    :raises ConfigurationError: names both.
    """
    one, other = (f"{url.rstrip('/')}/" for url in (source, target))
    if one.startswith(other) or other.startswith(one):
        raise ConfigurationError(
            f"the target {target} must be apart from the source {source}: neither may lie in the other"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one backup.

    :param state: ``converted`` now; ``finished`` when an earlier run had committed it; ``already`` when nothing was
        left to do; ``skipped`` or ``failed`` for a reason.
    :param new_bytes: what was stored for it.
    """

    decision: Decision
    state: Ended
    reason: str = ""
    new_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOutcome:
    """What a conversion did, or would do.

    :param planned: what was to become of each backup, the newest first.
    :param results: what became of them, in the same order; empty in a dry run.
    :param audit_head: digest of the newest audit event in the target; None in a dry run.
    """

    planned: tuple[Decision, ...]
    results: tuple[Result, ...] = ()
    audit_head: str | None = None

    @property
    def failed(self) -> tuple[Result, ...]:
        """The backups that should be in the target and are not, or not whole."""
        return tuple(each for each in self.results if each.state == "failed")


def convert(
    request: ConvertRequest, *, source: Repository, target: Repository | None, progress: Progress
) -> ConvertOutcome:
    """Return what became of each backup of the source; one that cannot be converted does not stop the others.

    :param target: None, in a dry run, when there is none yet.
    :raises ConfigurationError: when source, target and request do not fit; nothing was changed.
    :raises TransientError: when a storage failed; run it again, it goes on.
    """
    request.check(source, target)
    planned = decisions(source, target)
    if request.dry_run:
        return ConvertOutcome(planned=tuple(planned))
    if target is None:
        raise ConfigurationError("expected a target to convert into")
    conversion = _Conversion(request, source=source, target=target, progress=progress)
    results = conversion.run(planned)
    return ConvertOutcome(planned=tuple(planned), results=tuple(results), audit_head=conversion.trail.head)


class _Conversion:
    """One run."""

    def __init__(self, request: ConvertRequest, *, source: Repository, target: Repository, progress: Progress) -> None:
        self.trail: Trail = target.trail(request.actor)
        self._request = request
        self._source = source
        self._target = target
        self._progress = progress
        self._throttle = Throttle(target.clock, request.tuning.bandwidth_limit)
        self._reaped: set[Source] = set()
        self._results: dict[str, Result] = {}

    def run(self, planned: list[Decision]) -> list[Result]:
        """Convert what is to be converted, and tell the trail."""
        self._tell("convert.started", "intent", {"planned": dict(Counter(each.state for each in planned))})
        total = sum(each.bytes_to_read for each in planned)
        work = sum(each.bytes_to_read > 0 for each in planned)
        self._progress.start(f"convert {work} backups into {self._target.storage.url}", total)
        try:
            for each in _in_order(planned):
                self._results[each.path] = self._result(each)
        except BaseException as err:
            problem = str(err) if isinstance(err, DockerBackupError) else type(err).__name__
            self._tell("convert.failed", "failure", {**self._summary(), "problem": problem})
            raise
        finally:
            self._progress.finish()
        if failed := [each for each in self._results.values() if each.state == "failed"]:
            problem = f"{len(failed)} backups could not be converted"
            self._tell("convert.failed", "failure", {**self._summary(), "problem": problem})
        else:
            self._tell("convert.done", "success", self._summary())
        return [self._results[each.path] for each in planned]

    def _result(self, decision: Decision) -> Result:
        """Return what became of one backup; what says nothing about any other is its own failure."""
        if decision.state in {"already", "skipped"}:
            return Result(decision=decision, state=_ENDED[decision.state], reason=decision.reason)
        try:
            result = self._done(decision)
        except (IntegrityError, NotFoundError, ConflictError) as err:
            gone = self._gone(decision)
            result = Result(decision=decision, state="skipped" if gone else "failed", reason=gone or str(err))
        if result.state == "failed":
            self._progress.note(f"{decision.backup_id} of {decision.source} is not converted: {result.reason}")
        return result

    def _gone(self, decision: Decision) -> str:
        """Return how a backup left the catalog of the source while it was converted; nothing when it is there."""
        again = self._source.catalog.at(decision.path)
        state, reason = decide(again, None) if again is not None else ("skipped", "it is gone from the source")
        return reason if state == "skipped" else ""

    def _done(self, decision: Decision) -> Result:
        """Look at both repositories anew, and do what is left to do."""
        backup = self._source.catalog.at(decision.path)
        if backup is None:
            return Result(decision=decision, state="skipped", reason="it is gone from the source")
        standing = self._target.catalog.at(decision.path)
        state, reason = decide(backup, Standing.of(standing) if standing is not None else None)
        if state == "convert":
            return self._convert(decision, backup)
        if state == "finish" and standing is not None:
            return self._finish(decision, backup, standing)
        return Result(decision=decision, state=_ENDED[state], reason=reason)

    def _convert(self, decision: Decision, backup: Backup) -> Result:
        record = backup.whole()
        self._reap(record.source)
        key = BackupKey(source=record.source, backup_id=record.backup_id, idempotency_key=record.idempotency_key)
        with Attempt(self._target, key, progress=self._progress) as attempt:
            made, read, documents = self._made(backup, attempt)
        if made.whole().attempt != attempt.name:
            return self._done(decision)  # another run was faster
        self._tell_converted(backup, made, documents)
        if backup.trust != "failed":
            self._put_down(made, bytes_read=read, problem="")
        self._carry_late(backup, made)
        blobs = made.whole().blobs
        new_bytes = blobs.new_bytes if blobs is not None else made.whole().stored_size_bytes
        return Result(decision=decision, state="converted", new_bytes=new_bytes)

    def _made(self, backup: Backup, attempt: Attempt) -> tuple[Backup, int, tuple[str, ...]]:
        """Return the backup that stands in the target now, how many bytes were read back, and what came with it."""
        transfer = Transfer(
            self._source,
            backup,
            attempt=attempt,
            tuning=self._request.tuning,
            compression=self._request.compression,
            throttle=self._throttle,
            progress=self._progress,
        )
        with transfer.placed() as placed:
            file = None
            if backup.whole().container is not None:
                file = attempt.document("container", container_bytes(self._source, backup))
            record = converted_record(
                backup.whole(),
                placed,
                source=self._source,
                target=self._target,
                attempt=attempt.name,
                configuration_file=file,
            )
            written = Backup(path=backup.path, backup_id=backup.backup_id, source=backup.source, record=record)
            read = self._read_back(written)
            # Before the record, so that it is held and counts for what it did from its first moment in the catalog.
            documents = carry_documents(self._source, self._target, backup, failures=True)
            record = record.model_copy(update={"committed_at": self._target.clock.now()})
            return attempt.commit(record), read, documents

    def _read_back(self, written: Backup) -> int:
        """Return how many bytes were read and compared; what is bad of a blob is put right for the next run."""
        try:
            return read_back(self._target, written, progress=self._progress)
        except BadBlobError as err:
            if err.digest:
                put_right(self._target, written.whole(), err.digest, trail=self.trail, progress=self._progress)
            raise

    def _finish(self, decision: Decision, backup: Backup, standing: Backup) -> Result:
        """Do what an earlier run was kept from, or what happened to the backup since."""
        proven = bool(standing.verifications)
        # Whoever was kept from reading it back may have been kept from telling of it.
        present = standing.sizes if proven else ()
        documents = carry_documents(self._source, self._target, backup, present=present)
        if documents or not proven:
            self._tell_converted(backup, standing, documents)
        problem = "" if proven else self._prove(standing)
        again = self._target.catalog.at(standing.path)
        if again is None or again.deleted:
            return Result(decision=decision, state="skipped", reason="it was deleted from the target")
        return Result(decision=decision, state="failed" if problem else "finished", reason=problem)

    def _prove(self, standing: Backup) -> str:
        """Read a backup of the target back, and put down how that went."""
        read, problem = 0, ""
        try:
            read = self._read_back(standing)
        except (IntegrityError, NotFoundError) as err:
            problem = str(err)
        self._put_down(standing, bytes_read=read, problem=problem)
        return problem

    def _put_down(self, made: Backup, *, bytes_read: int, problem: str) -> None:
        verification = Verification(
            backup_id=made.backup_id,
            level="digests",
            verified_at=self._target.clock.now(),
            verification="failed" if problem else "passed",
            bytes_read=bytes_read,
            problem=problem,
            actor=dict(self._request.actor),
        )
        put_down(verification, made, repository=self._target, trail=self.trail, progress=self._progress)

    def _carry_late(self, backup: Backup, made: Backup) -> None:
        """Copy what came to the backup in the source while it was converted."""
        again = self._source.catalog.at(backup.path)
        if again is None or not carried(again.sizes) - carried(backup.sizes):
            return
        documents = carry_documents(self._source, self._target, again, present=backup.sizes)
        self._tell_converted(again, made, documents)

    def _reap(self, source: Source) -> None:
        """Remove what dead runs left of a source, once."""
        if source not in self._reaped:
            self._reaped.add(source)
            reap(self._target, source)

    def _tell_converted(self, backup: Backup, made: Backup, documents: tuple[str, ...]) -> None:
        """Tell of one backup: which record of which repository it is, and what it is now."""
        before, now = backup.whole(), made.whole()
        about = {
            "backup_id": now.backup_id,
            "attempt": now.attempt,
            "from_record": sha256_of(self._source.storage.read(backup.path + RECORD_FILE)),
            "from_content_digest": before.content_digest,
            "content_digest": now.content_digest,
            "captured_at": utc_text(now.captured_at),
            "diff_ids": list(now.diff_ids),
            "size_bytes": now.size_bytes,
            "stored_size_bytes": now.stored_size_bytes,
            "documents": list(documents),
        }
        self._tell("backup.converted", "success", about, source=str(made.source))

    def _tell(self, type_: str, outcome: Outcome, about: Mapping[str, Any], *, source: str = "") -> None:
        origin = self._source.document
        subject = {
            "from_repository": origin.repository_id,
            "from_layout": origin.layout,
            "layout": self._target.document.layout,
            **about,
        }
        self.trail.tell(type_, progress=self._progress, outcome=outcome, source=source, subject=subject)

    def _summary(self) -> dict[str, Any]:
        """Return what the last event says: how many, and which not."""
        results = self._results.values()
        reasons = {
            state: {each.decision.backup_id: each.reason for each in results if each.state == state}
            for state in ("skipped", "failed")
        }
        return {
            **{state: sum(each.state == state for each in results) for state in ("converted", "finished", "already")},
            **reasons,
            "new_bytes": sum(each.new_bytes for each in results),
        }


def _in_order(planned: list[Decision]) -> Iterator[Decision]:
    """Yield what is to be done, then what could not be: another backup may have brought what it lacks."""
    yield from (each for each in planned if each.state != "failed")
    yield from (each for each in planned if each.state == "failed")
