# SPDX-License-Identifier: Apache-2.0
"""One run that brings backups of a repository into another, as conversions and copies do.

The source is never changed. A backup keeps its id, so the record in the target is the note that says how far the work
is: run again after a death anywhere, it goes on with what is not there, and of several runs at once each backup is
committed by one. A backup that cannot be brought does not stop the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from airflow_provider_dockerbackup.core.attempt import Attempt, BackupKey, reap
from airflow_provider_dockerbackup.core.audit.event import Outcome
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.bringing.documents import carry_documents
from airflow_provider_dockerbackup.core.bringing.plan import (
    Decision,
    Standing,
    Todo,
    carried,
    decide,
    takes_confirmations,
)
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import sha256_of, utc_text
from airflow_provider_dockerbackup.core.layers.damage import put_right
from airflow_provider_dockerbackup.core.places import RECORD_FILE
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.record import BackupRecord, Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import (
    BadBlobError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    problem_of,
)

Ended = Literal["converted", "copied", "finished", "already", "skipped", "failed"]
_AT_REST: Final[dict[str, Ended]] = {"already": "already", "skipped": "skipped", "failed": "failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a kind of run is called, in results and in events of the audit trail.

    :param todo: of a backup that is to be brought.
    :param done: of one that was.
    :param brought: type of its event.
    """

    todo: Todo
    done: Ended
    brought: str
    started: str
    finished: str
    failed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A backup whose bytes are in the target, read back from there and compared, and not recorded yet.

    :param bytes_read: how many were read back.
    """

    record: BackupRecord
    bytes_read: int


class Way(Protocol):
    """How one backup comes into the target."""

    @property
    def words(self) -> Words:
        """What this is called."""

    def brought(self, backup: Backup, attempt: Attempt) -> AbstractContextManager[Brought]:
        """Write the backup's bytes, and keep what its record relies on until the end.

        :raises IntegrityError: when a byte is not the recorded one, in the source or in what was written.
        :raises NotFoundError: when bytes of the backup are gone.
        """

    def recorded(self, backup: Backup, made: Backup, brought: Brought) -> None:
        """Do what follows the record and its event."""

    def finish(self, standing: Backup) -> str:
        """Do what an earlier run was kept from, and return what is wrong with the backup in the target."""

    def is_proven(self, standing: Backup) -> bool:
        """Tell whether nothing of :meth:`finish` is left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one backup.

    :param state: ``converted`` or ``copied`` now; ``finished`` when an earlier run had committed it; ``already`` when
        nothing was left to do; ``skipped`` or ``failed`` for a reason.
    :param new_bytes: what was stored for it.
    """

    decision: Decision
    state: Ended
    reason: str = ""
    new_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What a run did, or would do.

    :param planned: what was to become of each backup, the newest first.
    :param results: what became of them, in the same order; empty in a dry run.
    :param audit_head: digest of the newest audit event in the target; None in a dry run.
    """

    planned: tuple[Decision, ...]
    results: tuple[Result, ...] = ()
    audit_head: str | None = None

    @property
    def failed(self) -> tuple[Result, ...]:
        """The backups that should be in the target and are not, or not whole; of a dry run, those that would fail."""
        if self.results:
            return tuple(each for each in self.results if each.state == "failed")
        foreseen = (each for each in self.planned if each.state == "failed")
        return tuple(Result(decision=each, state="failed", reason=each.reason) for each in foreseen)


@contextmanager
def bad_blobs_put_right(target: Repository, written: Backup, *, trail: Trail, progress: Progress) -> Iterator[None]:
    """Put right, for the next run, what the body finds to be bad of a blob when it reads ``written`` back."""
    try:
        yield
    except BadBlobError as err:
        if err.digest:
            put_right(target, written.whole(), err.digest, trail=trail, progress=progress)
        raise


