# SPDX-License-Identifier: Apache-2.0
"""Tasks that people, limits and signals end amid their work, under a real scheduler: one backup of a run, or none."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.faults.gate import Gate
from tests.lab.images import build_random
from tests.lab.lab import Lab, LabHost
from tests.lab.processes import command_line, wait_until
from tests.scheduler.leftovers import leftovers
from tests.scheduler.standalone import Standalone

pytestmark = pytest.mark.timeout(900)

IMAGE, CONTAINER = "lab/killed-task:1", "lab-app"
SOURCE = """
from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_dockerbackup.operators.export import DockerExportOperator
from airflow_provider_dockerbackup.operators.save import DockerSaveOperator

SAVES = {"image": "IMAGE", "force": True, "repository": "file://REPOSITORY", "dockerbackup_conn_id": "saves"}
RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=2)}

with DAG("save", schedule=None, default_args=RETRIES):
    DockerSaveOperator(task_id="save", **SAVES)
with DAG("timed", schedule=None):
    DockerSaveOperator(task_id="save", execution_timeout=timedelta(seconds=6), **SAVES)
with DAG("paused", schedule=None):
    DockerExportOperator(
        task_id="export",
        container="CONTAINER",
        consistency="pause",
        repository="file://REPOSITORY",
        dockerbackup_conn_id="exports",
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all of this."""
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def gates(place: Path) -> Iterator[dict[str, Gate]]:
    """What holds saves and exports after their first bytes, once it is closed."""
    with Gate(place / "saves") as saves, Gate(place / "exports") as exports:
        yield {"save": saves, "export": exports}


@pytest.fixture(scope="module")
def airflow(place: Path, gates: dict[str, Gate], lab: Lab) -> Iterator[Standalone]:
    """A real Airflow whose saves and exports stand still at the gates."""
    host = lab.hosts[0]
    build_random(host.daemon, IMAGE, size_mb=4, seed=300)
    dags = place / "dags"
    dags.mkdir()
    text = SOURCE.replace("REPOSITORY", f"{place}/repository").replace("IMAGE", IMAGE).replace("CONTAINER", CONTAINER)
    (dags / "killed.py").write_text(text, encoding="utf-8")
    save = gates["save"].docker(after_bytes=1_000_000)
    export = gates["export"].docker(after_bytes=10_000, subcommand="container export")
    environment = {
        "AIRFLOW_CONN_SAVES": host.airflow_connection(docker_command=save),
        "AIRFLOW_CONN_EXPORTS": host.airflow_connection(docker_command=export),
    }
    with Standalone(place / "airflow", dags=dags, environment=environment) as started:
        yield started
    host.daemon.docker("rmi", "--force", IMAGE)  # other modules list the images of this lab


@pytest.fixture
def held(gates: dict[str, Gate], place: Path) -> Iterator[None]:
    """Closes the gates, and opens them at the end; whatever a run left, the next one puts right."""
    for gate in gates.values():
        gate.close()
    yield
    for gate in gates.values():
        gate.open()


def backups_of(place: Path, run_id: str) -> list[str]:
    """Return the ids of a run's backups."""
    repository = Repository.open_or_create(storage_from_url(f"file://{place}/repository"), clock=SystemClock())
    return [each.backup_id for each in repository.catalog.backups() if each.whole().actor["run_id"] == run_id]


def at_the_gate(airflow: Standalone, gate: Gate, dag_id: str) -> str:
    """Start a run, return its ID once its stream stands at the gate."""
    run_id = airflow.trigger(dag_id)
    airflow.wait(lambda: gate.arrived > 0, f"a stream of {run_id} at the gate", interval=0.05)
    return run_id


def works_on_the_host(host: LabHost, *words: str) -> bool:
    """Tell whether a process of a session on the host has these words in its command line."""
    return any(all(word in line for word in words) for line in host.commands())


def task_processes(airflow: Standalone) -> list[int]:
    """Return the processes that run tasks, not the executor's workers, which wait for them."""
    return [pid for pid in airflow.processes("airflow worker -- ") if "LocalExecutor" not in command_line(pid)]


def tell(airflow: Standalone, dag_id: str, run_id: str, task_id: str, state: str) -> None:
    """Do what the buttons of Airflow's pages do."""
    airflow.patch(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}", {"new_state": state})


def clear(airflow: Standalone, dag_id: str, run_id: str) -> None:
    """Clear a run's tasks, whatever their state."""
    body: dict[str, Any] = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "reset_dag_runs": True}
    airflow.post(f"dags/{dag_id}/clearTaskInstances", body)


