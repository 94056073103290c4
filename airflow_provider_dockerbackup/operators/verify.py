# SPDX-License-Identifier: Apache-2.0
"""Verify a backup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.drill import DrillPlan
from airflow_provider_dockerbackup.core.since import Level
from airflow_provider_dockerbackup.core.verify import VerifyRequest, verify_backup
from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.links.backup import BackupLink
from airflow_provider_dockerbackup.operators.base import DockerBackupBaseOperator, actor_of
from airflow_provider_dockerbackup.operators.reading import ReadsBackups
from airflow_provider_dockerbackup.operators.summary import VerificationSummary

if TYPE_CHECKING:
    from airflow.sdk import Context


class DockerBackupVerifyOperator(ReadsBackups, DockerBackupBaseOperator):
    """Read every byte of a backup again and, unless told otherwise, prove in a test daemon that it restores.

    At level ``run`` the image is also run there, without network, capabilities or new privileges, until it passes.

    :param backup_id: id of the backup, or an unambiguous beginning of it. (templated)
    :param repository: URL of the repository. (templated)
    :param level: ``digests``, ``load`` or ``run``. (templated)
    :param drill: at level ``run``: fields of :class:`~airflow_provider_dockerbackup.core.drill.DrillPlan` that differ
        from its defaults, such as ``{"probe": ["pg_isready"], "deadline_seconds": 300}``. (templated)
    :param test_daemon: URL of a Docker daemon that is not the source's, such as ``unix:///run/test-docker.sock``; None
        starts an empty throw-away ``dockerd`` on the worker, which needs root and docker.io there. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param archive_host_conn_ids: connections of the Docker hosts on which archives lie; None takes ``[dockerbackup]
        archive_host_conn_ids``. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.VerificationSummary`; a backup that fails its
        verification fails the task.
    """

    template_fields: Sequence[str] = (
        "backup_id",
        "repository",
        "level",
        "drill",
        "test_daemon",
        "repository_conn_id",
        "archive_host_conn_ids",
    )

    operator_extra_links = (BackupLink(),)
    metric = "verification"

    def __init__(
        self,
        *,
        backup_id: str,
        repository: str,
        level: Level = "load",
        drill: Mapping[str, Any] | None = None,
        test_daemon: str | None = None,
        repository_conn_id: str | None = None,
        archive_host_conn_ids: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_id = backup_id
        self.repository = repository
        self.level = level
        self.drill = drill
        self.test_daemon = test_daemon
        self.repository_conn_id = repository_conn_id
        self.archive_host_conn_ids = archive_host_conn_ids

    def work(self, context: Context) -> VerificationSummary:
        """Verify the backup."""
        from airflow_provider_dockerbackup.transport.given_daemon import test_daemon_at

        drill = DrillPlan.of(self.drill or {})
        repository = self._opened()
        backup = repository.catalog.find(self.backup_id)
        verification = verify_backup(
            backup,
            VerifyRequest(level=self.level, drill=drill, actor=actor_of(context)),
            repository=repository,
            test_daemon=partial(test_daemon_at, self.test_daemon or None, progress=self.progress),
            progress=self.progress,
        )
        if verification.verification == "failed":
            raise IntegrityError(f"backup {backup.backup_id} of {backup.source} failed: {verification.problem}")
        self.log.info("backup %s of %s: passed level %s", backup.backup_id, backup.source, self.level)
        return VerificationSummary(
            backup_id=backup.backup_id,
            backup_source=str(backup.source),
            level=verification.level,
            verification=verification.verification,
            cleanup=verification.cleanup,
            restore_seconds=verification.restore_seconds,
            passed_by=verification.drill.passed_by if verification.drill else None,
            bytes_read=verification.bytes_read,
            trust=repository.catalog.find(backup.backup_id).trust,
            audit_head=repository.audit_head,
        )
