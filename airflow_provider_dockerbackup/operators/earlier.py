# SPDX-License-Identifier: Apache-2.0
"""What an earlier try of the same work came to, as a later one returns it: read from the repository alone."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.attempt import BackupKey, winner_of
from airflow_provider_dockerbackup.core.capture import BackupOutcome, earlier_outcome
from airflow_provider_dockerbackup.exceptions import NotFoundError
from airflow_provider_dockerbackup.operators.summary import BackupSummary, backup_summary


def earlier_summary(
    key: BackupKey, *, repository: str, conn_id: str | None, confirmed: bool = False
) -> BackupSummary | None:
    """Return the backup that an earlier try committed; None for none.

    :param key: the work.
    :param repository: URL of the repository, which is not made.
    :param confirmed: take also one that an earlier try found unchanged.
    :raises ConflictError: when it was deleted since.
    :raises IntegrityError: when nobody can say what was committed.
    """
    from airflow_provider_dockerbackup.hooks.storage import existing_repository

    try:
        opened = existing_repository(repository, conn_id=conn_id)
    except NotFoundError:
        return None
    if confirmed:
        outcome = earlier_outcome(opened, key)
    else:
        standing = winner_of(opened, key)
        outcome = None if standing is None else BackupOutcome(status="already", backup=standing, audit_head=None)
    return None if outcome is None else backup_summary(outcome, repository_url=opened.storage.url)
