# SPDX-License-Identifier: Apache-2.0
"""Collect the garbage of a repository of layout ``layers``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.gc.collect import GcRequest, collect_garbage
from airflow_provider_dockerbackup.core.sizes import size_text
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, actor_of
from airflow_provider_dockerbackup.operators.rendered import flag, number
from airflow_provider_dockerbackup.operators.summary import GarbageSummary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.core.gc.collect import GcOutcome


class DockerBackupGarbageCollectOperator(DockerBackupBaseOperator):
    """Move blobs that no backup needs any more to the trash, and remove for ever what was there for long enough.

    One task for a repository; a second one at the same time is refused. Nothing is touched while a record cannot be
    read, when clocks differ, or on a storage that does not create atomically. Backups may be made meanwhile.

    :param repository: URL of the repository, of layout ``layers``. (templated)
    :param grace_hours: blobs younger than this stay, and those of backups deleted since, by the storage's own clock.
        (templated)
    :param trash_days: how long what was moved to the trash can be brought back. (templated)
    :param plan_only: a dry run: plan, and write, move or remove nothing. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.GarbageSummary`.
    """

    template_fields: Sequence[str] = ("repository", "grace_hours", "trash_days", "plan_only", "repository_conn_id")

    metric = "gc"

    def __init__(
        self,
        *,
        repository: str,
        grace_hours: float | str = 24.0,
        trash_days: float | str = 7.0,
        plan_only: bool | str = False,
        repository_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.grace_hours = grace_hours
        self.trash_days = trash_days
        self.plan_only = plan_only
        self.repository_conn_id = repository_conn_id

    def work(self, context: Context) -> GarbageSummary:
        """Collect."""
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        request = GcRequest(
            grace_hours=number("grace_hours", self.grace_hours),
            trash_days=number("trash_days", self.trash_days),
            dry_run=flag("plan_only", self.plan_only),
            actor=actor_of(context),
        )
        request.check()
        repository = existing_repository(self.repository, conn_id=self.repository_conn_id)
        outcome = collect_garbage(repository, request, progress=self.progress)
        summary = _summary(outcome, repository_url=repository.storage.url, dry_run=request.dry_run)
        self.log.info(
            "%d backups need %d of %d blobs; %d blobs (%s) %s to the trash, %s left it for ever",
            summary["backups"],
            summary["blobs"] - summary["garbage"],
            summary["blobs"],
            summary["garbage"] if request.dry_run else summary["trashed"],
            size_text(summary["garbage_bytes"] if request.dry_run else summary["trashed_bytes"]),
            "would go" if request.dry_run else "went",
            size_text(summary["purged_bytes"]),
        )
        return summary


def _summary(outcome: GcOutcome, *, repository_url: str, dry_run: bool) -> GarbageSummary:
    return GarbageSummary(
        repository=repository_url,
        gc=outcome.gc,
        backups=outcome.plan.backups,
        blobs=outcome.plan.blobs,
        garbage=len(outcome.plan.garbage),
        garbage_bytes=outcome.plan.garbage_bytes,
        trashed=outcome.done.trashed,
        trashed_bytes=outcome.done.trashed_bytes,
        returned=outcome.done.returned,
        missing=len(outcome.plan.missing),
        purged=outcome.done.purged,
        purged_bytes=outcome.done.purged_bytes,
        dry_run=dry_run,
        audit_head=outcome.audit_head,
    )
