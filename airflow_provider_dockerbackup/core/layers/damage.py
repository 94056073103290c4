# SPDX-License-Identifier: Apache-2.0
"""A damaged blob is put aside, so that the next backup fetches its layer again: it must not become everybody's."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.audit.trail import Trail
from airflow_provider_dockerbackup.core.catalog import blob_path
from airflow_provider_dockerbackup.core.document import compact_time
from airflow_provider_dockerbackup.core.layers.store import digest_of, set_aside_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import DockerBackupError, NotFoundError


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
    except NotFoundError:
        return None
    except DockerBackupError as err:
        progress.note(f"WARNING: the damaged blob {digest} stays where it is: {err}")
        return None
    trail.tell("blob.quarantined", progress=progress, outcome="success", subject={"digest": digest, "to": to})
    progress.note(f"the damaged blob {digest} was moved to {to}; the next backup that needs it fetches it again")
    return to
