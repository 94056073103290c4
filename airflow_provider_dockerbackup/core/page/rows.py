# SPDX-License-Identifier: Apache-2.0
"""What the index keeps of backups, sources and audit events: enough for lists, and small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from airflow_provider_dockerbackup.core.catalog import Backup, Trust
from airflow_provider_dockerbackup.core.document import Part, UtcTime
from airflow_provider_dockerbackup.core.freshness import deciding
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.retention.plan import Candidate

Aside = Literal["", "deleted", "quarantined", "unfinished"]
TREND_LENGTH = 14


class KeptHold(Part):
    """A hold that was not released, as tables show it."""

    text: str
    until: UtcTime | None = None


class BackupRow(Part):
    """One folder of a backup.

    :param aside: why it is out of the catalog; ``unfinished`` when it has no record (yet). Then nothing else is known.
    :param files_whole: whether the files that the record names are there with their sizes.
    :param points: oldest first; none when the record is unreadable.
    :param told: the newest point at which the source's own retention policy was known, and that policy.
    :param copied: whether it was copied from another repository.
    :param size_bytes: of the uncompressed archive.
    :param verified_by: level and result of each verification, oldest first.
    """

    backup_id: str
    aside: Aside = ""
    problem: str = ""
    files_whole: bool = False
    points: tuple[UtcTime, ...] = ()
    trust: Trust = "none"
    holds: tuple[KeptHold, ...] = ()
    told: tuple[UtcTime, str] | None = None
    copied: bool = False
    capture: str = ""
    size_bytes: int = 0
    stored_size_bytes: int = 0
    folder_bytes: int = 0
    verified_by: tuple[tuple[str, str], ...] = ()

    @property
    def captured_at(self) -> datetime | None:
        """When it was taken; None when its record is unreadable."""
        return self.points[0] if self.points else None

    def candidate(self, source: Source, *, whole: bool, now: datetime) -> Candidate:
        """Return what planning a rotation must know of it.

        :param whole: whether its files and blobs are there with their sizes.
        """
        return Candidate(
            backup_id=self.backup_id,
            source=source,
            points=tuple(self.points),
            trust=self.trust,
            whole=whole,
            hold="; ".join(each.text for each in self.holds if each.until is None or now < each.until),
            size_bytes=self.folder_bytes,
            told=self.told,
            copied=self.copied,
        )


def row_of(backup: Backup) -> BackupRow:
    """Return what the index keeps of a backup in the catalog."""
    record, folder_bytes = backup.record, sum(backup.sizes.values())
    if record is None:
        return BackupRow(backup_id=backup.backup_id, problem=backup.problem, folder_bytes=folder_bytes)
    return BackupRow(
        backup_id=backup.backup_id,
        files_whole=all(backup.sizes.get(name) == size_bytes for name, size_bytes in record.files.items()),
        points=backup.points,
        trust=backup.trust,
        holds=tuple(KeptHold(text=str(hold), until=hold.until) for _, hold in sorted(backup.holds.items())),
        told=backup.told,
        copied=record.copied_from is not None,
        capture=record.capture,
        size_bytes=record.size_bytes,
        stored_size_bytes=record.stored_size_bytes,
        folder_bytes=folder_bytes,
        verified_by=tuple((each.level, each.verification) for each in backup.verifications),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedBackup:
    """One backup of the catalog in the index.

    :param whole: whether its files and blobs are there with their recorded sizes.
    """

    source: Source
    row: BackupRow
    whole: bool

    @property
    def newest_point(self) -> datetime | None:
        """The last moment for which it is the state of its source; None when its record is unreadable."""
        return self.row.points[-1] if self.row.points else None

    @property
    def damaged(self) -> bool:
        """Whether its record is unreadable, something of it is missing, or its last verification failed."""
        return not self.row.points or not self.whole or self.row.trust == "failed"


class SourceRow(Part):
    """What lists say of one source, from the time on when it was counted.

    :param backups: how many are in the catalog.
    :param leftovers: how many folders there are without a record, or in quarantine.
    :param newest_id: of the backup with the newest point.
    :param good: points of backups that are whole, were scanned and did not fail their last verification: the newest
        one, and those that were yet to come when it was counted.
    :param verified: the same of those that are whole and verified.
    :param held_until: of each backup with a hold that was not released, when the last of its holds ends by itself; None
        for never.
    :param stored_bytes: what the newest backups take, oldest first.
    """

    backups: int = 0
    leftovers: int = 0
    newest_id: str = ""
    newest_point: UtcTime | None = None
    good: tuple[UtcTime, ...] = ()
    verified: tuple[UtcTime, ...] = ()
    damaged: int = 0
    held_until: tuple[UtcTime | None, ...] = ()
    stored_bytes: tuple[int, ...] = ()

    def held(self, now: datetime) -> int:
        """Return how many backups a hold keeps now."""
        return sum(until is None or now < until for until in self.held_until)


def source_row(backups: Iterable[IndexedBackup], *, leftovers: int, now: datetime) -> SourceRow:
    """Return what lists say of a source with these backups, now and later.

    :param leftovers: folders of the source without a record, or in quarantine.
    """
    found = list(backups)
    dated = sorted(
        (each for each in found if each.row.points), key=lambda each: (each.row.points[-1], each.row.backup_id)
    )
    good = [each for each in dated if not each.damaged and each.row.trust != "unscanned"]
    by_capture = sorted(dated, key=lambda each: (each.row.points[0], each.row.backup_id))
    return SourceRow(
        backups=len(found),
        leftovers=leftovers,
        newest_id=dated[-1].row.backup_id if dated else "",
        newest_point=dated[-1].newest_point if dated else None,
        good=deciding((point for each in good for point in each.row.points), now=now),
        verified=deciding((point for e in good if e.row.trust == "verified" for point in e.row.points), now=now),
        damaged=sum(each.damaged for each in found),
        held_until=tuple(_last_end(each.row.holds) for each in found if each.row.holds),
        stored_bytes=tuple(each.row.stored_size_bytes for each in by_capture[-TREND_LENGTH:]),
    )


def _last_end(holds: Iterable[KeptHold]) -> datetime | None:
    ends = [each.until for each in holds]
    return None if None in ends else max(end for end in ends if end is not None)


class EventRow(Part):
    """What lists say of one audit event.

    :param who: the DAG run or user.
    """

    digest: str
    time: UtcTime
    type: str
    outcome: str
    source: str = ""
    backup_id: str = ""
    who: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPolicy:
    """The policy of a rotation that took place, from its event ``rotate.planned``.

    :param own_policies_apply: whether policies that sources have of their own counted in it.
    """

    time: datetime
    policy: Mapping[str, Any]
    hosts: tuple[str, ...]
    names: tuple[str, ...]
    own_policies_apply: bool = True

    def covers(self, source: Source) -> bool:
        """Tell whether that rotation looked at a source."""
        return source.is_like(hosts=self.hosts, names=self.names)
