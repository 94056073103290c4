# SPDX-License-Identifier: Apache-2.0
"""An Airflow of the suite's own: scheduler, API server and LocalExecutor on loopback, with DAGs of the suite's own."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.bench import ROOT, BenchError
from tests.lab.sshd import ADDRESS, free_port

_AIRFLOW = Path(sys.executable).parent / "airflow"
_START_SECONDS = 180
_RUN_SECONDS = 1800
_ENDED = frozenset({"success", "failed"})


class Airflow:
    """Runs DAGs with a real scheduler; a context that stops it.

    :param directory: a new folder for its home.
    :param dags: where its DAG files are.
    :param parallelism: how many tasks run at once.
    :param environment: more variables for all of its processes, such as connections.
    """

    def __init__(self, directory: Path, *, dags: Path, parallelism: int, environment: Mapping[str, str]) -> None:
        port = free_port()
        self._database = directory / "airflow.db"
        self._log = directory / "standalone.log"
        self._environment = {
            **os.environ,
            **environment,
            # It starts its parts by their name.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            # As an installed package has it; the round that is thrown away writes it.
            "PYTHONPYCACHEPREFIX": str(directory / "bytecode"),
            "AIRFLOW_HOME": str(directory),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": str(parallelism),
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(parallelism),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{ADDRESS}:{port}/execution/",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__API__HOST": ADDRESS,
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        }
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self._cli("db", "migrate")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [_AIRFLOW, "standalone"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, with all that it started."""
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)

    def wait_for(self, *dag_ids: str) -> None:
        """Return once these DAGs are known.

        :raises BenchError: when they are not in time.
        """
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            known = {row[0] for row in self._rows("SELECT dag_id FROM dag WHERE is_stale = 0")}
            if known >= set(dag_ids):
                return
            self._require_running()
            time.sleep(1)
        tail = self._log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise BenchError(f"Airflow does not know {', '.join(dag_ids)} after {_START_SECONDS} s: {tail}")

    def run(self, dag_id: str) -> float:
        """Return how many seconds a run took, by the scheduler's own times.

        :raises BenchError: when it failed.
        """
        run_id = f"bench-{secrets.token_hex(4)}"
        self._cli("dags", "trigger", dag_id, "--run-id", run_id)
        until = time.monotonic() + _RUN_SECONDS
        while time.monotonic() < until:
            for state, began, ended in self._rows(
                "SELECT state, start_date, end_date FROM dag_run WHERE run_id = ?", run_id
            ):
                if state in _ENDED and ended:
                    if state != "success":
                        raise BenchError(f"a run of {dag_id} {state}: {self._failure(run_id)}")
                    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
            self._require_running()
            time.sleep(0.5)
        raise BenchError(f"a run of {dag_id} did not end within {_RUN_SECONDS} s")

    def _failure(self, run_id: str) -> str:
        """Return what tasks that failed said; their logs go with this Airflow."""
        logs = self._log.parent / "logs"
        said = []
        for log in sorted(logs.glob(f"dag_id=*/run_id={run_id}/**/*.log")):
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, LookupError):
                    said += [f"{each['exc_type']}: {each['exc_value']}" for each in json.loads(line)["error_detail"]]
        return "; ".join(dict.fromkeys(said)) or "no task says why"

    def _require_running(self) -> None:
        if self._process is None or self._process.poll() is not None:
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise BenchError(f"Airflow ended: {tail}")

    def _rows(self, query: str, *values: str) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def _cli(self, *arguments: str) -> None:
        done = subprocess.run(
            [_AIRFLOW, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"airflow {' '.join(arguments)}: {done.stderr.decode('utf-8', 'replace')[-2000:]}")
