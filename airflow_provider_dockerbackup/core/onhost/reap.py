# SPDX-License-Identifier: Apache-2.0
"""Remove what dead tries left in a host's folder: their jobs, and archives that no record names."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.onhost.place import scope_of, stem_of
from airflow_provider_dockerbackup.core.onhost.ports import FoundJob, HostArchives
from airflow_provider_dockerbackup.core.places import backup_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS, Repository


def reap_jobs(
    folder: str, key: BackupKey, *, archives: HostArchives, repository: Repository, progress: Progress
) -> tuple[str, ...]:
    """Remove the jobs of a source that nobody waits for any more, and return their names.

    Those of the same work go at once, also while they run: a task instance has one live try, and that is ours. Those of
    other work go once nothing of them has moved for a day. One that is over and that somebody has claimed is being
    committed, and goes when it is a day old, with its archive unless a record names that.
    """
    removed = []
    for job in archives.jobs(folder, scope=scope_of(repository, key.source)):
        if job.claimed:
            gone = _finish_claimed(job, key, archives=archives, repository=repository)
        else:
            gone = _is_left(job, key) and archives.clear(job.place, unclaimed=True)
        if gone:
            progress.note(f"removed what try {job.place.attempt} of {job.place.backup_id} had left on the host")
            removed.append(job.place.name)
    return tuple(removed)


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
