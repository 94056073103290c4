# SPDX-License-Identifier: Apache-2.0
"""What all operators share: who acts, which work it is, and which errors are worth a retry."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    TaskDeferred,
)

from airflow_provider_dockerbackup import __version__
from airflow_provider_dockerbackup.exceptions import DockerBackupError, TransientError
from airflow_provider_dockerbackup.operators.progress import LogProgress
from airflow_provider_dockerbackup.transport.clock import SystemClock

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook


class DockerBackupBaseOperator(BaseOperator):
    """Base of this provider's operators: :meth:`execute` runs :meth:`work` and sorts its errors.

    An error that trying again cannot mend stops Airflow's retries.
    """

    ui_color = "#dbeafe"
    # Middle part of the names of its metrics; None for what is not worth one.
    metric: ClassVar[str | None] = None
    # What the work came to, for those who ask after it.
    done: dict[str, Any] | None = None

    def __init__(self, *, multiple_outputs: bool = True, **kwargs: Any) -> None:
        # Summaries are dicts; each key is an XCom of its own, so that ``save.output["backup_id"]`` works downstream.
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)

    def execute(self, context: Context) -> Any:
        """Do the operator's work and return a small summary."""
        return self.carry_out(context, lambda: self.work(context))

    def carry_out(self, context: Context, work: Callable[[], Any], *, spent_seconds: float = 0.0) -> Any:
        """Return the summary of ``work``, its errors sorted, Airflow's Stats told, its audit head anchored.

        :param spent_seconds: how long the task's work took before this process went on with it.
        """
        with retries_stopped_when_permanent():
            summary = self._measured(context, work, spent_seconds)
        self._anchor(context, summary)
        return summary

    def _measured(self, context: Context, work: Callable[[], Any], spent_seconds: float) -> Any:
        """Do the work and tell Airflow's Stats how it ended; a task that defers has not ended."""
        from airflow_provider_dockerbackup.operators import metrics

        if self.metric is None:
            return work()
        began = time.monotonic() - spent_seconds
        try:
            summary = work()
        except (TaskDeferred, AirflowSkipException):
            # What is deferred goes on later; of what is skipped nothing was done and nothing failed.
            raise
        except BaseException as err:
            metrics.tell_failure(self.metric, err, seconds=time.monotonic() - began, context=context)
            raise
        metrics.tell_success(self.metric, summary, seconds=time.monotonic() - began, context=context)
        return summary

    def _anchor(self, context: Context, summary: Any) -> None:
        """Leave what was done, with the newest audit event's digest, where the repository's writer cannot change it.

        XCom has it as the summary; here it goes to the log and to the events of the task's asset outlets.
        """
        from airflow_provider_dockerbackup.operators.asset_events import tell_outlets

        if not isinstance(summary, dict):
            return
        self.done = summary
        if summary.get("audit_head"):
            self.log.info("audit head %s", summary["audit_head"])
        tell_outlets(context, self.outlets or (), summary)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return what this task moved, for Airflow's OpenLineage provider, which asks also after a failure."""
        del task_instance
        if self.done is None:
            return None
        from airflow_provider_dockerbackup.hooks.storage import without_userinfo
        from airflow_provider_dockerbackup.operators.lineage import movement, openlineage_of

        repository = without_userinfo(getattr(self, "repository", None) or "")
        return openlineage_of(movement(self.done, repository=repository))

    def work(self, context: Context) -> Any:
        """Return what :meth:`execute` returns; raises the errors of this package."""
        raise NotImplementedError

    @property
    def progress(self) -> LogProgress:
        """Progress as lines in this task's log."""
        return LogProgress(self.log, clock=SystemClock())


class DockerHostOperator(DockerBackupBaseOperator):
    """Base of the operators that work on one Docker host.

    :param dockerbackup_conn_id: connection of type ``dockerbackup`` or ``ssh`` that reaches the host. (templated)
    """

    template_fields: Sequence[str] = ("dockerbackup_conn_id",)

    def __init__(self, *, dockerbackup_conn_id: str = "dockerbackup_default", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dockerbackup_conn_id = dockerbackup_conn_id

    @cached_property
    def hook(self) -> DockerBackupHook:
        """The hook that reaches the host."""
        from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook

        return DockerBackupHook(dockerbackup_conn_id=self.dockerbackup_conn_id)

    def on_kill(self) -> None:
        """Cut every stream: what runs on the host ends with it, and the host cleans up what was temporary."""
        if "hook" in self.__dict__:
            self.hook.kill()


@contextmanager
def retries_stopped_when_permanent() -> Iterator[None]:
    """Raise errors that trying again cannot mend as the one that stops Airflow's retries."""
    try:
        yield
    except TransientError:
        raise
    except DockerBackupError as err:
        raise AirflowFailException(f"{type(err).__name__}: {err}") from err


def actor_of(context: Context) -> dict[str, str]:
    """Return who acts, for records and events: the task's identity, where it runs, and versions; no secrets."""
    from airflow import __version__ as airflow_version

    ti, run = context["ti"], context["dag_run"]
    actor = {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": str(_map_index(ti)),
        "try_number": str(ti.try_number),
        "worker": socket.gethostname(),
        "process": str(os.getpid()),
        "airflow": airflow_version,
        "provider": __version__,
        "python": platform.python_version(),
    }
    user = getattr(run, "triggering_user_name", None)
    return actor | ({"user": str(user)} if user else {})


def work_of(context: Context) -> tuple[str, ...]:
    """Return what names the work, the same for every try of a task instance."""
    ti = context["ti"]
    return (ti.dag_id, ti.run_id, ti.task_id, str(_map_index(ti)))


def _map_index(ti: Any) -> int:
    index = getattr(ti, "map_index", None)
    return -1 if index is None else int(index)
