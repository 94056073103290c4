# SPDX-License-Identifier: Apache-2.0
"""Workers: operators run in processes of their own, which can be killed as a kernel or a scheduler does."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.rollback import DockerBackupRollbackOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator
from tests.lab.processes import is_stopped, wait_until
from tests.operators.context import context

_OPERATORS = {
    "commit": DockerCommitOperator,
    "export": DockerExportOperator,
    "rollback": DockerBackupRollbackOperator,
    "save": DockerSaveOperator,
}
# Forked from a process that has imported Airflow already: a worker is there in an instant, without our threads.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


class Worker:
    """One try of one task in a process of its own.

    :param kind: ``commit``, ``save``, ``export`` or ``rollback``; also the task's id.
    :param run_id: the DAG run; the same one makes it another try of the same work.
    :param options: the operator's arguments.
    """

    def __init__(self, kind: str, *, run_id: str = "run-1", try_number: int = 1, **options: Any) -> None:
        self._results, theirs = _FORKS.Pipe(duplex=False)
        ours = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW")}
        arguments = (theirs, ours, kind, run_id, try_number, options)
        self._process = _FORKS.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        """Give the running worker."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.kill()
        self._process.close()

    def stop(self) -> None:
        """Stop it where it is, by SIGSTOP, and return when it stands still."""
        self._signal(signal.SIGSTOP)
        pid = self._process.pid
        if pid is None or not wait_until(lambda: is_stopped(pid), seconds=10):
            raise TimeoutError("the worker goes on after SIGSTOP, or is gone")

    def go_on(self) -> None:
        """Let it go on from where it was stopped."""
        self._signal(signal.SIGCONT)

    @property
    def has_said_something(self) -> bool:
        """Whether there is a result."""
        return self._results.poll()

    def kill(self) -> None:
        """End it by SIGKILL; it cleans up nothing."""
        self._signal(signal.SIGKILL)
        self._process.join(20)

    def result(self, *, seconds: float = 60) -> dict[str, Any]:
        """Return what the operator returned, or ``{"error": "Type: message"}``."""
        if not self._results.poll(seconds):
            raise TimeoutError(f"the worker said nothing for {seconds} s")
        result: dict[str, Any] = self._results.recv()
        return result

    def _signal(self, number: signal.Signals) -> None:
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)


def _work(
    results: Connection,
    environment: Mapping[str, str],
    kind: str,
    run_id: str,
    try_number: int,
    options: Mapping[str, Any],
) -> None:
    os.environ.update(environment)
    try:
        operator = _OPERATORS[kind](task_id=kind, **options)
        results.send(operator.execute(context(run_id=run_id, task_id=kind, try_number=try_number)))
    except Exception as err:  # noqa: BLE001 - whatever it is, the test is told
        results.send({"error": f"{type(err).__name__}: {err}"})
