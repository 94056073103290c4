# SPDX-License-Identifier: Apache-2.0
"""Restore a container onto a Docker host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.recreate import RecreateRequest, restore_container
from airflow_provider_dockerbackup.links.backup import BackupLink
from airflow_provider_dockerbackup.operators.base import DockerHostOperator, actor_of
from airflow_provider_dockerbackup.operators.reading import ReadsBackups
from airflow_provider_dockerbackup.operators.rendered import flag, whole_number
from airflow_provider_dockerbackup.operators.summary import ContainerSummary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.core.recreate import RecreateOutcome


class DockerContainerRestoreOperator(ReadsBackups, DockerHostOperator):
    """Make a container anew from its backup, start it and wait until it is healthy.

    Its filesystem comes back as the image ``dockerbackup-restored:<backup id>``; ports, mounts, network, limits,
    restart policy and the like come from what the backup kept of it. Data of volumes is not in a backup. A task that
    was killed is finished by its next try.

    :param backup_id: id of the backup, or an unambiguous beginning of it. (templated)
    :param repository: URL of the repository. (templated)
    :param name: name of the new container; None is the name it had. (templated)
    :param replace: stop a container that has the name and keep it as ``<name>-before-<backup id>``; when the new one
        does not get healthy, the old one is put back. (templated)
    :param network: network or network mode to use instead of its own. (templated)
    :param healthy_within_seconds: until then it must be healthy, or run steadily if it has no health check. (templated)
    :param running_seconds: how long it must run without interruption if it has no health check. (templated)
    :param plan_only: a dry run: say what would be done and touch nothing. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param archive_host_conn_ids: connections of the Docker hosts on which archives lie; None takes ``[dockerbackup]
        archive_host_conn_ids``. (templated)
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the target. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.ContainerSummary`.
    """

    template_fields: Sequence[str] = (
        "backup_id",
        "repository",
        "name",
        "replace",
        "network",
        "healthy_within_seconds",
        "running_seconds",
        "plan_only",
        "repository_conn_id",
        "archive_host_conn_ids",
        "dockerbackup_conn_id",
    )

    operator_extra_links = (BackupLink(),)
    metric = "restore"

    def __init__(
        self,
        *,
        backup_id: str,
        repository: str,
        name: str | None = None,
        replace: bool | str = False,
        network: str | None = None,
        healthy_within_seconds: int | str = 60,
        running_seconds: int | str = 5,
        plan_only: bool | str = False,
        repository_conn_id: str | None = None,
        archive_host_conn_ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_id = backup_id
        self.repository = repository
        self.name = name
        self.replace = replace
        self.network = network
        self.healthy_within_seconds = healthy_within_seconds
        self.running_seconds = running_seconds
        self.plan_only = plan_only
        self.repository_conn_id = repository_conn_id
        self.archive_host_conn_ids = archive_host_conn_ids

    def work(self, context: Context) -> ContainerSummary:
        """Restore the container."""
        request = RecreateRequest(
            name=self.name or None,
            replace=flag("replace", self.replace),
            network=self.network or None,
            healthy_within_seconds=whole_number("healthy_within_seconds", self.healthy_within_seconds),
            running_seconds=whole_number("running_seconds", self.running_seconds),
            dry_run=flag("plan_only", self.plan_only),
            actor=actor_of(context),
        )
        repository = self._opened()
        backup = repository.catalog.find(self.backup_id)
        with self.hook.docker_host() as host:
            outcome = restore_container(backup, request, host=host, repository=repository, progress=self.progress)
            verb = "would be" if request.dry_run else "is"
            self.log.info(
                "backup %s of %s: container %s on %s %s %s",
                backup.backup_id,
                backup.source,
                outcome.name,
                host.name,
                verb,
                outcome.status,
            )
            return _summary(
                outcome,
                backup_source=str(backup.source),
                host=host.name,
                dry_run=request.dry_run,
                audit_head=repository.audit_head,
            )


def _summary(
    outcome: RecreateOutcome, *, backup_source: str, host: str, dry_run: bool, audit_head: str | None
) -> ContainerSummary:
    return ContainerSummary(
        backup_id=outcome.backup_id,
        backup_source=backup_source,
        host=host,
        name=outcome.name,
        status=outcome.status,
        container_id=outcome.container_id,
        image=outcome.image,
        kept=outcome.kept,
        options=list(outcome.options),
        not_carried_over=list(outcome.not_carried_over),
        seconds=outcome.seconds,
        dry_run=dry_run,
        audit_head=audit_head,
    )
