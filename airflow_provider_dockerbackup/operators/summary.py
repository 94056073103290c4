# SPDX-License-Identifier: Apache-2.0
"""What operators return: small, without secrets, fit for XCom and for ``expand``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.capture import BackupOutcome


class BackupSummary(TypedDict):
    """What a save or export did.

    ``status`` is ``committed``, ``unchanged`` or ``already``; ``content_digest`` stands for all bytes; sizes are bytes;
    ``audit_head`` is the digest of the newest audit event of this try.
    """

    backup_id: str
    status: str
    host: str
    kind: str
    source: str
    repository: str
    path: str
    content_digest: str
    diff_ids: list[str]
    size_bytes: int
    stored_size_bytes: int
    trust: str
    not_covered: list[str]
    audit_head: str | None


class VerificationSummary(TypedDict):
    """What a verification found.

    ``restore_seconds`` is None at level ``digests``; ``passed_by`` is ``probe``, ``healthcheck`` or ``uptime`` at level
    ``run`` and None at others.
    """

    backup_id: str
    backup_source: str
    level: str
    verification: str
    cleanup: str
    restore_seconds: float | None
    passed_by: str | None
    bytes_read: int
    trust: str
    audit_head: str | None


class RotateSummary(TypedDict):
    """What a rotation did, or in a dry run would do.

    ``removed_ids`` are the first hundred; ``blocked`` names sources that an unreadable record blocks; sizes are bytes.
    """

    repository: str
    kept: int
    removed: int
    removed_ids: list[str]
    kept_after_all: list[str]
    blocked: list[str]
    freed_bytes: int
    reaped: int
    dry_run: bool
    audit_head: str | None


class CopySummary(TypedDict):
    """What a copy did, or in a dry run would do; numbers of backups and bytes.

    ``copied`` came now, ``finished`` were there and got what was missing beside their records, ``already`` were there,
    ``skipped`` were deleted or put aside. ``copied_ids`` are the first hundred.
    """

    repository: str
    target_repository: str
    copied: int
    copied_ids: list[str]
    finished: int
    already: int
    skipped: int
    new_bytes: int
    dry_run: bool
    audit_head: str | None


class GarbageSummary(TypedDict):
    """What a garbage collection did, or in a dry run found; numbers of blobs and bytes.

    ``garbage`` is what it found, ``trashed`` what it moved to the trash ``trash/<gc>``, ``returned`` what came back
    from there because a backup needs it, ``missing`` what backups need and is nowhere, ``purged`` what left the trash
    for ever.
    """

    repository: str
    gc: str
    backups: int
    blobs: int
    garbage: int
    garbage_bytes: int
    trashed: int
    trashed_bytes: int
    returned: int
    missing: int
    purged: int
    purged_bytes: int
    dry_run: bool
    audit_head: str | None


class CheckpointSummary(TypedDict):
    """The checkpoint that stands; ``made`` is False when there was nothing new. ``audit_head`` is its digest."""

    made: bool
    sequence: int
    events: int
    left_out: list[str]
    reconciled: int
    audit_head: str | None


class AuditSummary(TypedDict):
    """What a report found.

    ``controls`` maps names to ``pass``, ``fail`` or ``not applicable``; ``breaches`` and ``unprotected`` name the first
    hundred; ``report`` is the digest of the JSON.
    """

    repository: str
    controls: dict[str, str]
    sources: int
    breaches: list[str]
    unprotected: list[str]
    trail_intact: bool
    report: str
    audit_head: str | None


class StaleSource(TypedDict):
    """A source without a fresh backup: ``state`` is ``stale`` or, when no backup counts, ``missing``."""

    host: str
    kind: str
    source: str
    state: str
    age_seconds: float | None
    limit: str


class FreshnessSummary(TypedDict):
    """How many sources there are, and the first hundred without a fresh backup, stalest first."""

    repository: str
    sources: int
    stale: list[StaleSource]


class SampledBackup(TypedDict):
    """A backup chosen for a restore drill: ``reason`` is ``damaged``, ``newest``, ``oldest`` or ``random``."""

    backup_id: str
    host: str
    kind: str
    source: str
    reason: str
    level: str


class RestoreSummary(TypedDict):
    """What a restore did, or in a dry run would do."""

    backup_id: str
    backup_source: str
    host: str
    image_id: str
    tags: list[str]
    kept: dict[str, str]
    identical: bool
    seconds: float
    dry_run: bool
    notes: list[str]
    audit_head: str | None


class RollbackSummary(TypedDict):
    """What a rollback did, or in a dry run would do.

    ``step`` is None for the image as it was saved; ``kept`` is the name of what the tag stood for, empty for nothing;
    ``exact`` and ``guessed`` name configuration values at an earlier step; ``proven`` says where it was loaded first,
    ``passed_by`` how it ran in the test daemon.
    """

    backup_id: str
    backup_source: str
    host: str
    tag: str
    step: int | None
    image_id: str
    previous_id: str
    kept: str
    exact: list[str]
    guessed: list[str]
    proven: list[str]
    passed_by: str | None
    seconds: float
    dry_run: bool
    notes: list[str]
    audit_head: str | None


class ContainerSummary(TypedDict):
    """What the restore of a container did, or in a dry run would do; options and losses by name, never by value."""

    backup_id: str
    backup_source: str
    host: str
    name: str
    status: str
    container_id: str
    image: str
    kept: str
    options: list[str]
    not_carried_over: list[str]
    seconds: float
    dry_run: bool
    audit_head: str | None


class StopSummary(TypedDict):
    """What the stop of a container did, or in a dry run would do.

    ``status`` is ``stopped`` or ``already``; ``exit_code`` is None in a dry run that would stop it.
    """

    host: str
    container: str
    container_id: str
    status: str
    exit_code: int | None
    finished_at: str
    dry_run: bool
    audit_head: str | None


class RemoveSummary(TypedDict):
    """What was removed from a host, or in a dry run would be, and which backup covers it.

    ``status`` is ``removed``, ``untagged`` or ``already``; ``backup_source`` is ``host kind name`` of the backup.
    """

    host: str
    kind: str
    source: str
    status: str
    object_id: str
    backup_id: str
    backup_source: str
    trust: str
    volumes_left: list[str]
    dry_run: bool
    audit_head: str | None


def backup_summary(outcome: BackupOutcome, *, repository_url: str) -> BackupSummary:
    """Return the summary of a save or export."""
    record = outcome.backup.whole()
    return BackupSummary(
        backup_id=record.backup_id,
        status=outcome.status,
        host=record.source.host,
        kind=record.source.kind.value,
        source=record.source.name,
        repository=repository_url,
        path=outcome.backup.path,
        content_digest=record.content_digest,
        diff_ids=list(record.diff_ids),
        size_bytes=record.size_bytes,
        stored_size_bytes=record.stored_size_bytes,
        trust=outcome.backup.trust,
        not_covered=[mount.destination for mount in record.not_covered],
        audit_head=outcome.audit_head,
    )


def is_of_backup(summary: Mapping[str, Any]) -> bool:
    """Tell whether a summary, or what an asset event has of one, is a :class:`BackupSummary`.

    A removal names host, kind and source, too, and the backup that covers them; it has no digest of any content.
    """
    return {"backup_id", "host", "kind", "source", "content_digest"} <= summary.keys()
