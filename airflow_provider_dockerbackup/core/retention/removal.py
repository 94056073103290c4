# SPDX-License-Identifier: Apache-2.0
"""Remove backups from a repository so that a death at any moment, or a second run, harms nothing.

The order is law: intent event, ``deleted`` document, confirmations and holds listed once more, bytes, outcome event.
The document is held open until the end, so others can tell a remover at work from a dead one; what a dead one left, or
what lies on a Docker host out of reach, is finished by the next run. A confirmation or hold that came before the
document and was not known takes it back: both sides look again after they wrote, so of a remover and a confirmer at
once at least one sees the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_dockerbackup.core.archive_bytes import archive_size, delete_on_host
from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import compact_time
from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS, Repository
from airflow_provider_dockerbackup.core.since import Deletion
from airflow_provider_dockerbackup.exceptions import (
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
    problem_of,
)

CLOCK_TOLERANCE_SECONDS = 300.0
# Longer than this nobody waits between the document and the bytes; a suspended process must not go on.
_LONGEST_SECONDS = 3600.0
_KEEPING = ("confirmed-", "hold-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What became of one removal.

    :param gone: False when it was taken back because of a confirmation or a hold.
    :param freed_bytes: what its files took; nothing yet of an archive on a host that could not be reached.
    """

    backup: Backup
    gone: bool
    freed_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnHost:
    """What became of the part of a backup that lies on a Docker host; gone when there was none."""

    gone: bool
    freed_bytes: int
    problem: str = ""


