# SPDX-License-Identifier: Apache-2.0
"""Make an audit report from the catalog, the audit trail, and what lives on the Docker hosts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from airflow_provider_dockerbackup.core.audit.event import AuditEvent
from airflow_provider_dockerbackup.core.audit.proof import Anchor, prove
from airflow_provider_dockerbackup.core.audit.reading import StoredEvent, stored_events
from airflow_provider_dockerbackup.core.audit.signature import PublicKeys
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.freshness import freshness_of
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.names import is_own_container
from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.report.controls import evaluate
from airflow_provider_dockerbackup.core.report.model import (
    Coverage,
    DeletedBackup,
    Freshness,
    HeldBackup,
    Job,
    LiveThing,
    Override,
    Report,
    ReportRequest,
    RestoreDrill,
    SourceState,
)
from airflow_provider_dockerbackup.core.repository import Repository

_JOBS = ("backup", "commit", "verify", "restore", "rollback", "remove", "stop", "rotate", "gc", "convert", "copy")
_ZONE = ZoneInfo("UTC")
_FRESHNESS: dict[str, Freshness] = {"ok": "ok", "stale": "breach", "missing": "never verified"}


def live_things(host: DockerHost) -> tuple[LiveThing, ...]:
    """Return every container of a host, in any state, and every image that has a name; temporary ones left out."""
    things = [
        LiveThing(
            source=Source(host=host.name, kind=SourceKind.CONTAINER, name=each.name), state=each.state, image=each.image
        )
        for each in host.list_containers()
        if not is_own_container(each.name)
    ]
    things += [
        LiveThing(source=Source(host=host.name, kind=SourceKind.IMAGE, name=each.reference), state="image")
        for each in host.list_images()
        if not each.reference.startswith(("sha256:", "dockerbackup-"))
    ]
    return tuple(things)


def build_report(
    repository: Repository,
    request: ReportRequest,
    *,
    live: Iterable[LiveThing] = (),
    live_hosts: Sequence[str] = (),
    keys: PublicKeys | None = None,
    anchors: Sequence[Anchor] = (),
) -> Report:
    """Return the report as of now; nothing is written.

    :param live: images and containers of Docker hosts.
    :param live_hosts: names of these hosts, also of those with nothing on them.
    :param keys: trusted public keys; None leaves signatures unchecked.
    :param anchors: digests of events that must be in the trail.
    """
    now = repository.clock.now()
    since = request.period.before(now, _ZONE)
    stored = list(stored_events(repository.storage, keys=keys or {}))
    events = [(each, each.event) for each in stored if each.event is not None]
    events.sort(key=lambda pair: (pair[1].time, pair[0].digest))
    recent = [(each, event) for each, event in events if event.time >= since]
    backups = repository.catalog.backups()
    sources = tuple(_sources(backups, request, now))
    coverage = tuple(_coverage(live, backups))
    drills = tuple(_drills([*backups, *repository.catalog.deleted()], since))
    deletions = tuple(_deletions(recent))
    controls = evaluate(
        request,
        coverage=coverage,
        live_hosts=live_hosts,
        sources=sources,
        backups=backups,
        drills=drills,
        deletions=deletions,
        policies=[(each.digest, event) for each, event in recent if event.type == "rotate.planned"],
        now=now,
        since=since,
    )
    return Report(
        repository=repository.storage.url,
        repository_id=repository.document.repository_id,
        made_at=now,
        since=since,
        live_hosts=tuple(live_hosts),
        controls=controls,
        coverage=coverage,
        sources=sources,
        jobs=tuple(_jobs(recent)),
        drills=drills,
        deletions=deletions,
        holds=tuple(_holds(backups, now)),
        overrides=tuple(_overrides(recent)),
        trail=prove(
            stored,
            keys_given=bool(keys),
            repository_id=repository.document.repository_id,
            anchors=anchors,
        ),
    )


def _sources(backups: Sequence[Backup], request: ReportRequest, now: datetime) -> Iterator[SourceState]:
    by_source: dict[Source, list[Backup]] = defaultdict(list)
    for backup in backups:
        by_source[backup.source].append(backup)
    for source in sorted(by_source, key=str):
        found = by_source[source]
        readable = [each for each in found if each.record is not None]
        newest = max(readable, key=lambda each: each.newest_point, default=None)
        fresh = freshness_of(source, found, rpo=request.rpo, now=now)
        yield SourceState(
            source=source,
            backups=len(found),
            newest_backup_id=newest.backup_id if newest else "",
            newest_point=newest.newest_point if newest else None,
            newest_verified=fresh.newest,
            rpo=str(fresh.limit),
            freshness=_FRESHNESS[fresh.state],
            held=sum(bool(each.held(now)) for each in found),
            problems=tuple(each.backup_id for each in found if _is_bad(each)),
        )


def _is_bad(backup: Backup) -> bool:
    return backup.record is None or not backup.complete or backup.trust == "failed"


def _coverage(live: Iterable[LiveThing], backups: Sequence[Backup]) -> Iterator[Coverage]:
    """Say of each live thing which backup is one of it: the newest that is readable, whole and did not fail."""
    newest: dict[Source, Backup] = {}
    for backup in backups:  # newest first
        if not _is_bad(backup):
            newest.setdefault(backup.source, backup)
    for thing in sorted(live, key=lambda each: str(each.source)):
        own = newest.get(thing.source)
        image = newest.get(Source(host=thing.source.host, kind=SourceKind.IMAGE, name=_tagged(thing.image)))
        if own is not None:
            yield Coverage(thing=thing, backup_id=own.backup_id, how="itself")
        elif image is not None:
            yield Coverage(thing=thing, backup_id=image.backup_id, how="its image")
        else:
            yield Coverage(thing=thing, backup_id="", how="unprotected")


def _tagged(image: str) -> str:
    return image if ":" in image.rsplit("/", 1)[-1] or not image else f"{image}:latest"


def _who(event: AuditEvent) -> str:
    actor = event.actor
    run = f"{actor['dag_id']} {actor.get('run_id', '')}" if actor.get("dag_id") else actor.get("user", "")
    return run.strip()


def _jobs(recent: Sequence[tuple[StoredEvent, AuditEvent]]) -> Iterator[Job]:
    for stored, event in recent:
        if event.type.partition(".")[0] in _JOBS and event.outcome != "intent" and event.type != "backup.deleted":
            yield Job(
                time=event.time,
                type=event.type,
                outcome=event.outcome,
                source=event.source,
                backup_id=str(event.object.get("backup_id", "")),
                who=_who(event),
                problem=str(event.object.get("problem", "")),
                event=stored.digest,
            )


def _drills(backups: Sequence[Backup], since: datetime) -> Iterator[RestoreDrill]:
    found = [
        RestoreDrill(
            time=each.verified_at,
            source=backup.source,
            backup_id=backup.backup_id,
            level=each.level,
            result=each.verification,
            restore_seconds=each.restore_seconds,
            cleanup=each.cleanup,
        )
        for backup in backups
        for each in backup.verifications
        if each.level != "digests" and each.verified_at >= since
    ]
    yield from sorted(found, key=lambda each: each.time)


def _deletions(recent: Sequence[tuple[StoredEvent, AuditEvent]]) -> Iterator[DeletedBackup]:
    for stored, event in recent:
        about = event.object
        told_late = event.type == "reconciled" and about.get("instead_of") == "backup.deleted"
        if event.outcome != "success" or not (event.type == "backup.deleted" or told_late):
            continue
        yield DeletedBackup(
            time=event.time,
            source=event.source,
            backup_id=str(about.get("backup_id", "")),
            how=str(about.get("how", "unknown")),
            rules=tuple(str(each) for each in about.get("rules", ())),
            age_days=_age_days(about.get("captured_at"), event.time),
            who=_who(event),
            event=stored.digest,
        )


def _age_days(captured_at: object, deleted_at: datetime) -> float | None:
    if not isinstance(captured_at, str):
        return None
    return round((deleted_at - datetime.fromisoformat(captured_at).astimezone(UTC)).total_seconds() / 86400, 2)


def _holds(backups: Sequence[Backup], now: datetime) -> Iterator[HeldBackup]:
    for backup in backups:
        for hold in backup.held(now):
            by = hold.actor.get("user") or hold.actor.get("dag_id", "")
            yield HeldBackup(source=backup.source, backup_id=backup.backup_id, hold=str(hold), by=by)


def _overrides(recent: Sequence[tuple[StoredEvent, AuditEvent]]) -> Iterator[Override]:
    unverified: set[tuple[str, str]] = set()
    for stored, event in recent:
        what = ""
        if event.type == "source.forgotten" and event.outcome == "success":
            what = f"all backups of a source were removed: {event.object.get('reason', '')}"
        elif event.type == "hold.released" and event.outcome == "success" and event.object.get("legal"):
            what = f"a legal hold was released: {event.object.get('reason', '')}"
        elif event.type.startswith("quarantine.") and event.outcome == "success":
            what = f"{event.type.partition('.')[2]} quarantine: {event.object.get('reason', '')}"
        elif event.type == "rotate.planned" and float(event.object.get("max_removed_share", 0)) == 1:
            what = "a rotation was allowed to remove any share of the backups"
        elif event.access.get("host_key_verified", "yes") in {"no", "false", "False"}:
            host = (event.access.get("address", ""), event.access.get("host_key", ""))
            if host not in unverified:  # once for each host and key: every event of it says so
                unverified.add(host)
                what = f"a host key was not verified: {host[0]} {host[1]}"
        if what:
            yield Override(time=event.time, what=what, source=event.source, who=_who(event), event=stored.digest)
