# SPDX-License-Identifier: Apache-2.0
"""Forget a source that is gone for good: remove all of its backups, because a person said so and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.retention.removal import Remover
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, NotFoundError


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetRequest:
    """Which source to forget.

    :param reason: why, for the audit trail.
    :param dry_run: say what would be removed, and touch nothing.
    :param actor: who does it.
    """

    source: Source
    reason: str
    dry_run: bool = False
    actor: Mapping[str, str] = field(default_factory=dict)


def forget(repository: Repository, request: ForgetRequest, *, progress: Progress) -> tuple[Backup, ...]:
    """Remove all backups of a source, and return them.

    :raises ConfigurationError: when there is no reason.
    :raises NotFoundError: when it has no backups.
    :raises ConflictError: when a backup is held, or its record is unreadable, or clocks differ; nothing was removed.
    """
    if not request.reason.strip():
        raise ConfigurationError("reason: say why the source is gone for good; it is kept in the audit trail")
    backups = repository.catalog.backups(source=request.source)
    if not backups:
        raise NotFoundError(f"no backup of {request.source} in {repository.storage.url}; 'dockerbackup list' shows all")
    now = repository.clock.now()
    held = [each for each in backups if each.held(now)]
    if held:
        raise ConflictError(
            f"{request.source} is not forgotten: {held[0].backup_id} is {held[0].held(now)[0]}; release it first"
        )
    unreadable = [each for each in backups if each.record is None]
    if unreadable:
        raise ConflictError(
            f"{request.source} is not forgotten: the record of {unreadable[0].backup_id} is unreadable; "
            "repair or quarantine it first"
        )
    if request.dry_run:
        return tuple(backups)
    trail = repository.trail(request.actor)
    subject = {"reason": request.reason, "backups": [each.backup_id for each in backups]}
    trail.record("source.forgotten", outcome="intent", source=str(request.source), subject=subject)
    remover = Remover(repository, trail, actor=request.actor, progress=progress)
    remover.require_clock()
    removed = [remover.remove(each, how="forgotten", rules=(request.reason,)) for each in reversed(backups)]
    gone = tuple(each.backup for each in removed if each.gone)
    subject = {"reason": request.reason, "backups": [each.backup_id for each in gone]}
    trail.tell("source.forgotten", progress=progress, outcome="success", source=str(request.source), subject=subject)
    return gone
