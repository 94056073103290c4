# SPDX-License-Identifier: Apache-2.0
"""What an audit report says, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from airflow_provider_dockerbackup.core.audit.proof import TrailProof
from airflow_provider_dockerbackup.core.freshness import Rpo
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.duration import Duration

Status = Literal["pass", "fail", "not applicable"]
Freshness = Literal["ok", "breach", "never verified"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """What the report measures by.

    :param period: how far back jobs, drills, deletions and overrides are looked at.
    :param rpo: how old the newest verified backup of a source may be.
    :param rto_minutes: how long a restore may take.
    :param min_retention_days: how old a backup must have been when it was deleted.
    :param max_interval: how far apart two points of a source may be in the period.
    """

    period: Duration = field(default_factory=lambda: Duration(days=7))
    rpo: Rpo = field(default_factory=Rpo)
    rto_minutes: float = 720.0
    min_retention_days: float = 35.0
    max_interval: Duration = field(default_factory=lambda: Duration(hours=36))


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveThing:
    """An image or container on a Docker host now.

    :param state: of a container, such as ``running`` or ``exited``; ``image`` for an image.
    :param image: of a container: the image it was created from, as it was named.
    """

    source: Source
    state: str
    image: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Whether a live thing is backed up.

    :param backup_id: newest backup of it, or of the image of a container; empty for none.
    :param how: ``itself``, ``its image`` or ``unprotected``.
    """

    thing: LiveThing
    backup_id: str
    how: Literal["itself", "its image", "unprotected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """The backups of one source.

    :param newest_point: last moment for which a backup is its state; None when no record is readable.
    :param newest_verified: the same, of verified backups.
    :param rpo: its limit, as text.
    :param held: how many of its backups are held.
    :param problems: ids of backups that are unreadable, incomplete or failed.
    """

    source: Source
    backups: int
    newest_backup_id: str
    newest_point: datetime | None
    newest_verified: datetime | None
    rpo: str
    freshness: Freshness
    held: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One event of the period that tells how a job ended."""

    time: datetime
    type: str
    outcome: str
    source: str
    backup_id: str
    who: str
    problem: str
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreDrill:
    """One verification that loaded a backup, or ran it."""

    time: datetime
    source: Source
    backup_id: str
    level: str
    result: str
    restore_seconds: float | None
    cleanup: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedBackup:
    """One backup that was deleted in the period.

    :param age_days: from its capture to its deletion; None when the event does not say.
    """

    time: datetime
    source: str
    backup_id: str
    how: str
    rules: tuple[str, ...]
    age_days: float | None
    who: str
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBackup:
    """One hold that stands."""

    source: Source
    backup_id: str
    hold: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Something that a person allowed against the rule."""

    time: datetime
    what: str
    source: str
    who: str
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control, evaluated.

    :param name: by AWS Backup Audit Manager.
    :param evidence: digests of events, backup ids, DAG runs: the first twenty.
    """

    name: str
    title: str
    status: Status
    detail: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole report.

    :param live_hosts: names of the Docker hosts whose live things were compared.
    """

    repository: str
    repository_id: str
    made_at: datetime
    since: datetime
    live_hosts: tuple[str, ...]
    controls: tuple[Control, ...]
    coverage: tuple[Coverage, ...]
    sources: tuple[SourceState, ...]
    jobs: tuple[Job, ...]
    drills: tuple[RestoreDrill, ...]
    deletions: tuple[DeletedBackup, ...]
    holds: tuple[HeldBackup, ...]
    overrides: tuple[Override, ...]
    trail: TrailProof

    def failed(self, names: tuple[str, ...]) -> tuple[Control, ...]:
        """Return the controls among these that failed; ``trail`` stands for the audit trail's integrity."""
        chosen = [each for each in self.controls if each.status == "fail" and each.name in names]
        if "trail" in names and not self.trail.intact:
            title = "Integrity of the audit trail"
            chosen.append(Control(name="trail", title=title, status="fail", detail=self.trail.problem))
        return tuple(chosen)
