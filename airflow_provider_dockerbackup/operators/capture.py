# SPDX-License-Identifier: Apache-2.0
"""Back up one source of a fleet, as the labels of its container say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_dockerbackup.core.labels import read_labels
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice
from airflow_provider_dockerbackup.core.model import Consistency, SourceKind
from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.core.reference import container_name
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError
from airflow_provider_dockerbackup.links.backup import BackupLink
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.on_host import CapturesOnHost, WaitsForHost
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from airflow_provider_dockerbackup.operators.summary import BackupSummary

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.triggers.save_on_host import SaveOnHostEvent


class DockerCaptureOperator(WaitsForHost):
    """Back up one source that ``DockerListDueOperator`` returned: export a container, or save an image.

    Commands and the retention policy of a container are read from its labels when the task runs. What comes from labels
    is never rendered as a template. With ``archive_location`` they count as they were when the capture began.

    :param kind: ``container`` or ``image``.
    :param source: the container's name or the image's reference.
    :param repository: URL of the repository; it is created when there is none. (templated)
    :param host: the host's name, for ``map_index_template``.
    :param retention: of an image: its own retention policy, as its containers' labels say.
    :param problem: why its labels cannot be followed: then the task fails with that.
    :param consistency: as in :class:`~airflow_provider_dockerbackup.operators.export.DockerExportOperator`. (templated)
    :param pause_limit_seconds: as there.
    :param command_timeout_seconds: how long each command of the labels may take.
    :param repository_conn_id: connection with the storage's credentials, where it needs any. (templated)
    :param layout: layout of a new repository: ``archive`` or ``layers``. (templated)
    :param compression: ``none``, ``gzip`` or ``zstd``; None takes the repository's own. (templated)
    :param compression_level: level, None for the compression's default.
    :param capture: of an image: how layout ``layers`` fetches. (templated)
    :param compression_threads: how many threads compress, in layout ``layers``.
    :param bandwidth_limit: bytes a second that may come from the host; None for no limit.
    :param recipients: age recipients of a new repository. (templated)
    :param allow_single_recipient: accept only one recipient. (templated)
    :param archive_location: ``host:/path``: the archive is made and kept in that folder of the source's own host, as in
        :class:`~airflow_provider_dockerbackup.operators.export.DockerExportOperator`; None sends it to the repository.
        (templated)
    :param deferrable: with ``archive_location``: wait for the host in the triggerer and not in a worker. None takes
        Airflow's ``[operators] default_deferrable`` where it can be done.
    :param poll_seconds: how often the triggerer looks at the host.
    :param allow_past_runs: capture also in a run for a past date, such as a backfill, which is skipped otherwise.
        (templated)
    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host.
    :return: a :class:`~airflow_provider_dockerbackup.operators.summary.BackupSummary`.
    """

    template_fields: Sequence[str] = (
        "repository",
        "consistency",
        "repository_conn_id",
        "layout",
        "compression",
        "capture",
        "recipients",
        "allow_single_recipient",
        "archive_location",
        "allow_past_runs",
    )

    operator_extra_links = (BackupLink(),)
    metric = "backup"

    def __init__(
        self,
        *,
        kind: str,
        source: str,
        repository: str,
        host: str = "",
        retention: str = "",
        problem: str = "",
        consistency: Consistency = "snapshot",
        pause_limit_seconds: int = 300,
        command_timeout_seconds: float = 60.0,
        repository_conn_id: str | None = None,
        layout: str = "archive",
        compression: str | None = None,
        compression_level: int | None = None,
        capture: CaptureChoice = "auto",
        compression_threads: int = 2,
        bandwidth_limit: int | None = None,
        recipients: Sequence[str] = (),
        allow_single_recipient: bool | str = False,
        allow_past_runs: bool | str = False,
        multiple_outputs: bool = False,
        **kwargs: Any,
    ) -> None:
        # One XCom for a mapped task: each is a request to the API server, and a fleet has many tasks.
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.kind = kind
        self.source = source
        self.repository = repository
        self.host = host
        self.retention = retention
        self.problem = problem
        self.consistency = consistency
        self.pause_limit_seconds = pause_limit_seconds
        self.command_timeout_seconds = command_timeout_seconds
        self.repository_conn_id = repository_conn_id
        self.layout = layout
        self.compression = compression
        self.compression_level = compression_level
        self.capture: CaptureChoice = capture
        self.compression_threads = compression_threads
        self.bandwidth_limit = bandwidth_limit
        self.recipients = recipients
        self.allow_single_recipient = allow_single_recipient
        self.allow_past_runs = allow_past_runs
        self._doing: CapturesOnHost | None = None

    def work(self, context: Context) -> BackupSummary:
        """Back the source up."""
        if self.kind not in {each.value for each in SourceKind}:
            raise ConfigurationError(f"kind: expected container or image, got {self.kind!r}")
        unlabelled = self._unlabelled()
        unlabelled.check()
        with self.hook.docker_host() as host:
            if (settled := unlabelled.settled(context, host)) is not None:
                return settled
            if self.problem:
                raise ConfigurationError(self.problem)
            doing = unlabelled if self.kind == SourceKind.IMAGE else self._labelled_export(host)
            doing.check()
            return self._by(doing).capture_from(host, context)

    def complete(self, context: Context, event: SaveOnHostEvent) -> BackupSummary:
        """Commit what the job on the host made; labels are not read again, and the container may be gone by now."""
        return self._by(self._unlabelled()).complete(context, event)

    def on_kill(self) -> None:
        """Cut every stream, and end the job on the host, if this process has begun one."""
        if self._doing is None:
            super().on_kill()
        else:
            self._doing.on_kill()

    def _by(self, doing: CapturesOnHost) -> CapturesOnHost:
        """Return the operator that does the work, with this one's connection."""
        doing.hook = self.hook
        self._doing = doing
        return doing

    def _unlabelled(self) -> CapturesOnHost:
        """Return the operator for the source as it is given: a container's labels are not asked for."""
        return self._save() if self.kind == SourceKind.IMAGE else self._export()

    def _save(self) -> DockerSaveOperator:
        return DockerSaveOperator(
            task_id=self.task_id,
            image=self.source,
            retention=self.retention,
            capture=self.capture,
            **self._common(),
        )

    def _labelled_export(self, host: DockerHost) -> DockerExportOperator:
        try:
            found = host.inspect_container(container_name(self.source))
        except NotFoundError:
            return self._export()  # which says so, or finds what this run backed up before
        labels = read_labels(found.config.get("Labels") or {}, where=f"{host.name} container {found.name}")
        if labels.enabled is False:
            raise AirflowSkipException(f"container {self.source} was switched off by its label since it was listed")
        return self._export(retention=labels.retention, pre_command=labels.before, post_command=labels.after)

    def _export(self, **labelled: Any) -> DockerExportOperator:
        return DockerExportOperator(
            task_id=self.task_id,
            container=self.source,
            consistency=self.consistency,
            pause_limit_seconds=self.pause_limit_seconds,
            command_timeout_seconds=self.command_timeout_seconds,
            **labelled,
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        return {
            "dockerbackup_conn_id": self.dockerbackup_conn_id,
            "repository": self.repository,
            "repository_conn_id": self.repository_conn_id,
            "layout": self.layout,
            "compression": self.compression,
            "compression_level": self.compression_level,
            "compression_threads": self.compression_threads,
            "bandwidth_limit": self.bandwidth_limit,
            "recipients": self.recipients,
            "allow_single_recipient": self.allow_single_recipient,
            "archive_location": self.archive_location,
            "deferrable": self.deferrable,
            "poll_seconds": self.poll_seconds,
            "allow_past_runs": self.allow_past_runs,
        }
