# SPDX-License-Identifier: Apache-2.0
"""Holds: a backup is exempt from rotation until its holds end or are released, each with a reason and an author."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import compact_time, utc_text
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Hold, Release
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """How to hold a backup.

    :param reason: why, for people.
    :param until: when it ends by itself, aware; None for never.
    :param legal: whether only an explicit flag releases it.
    :param actor: who holds it.
    """

    reason: str
    until: datetime | None = None
    legal: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """How to release a backup.

    :param reason: why, for people.
    :param release_legal: also legal holds.
    :param actor: who releases it.
    """

    reason: str
    release_legal: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)


def hold_backup(repository: Repository, backup: Backup, request: HoldRequest, *, progress: Progress) -> Hold:
    """Hold a backup, and return the hold.

    :raises ConfigurationError: when there is no reason, or the end has passed.
    :raises ConflictError: when it was deleted meanwhile.
    """
    now = repository.clock.now()
    _require_reason(request.reason)
    if request.until is not None and request.until <= now:
        raise ConfigurationError(f"until: expected a time to come, got {utc_text(request.until)}")
    hold = Hold(
        backup_id=backup.backup_id,
        held_at=now,
        reason=request.reason,
        until=request.until,
        legal=request.legal,
        actor=dict(request.actor),
    )
    path = f"{backup.path}hold-{compact_time(now, fraction=True)}.json"
    repository.storage.create(path, hold.to_bytes())
    # A remover that does not know of the hold yet has written its document; who writes later must look.
    again = repository.catalog.at(backup.path)
    if again is None or again.deleted:
        raise ConflictError(f"{backup.backup_id} of {backup.source} was removed meanwhile; it is not held")
    repository.trail(request.actor).tell(
        "hold.set",
        progress=progress,
        outcome="success",
        source=str(backup.source),
        subject={
            "backup_id": backup.backup_id,
            "reason": request.reason,
            "until": utc_text(request.until) if request.until else None,
            "legal": request.legal,
            "document": path,
        },
    )
    return hold


def release_backup(
    repository: Repository, backup: Backup, request: ReleaseRequest, *, progress: Progress
) -> tuple[Hold, ...]:
    """Release the holds of a backup, and return them.

    The event of a legal hold's release stands before the release: without it nothing is released.

    :raises ConfigurationError: when there is no reason.
    :raises NotFoundError: when nothing holds it.
    :raises ConflictError: when a legal hold stands and its release was not asked for; nothing was released.
    """
    now = repository.clock.now()
    _require_reason(request.reason)
    standing = {name: hold for name, hold in backup.holds.items() if hold.stands(now)}
    if not standing:
        raise NotFoundError(f"{backup.backup_id} of {backup.source} is not held")
    legal = [hold for hold in standing.values() if hold.legal]
    if legal and not request.release_legal:
        raise ConflictError(
            f"{backup.backup_id} of {backup.source} has a legal hold ({legal[0].reason}); nothing was released. "
            "If that is over, say so: --legal"
        )
    path = f"{backup.path}release-{compact_time(now, fraction=True)}.json"
    subject = {
        "backup_id": backup.backup_id,
        "reason": request.reason,
        "holds": sorted(standing),
        "legal": bool(legal),
        "document": path,
    }
    trail = repository.trail(request.actor)
    if legal:
        trail.record("hold.released", outcome="intent", source=str(backup.source), subject=subject)
    release = Release(
        backup_id=backup.backup_id,
        released_at=now,
        holds=tuple(sorted(standing)),
        reason=request.reason,
        actor=dict(request.actor),
    )
    repository.storage.create(path, release.to_bytes())
    trail.tell("hold.released", progress=progress, outcome="success", source=str(backup.source), subject=subject)
    return tuple(standing.values())


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise ConfigurationError("reason: say why; it is kept with the backup and in the audit trail")
