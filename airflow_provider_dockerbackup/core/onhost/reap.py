# SPDX-License-Identifier: Apache-2.0
"""Remove what dead tries left in a host's folder: their jobs, and archives that no record names."""

from __future__ import annotations

from datetime import timedelta

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.onhost.place import scope_of, stem_of
from airflow_provider_dockerbackup.core.onhost.ports import FoundJob, HostArchives
from airflow_provider_dockerbackup.core.places import backup_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS, Repository
from airflow_provider_dockerbackup.exceptions import DockerBackupError

# How far back a source's backups tell of folders where its jobs may be left: a job is left for good after a day, so
# the first run that is more than a day later takes it, and a folder that is used no more has none soon.
_NEWEST = 10
_LOOKED_BACK_SECONDS = 2 * ABANDONED_AFTER_SECONDS


def reap_jobs(
    folder: str, key: BackupKey, *, archives: HostArchives, repository: Repository, progress: Progress
) -> tuple[str, ...]:
    """Remove the jobs of a source that nobody waits for any more, and return their names.

    Those of the same work go at once, also while they run: a task instance has one live try, and that is ours. Those of
    other work go once nothing of them has moved for a day. One that is over and that somebody has claimed is being
    committed, and goes when it is a day old, with its archive unless a record names that. The same is done in folders
    where the source's backups lay until lately; what hinders that is told, never raised.

    :param folder: where the source's next archive is to lie.
    """
    removed = _reaped(folder, key, archives=archives, repository=repository, progress=progress)
    for earlier in _earlier_folders(repository, key, folder):
        try:
            removed += _reaped(earlier, key, archives=archives, repository=repository, progress=progress)
        except DockerBackupError as err:
            progress.note(f"jobs that may be left in {earlier} on the host stay there: {err}")
    return tuple(removed)


def _earlier_folders(repository: Repository, key: BackupKey, folder: str) -> list[str]:
    """Return the other folders on the host that the source's newest backups name, and all of the last days."""
    folders: list[str] = []
    since = repository.clock.now() - timedelta(seconds=_LOOKED_BACK_SECONDS)
    for number, backup in enumerate(repository.catalog.by_run(key.source)):
        if backup.record is None:
            continue
        if number >= _NEWEST and backup.newest_run < since:
            break
        place = backup.record.archive.on_host if backup.record.archive is not None else None
        if place is not None and place.folder not in {folder, *folders}:
            folders.append(place.folder)
    return folders


def _reaped(
    folder: str, key: BackupKey, *, archives: HostArchives, repository: Repository, progress: Progress
) -> list[str]:
    removed = []
    for job in archives.jobs(folder, scope=scope_of(repository, key.source)):
        if job.claimed:
            gone = _finish_claimed(job, key, archives=archives, repository=repository)
        else:
            gone = _is_left(job, key) and archives.clear(job.place, unclaimed=True)
        if gone:
            progress.note(f"removed what try {job.place.attempt} of {job.place.backup_id} had left on the host")
            removed.append(job.place.name)
    return removed


def _is_left(job: FoundJob, key: BackupKey) -> bool:
    return job.place.backup_id == key.backup_id or (job.is_over and job.age_seconds > ABANDONED_AFTER_SECONDS)


def _finish_claimed(job: FoundJob, key: BackupKey, *, archives: HostArchives, repository: Repository) -> bool:
    """Clear away a job whose committer died; its archive stays if its record stands, or cannot be read."""
    if not job.is_over:
        return archives.clear(job.place)  # nobody commits what still runs: who claimed it was about to end it
    standing = repository.catalog.at(backup_path(key.source, job.place.backup_id))
    recorded = standing is not None and (standing.record is None or standing.record.attempt == job.place.attempt)
    if not recorded and job.age_seconds <= ABANDONED_AFTER_SECONDS:
        return False
    if not recorded:
        for compression in Compression:
            archives.delete(job.place.final_path(f"{stem_of(key.source)}-{job.place.attempt}.tar{compression.suffix}"))
    return archives.clear(job.place)
