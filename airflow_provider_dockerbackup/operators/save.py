# SPDX-License-Identifier: Apache-2.0
"""Save an image of a Docker host into a repository."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import BackupKey
from airflow_provider_dockerbackup.core.capture import BackupOutcome
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice, check_capture
from airflow_provider_dockerbackup.core.model import ImageInspect, SourceKind
from airflow_provider_dockerbackup.core.onhost.begun import Begun
from airflow_provider_dockerbackup.core.onhost.save import finish_save, save_on_host
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.reference import ImageReference
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.save import SaveRequest, save_image
from airflow_provider_dockerbackup.links.backup import BackupLink
from airflow_provider_dockerbackup.operators.base import actor_of, work_of
from airflow_provider_dockerbackup.operators.on_host import CapturesOnHost
from airflow_provider_dockerbackup.operators.summary import BackupSummary, backup_summary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost


class DockerSaveOperator(CapturesOnHost):
    """Run ``docker save`` on a Docker host and commit the stream, proven complete, as a backup.

    Layers, history and configuration are kept byte for byte. An image that equals the newest backup of its source is
    confirmed instead of saved again. Done twice, or by two tries at once, the same task instance commits one backup.

    :param image: reference ``name[:tag][@digest]`` or ID ``sha256:…``. (templated)
    :param repository: URL of the repository: ``file:///srv/backups``, ``s3://bucket/prefix``; it is created when there
        is none. (templated)
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param layout: layout of a new repository: ``archive``, one plain file a backup, or ``layers``, each layer once for
        all backups, of which only what is new is fetched. (templated)
    :param compression: ``none``, ``gzip`` or ``zstd``; None takes the repository's own, ``none`` for a new one.
        (templated)
    :param compression_level: level, None for the compression's default.
    :param capture: how layout ``layers`` fetches: ``push``, ``save``, or ``auto`` for what is expected to be faster.
        (templated)
    :param compression_threads: how many threads compress, in layout ``layers``.
    :param bandwidth_limit: bytes a second that may come from the host; None for no limit.
    :param force: save also when nothing changed.
    :param archive_location: ``host:/path``: the archive is made, compressed and kept in that folder of the Docker host
        itself, and only its digests and the record go to the repository; None sends the archive there too. (templated)
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
        "image",
        "repository",
        "repository_conn_id",
        "layout",
        "compression",
        "capture",
        "recipients",
        "allow_single_recipient",
        "retention",
        "archive_location",
        "allow_past_runs",
        "dockerbackup_conn_id",
    )

    operator_extra_links = (BackupLink(),)
    metric = "backup"

    def __init__(
        self,
        *,
        image: str,
        repository: str,
        repository_conn_id: str | None = None,
        layout: str = "archive",
        compression: str | None = None,
        compression_level: int | None = None,
        capture: CaptureChoice = "auto",
        compression_threads: int = 2,
        bandwidth_limit: int | None = None,
        recipients: Sequence[str] = (),
        allow_single_recipient: bool | str = False,
        force: bool = False,
        retention: str | None = None,
        archive_location: str | None = None,
        deferrable: bool | None = None,
        poll_seconds: float = 15.0,
        allow_past_runs: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(archive_location=archive_location, deferrable=deferrable, poll_seconds=poll_seconds, **kwargs)
        self.image = image
        self.repository = repository
        self.repository_conn_id = repository_conn_id
        self.layout = layout
        self.compression = compression
        self.compression_level = compression_level
        self.capture: CaptureChoice = capture
        self.compression_threads = compression_threads
        self.bandwidth_limit = bandwidth_limit
        self.recipients = recipients
        self.allow_single_recipient = allow_single_recipient
        self.retention = retention
        self.force = force
        self.allow_past_runs = allow_past_runs

    def _inspect(self, host: SshDockerHost, name: str) -> ImageInspect:
        return host.inspect_image(name)

    def _capture(
        self, request: SaveRequest, found: ImageInspect, *, host: SshDockerHost, repository: Repository
    ) -> BackupOutcome:
        if not self.archive_location:
            return save_image(request, host=host, repository=repository, progress=self.progress, image=found)
        return save_on_host(
            request,
            self.archive_location,
            image=found,
            deadline_seconds=self._deadline_seconds,
            host=host,
            archives=host.archives,
            repository=repository,
            progress=self.progress,
            begun=self._begun,
        )

    def check(self) -> None:
        """Refuse what is wrong whatever the host says."""
        ImageReference.parse(self.image)
        check_capture(self.capture)
        super().check()

    def _request(self, context: Context, host: SshDockerHost) -> SaveRequest:
        source = Source(host=host.name, kind=SourceKind.IMAGE, name=str(ImageReference.parse(self.image)))
        return SaveRequest(
            key=BackupKey.of(source, run_time=context["dag_run"].run_after, work=work_of(context)),
            actor=actor_of(context),
            compression=Compression(self.compression) if self.compression else None,
            capture=self.capture,
            tuning=self._tuning,
            force=self.force,
            retention=self.retention,
        )

    def _finish(self, context: Context, begun: Begun, *, host: SshDockerHost, repository: Repository) -> BackupOutcome:
        return finish_save(
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
        self.log.info("%s: %s as backup %s", outcome.backup.source, outcome.status, summary["backup_id"])
        return summary
