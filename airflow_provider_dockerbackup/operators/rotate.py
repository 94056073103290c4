# SPDX-License-Identifier: Apache-2.0
"""Rotate the backups of a repository by a retention policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.retention.plan import COLUMNS
from airflow_provider_dockerbackup.core.retention.policy import RetentionPolicy
from airflow_provider_dockerbackup.core.retention.rotate import RotateRequest, rotate
from airflow_provider_dockerbackup.core.sizes import size_text
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, actor_of
from airflow_provider_dockerbackup.operators.rendered import columns, flag, share
from airflow_provider_dockerbackup.operators.summary import RotateSummary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.core.retention.rotate import RotateOutcome


class DockerBackupRotateOperator(DockerBackupBaseOperator):
    """Remove the backups that a retention policy does not keep, and say of each why it stays or goes.

    Held backups and the newest verified one of each source always stay; a source with an unreadable record is left
    alone. Removes also what dead tries left, and finishes what an interrupted rotation began.

    :param repository: URL of the repository. (templated)
    :param policy: fields of :class:`~airflow_provider_dockerbackup.core.retention.policy.RetentionPolicy`, such as
        ``{"keep_daily": 7, "keep_weekly": 5, "require_verified": True}``. (templated)
    :param hosts: shell patterns of Docker hosts, by their name in the repository. (templated)
    :param names: shell patterns of image references and container names. (templated)
    :param max_removed_share: a plan that removes more than this share of the backups it looks at is refused, 0 to 1.
        (templated)
    :param own_policies: whether a source's own policy, from its container's label ``dockerbackup.retention``, takes the
        place of ``policy``, which then only sets what it demands at least. (templated)
    :param plan_only: a dry run: plan, and write or remove nothing. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param archive_host_conn_ids: connections of the Docker hosts on which archives lie; None takes ``[dockerbackup]
        archive_host_conn_ids``. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.RotateSummary`.
    """

    template_fields: Sequence[str] = (
        "repository",
        "policy",
        "hosts",
        "names",
        "max_removed_share",
        "own_policies",
        "plan_only",
        "repository_conn_id",
        "archive_host_conn_ids",
    )

    metric = "rotation"

    def __init__(
        self,
        *,
        repository: str,
        policy: Mapping[str, Any],
        hosts: Sequence[str] = ("*",),
        names: Sequence[str] = ("*",),
        max_removed_share: float | str = 0.5,
        own_policies: bool | str = True,
        plan_only: bool | str = False,
        repository_conn_id: str | None = None,
        archive_host_conn_ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.policy = policy
        self.hosts = hosts
        self.names = names
        self.max_removed_share = max_removed_share
        self.own_policies = own_policies
        self.plan_only = plan_only
        self.repository_conn_id = repository_conn_id
        self.archive_host_conn_ids = archive_host_conn_ids

    def work(self, context: Context) -> RotateSummary:
        """Rotate."""
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        request = RotateRequest(
            policy=RetentionPolicy.of(self.policy),
            hosts=self.hosts,
            names=self.names,
            max_removed_share=share("max_removed_share", self.max_removed_share),
            own_policies=flag("own_policies", self.own_policies),
            dry_run=flag("plan_only", self.plan_only),
            actor=actor_of(context),
        )
        request.check()
        repository = existing_repository(
            self.repository, conn_id=self.repository_conn_id, archive_host_conn_ids=self.archive_host_conn_ids
        )
        outcome = rotate(repository, request, progress=self.progress)
        for line in columns(COLUMNS, outcome.plan.rows()):
            self.log.info("%s", line)
        for owner, text in outcome.plan.policies.items():
            self.log.info("%s has a policy of its own: %s", owner, text)
        summary = _summary(outcome, repository_url=repository.storage.url, dry_run=request.dry_run)
        self.log.info(
            "%d kept, %d %s, %s freed",
            summary["kept"],
            summary["removed"],
            "would be removed" if request.dry_run else "removed",
            size_text(summary["freed_bytes"]),
        )
        for source in summary["blocked"]:
            self.log.warning("%s is not rotated: something of it is unreadable, see the table", source)
        return summary


def _summary(outcome: RotateOutcome, *, repository_url: str, dry_run: bool) -> RotateSummary:
    removed = [each.backup_id for each in outcome.plan.removed] if dry_run else list(outcome.removed)
    return RotateSummary(
        repository=repository_url,
        kept=len(outcome.plan.kept),
        removed=len(removed),
        removed_ids=removed[:100],
        kept_after_all=list(outcome.kept_after_all)[:100],
        blocked=[str(source) for source in outcome.plan.blocked],
        freed_bytes=outcome.freed_bytes,
        reaped=len(outcome.reaped),
        dry_run=dry_run,
        audit_head=outcome.audit_head,
    )
