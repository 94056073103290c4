# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow on loopback: ``airflow standalone`` with a PostgreSQL of its own, asked through its REST API."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.lab.postgres import postgres_server
from tests.lab.processes import session_processes, wait_until

_AIRFLOW = Path(sys.executable).parent / "airflow"
_FINAL = {"success", "failed"}


class Standalone:
    """Scheduler, API server, DAG processor and triggerer, started as a user starts them, and killed as machines die.

    :param directory: holds its home; made.
    :param dags: the folder of its DAGs, none of which is paused.
    :param environment: connections and more settings.
    """

    def __init__(self, directory: Path, *, dags: Path, environment: Mapping[str, str]) -> None:
        self.home = directory
        self.home.mkdir()
        api, worker_logs, trigger_logs = _free_ports(3)
        self._url = f"http://127.0.0.1:{api}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        self._environment = {
            **inherited,
            "PATH": f"{_AIRFLOW.parent}:{inherited['PATH']}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(api),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self._url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
            # A task whose process is gone is noticed after five minutes by default.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
            # What a scheduler that is gone had queued, the next one takes over only at a check every five minutes by
            # default; that other one is held to be alive for thirty seconds.
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""
        self._database = ExitStack()

    def __enter__(self) -> Self:
        """Start its database, then itself."""
        # Not SQLite: there a transaction that has read and then writes fails at once beside another that writes.
        with ExitStack() as started:
            self._environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = started.enter_context(postgres_server())
            self.start()
            self._database = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all of its processes, then its database."""
        self.kill()
        self._database.close()

    @property
    def url(self) -> str:
        """Of its web interface, without a trailing ``/``."""
        return self._url

    @property
    def token(self) -> str:
        """Of an administrator."""
        return self._token

    def start(self) -> None:
        """Start it, again with the same database if it was killed, and return when its scheduler is at work."""
        with (self.home / "standalone.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_AIRFLOW, "standalone"], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        if not wait_until(self._healthy, seconds=180, interval=0.5):
            self.kill()  # nobody else would: whoever enters has not entered yet
            raise TimeoutError(f"airflow standalone did not come up:\n{self.log()}")
        self._token = httpx.get(f"{self._url}/auth/token", timeout=30).json()["access_token"]

    def kill(self) -> None:
        """End every process at once, without a chance to clean up: as when the machine loses power."""
        while found := self.processes():
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self._process is not None:
                self._process.wait()

    def processes(self, *words: str) -> list[int]:
        """Return its processes, also those of tasks, whose command line has all of ``words``."""
        # Names and environments they change, their session they keep.
        return [] if self._process is None else session_processes(self._process.pid, *words)

    def log(self) -> str:
        """Return the end of what it wrote."""
        return (self.home / "standalone.log").read_text(encoding="utf-8", errors="replace")[-8000:]

    def get(self, path: str, **parameters: Any) -> Any:
        """Return what the REST API answers.

        :param path: below ``/api/v2/``.
        """
        return self._call("GET", path, params=parameters)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a POST request and return the answer."""
        return self._call("POST", path, json=dict(body))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a PATCH request and return the answer."""
        return self._call("PATCH", path, json=dict(body))

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a manual run and return its ID, as soon as the DAG is known."""
        if not wait_until(lambda: self._knows(dag_id), seconds=120, interval=1):
            raise TimeoutError(f"{dag_id} is not known:\n{self.log()}")
        run: str = self.post(f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"]
        return run

    def runs(self, dag_id: str, *, run_type: str) -> list[dict[str, Any]]:
        """Return a DAG's runs of one type, the oldest first; none while it is not known."""
        if not self._knows(dag_id):
            return []
        found: list[dict[str, Any]] = self.get(f"dags/{dag_id}/dagRuns", order_by="run_after", limit=100)["dag_runs"]
        return [run for run in found if run["run_type"] == run_type]

    def state(self, dag_id: str, run_id: str) -> str:
        """Return a run's state."""
        return str(self.get(f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def finished(self, dag_id: str, run_id: str, *, seconds: float = 900) -> str:
        """Wait for a run's end and return its state."""
        self.wait(lambda: self.state(dag_id, run_id) in _FINAL, f"the end of {run_id}", seconds=seconds)
        return self.state(dag_id, run_id)

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return what is known of a task instance that is not mapped."""
        found: dict[str, Any] = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")
        return found

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the states of a run's tasks; of mapped ones that of the last index."""
        found = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {each["task_id"]: each["state"] for each in found}

    def task_log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Return the logs of all tries of a task."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.log")))

    def command(self, *words: str) -> None:
        """Run an ``airflow`` command beside it.

        :raises RuntimeError: when it fails; with what it wrote.
        """
        done = subprocess.run([_AIRFLOW, *words], env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(words)}: {done.stdout}{done.stderr}")

    def wait(self, condition: Callable[[], bool], what: str, *, seconds: float = 900, interval: float = 0.5) -> None:
        """Return when a condition has come true.

        :raises TimeoutError: when it does not; with the end of the log.
        """
        if not wait_until(condition, seconds=seconds, interval=interval):
            raise TimeoutError(f"waited {seconds} s in vain for {what}:\n{self.log()}")

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = httpx.request(method, f"{self._url}/api/v2/{path}", headers=headers, timeout=60, **arguments)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def _knows(self, dag_id: str) -> bool:
        return any(dag["dag_id"] == dag_id for dag in self.get("dags", limit=100)["dags"])

    def _healthy(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"airflow standalone ended:\n{self.log()}")
        try:
            health = httpx.get(f"{self._url}/api/v2/monitor/health", timeout=10).json()
        except (httpx.HTTPError, ValueError):
            return False
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
