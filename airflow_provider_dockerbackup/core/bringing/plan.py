# SPDX-License-Identifier: Apache-2.0
"""Decide what becomes of each backup that is brought into another repository, from what stands in both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.places import source_from_path
from airflow_provider_dockerbackup.core.record import BackupRecord, Source
from airflow_provider_dockerbackup.core.repository import Repository

Todo = Literal["convert", "copy"]
State = Literal["convert", "copy", "finish", "already", "skipped", "failed"]
# How often a backup's bytes are read: one that is brought is read from both repositories.
_READS: Final[dict[str, int]] = {"convert": 2, "copy": 2, "finish": 1}

CONFIRMED = "confirmed-"
CARRIED = (CONFIRMED, "hold-", "release-")
"""How the names of documents begin that go with a backup: its points, and what exempts it from rotation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What makes a backup the same backup in every layout."""

    idempotency_key: str
    captured_at: datetime
    config_digest: str
    diff_ids: tuple[str, ...]

    @classmethod
    def of(cls, record: BackupRecord) -> Identity:
        """Return that of a record."""
        return cls(
            idempotency_key=record.idempotency_key,
            captured_at=record.captured_at,
            config_digest=record.image.config_digest if record.image is not None else "",
            diff_ids=record.diff_ids,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What must be known of a backup that the target has under the same id.

    :param aside: whether it is out of the catalog, and why.
    :param identity: None when its record is unreadable; ``problem`` then says why.
    :param documents: names of what the target has of :data:`CARRIED`.
    :param whole: whether all that its record names is there with its size.
    :param proven: whether somebody read all of it back, or said that it is bad.
    :param failed: whether the last who did found it bad.
    :param copied: whether it came there by a copy.
    """

    aside: Literal["", "deleted", "quarantined"] = ""
    identity: Identity | None = None
    problem: str = ""
    documents: frozenset[str] = frozenset()
    whole: bool = False
    proven: bool = False
    failed: bool = False
    copied: bool = False

    @classmethod
    def of(cls, backup: Backup) -> Standing:
        """Return that of a backup, in the catalog or not."""
        if backup.deleted or backup.quarantined:
            return cls(aside="deleted" if backup.deleted else "quarantined")
        if backup.record is None:
            return cls(problem=backup.problem)
        return cls(
            identity=Identity.of(backup.record),
            documents=carried(backup.sizes),
            whole=backup.complete,
            proven=bool(backup.verifications),
            failed=backup.trust == "failed",
            copied=backup.record.copied_from is not None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one backup of the source.

    :param path: its folder, the same in both repositories.
    :param state: ``convert`` or ``copy``; ``finish`` when its record is in the target and something after it is not;
        ``already`` when nothing is left to do; ``skipped`` when somebody decided that it is no backup; ``failed`` when
        it should be one and cannot be.
    :param reason: why, where it is skipped or failed.
    :param size_bytes: of the uncompressed archive; 0 when it is not known.
    :param source_bytes: how many are read from the source for it, about; 0 when it is not known.
    :param captured_at: None when it is not known.
    """

    path: str
    backup_id: str
    source: Source
    state: State
    reason: str = ""
    size_bytes: int = 0
    source_bytes: int = 0
    captured_at: datetime | None = None

    @property
    def bytes_to_read(self) -> int:
        """What will be read for it in both repositories, about."""
        return _READS.get(self.state, 0) * self.source_bytes


def carried(names: Iterable[str], *, confirmations: bool = True) -> frozenset[str]:
    """Return which of the files in a backup's folder go with it.

    :param confirmations: whether those do; see :func:`takes_confirmations`.
    """
    left_out = () if confirmations else CONFIRMED
    return frozenset(name for name in names if name.startswith(CARRIED) and not name.startswith(left_out))


def takes_confirmations(standing: Standing, *, todo: Todo) -> bool:
    """Tell whether confirmations of the source go to what the target has.

    Not by a copy to a backup that was made in the target: its points, and the policy in them, are what was found there,
    and would not be told from what another repository's writers say.
    """
    return todo == "convert" or standing.copied


def decide(backup: Backup, standing: Standing | None, *, todo: Todo = "convert") -> tuple[State, str]:
    """Return what becomes of a backup, and why where that is not plain.

    :param backup: of the source.
    :param standing: what the target has under its id.
    :param todo: what is done with one that is to be brought. A conversion also reads back what it finds that nobody has
        read; a copy leaves that to verifications.
    """
    if backup.deleted or backup.quarantined:
        return "skipped", _aside("deleted" if backup.deleted else "quarantined", "the source")
    if backup.record is None:
        return "failed", f"its record is unreadable: {backup.problem}; repair it, or 'dockerbackup quarantine' it"
    if standing is None:
        if backup.complete:
            return todo, ""
        return "failed", "files or blobs that its record names are missing or have another size"
    return _decide_standing(backup, backup.record, standing, todo=todo)


def _decide_standing(backup: Backup, record: BackupRecord, standing: Standing, *, todo: Todo) -> tuple[State, str]:
    if standing.aside:
        return "skipped", _aside(standing.aside, "the target")
    if problem := _problem(backup, record, standing):
        return "failed", problem
    wanted = carried(backup.sizes, confirmations=takes_confirmations(standing, todo=todo))
    if (todo == "convert" and not standing.proven) or wanted - standing.documents:
        return "finish", ""
    return "already", ""


def _problem(backup: Backup, record: BackupRecord, standing: Standing) -> str:
    """Return why what stands in the target is not the backup, whole; nothing when it is."""
    if standing.identity is None:
        return f"its record in the target is unreadable: {standing.problem}"
    if standing.identity != Identity.of(record):
        return "the target has another backup under its id"
    if not standing.whole:
        return "files or blobs that its record in the target names are missing or have another size"
    if standing.failed and backup.trust != "failed":
        return "its last verification in the target failed; verify it there, or 'dockerbackup quarantine' it"
    return ""


def _aside(why: str, where: str) -> str:
    return f"it was deleted from {where}" if why == "deleted" else f"it is in quarantine in {where}"


def decisions(source: Repository, target: Repository | None) -> list[Decision]:
    """Return what becomes of each backup of a repository that is converted, the newest first; rows, not records.

    :param target: None when there is none yet.
    """
    standing = standings(target)
    found = [decision_of(backup, standing.get(backup.path), todo="convert") for backup in source.catalog.each()]
    for path, why in source.catalog.aside():
        found.append(
            Decision(
                path=path,
                backup_id=path.split("/")[3],
                source=source_from_path(path),
                state="skipped",
                reason=_aside(why, "the source"),
            )
        )
    return newest_first(found)


def standings(target: Repository | None) -> dict[str, Standing]:
    """Return what the target has, by the folders of backups.

    :param target: None when there is none yet.
    """
    return dict(_standing(target)) if target is not None else {}


def _standing(target: Repository) -> Iterator[tuple[str, Standing]]:
    for backup in target.catalog.each():
        yield backup.path, Standing.of(backup)
    for path, why in target.catalog.aside():
        yield path, Standing(aside=why)


def decision_of(backup: Backup, standing: Standing | None, *, todo: Todo) -> Decision:
    """Return what becomes of a backup of the source, all of whose archive is read; see :func:`decide`."""
    state, reason = decide(backup, standing, todo=todo)
    size_bytes = backup.record.size_bytes if backup.record is not None else 0
    return Decision(
        path=backup.path,
        backup_id=backup.backup_id,
        source=backup.source,
        state=state,
        reason=reason,
        size_bytes=size_bytes,
        source_bytes=size_bytes,
        captured_at=backup.record.captured_at if backup.record is not None else None,
    )


def newest_first(found: Iterable[Decision]) -> list[Decision]:
    """Return decisions in the order in which they are shown and carried out."""
    return sorted(found, key=_order, reverse=True)


def _order(decision: Decision) -> tuple[str, str]:
    captured = f"{decision.captured_at:%Y%m%dT%H%M%S.%f}" if decision.captured_at else decision.backup_id
    return captured, decision.path
