# SPDX-License-Identifier: Apache-2.0
"""Restore a backup onto a Docker host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.restore import Method, RestoreRequest, restore_backup
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.links.backup import BackupLink
from airflow_provider_dockerbackup.operators.base import DockerHostOperator, actor_of
from airflow_provider_dockerbackup.operators.reading import ReadsBackups
from airflow_provider_dockerbackup.operators.rendered import flag
from airflow_provider_dockerbackup.operators.summary import RestoreSummary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.core.restore import RestoreOutcome


class DockerBackupRestoreOperator(ReadsBackups, DockerHostOperator):
    """Load a backup into the daemon of a Docker host and compare what it became with the record.

    An image comes back with its layers, history and configuration; a container's filesystem comes back as an image
    of one layer with the container's configuration. No container is touched, and no tag is taken from another image
    unless asked for.

    :param backup_id: id of the backup, or an unambiguous beginning of it. (templated)
    :param repository: URL of the repository. (templated)
    :param tags: names to give it on the target, ``name:tag`` each; none gives ``dockerbackup-restored:<backup id>``.
        (templated)
    :param recorded_tags: also give it the tags that the source image had. (templated)
    :param replace_tags: take over a tag that stands for another image; that image is kept as
        ``<name>:before-<backup id>``. (templated)
    :param method: ``load``, or ``import`` for a container's filesystem without its configuration. (templated)
    :param all_layers: send every layer, also those that the target says it has. (templated)
    :param plan_only: a dry run: say what would be done and touch nothing. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param archive_host_conn_ids: connections of the Docker hosts on which archives lie; None takes ``[dockerbackup]
        archive_host_conn_ids``. (templated)
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the target. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.RestoreSummary`.
    """

    template_fields: Sequence[str] = (
        "backup_id",
        "repository",
        "tags",
        "recorded_tags",
        "replace_tags",
        "method",
        "all_layers",
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
        tags: Sequence[str] = (),
        recorded_tags: bool | str = False,
        replace_tags: bool | str = False,
        method: Method = "load",
        all_layers: bool | str = False,
        plan_only: bool | str = False,
        repository_conn_id: str | None = None,
        archive_host_conn_ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_id = backup_id
        self.repository = repository
        self.tags = tags
        self.recorded_tags = recorded_tags
        self.replace_tags = replace_tags
        self.method = method
        self.all_layers = all_layers
        self.plan_only = plan_only
        self.repository_conn_id = repository_conn_id
        self.archive_host_conn_ids = archive_host_conn_ids

    def work(self, context: Context) -> RestoreSummary:
        """Restore the backup."""
        if isinstance(self.tags, str):
            raise ConfigurationError(f"tags: expected a list of NAME:TAG, got {self.tags!r}")
        request = RestoreRequest(
            tags=tuple(self.tags),
            recorded_tags=flag("recorded_tags", self.recorded_tags),
            replace_tags=flag("replace_tags", self.replace_tags),
            method=self.method,
            all_layers=flag("all_layers", self.all_layers),
            dry_run=flag("plan_only", self.plan_only),
            actor=actor_of(context),
        )
        repository = self._opened()
        backup = repository.catalog.find(self.backup_id)
        with self.hook.docker_host() as host:
            outcome = restore_backup(backup, request, host=host, repository=repository, progress=self.progress)
            verb = "would be restored" if request.dry_run else "restored"
            self.log.info(
                "backup %s of %s: %s to %s as %s", backup.backup_id, backup.source, verb, host.name, outcome.tags
            )
            return _summary(
                outcome,
                backup_source=str(backup.source),
                host=host.name,
                dry_run=request.dry_run,
                audit_head=repository.audit_head,
            )


def _summary(
    outcome: RestoreOutcome, *, backup_source: str, host: str, dry_run: bool, audit_head: str | None
) -> RestoreSummary:
    return RestoreSummary(
        backup_id=outcome.backup_id,
        backup_source=backup_source,
        host=host,
        image_id=outcome.image_id,
        tags=list(outcome.tags),
        kept=dict(outcome.kept),
        identical=outcome.identical,
        seconds=outcome.seconds,
        dry_run=dry_run,
        notes=list(outcome.notes),
        audit_head=audit_head,
    )
