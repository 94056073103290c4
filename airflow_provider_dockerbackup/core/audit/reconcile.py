# SPDX-License-Identifier: Apache-2.0
"""Put right what a dead process left untold: a change without its outcome event gets one, marked as reconciled.

What is in the repository is the truth: a record, a verification, a hold, a deletion that no event tells of, and an
intent that no outcome follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from airflow_provider_dockerbackup.core.audit.event import CHECKPOINT, AuditEvent
from airflow_provider_dockerbackup.core.audit.reading import StoredEvent, stored_events
from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.core.places import BACKUP_ID, source_from_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS, Repository
from airflow_provider_dockerbackup.exceptions import IntegrityError

# Whoever wrote a document writes its event right after it.
_AT_WORK = timedelta(minutes=15)
_DOCUMENT = re.compile(r"(backup|verification-.*|confirmed-.*|hold-.*|release-.*|quarantined-.*|deleted-.*)\.json")
_TOLD_BY = {
    "backup": ("backup.committed", "backup.superseded", "backup.converted", "backup.copied"),
    "verification": ("verify.passed", "verify.failed"),
    "confirmed": ("backup.confirmed",),
    "hold": ("hold.set",),
    "release": ("hold.released",),
    "quarantined": ("quarantine.set",),
    "deleted": ("backup.deleted",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fact:
    """A document that stands in the repository."""

    path: str
    kind: str
    backup_id: str
    source: Source


def reconcile(
    repository: Repository, *, actor: Mapping[str, str], progress: Progress, since: date | None = None
) -> int:
    """Return how many changes had no outcome event; they have one now, of type ``reconciled``.

    :param since: look at events and documents of this day and later only; None for all.
    :raises TransientError: when the storage fails.
    """
    stored = [each for each in stored_events(repository.storage, keys={}, since=since) if each.event is not None]
    told = _told(each.event for each in stored if each.event is not None)
    done = 0
    for fact in _facts(repository, since):
        if not _is_told(fact, told):
            _reconcile_fact(repository, fact, actor, progress)
            done += 1
    for intent in _without_outcome(stored, repository.clock.now()):
        _reconcile_intent(repository, intent, actor, progress)
        done += 1
    return done


def _told(events: Iterable[AuditEvent]) -> set[tuple[str, str]]:
    """Return what events say: type and backup id, and the names of documents."""
    told = set()
    for event in events:
        about = event.object
        if event.outcome == "intent":
            continue
        told.add((event.type, str(about.get("backup_id", ""))))
        told.add(("document", str(about.get("document", ""))))
        told.update(("document", str(path)) for path in about.get("documents") or ())
    return told


def _is_told(fact: _Fact, told: set[tuple[str, str]]) -> bool:
    if ("document", fact.path) in told:
        return True
    # Of a backup there is one record and one deletion; of the others there may be many.
    return fact.kind in {"backup", "deleted", "confirmed"} and any(
        (type_, fact.backup_id) in told for type_ in _TOLD_BY[fact.kind]
    )


def _facts(repository: Repository, since: date | None) -> Iterator[_Fact]:
    """Yield the documents that have been there long enough for their events to follow."""
    storage = repository.storage
    latest = repository.clock.now() - _AT_WORK
    for info in storage.list("backups"):
        parts = info.path.split("/")
        match = _DOCUMENT.fullmatch(parts[-1])
        if (
            len(parts) != 5
            or match is None
            or not BACKUP_ID.fullmatch(parts[3])
            or not _is_between(info, since, latest)
        ):
            continue
        try:
            source = source_from_path(info.path)
        except IntegrityError:
            continue  # not a folder of ours
        kind = parts[-1].partition("-")[0].removesuffix(".json")
        yield _Fact(path=info.path, kind=kind, backup_id=parts[3], source=source)


def _is_between(info: ObjectInfo, since: date | None, latest: datetime) -> bool:
    return info.modified <= latest and (since is None or info.modified.date() >= since)


def _without_outcome(stored: list[StoredEvent], now: datetime) -> Iterator[StoredEvent]:
    """Yield intents of which nothing was heard any more, and whose writer is gone."""
    resolved = _resolved({each.digest: each.event for each in stored if each.event is not None})
    for each in stored:
        event = each.event
        if event is None or event.outcome != "intent" or each.digest in resolved:
            continue
        if (now - event.time).total_seconds() > ABANDONED_AFTER_SECONDS:
            yield each


def _resolved(events: Mapping[str, AuditEvent]) -> set[str]:
    """Return the intents that an outcome follows: the nearest before it of the same work, about the same backup."""
    resolved: set[str] = set()
    for event in events.values():
        if event.type == "reconciled":
            resolved.update(event.parents)
        elif event.outcome != "intent":
            parent = _intent_of(event, events)
            resolved.update([parent] if parent else [])
    return resolved


def _intent_of(event: AuditEvent, events: Mapping[str, AuditEvent]) -> str | None:
    pending = list(event.parents)
    seen: set[str] = set()
    while pending:
        digest = pending.pop()
        before = events.get(digest)
        if before is None or digest in seen or before.type == CHECKPOINT:
            continue
        seen.add(digest)
        if before.outcome == "intent" and _work(before) == _work(event):
            return digest
        pending.extend(before.parents)
    return None


def _work(event: AuditEvent) -> tuple[str, str]:
    """Return what an event is about: ``backup`` of ``backup.deleted``, and the backup id."""
    return event.type.partition(".")[0], str(event.object.get("backup_id", ""))


def _reconcile_fact(repository: Repository, fact: _Fact, actor: Mapping[str, str], progress: Progress) -> None:
    type_ = _TOLD_BY[fact.kind][0]
    progress.note(f"{fact.path} stands, but no event {type_} tells of it; it is told now")
    _write(
        repository,
        actor,
        source=str(fact.source),
        subject={"instead_of": type_, "backup_id": fact.backup_id, "document": fact.path},
    )


def _reconcile_intent(
    repository: Repository, intent: StoredEvent, actor: Mapping[str, str], progress: Progress
) -> None:
    event = intent.event
    if event is None:
        return
    progress.note(
        f"{event.type} of {event.time:%Y-%m-%d %H:%M} UTC ({event.source}) has no outcome; it was interrupted"
    )
    subject = {"intent": event.type, "state": "interrupted", "backup_id": event.object.get("backup_id", "")}
    _write(repository, actor, source=event.source, subject=subject, parents=(intent.digest,))


def _write(
    repository: Repository,
    actor: Mapping[str, str],
    *,
    source: str,
    subject: Mapping[str, Any],
    parents: tuple[str, ...] = (),
) -> None:
    repository.trail(actor).record("reconciled", outcome="success", source=source, subject=subject, parents=parents)
