# SPDX-License-Identifier: Apache-2.0
"""What operators share that capture: their repository, and, where the archive stays on its host, who waits for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_dockerbackup.core.archive.compression import check_compression
from airflow_provider_dockerbackup.core.archive_bytes import only_host
from airflow_provider_dockerbackup.core.capture import BackupOutcome, Tuning
from airflow_provider_dockerbackup.core.encryption.recipient import parse_recipients
from airflow_provider_dockerbackup.core.export import ExportRequest
from airflow_provider_dockerbackup.core.onhost.begun import Begun, check_on_host
from airflow_provider_dockerbackup.core.onhost.finish import give_up
from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.save import SaveRequest
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    DockerBackupError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.operators import past_runs
from airflow_provider_dockerbackup.operators.base import DockerHostOperator, retries_stopped_when_permanent
from airflow_provider_dockerbackup.operators.earlier import earlier_summary
from airflow_provider_dockerbackup.operators.rendered import flag
from airflow_provider_dockerbackup.operators.summary import BackupSummary
from airflow_provider_dockerbackup.transport.clock import SystemClock

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
    from airflow_provider_dockerbackup.triggers.save_on_host import SaveOnHostEvent

# The job ends itself at its deadline; the trigger waits a little longer for that.
_GRACE_SECONDS = 120.0
# A worker is killed five seconds after it was asked to end.
_KILL_SECONDS = 3.5
_LONGEST_POLL_SECONDS = 3600.0
_WHY = {
    "deadline": "the job was not done in time (the connection's deadline)",
    "unreachable": "the host was not reached for too long",
}


class WaitsForHost(DockerHostOperator):
    """Base of operators whose work may go on, on the Docker host, while the triggerer waits for it.

    :param archive_location: ``host:/path``, or None for an archive in the repository. (templated)
    :param deferrable: whether the triggerer waits for the host; None for Airflow's default, where it can be done.
    :param poll_seconds: how often the triggerer looks at the host.
    """

    def __init__(
        self,
        *,
        archive_location: str | None = None,
        deferrable: bool | None = None,
        poll_seconds: float = 15.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.archive_location = archive_location
        self.deferrable = deferrable
        self.poll_seconds = poll_seconds

    def execute_complete(self, context: Context, event: SaveOnHostEvent) -> BackupSummary:
        """Commit what the job on the host made, once the trigger has fired."""
        from airflow_provider_dockerbackup.triggers.save_on_host import from_wire

        with retries_stopped_when_permanent():
            began_at = from_wire(event["begun"]).began_at
        spent = (SystemClock().now() - began_at).total_seconds()
        summary: BackupSummary = self.carry_out(
            context, lambda: self.complete(context, event), spent_seconds=max(0.0, spent)
        )
        return summary

    def complete(self, context: Context, event: SaveOnHostEvent) -> BackupSummary:
        """Return what :meth:`execute_complete` returns; raises the errors of this package."""
        raise NotImplementedError


class CapturesOnHost(WaitsForHost):
    """Base of operators that capture into a repository; the archive may be made and kept on the Docker host itself."""

    repository: str
    repository_conn_id: str | None
    layout: str
    compression: str | None
    compression_level: int | None
    compression_threads: int
    bandwidth_limit: int | None
    recipients: Sequence[str]
    allow_single_recipient: bool | str
    retention: str | None
    allow_past_runs: bool | str

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._job: JobPlace | None = None

    def on_kill(self) -> None:
        """Cut every stream, and end the job on the host, if this process has begun one."""
        super().on_kill()
        if self._job is None:
            return
        # Not in this thread, which may be in the midst of anything.
        ending = threading.Thread(target=self._end_job, args=(self._job,), name="dockerbackup-end-job", daemon=True)
        ending.start()
        ending.join(_KILL_SECONDS)

    def work(self, context: Context) -> BackupSummary:
        """Capture the source, unless what is to be done is settled without its host."""
        self.check()
        with self.hook.docker_host() as host:
            return self.settled(context, host) or self.capture_from(host, context)

    def capture_from(self, host: SshDockerHost, context: Context) -> BackupSummary:
        """Capture the source now; the parameters are checked."""
        request = self._request(context, host)
        try:
            found = self._inspect(host, request.key.source.name)
        except NotFoundError:
            # Gone since, but backed up before that, in this run.
            if (earlier := self._earlier(context, host, confirmed=True)) is None:
                raise
            return earlier
        # Only now: for a source that is not there no repository is made.
        repository = self._repository(host)
        return self._summary(self._capture(request, found, host=host, repository=repository), repository)

    def _inspect(self, host: SshDockerHost, name: str) -> Any:
        """Return the source as the host has it now.

        :raises NotFoundError: when it has none of that name.
        """
        raise NotImplementedError

    def _capture(self, request: Any, found: Any, *, host: SshDockerHost, repository: Repository) -> BackupOutcome:
        """Capture what :meth:`_inspect` found."""
        raise NotImplementedError

    def settled(self, context: Context, host: SshDockerHost) -> BackupSummary | None:
        """Return what is settled without asking the host, which may be away; None when it is to be asked.

        A run for a past date captures nothing: it returns what it made when its date was now, or is skipped. A later
        try returns what an earlier one committed.
        """
        past = past_runs.refused(context, allow=flag("allow_past_runs", self.allow_past_runs))
        if past is not None:
            return self._earlier(context, host, confirmed=True) or past_runs.skip(past)
        return self._earlier(context, host) if context["ti"].try_number > 1 else None

    def _earlier(self, context: Context, host: SshDockerHost, *, confirmed: bool = False) -> BackupSummary | None:
        """Return what an earlier try of this work committed, or with ``confirmed`` found unchanged."""
        key = self._request(context, host).key
        return earlier_summary(key, repository=self.repository, conn_id=self.repository_conn_id, confirmed=confirmed)

    def _request(self, context: Context, host: SshDockerHost) -> SaveRequest | ExportRequest:
        raise NotImplementedError

    @property
    def _tuning(self) -> Tuning:
        return Tuning(
            level=self.compression_level, threads=self.compression_threads, bandwidth_limit=self.bandwidth_limit
        )

    def _repository(self, host: SshDockerHost) -> Repository:
        """Return the repository; it is made if there is none."""
        from airflow_provider_dockerbackup.hooks.storage import repository_of

        repository = repository_of(
            self.repository,
            conn_id=self.repository_conn_id,
            layout=self.layout,
            compression=self.compression,
            recipients=self.recipients,
            allow_single_recipient=flag("allow_single_recipient", self.allow_single_recipient),
        )
        repository.host_files = only_host(host.name, host.archives)
        return repository

    def _finish(self, context: Context, begun: Begun, *, host: SshDockerHost, repository: Repository) -> BackupOutcome:
        raise NotImplementedError

    def _summary(self, outcome: BackupOutcome, repository: Repository) -> BackupSummary:
        raise NotImplementedError

    def _check_waiting(self) -> None:
        """Refuse to defer where nothing could go on meanwhile, or the trigger would not reach the host."""
        if not self._defers:
            return
        if not self.archive_location:
            raise ConfigurationError(
                "deferrable: only with archive_location does the work go on without a worker; otherwise the worker "
                "itself moves the bytes. Give archive_location='host:/path', or leave deferrable out"
            )
        if not 0 < self.poll_seconds <= _LONGEST_POLL_SECONDS:
            raise ConfigurationError(
                f"poll_seconds: expected seconds > 0 and at most {_LONGEST_POLL_SECONDS:g}, got {self.poll_seconds!r}"
            )
        from airflow_provider_dockerbackup.hooks.async_ssh import refuse_unless_for_triggers
        from airflow_provider_dockerbackup.hooks.connection import connection_of

        refuse_unless_for_triggers(self.hook, connection_of(self.dockerbackup_conn_id).extra_dejson)

    def check(self) -> None:
        """Refuse what is wrong whatever the host says, before a repository is made for it."""
        check_compression(self.compression, level=self.compression_level)
        self._tuning.check()
        parse_recipients(self.recipients, allow_single=flag("allow_single_recipient", self.allow_single_recipient))
        if self.archive_location:
            check_on_host(self.archive_location, self._tuning, layout=self.layout, encrypted=bool(self.recipients))
        self._check_waiting()

    def _begun(self, begun: Begun) -> None:
        """Remember the job, and leave the waiting for it to the triggerer if that is wanted."""
        from airflow_provider_dockerbackup.triggers.save_on_host import SaveOnHostTrigger, to_wire

        self._job = begun.place
        if not self._defers:
            return
        self.log.info("job %s runs on the host; the triggerer waits for it", begun.place.name)
        self.defer(
            trigger=SaveOnHostTrigger(
                conn_id=self.dockerbackup_conn_id,
                begun=to_wire(begun),
                deadline=begun.began_at.timestamp() + self._deadline_seconds + _GRACE_SECONDS,
                poll_seconds=self.poll_seconds,
            ),
            method_name="execute_complete",
        )

    def complete(self, context: Context, event: SaveOnHostEvent) -> BackupSummary:
        """Commit what the job made, or give it up."""
        from airflow_provider_dockerbackup.triggers.save_on_host import from_wire

        begun = from_wire(event["begun"], retention=self.retention)
        self._job = begun.place
        with self.hook.docker_host() as host:
            repository = self._repository(host)
            if event["status"] != "over":
                give_up(
                    self._request(context, host),
                    begun,
                    _problem(event, host=host.name),
                    archives=host.archives,
                    repository=repository,
                    progress=self.progress,
                )
            outcome = self._finish(context, begun, host=host, repository=repository)
        return self._summary(outcome, repository)

    def _end_job(self, place: JobPlace) -> None:
        try:
            with self.hook.docker_host() as host:
                # What is being committed is over anyway, and its folder must go on telling of the archive.
                host.archives.clear(place, unclaimed=True)
        except DockerBackupError as err:
            self.log.warning("the job %s goes on until its deadline: %s", place.name, err)

    @property
    def _defers(self) -> bool:
        if self.deferrable is not None:
            return self.deferrable
        return bool(self.archive_location) and conf.getboolean("operators", "default_deferrable", fallback=False)

    @property
    def _deadline_seconds(self) -> int:
        return int(self.hook.settings.timeouts.deadline_seconds)


def _problem(event: SaveOnHostEvent, *, host: str) -> DockerBackupError:
    """Return why a job is given up; what the triggerer will be refused again is of no use to try again."""
    failed = f"the capture on {host} failed: "
    if event["status"] == "refused":
        return ConfigurationError(
            f"{failed}the triggerer cannot wait for it: {event['problem']}; nothing was committed. Let the triggerer "
            "reach the host as workers do, or use deferrable=False"
        )
    problem = f": {event['problem']}" if event["problem"] else ""
    return TransientError(f"{failed}{_WHY[event['status']]}{problem}; nothing was committed, try again")