class Remover:
    """Removes backups, one at a time.

    :param repository: where from.
    :param trail: the events of this try; nothing is removed that it cannot take the intent of.
    :param actor: who removes: DAG run or user, and software versions.
    :param progress: the reader.
    """

    def __init__(self, repository: Repository, trail: Trail, *, actor: Mapping[str, str], progress: Progress) -> None:
        self._repository = repository
        self._storage = repository.storage
        self._trail = trail
        self._actor = dict(actor)
        self._progress = progress

    def require_clock(self) -> None:
        """Refuse to go on when our clock and the storage's differ; the newest event of this try tells the storage's.

        :raises ConflictError: with both times.
        """
        ours, theirs = self._repository.clock.now(), self._storage.stat(self._trail.head_path).modified
        if abs((ours - theirs).total_seconds()) > CLOCK_TOLERANCE_SECONDS:
            raise ConflictError(
                f"this machine's clock says {ours:%Y-%m-%d %H:%M:%S} UTC, that of {self._storage.url} "
                f"{theirs:%Y-%m-%d %H:%M:%S}; nothing was removed. Set the clock right: ages are counted by it"
            )

    def remove(self, backup: Backup, *, how: Literal["rotated", "forgotten"], rules: tuple[str, ...]) -> Removed:
        """Remove one backup.

        :param rules: why it goes.
        :raises DockerBackupError: when the trail or the storage does not take what must be written first; the backup
            stands. When bytes could not be removed it is out of the catalog, and the next run finishes it.
        """
        about: dict[str, Any] = {"backup_id": backup.backup_id, "how": how, "rules": list(rules)}
        intent = self._intend(backup, about)
        began = self._repository.clock.monotonic()
        now = self._repository.clock.now()
        deletion = Deletion(
            backup_id=backup.backup_id,
            deleted_at=now,
            how=how,
            rules=rules,
            intent=intent,
            seen=tuple(sorted(name for name in backup.sizes if name.startswith(_KEEPING))),
            actor=self._actor,
        )
        path = f"{backup.path}deleted-{compact_time(now, fraction=True)}.json"
        writer = self._storage.writer(path)
        try:
            try:
                writer.write(deletion.to_bytes())
                writer.commit()
                if self._newcomers(backup, path, deletion):
                    self._storage.delete(path)
                    return self._withdrawn(backup, about)
                self._require_awake(backup, began)
                left = self._delete_on_host(backup)
                freed = self._delete_bytes(backup) + left.freed_bytes if left.gone else 0
            except BaseException as err:
                self._tell("backup.deleted", "failure", backup, {**about, "problem": problem_of(err)})
                raise
            done = {**about, **_digests(backup), "freed_bytes": freed, "document": path}
            self._tell_removed(backup, done, left)
        finally:
            writer.close()
        return Removed(backup=backup, gone=True, freed_bytes=freed)

    def finish(self) -> tuple[Removed, ...]:
        """Finish, or take back, the removals that dead processes left half done, and return them."""
        done = []
        for backup in self._repository.catalog.unfinished_deletions():
            found = self._finish_one(backup)
            if found is not None:
                done.append(found)
        return tuple(done)

    def _finish_one(self, backup: Backup) -> Removed | None:
        documents = [info for info in self._infos(backup) if _name(info).startswith("deleted-")]
        try:
            if not documents or not all(self._is_abandoned(each.path) for each in documents):
                return None
            read = [(each, self._deletion(each)) for each in documents]
        except (IntegrityError, NotFoundError) as err:
            self._progress.note(f"the removal of {backup.backup_id} is left alone: {err}")
            return None
        newcomers = any(self._newcomers(backup, each.path, deletion) for each, deletion in read)
        if backup.record is not None and backup.record.blobs is not None and not newcomers:
            return None  # its bytes are garbage collection's
        about: dict[str, Any] = {
            "backup_id": backup.backup_id,
            "how": read[0][1].how,
            "rules": list(read[0][1].rules),
            "begun_by": read[0][1].intent,
        }
        taken_back = newcomers and backup.record is not None and backup.complete
        if not taken_back and not self._is_within_reach(backup):
            return None
        self._intend(backup, about, parents=(read[0][1].intent,))
        if taken_back:
            for each, _ in read:
                self._storage.delete(each.path)
            return self._withdrawn(backup, about)
        return self._finish_bytes(backup, {**about, "document": documents[0].path})

    def _finish_bytes(self, backup: Backup, about: Mapping[str, Any]) -> Removed | None:
        left = self._delete_on_host(backup)
        freed = self._delete_bytes(backup) + left.freed_bytes if left.gone else 0
        self._tell_removed(backup, {**about, "freed_bytes": freed}, left)
        if not left.gone:
            return None
        self._progress.note(f"finished the removal of {backup.backup_id} of {backup.source} that was interrupted")
        return Removed(backup=backup, gone=True, freed_bytes=freed)

    def _is_within_reach(self, backup: Backup) -> bool:
        """Tell whether an archive that lies on a host could be removed there now; a note says why not."""
        if backup.record is None or backup.record.path_on_host is None:
            return True
        try:
            archive_size(self._repository, backup)
        except NotFoundError:
            return True
        except DockerBackupError as err:
            self._progress.note(
                f"{backup.backup_id} of {backup.source} is deleted, its bytes stay on the host until a rotation can "
                f"reach it: {err}"
            )
            return False
        return True

    def _delete_on_host(self, backup: Backup) -> _OnHost:
        """Remove an archive that lies on a host; a host out of reach is no reason to leave anything else undone."""
        try:
            return _OnHost(gone=True, freed_bytes=delete_on_host(self._repository, backup))
        except DockerBackupError as err:
            self._progress.note(f"the next rotation removes the bytes of {backup.backup_id} from its host: {err}")
            return _OnHost(gone=False, freed_bytes=0, problem=str(err))

    def _tell_removed(self, backup: Backup, about: Mapping[str, Any], left: _OnHost) -> None:
        if left.gone:
            self._tell("backup.deleted", "success", backup, about)
        else:
            self._tell("backup.deleted", "failure", backup, {**about, "problem": left.problem})

    def _intend(self, backup: Backup, about: Mapping[str, Any], *, parents: tuple[str, ...] = ()) -> str:
        try:
            return self._trail.record(
                "backup.deleted", outcome="intent", source=str(backup.source), subject=about, parents=parents
            )
        except DockerBackupError as err:
            raise type(err)(
                f"{backup.backup_id} of {backup.source} is not removed, for the audit trail does not take the intent: "
                f"{err}"
            ) from err

    def _require_awake(self, backup: Backup, began: float) -> None:
        """Refuse to delete bytes long after the last look."""
        if self._repository.clock.monotonic() - began > _LONGEST_SECONDS:
            raise ConflictError(
                f"the removal of {backup.backup_id} stood still for over an hour; the next run finishes it"
            )

    def _withdrawn(self, backup: Backup, about: Mapping[str, Any]) -> Removed:
        self._progress.note(f"{backup.backup_id} of {backup.source} stays: it was confirmed or held meanwhile")
        self._tell("backup.kept", "success", backup, about)
        return Removed(backup=backup, gone=False, freed_bytes=0)

    def _newcomers(self, backup: Backup, document: str, deletion: Deletion) -> bool:
        """Tell whether a confirmation or hold that nobody knew of came before the document."""
        infos = list(self._infos(backup))
        written = next((each.modified for each in infos if each.path == document), None)
        return any(
            _name(each).startswith(_KEEPING)
            and _name(each) not in deletion.seen
            and (written is None or each.modified <= written)
            for each in infos
        )

    def _infos(self, backup: Backup) -> Iterator[ObjectInfo]:
        return self._storage.list(backup.path.rstrip("/"))

    def _deletion(self, info: ObjectInfo) -> Deletion:
        return Deletion.from_bytes(self._storage.read(info.path), where=f"{self._storage.url}/{info.path}")

    def _is_abandoned(self, path: str) -> bool:
        return self._storage.is_abandoned(path, older_than_seconds=ABANDONED_AFTER_SECONDS)

    def _delete_bytes(self, backup: Backup) -> int:
        """Delete the files that the record names and no other, and return what they took.

        In layout ``layers`` all of them stay for garbage collection, which can still be undone.
        """
        record = backup.whole()
        if record.blobs is not None:
            return 0
        for name in record.files:
            self._storage.delete(backup.path + name)
        return sum(backup.sizes.get(name, 0) for name in record.files)

    def _tell(
        self, type_: str, outcome: Literal["success", "failure"], backup: Backup, about: Mapping[str, Any]
    ) -> None:
        self._trail.tell(
            type_, progress=self._progress, outcome=outcome, source=str(backup.source), subject=dict(about)
        )


def _digests(backup: Backup) -> dict[str, Any]:
    """Return what was removed, for the event."""
    record = backup.whole()
    return {
        "captured_at": record.model_dump(mode="json", include={"captured_at"})["captured_at"],
        "content_digest": record.content_digest,
        "trust": backup.trust,
    }


def _name(info: ObjectInfo) -> str:
    return info.path.rsplit("/", 1)[1]
