# SPDX-License-Identifier: Apache-2.0
"""Bring a deleted backup back, as long as its bytes are in the repository or in its trash."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.gc.collect import gc_name, require_layers
from airflow_provider_dockerbackup.core.gc.documents import TRASH, TRASH_PATH
from airflow_provider_dockerbackup.core.gc.lease import Lease
from airflow_provider_dockerbackup.core.gc.pins import Pins
from airflow_provider_dockerbackup.core.layers.documents import MAPS_FOLDER, map_path
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.storage import Storage
from airflow_provider_dockerbackup.exceptions import ConflictError, NotFoundError

_AT_WORK_SECONDS: Final = 60.0


def undelete(repository: Repository, backup_id: str, *, actor: Mapping[str, str], progress: Progress) -> Backup:
    """Return a backup that was deleted and is in the catalog again.

    No garbage collection runs meanwhile; blobs come back before the ``deleted`` document goes.

    :param backup_id: whole id, or an unambiguous beginning.
    :raises ConfigurationError: when the layout is not ``layers``: elsewhere bytes go with the deletion.
    :raises NotFoundError: when no deleted backup has this id, or when bytes of it are gone for ever.
    :raises ConflictError: when somebody is deleting it right now, or collects garbage.
    :raises IntegrityError: when its record cannot be read.
    """
    require_layers(repository)
    clock = repository.clock
    name = gc_name(clock.now())
    lease = Lease(repository.storage, gc=name, actor=actor, clock=clock, progress=progress)
    with lease, Pins(repository, attempt=name, clock=clock, progress=progress) as pins:
        backup = _deleted(repository, backup_id)
        pins.protect(backup.whole().blob_sizes)
        here, there = _places(repository.storage, backup)
        trail = repository.trail(actor)
        subject = {"backup_id": backup.backup_id, "from_trash": len(there)}
        trail.record("backup.undeleted", outcome="intent", source=str(backup.source), subject=subject)
        for path in sorted(there, key=lambda each: each.startswith(f"{MAPS_FOLDER}/")):  # maps after what they name
            _put_back(repository.storage, there[path], path)
        _require_whole(repository.storage, backup, {*here, *there})
        for document in _deletions(backup):
            lease.require_there()
            repository.storage.delete(document)
        trail.tell("backup.undeleted", progress=progress, outcome="success", source=str(backup.source), subject=subject)
        return repository.catalog.find(backup.backup_id)


def _deleted(repository: Repository, backup_id: str) -> Backup:
    found = [each for each in repository.catalog.deleted() if backup_id and each.backup_id.startswith(backup_id)]
    if not found:
        backup = repository.catalog.find(backup_id)
        raise ConflictError(f"backup {backup.backup_id} of {backup.source} is not deleted")
    if len(found) > 1:
        names = ", ".join(each.backup_id for each in found[:5])
        raise ConflictError(f"backup id {backup_id!r} is not unique among the deleted: {names}; write more of it")
    backup = found[0]
    for path in _deletions(backup):
        # Whoever deletes here removes no bytes: only the order of the audit trail's events is at stake.
        if not repository.storage.is_abandoned(path, older_than_seconds=_AT_WORK_SECONDS):
            raise ConflictError(
                f"somebody is deleting backup {backup.backup_id} of {backup.source} ({path}); try again in a minute"
            )
    return backup


def _deletions(backup: Backup) -> tuple[str, ...]:
    return tuple(backup.path + name for name in sorted(backup.sizes) if name.startswith("deleted-"))


def _sizes(backup: Backup) -> dict[str, int]:
    """Return the size of everything that the backup needs, by path."""
    record = backup.whole()
    sizes = {blob_path(digest): size for digest, size in record.blob_sizes.items()}
    return sizes | {backup.path + name: size for name, size in record.files.items()}


def _places(storage: Storage, backup: Backup) -> tuple[set[str], dict[str, str]]:
    """Return what is where it belongs, and where the rest is in the trash.

    :raises NotFoundError: when something is in neither.
    """
    record = backup.whole()
    sizes = _sizes(backup)
    here = {path for path, size in sizes.items() if _size(storage, path) == size}
    maps = {map_path(each.diff_id) for each in (record.blobs.layers if record.blobs is not None else ())}
    there: dict[str, str] = {}
    for info in storage.list(TRASH):
        match = TRASH_PATH.fullmatch(info.path)
        if match is None or match["path"] in here:
            continue
        if match["path"] in maps or sizes.get(match["path"]) == info.size_bytes:
            there[match["path"]] = info.path
    lost = sorted(sizes.keys() - here - there.keys())
    if lost:
        raise NotFoundError(
            f"{len(lost)} of the {len(sizes)} objects of backup {backup.backup_id} of {backup.source} are gone for "
            f"ever ({lost[0]}…): garbage collection has purged them; it cannot be brought back"
        )
    return here, there


def _size(storage: Storage, path: str) -> int | None:
    try:
        return storage.stat(path).size_bytes
    except NotFoundError:
        return None


def _put_back(storage: Storage, where: str, path: str) -> None:
    with suppress(ConflictError):  # somebody stored it anew meanwhile; the copy in the trash ages on
        storage.move(where, to=path)


def _require_whole(storage: Storage, backup: Backup, paths: set[str]) -> None:
    """Look once more that everything is there with its size."""
    for path, size in _sizes(backup).items():
        if path in paths and _size(storage, path) != size:
            raise NotFoundError(
                f"{storage.url}/{path} is not there as the record of {backup.backup_id} says; it was not brought back"
            )
