# SPDX-License-Identifier: Apache-2.0
"""What could not be read back is put right: else a bad blob, or a map to a wrong one, would become everybody's."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.document import compact_time
from airflow_provider_dockerbackup.core.layers.documents import LayerMap, map_path
from airflow_provider_dockerbackup.core.layers.store import digest_of, put_back, set_aside_path
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.record import BackupRecord, LayerBlob
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import DockerBackupError, NotFoundError


def put_right(repository: Repository, record: BackupRecord, digest: str, *, trail: Trail, progress: Progress) -> None:
    """See to it that the next backup fetches a layer again that could not be read back from its blob.

    A damaged blob is put aside. One that is as good as its name holds something else than the record says; the layer's
    map says the same, unless somebody was faster, and is removed.

    :param digest: of the blob.
    """
    if set_aside(repository, digest, trail=trail, progress=progress) is not None or record.blobs is None:
        return
    for layer in record.blobs.layers:
        if layer.digest == digest:
            _remove_map(repository, layer, trail=trail, progress=progress)


def _remove_map(repository: Repository, layer: LayerBlob, *, trail: Trail, progress: Progress) -> None:
    path = map_path(layer.diff_id)
    where = f"{repository.storage.url}/{path}"
    try:
        if LayerMap.from_bytes(repository.storage.read(path), where=where).blob != layer:
            return
        repository.storage.delete(path)
    except NotFoundError:
        return
    except DockerBackupError as err:
        progress.note(f"WARNING: {where} names a wrong blob, and stays: {err}")
        return
    subject = {"diff_id": layer.diff_id, "digest": layer.digest}
    trail.tell("layer_map.removed", progress=progress, outcome="success", subject=subject)
    progress.note(f"{where} was removed, its blob does not hold that layer; the next backup fetches it again")


def set_aside(repository: Repository, digest: str, *, trail: Trail, progress: Progress) -> str | None:
    """Move a blob to ``quarantine/`` if its bytes, read once more, are not those of its name; return where it is now.

    Every backup that needs it counts as incomplete until a later one stores it again. Nothing is moved that the trail
    does not take the intent of.

    :returns: None when the blob is what its name says, or is gone, or could not be moved; the reader is told.
    """
    try:
        if digest_of(repository.storage, blob_path(digest)) == digest:
            return None
        to = set_aside_path(digest, at=compact_time(repository.clock.now(), fraction=True))
        trail.record("blob.quarantined", outcome="intent", subject={"digest": digest, "to": to})
        repository.storage.move(blob_path(digest), to=to)
        if put_back(repository.storage, to, digest):
            problem = "another try had stored it anew meanwhile; it was moved back"
            subject = {"digest": digest, "to": to, "problem": problem}
            trail.tell("blob.quarantined", progress=progress, outcome="failure", subject=subject)
            return None
    except NotFoundError:
        return None
    except DockerBackupError as err:
        progress.note(f"WARNING: the damaged blob {digest} stays where it is: {err}")
        return None
    trail.tell("blob.quarantined", progress=progress, outcome="success", subject={"digest": digest, "to": to})
    progress.note(f"the damaged blob {digest} was moved to {to}; the next backup that needs it fetches it again")
    return to
