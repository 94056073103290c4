# SPDX-License-Identifier: Apache-2.0
"""Remove an image or a container from a Docker host, once a verified backup of it exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.remove import RemoveRequest, remove_source
from airflow_provider_dockerbackup.core.since import Level
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.operators.base import DockerHostOperator, actor_of
from airflow_provider_dockerbackup.operators.rendered import flag
from airflow_provider_dockerbackup.operators.summary import RemoveSummary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.core.remove import RemoveOutcome


class DockerRemoveOperator(DockerHostOperator):
    """Remove an image or a stopped container, and refuse unless a verified backup of exactly it is in the repository.

    Of an image: one with the same ID and layers. Of a container: an export taken after it stopped, and it was not
    started since. Volumes stay, anonymous ones too; nothing is forced; the intent is in the audit trail first.

    :param image: ``name:tag`` or ID of the image; give this or ``container``. (templated)
    :param container: name or full ID of the container. (templated)
    :param repository: URL of the repository; it must exist. (templated)
    :param required_level: the verification its backup must have passed: ``digests``, ``load`` or ``run``, or a higher
        one. (templated)
    :param compare_files: export a container once more and compare every byte with its backup. (templated)
    :param plan_only: a dry run: say what would be done and touch nothing. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param archive_host_conn_ids: connections of the Docker hosts on which archives lie; None takes ``[dockerbackup]
        archive_host_conn_ids``. (templated)
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.RemoveSummary`.
    """

    template_fields: Sequence[str] = (
        "image",
        "container",
        "repository",
        "required_level",
        "compare_files",
        "plan_only",
        "repository_conn_id",
        "archive_host_conn_ids",
        "dockerbackup_conn_id",
    )

    metric = "removal"

    def __init__(
        self,
        *,
        repository: str,
        image: str | None = None,
        container: str | None = None,
        required_level: Level = "load",
        compare_files: bool | str = False,
        plan_only: bool | str = False,
        repository_conn_id: str | None = None,
        archive_host_conn_ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repository = repository
        self.image = image
        self.container = container
        self.required_level = required_level
        self.compare_files = compare_files
        self.plan_only = plan_only
        self.repository_conn_id = repository_conn_id
        self.archive_host_conn_ids = archive_host_conn_ids

    def work(self, context: Context) -> RemoveSummary:
        """Remove the image or container."""
        from airflow_provider_dockerbackup.hooks.storage import existing_repository

        if bool(self.image) == bool(self.container):
            raise ConfigurationError(
                f"expected either image or container, got image={self.image!r} and container={self.container!r}"
            )
        request = RemoveRequest(
            kind=SourceKind.IMAGE if self.image else SourceKind.CONTAINER,
            name=self.image or self.container or "",
            required_level=self.required_level,
            compare_files=flag("compare_files", self.compare_files),
            dry_run=flag("plan_only", self.plan_only),
            actor=actor_of(context),
        )
        repository = existing_repository(
            self.repository, conn_id=self.repository_conn_id, archive_host_conn_ids=self.archive_host_conn_ids
        )
        with self.hook.docker_host() as host:
            outcome = remove_source(request, host=host, repository=repository, progress=self.progress)
            verb = "would be" if request.dry_run else "is"
            backup_id = outcome.backup.backup_id
            self.log.info("%s %s %s; backup %s covers it", outcome.source, verb, outcome.status, backup_id)
            if outcome.volumes_left:
                self.log.info("volumes that stay on %s: %s", host.name, ", ".join(outcome.volumes_left))
            return _summary(outcome, dry_run=request.dry_run)


def _summary(outcome: RemoveOutcome, *, dry_run: bool) -> RemoveSummary:
    return RemoveSummary(
        host=outcome.source.host,
        kind=outcome.source.kind.value,
        source=outcome.source.name,
        status=outcome.status,
        object_id=outcome.object_id,
        backup_id=outcome.backup.backup_id,
        backup_source=str(outcome.backup.source),
        trust=outcome.backup.trust,
        volumes_left=list(outcome.volumes_left),
        dry_run=dry_run,
        audit_head=outcome.audit_head,
    )
