# SPDX-License-Identifier: Apache-2.0
"""Find a source unchanged: its newest backup already holds it, whole, and gets a confirmation instead of a copy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from airflow_provider_dockerbackup.core.archive_bytes import require_on_host
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.identity import held_by
from airflow_provider_dockerbackup.core.model import ImageInspect
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.since import Confirmation
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError


def unchanged(
    repository: Repository,
    key: BackupKey,
    image: ImageInspect,
    *,
    actor: Mapping[str, str],
    retention: str | None = None,
) -> Backup | None:
    """Return the newest backup of the source when it holds exactly ``image``, now confirmed; else None.

    Only a backup whose bytes are there with the recorded size, that is not deleted (looked at again after the
    confirmation was written) and whose last verification did not fail counts.

    :param retention: the source's own policy as of now, see the record.
    """
    backup = repository.catalog.newest(key.source)
    if backup is None or not _holds(backup, image) or not _is_on_host(repository, backup):
        return None
    now = repository.clock.now()
    confirmation = Confirmation(
        backup_id=backup.backup_id,
        idempotency_key=key.idempotency_key,
        confirmed_at=now,
        image_id=image.id,
        retention=retention,
        actor=dict(actor),
    )
    # Named by the run, not by now: a run that is cleared and done again confirms once.
    run_time = key.backup_id.split("-", maxsplit=1)[0]
    name = f"confirmed-{run_time}-{key.idempotency_key[:16]}.json"
    with suppress(ConflictError):
        repository.storage.create(backup.path + name, confirmation.to_bytes())
    again = repository.catalog.at(backup.path)
    return again if again is not None and not (again.deleted or again.quarantined) and _holds(again, image) else None


def _is_on_host(repository: Repository, backup: Backup) -> bool:
    """Tell whether an archive that lies on a host is there; one that cannot be reached is not confirmed."""
    try:
        require_on_host(repository, backup)
    except DockerBackupError:
        return False
    return True


def _holds(backup: Backup, image: ImageInspect) -> bool:
    held = held_by(backup)
    return held is not None and held.is_of(image)