class Run:
    """One run.

    :param way: how each backup comes.
    :param trail: of the target, for this try.
    """

    def __init__(self, way: Way, *, source: Repository, target: Repository, trail: Trail, progress: Progress) -> None:
        self._way = way
        self._words = way.words
        self._source = source
        self._target = target
        self._trail = trail
        self._progress = progress
        self._reaped: set[Source] = set()
        self._results: dict[str, Result] = {}

    def run(self, planned: list[Decision]) -> RunOutcome:
        """Bring what is to be brought, and tell the trail.

        :raises TransientError: when a storage failed; run it again, it goes on.
        """
        words = self._words
        self._tell(words.started, "intent", {"planned": dict(Counter(each.state for each in planned))})
        total = sum(each.bytes_to_read for each in planned)
        work = sum(each.bytes_to_read > 0 for each in planned)
        self._progress.start(f"{words.todo} {work} backups into {self._target.storage.url}", total)
        try:
            for each in _in_order(planned):
                self._results[each.path] = self._result(each)
        except BaseException as err:
            self._tell(words.failed, "failure", {**self._summary(), "problem": problem_of(err)})
            raise
        finally:
            self._progress.finish()
        if failed := [each for each in self._results.values() if each.state == "failed"]:
            problem = f"{len(failed)} backups could not be {words.done}"
            self._tell(words.failed, "failure", {**self._summary(), "problem": problem})
        else:
            self._tell(words.finished, "success", self._summary())
        results = tuple(self._results[each.path] for each in planned)
        return RunOutcome(planned=tuple(planned), results=results, audit_head=self._trail.head)

    def _result(self, decision: Decision) -> Result:
        """Return what became of one backup; what says nothing about any other is its own failure."""
        if decision.state in {"already", "skipped"}:
            return Result(decision=decision, state=_AT_REST[decision.state], reason=decision.reason)
        try:
            result = self._done(decision)
        except (IntegrityError, NotFoundError, ConflictError) as err:
            gone = self._gone(decision)
            result = Result(decision=decision, state="skipped" if gone else "failed", reason=gone or str(err))
        if result.state == "failed":
            self._progress.note(f"{decision.backup_id} of {decision.source} is not {self._words.done}: {result.reason}")
        return result

    def _gone(self, decision: Decision) -> str:
        """Return how a backup left the catalog of the source meanwhile; nothing when it is there."""
        again = self._source.catalog.at(decision.path)
        state, reason = decide(again, None) if again is not None else ("skipped", "it is gone from the source")
        return reason if state == "skipped" else ""

    def _done(self, decision: Decision) -> Result:
        """Look at both repositories anew, and do what is left to do."""
        backup = self._source.catalog.at(decision.path)
        if backup is None:
            return Result(decision=decision, state="skipped", reason="it is gone from the source")
        standing = self._target.catalog.at(decision.path)
        known = Standing.of(standing) if standing is not None else None
        state, reason = decide(backup, known, todo=self._words.todo)
        if state in _AT_REST:
            return Result(decision=decision, state=_AT_REST[state], reason=reason)
        return self._bring(decision, backup) if standing is None else self._finish(decision, backup, standing)

    def _bring(self, decision: Decision, backup: Backup) -> Result:
        record = backup.whole()
        self._reap(record.source)
        key = BackupKey(source=record.source, backup_id=record.backup_id, idempotency_key=record.idempotency_key)
        with (
            Attempt(self._target, key, progress=self._progress) as attempt,
            self._way.brought(backup, attempt) as brought,
        ):
            # Before the record, so that it is held and counts for what it did from its first moment in the catalog.
            documents = carry_documents(self._source, self._target, backup, failures=True)
            made = attempt.commit(brought.record.model_copy(update={"committed_at": self._target.clock.now()}))
        if made.whole().attempt != attempt.name:
            return self._done(decision)  # another run was faster
        self._tell_brought(backup, made, documents)
        self._way.recorded(backup, made, brought)
        self._carry_late(backup, made)
        blobs = made.whole().blobs
        new_bytes = blobs.new_bytes if blobs is not None else made.whole().stored_size_bytes
        return Result(decision=decision, state=self._words.done, new_bytes=new_bytes)

    def _finish(self, decision: Decision, backup: Backup, standing: Backup) -> Result:
        """Do what an earlier run was kept from, or what happened to the backup since."""
        proven = self._way.is_proven(standing)
        # Whoever was kept from proving it may have been kept from telling of it.
        present = standing.sizes if proven else ()
        confirmed = takes_confirmations(Standing.of(standing), todo=self._words.todo)
        documents = carry_documents(self._source, self._target, backup, present=present, confirmations=confirmed)
        if documents or not proven:
            self._tell_brought(backup, standing, documents)
        problem = "" if proven else self._way.finish(standing)
        again = self._target.catalog.at(standing.path)
        if again is None or again.deleted:
            return Result(decision=decision, state="skipped", reason="it was deleted from the target")
        return Result(decision=decision, state="failed" if problem else "finished", reason=problem)

    def _carry_late(self, backup: Backup, made: Backup) -> None:
        """Copy what came to the backup in the source while it was brought."""
        again = self._source.catalog.at(backup.path)
        if again is None or again.record is None or not carried(again.sizes) - carried(backup.sizes):
            return  # what cannot be read would make the copy unreadable as well; the next run names it
        documents = carry_documents(self._source, self._target, again, present=backup.sizes)
        self._tell_brought(again, made, documents)

    def _reap(self, source: Source) -> None:
        """Remove what dead runs left of a source, once."""
        if source not in self._reaped:
            self._reaped.add(source)
            reap(self._target, source)

    def _tell_brought(self, backup: Backup, made: Backup, documents: tuple[str, ...]) -> None:
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
        self._tell(self._words.brought, "success", about, source=str(made.source))

    def _tell(self, type_: str, outcome: Outcome, about: Mapping[str, Any], *, source: str = "") -> None:
        origin = self._source.document
        subject = {
            "from_repository": origin.repository_id,
            "from_layout": origin.layout,
            "layout": self._target.document.layout,
            **about,
        }
        self._trail.tell(type_, progress=self._progress, outcome=outcome, source=source, subject=subject)

    def _summary(self) -> dict[str, Any]:
        """Return what the last event says: how many, and which not."""
        results = self._results.values()
        reasons = {
            state: {each.decision.backup_id: each.reason for each in results if each.state == state}
            for state in ("skipped", "failed")
        }
        counted = (self._words.done, "finished", "already")
        return {
            **{state: sum(each.state == state for each in results) for state in counted},
            **reasons,
            "new_bytes": sum(each.new_bytes for each in results),
        }


def _in_order(planned: list[Decision]) -> Iterator[Decision]:
    """Yield what is to be done, then what could not be: another backup may have brought what it lacks."""
    yield from (each for each in planned if each.state != "failed")
    yield from (each for each in planned if each.state == "failed")