@pytest.mark.usefixtures("held")
def test_a_save_that_is_marked_failed_ends_on_the_host_as_well(
    airflow: Standalone, gates: dict[str, Gate], host: LabHost, place: Path
) -> None:
    """It commits nothing, and nothing goes on there."""
    run_id = at_the_gate(airflow, gates["save"], "save")
    tell(airflow, "save", run_id, "save", "failed")
    assert airflow.finished("save", run_id) == "failed"
    gates["save"].open()
    airflow.wait(lambda: not works_on_the_host(host, "image", "save", IMAGE), "the end of docker save", seconds=60)
    assert backups_of(place, run_id) == []


@pytest.mark.usefixtures("held")
def test_a_save_that_is_cleared_amid_its_work_commits_one_backup(
    airflow: Standalone, gates: dict[str, Gate], place: Path
) -> None:
    """The try that is cleared is ended, the next one does the work."""
    run_id = at_the_gate(airflow, gates["save"], "save")
    clear(airflow, "save", run_id)
    gates["save"].open()
    assert airflow.finished("save", run_id) == "success"
    assert airflow.task("save", run_id, "save")["try_number"] > 1
    assert len(backups_of(place, run_id)) == 1
    assert leftovers(place / "repository") == []


@pytest.mark.usefixtures("held")
def test_a_save_that_is_cleared_after_its_success_returns_the_same_backup(
    airflow: Standalone, gates: dict[str, Gate], place: Path
) -> None:
    """The past cannot be saved again."""
    gates["save"].open()
    run_id = airflow.trigger("save")
    assert airflow.finished("save", run_id) == "success"
    before = backups_of(place, run_id)
    clear(airflow, "save", run_id)
    airflow.wait(lambda: airflow.task("save", run_id, "save")["try_number"] == 2, "the second try")
    assert airflow.finished("save", run_id) == "success"
    assert backups_of(place, run_id) == before
    assert len(before) == 1
    xcom = airflow.get(f"dags/save/dagRuns/{run_id}/taskInstances/save/xcomEntries/backup_id")
    assert xcom["value"] == before[0]


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_save_whose_process_gets_a_signal_is_tried_again(
    airflow: Standalone, gates: dict[str, Gate], place: Path, number: signal.Signals
) -> None:
    """And commits one backup; the file of the first try is removed."""
    run_id = at_the_gate(airflow, gates["save"], "save")
    found = task_processes(airflow)
    assert found
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    gates["save"].open()
    assert airflow.finished("save", run_id) == "success"
    assert len(backups_of(place, run_id)) == 1
    assert leftovers(place / "repository") == []


@pytest.mark.usefixtures("held")
def test_a_save_that_exceeds_its_execution_timeout_fails_and_ends_on_the_host(
    airflow: Standalone, gates: dict[str, Gate], host: LabHost, place: Path
) -> None:
    """The timeout is an exception that nobody may swallow."""
    run_id = at_the_gate(airflow, gates["save"], "timed")
    assert airflow.finished("timed", run_id) == "failed"
    gates["save"].open()
    airflow.wait(lambda: not works_on_the_host(host, "image", "save", IMAGE), "the end of docker save", seconds=60)
    assert backups_of(place, run_id) == []
    assert leftovers(place / "repository") == []


@pytest.mark.usefixtures("held")
def test_an_export_that_is_marked_failed_leaves_its_container_running(
    airflow: Standalone, gates: dict[str, Gate], host: LabHost, place: Path
) -> None:
    """It was paused for the stream; the host itself ends that."""
    run_id = at_the_gate(airflow, gates["export"], "paused")
    assert status(host) == "paused"
    tell(airflow, "paused", run_id, "export", "failed")
    assert airflow.finished("paused", run_id) == "failed"
    assert wait_until(lambda: status(host) == "running", seconds=30, interval=0.2)
    assert backups_of(place, run_id) == []


def status(host: LabHost) -> str:
    """Return the container's state."""
    return host.daemon.docker("inspect", "--format", "{{.State.Status}}", CONTAINER).stdout.decode().strip()
