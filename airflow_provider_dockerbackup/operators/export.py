# SPDX-License-Identifier: Apache-2.0
"""Export a container of a Docker host into a repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.capture import BackupOutcome
from airflow_provider_dockerbackup.core.consistency import check_consistency
from airflow_provider_dockerbackup.core.export import ExportRequest, export_container
from airflow_provider_dockerbackup.core.model import Consistency, ContainerInspect, SourceKind
from airflow_provider_dockerbackup.core.onhost.begun import Begun
from airflow_provider_dockerbackup.core.onhost.export import check_unwatched, export_on_host, finish_export
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.reference import container_name
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.links.backup import BackupLink
from airflow_provider_dockerbackup.operators.base import actor_of, work_of
from airflow_provider_dockerbackup.operators.on_host import CapturesOnHost
from airflow_provider_dockerbackup.operators.summary import BackupSummary, backup_summary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost


class DockerExportOperator(CapturesOnHost):
    """Run ``docker export`` on a Docker host and commit the filesystem, with the configuration beside it, as a backup.

    Data of volumes, binds and tmpfs is not part of it; the record names them.

    :param container: name of the container. (templated)
    :param repository: URL of the repository; it is created when there is none. (templated)
    :param consistency: for a running container: ``snapshot`` commits it, which pauses it for a moment, and exports
        that; ``pause`` pauses it for the whole export; ``none`` takes what comes.
    :param pause_limit_seconds: with ``pause``: the container runs again after this long whatever happens.
    :param pre_command: command run in the container before the capture, as a list of words, without a shell: a flush of
        a database, say. When it fails, nothing is captured. (templated)
    :param post_command: command run in the container after the capture, also when that or ``pre_command`` failed; with
        ``snapshot`` as soon as the commit is done. (templated)
    :param command_timeout_seconds: how long each of the two may take.
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param layout: layout of a new repository: ``archive``, one plain file a backup, or ``layers``, where the same
        filesystem is kept once. (templated)
    :param compression: ``none``, ``gzip`` or ``zstd``; None takes the repository's own. (templated)
    :param compression_level: level, None for the compression's default.
    :param compression_threads: how many threads compress, in layout ``layers``.
    :param bandwidth_limit: bytes a second that may come from the host; None for no limit.
    :param archive_location: ``host:/path``: the archive is made, compressed and kept in that folder of the Docker host
        itself, and only its digests and the record go to the repository; with ``consistency="none"`` without commands,
        or ``"snapshot"``. None sends the archive there too. (templated)
    :param deferrable: with ``archive_location``: wait for the host in the triggerer and not in a worker. None takes
        Airflow's ``[operators] default_deferrable`` where it can be done.
    :param poll_seconds: how often the triggerer looks at the host.
    :param recipients: age recipients, at least two, to which backups in a new repository are encrypted: public keys
        ``age1…``, ``ssh-ed25519 …`` or ``ssh-rsa …``, with ``NAME=`` before each if wanted. An existing repository
        must have the same; none takes it as it is. (templated)
    :param allow_single_recipient: accept only one recipient. (templated)
    :param retention: the source's own retention policy as text, such as ``keep_daily=7``, kept with the backup and
        honoured by rotation; empty says that it has none, None says nothing. (templated)
    :param allow_past_runs: capture also in a run for a past date, such as a backfill, which is skipped otherwise.
        (templated)
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host. (templated)
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.BackupSummary`.
    """

    template_fields: Sequence[str] = (
        "container",
        "repository",
        "repository_conn_id",
        "layout",
        "compression",
        "recipients",
        "allow_single_recipient",
        "retention",
        "archive_location",
        "allow_past_runs",
        "consistency",
        "pre_command",
        "post_command",
        "dockerbackup_conn_id",
    )

    operator_extra_links = (BackupLink(),)
    metric = "backup"

    def __init__(
        self,
        *,
        container: str,
        repository: str,
        consistency: Consistency = "snapshot",
        pause_limit_seconds: int = 300,
        pre_command: Sequence[str] | None = None,
        post_command: Sequence[str] | None = None,
        command_timeout_seconds: float = 60.0,
        repository_conn_id: str | None = None,
        layout: str = "archive",
        compression: str | None = None,
        compression_level: int | None = None,
        compression_threads: int = 2,
        bandwidth_limit: int | None = None,
        recipients: Sequence[str] = (),
        allow_single_recipient: bool | str = False,
        retention: str | None = None,
        archive_location: str | None = None,
        deferrable: bool | None = None,
        poll_seconds: float = 15.0,
        allow_past_runs: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(archive_location=archive_location, deferrable=deferrable, poll_seconds=poll_seconds, **kwargs)
        self.container = container
        self.repository = repository
        self.consistency = consistency
        self.pause_limit_seconds = pause_limit_seconds
        self.pre_command = pre_command
        self.post_command = post_command
        self.command_timeout_seconds = command_timeout_seconds
        self.repository_conn_id = repository_conn_id
        self.layout = layout
        self.compression = compression
        self.compression_level = compression_level
        self.compression_threads = compression_threads
        self.bandwidth_limit = bandwidth_limit
        self.recipients = recipients
        self.allow_single_recipient = allow_single_recipient
        self.retention = retention
        self.allow_past_runs = allow_past_runs

    def _inspect(self, host: SshDockerHost, name: str) -> ContainerInspect:
        return host.inspect_container(name)

    def _capture(
        self, request: ExportRequest, found: ContainerInspect, *, host: SshDockerHost, repository: Repository
    ) -> BackupOutcome:
        if not self.archive_location:
            return export_container(request, host=host, repository=repository, progress=self.progress)
        return export_on_host(
            request,
            self.archive_location,
            container=found,
            deadline_seconds=self._deadline_seconds,
            host=host,
            archives=host.archives,
            repository=repository,
            progress=self.progress,
            begun=self._begun,
        )

    def check(self) -> None:
        """Refuse what is wrong whatever the host says."""
        container_name(self.container)
        check_consistency(self.consistency, pause_limit_seconds=self.pause_limit_seconds)
        commands = self._commands()
        if self.archive_location:
            check_unwatched(self.consistency, commands)
        super().check()

    def _commands(self) -> QuiesceCommands:
        return QuiesceCommands.of(self.pre_command, self.post_command, timeout_seconds=self.command_timeout_seconds)

    def _request(self, context: Context, host: SshDockerHost) -> ExportRequest:
        source = Source(host=host.name, kind=SourceKind.CONTAINER, name=container_name(self.container))
        return ExportRequest(
            key=BackupKey.of(source, run_time=context["dag_run"].run_after, work=work_of(context)),
            actor=actor_of(context),
            consistency=self.consistency,
            pause_limit_seconds=self.pause_limit_seconds,
            commands=self._commands(),
            deadline_seconds=self._deadline_seconds,
            compression=Compression(self.compression) if self.compression else None,
            tuning=self._tuning,
            retention=self.retention,
        )

    def _finish(self, context: Context, begun: Begun, *, host: SshDockerHost, repository: Repository) -> BackupOutcome:
        return finish_export(
            self._request(context, host),
            begun,
            None,
            host=host,
            archives=host.archives,
            repository=repository,
            progress=self.progress,
        )

    def _summary(self, outcome: BackupOutcome, repository: Repository) -> BackupSummary:
        summary = backup_summary(outcome, repository_url=repository.storage.url)
        source = outcome.backup.source
        self.log.info("%s: %s as backup %s", source, outcome.status, summary["backup_id"])
        if summary["not_covered"]:
            self.log.warning("%s: not in this backup: data of %s", source, ", ".join(summary["not_covered"]))
        return summary
