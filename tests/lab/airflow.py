# SPDX-License-Identifier: Apache-2.0
"""A whole Airflow on loopback: scheduler, triggerer, DAG processor and API server, each a process of its own.

For what ``dag.test()`` does not do: schedule on assets, catch up, backfill, run triggers and deadlines elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from tests.lab.errors import LabError, log_tail
from tests.lab.processes import spawn, terminate, wait_until

_AIRFLOW: Final = Path(sys.executable).parent / "airflow"
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "api-server": ("--host", "127.0.0.1", "--workers", "1"),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabAirflow:
    """A running Airflow.

    :param home: its AIRFLOW_HOME.
    :param url: where its API answers.
    :param environment: of all its processes.
    """

    home: Path
    url: str
    environment: Mapping[str, str] = field(repr=False)

    def get(self, path: str, **parameters: Any) -> Any:
        """Return what the public API answers."""
        return self._ask("GET", path, params=parameters)

    def post(self, path: str, **body: Any) -> Any:
        """Return what the public API answers to a JSON body."""
        return self._ask("POST", path, json=body)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, *, logical_date: str | None = None) -> str:
        """Trigger a DAG, as soon as it is known, and return the id of its run."""
        wait_until(lambda: self._knows(dag_id), seconds=60, interval=0.5)
        made = self.post(f"dags/{dag_id}/dagRuns", logical_date=logical_date, conf=dict(conf or {}))
        return str(made["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a DAG, oldest first."""
        found: list[dict[str, Any]] = self.get(f"dags/{dag_id}/dagRuns", order_by="run_after")["dag_runs"]
        return found

    def finished(self, dag_id: str, *, count: int = 1, seconds: float = 180) -> list[dict[str, Any]]:
        """Return the runs of a DAG when at least ``count`` are there and all of them have ended.

        :raises LabError: when they have not in time; with what the scheduler wrote last.
        """
        if not wait_until(lambda: _ended(self.runs(dag_id), count), seconds=seconds, interval=0.5):
            states = [(each["run_type"], each["state"]) for each in self.runs(dag_id)]
            raise LabError(f"runs of {dag_id} after {seconds} s: {states}{log_tail(self.home / 'scheduler.log')}")
        return self.runs(dag_id)

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the states of a run's tasks; of mapped ones that of the last index."""
        found = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {each["task_id"]: each["state"] for each in found}

    def task_log(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Return the log of all tries of a task."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.log")))

    def _knows(self, dag_id: str) -> bool:
        return any(each["dag_id"] == dag_id for each in self.get("dags", limit=100)["dags"])

    def logs(self, dag_id: str) -> str:
        """Return what all tasks of a DAG logged, and the end of what the scheduler did."""
        found = sorted((self.home / "logs" / f"dag_id={dag_id}").rglob("*.log"))
        return "".join(path.read_text(encoding="utf-8") for path in found) + log_tail(self.home / "scheduler.log")

    def command(self, *words: str) -> str:
        """Return what an ``airflow`` command prints."""
        done = subprocess.run(
            [_AIRFLOW, *words], env=dict(self.environment), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LabError(f"airflow {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        token = httpx.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.request(method, f"{self.url}/api/v2/{path}", headers=headers, timeout=30, **options)
        if answer.is_error:
            raise LabError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()


def _ended(runs: Sequence[Mapping[str, Any]], count: int) -> bool:
    return len(runs) >= count and all(each["state"] in {"success", "failed"} for each in runs)


@contextmanager
def airflow_of(*dag_folders: Path, **variables: str) -> Iterator[LabAirflow]:
    """Run an Airflow with these DAG folders and give it when it answers.

    :param variables: environment variables of all its processes.
    """
    home = Path(tempfile.mkdtemp(prefix="dockerbackup-lab-airflow-"))
    airflow = _prepared(home, dag_folders, variables)
    try:
        subprocess.run([_AIRFLOW, "db", "migrate"], env=dict(airflow.environment), check=True, capture_output=True)
        # Tasks that the scheduler starts before the API server answers fail.
        for parts in (("api-server",), ("scheduler", "triggerer", "dag-processor")):
            for part in parts:
                spawn(
                    [str(_AIRFLOW), part, *_PARTS[part]],
                    pid_file=home / f"{part}.pid-of-lab",
                    log=home / f"{part}.log",
                    environment=airflow.environment,
                )
            if not wait_until(partial(_healthy, airflow, parts), seconds=150, interval=0.5):
                raise LabError("".join(log_tail(home / f"{part}.log") for part in parts))
        yield airflow
    finally:
        for part in _PARTS:
            terminate(home / f"{part}.pid-of-lab", patience=20)
        shutil.rmtree(home, ignore_errors=True)


def _prepared(home: Path, dag_folders: Sequence[Path], variables: Mapping[str, str]) -> LabAirflow:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bundles = [
        {
            "name": f"{folder.parent.name}-{folder.name}",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        }
        | {"kwargs": {"path": str(folder)}}
        for folder in dag_folders
    ]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    environment = {
        **inherited,
        "AIRFLOW_HOME": str(home),
        # Five processes write to it, and the default patience is 5 s.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        **variables,
    }
    return LabAirflow(home=home, url=f"http://127.0.0.1:{port}", environment=environment)


def _healthy(airflow: LabAirflow, parts: Sequence[str]) -> bool:
    try:
        health = httpx.get(f"{airflow.url}/api/v2/monitor/health", timeout=10).json()
    except (httpx.HTTPError, ValueError):
        return False
    told = {part.replace("_", "-"): each["status"] for part, each in health.items()}
    return all(told.get(part, "healthy") == "healthy" for part in parts)
