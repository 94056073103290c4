# SPDX-License-Identifier: Apache-2.0
"""Saves on the host that wait in a real triggerer: through a restart of all of Airflow, marked failed, and cleared."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.lab import Lab, LabHost
from tests.lab.processes import wait_until
from tests.scheduler.standalone import Standalone

pytestmark = pytest.mark.timeout(900)

SOURCE = """
from airflow.sdk import DAG, AssetAlias

from airflow_provider_dockerbackup.operators.save import DockerSaveOperator

with DAG("on_host", schedule=None):
    DockerSaveOperator(
        task_id="save",
        image="lab/app:1",
        force=True,
        repository="file://PLACE/repository",
        archive_location="host:PLACE/archives",
        deferrable=True,
        poll_seconds=15.0,
        dockerbackup_conn_id="slow",
        outlets=[AssetAlias("saved_on_host")],
    )
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all of this."""
    return tmp_path_factory.mktemp("deferred")


@pytest.fixture(scope="module")
def airflow(place: Path, lab: Lab) -> Iterator[Standalone]:
    """A real Airflow, and a docker on the host that holds a save back while there is a file."""
    (place / "dags").mkdir()
    (place / "dags" / "on_host.py").write_text(SOURCE.replace("PLACE", str(place)), encoding="utf-8")
    docker = place / "docker"
    docker.write_text(
        f'#!/bin/sh\nif [ "$2" = save ]; then while [ -e {place}/gate ]; do sleep 0.1; done; fi\nexec docker "$@"\n'
    )
    docker.chmod(0o755)
    environment = {"AIRFLOW_CONN_SLOW": lab.hosts[0].airflow_connection(docker_command=str(docker))}
    with Standalone(place / "airflow", dags=place / "dags", environment=environment) as started:
        yield started
    (place / "gate").unlink(missing_ok=True)


def jobs(place: Path) -> list[Path]:
    """Return the folders of jobs on the host."""
    return list((place / "archives").glob(".dockerbackup-*"))


def deferred(airflow: Standalone, place: Path) -> str:
    """Start a run, return its ID once it waits in the triggerer."""
    (place / "gate").touch()
    run_id = airflow.trigger("on_host")
    airflow.wait(lambda: airflow.task("on_host", run_id, "save")["state"] == "deferred", f"the deferral of {run_id}")
    assert len(jobs(place)) == 1
    return run_id


def taken(airflow: Standalone, run_id: str) -> None:
    """Return once a triggerer waits for the job; before that there is nobody who could end it."""
    airflow.wait(lambda: bool(airflow.task("on_host", run_id, "save")["triggerer_job"]), "a triggerer for the trigger")
    time.sleep(3)


def clear(airflow: Standalone, run_id: str) -> None:
    """Clear the task, whatever its state."""
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["save"], "only_failed": False}
    airflow.post("dags/on_host/clearTaskInstances", body)


def catalog(place: Path) -> list[Backup]:
    """Return the backups; none while there is no repository."""
    if not (place / "repository").exists():
        return []
    return Repository.open(storage_from_url(f"file://{place}/repository"), clock=SystemClock()).catalog.backups()


def backups(place: Path) -> list[str]:
    """Return the runs that made backups."""
    return [each.whole().actor["run_id"] for each in catalog(place)]


def told(airflow: Standalone, run_id: str) -> list[str]:
    """Return the ids of the backups of which asset events of a run tell."""
    found = airflow.get("assets/events", source_dag_id="on_host", source_run_id=run_id)["asset_events"]
    return [each["extra"]["backup_id"] for each in found]


def nothing_is_left(place: Path, host: LabHost) -> None:
    """See that of all jobs the host has the archives that records name, and nothing else."""
    assert {str(path) for path in (place / "archives").iterdir()} == {
        each.whole().path_on_host for each in catalog(place)
    }
    assert wait_until(lambda: host.commands() == [], seconds=30, interval=0.1)


def test_the_job_goes_on_while_all_of_airflow_is_killed_and_is_committed_afterwards(
    airflow: Standalone, place: Path, host: LabHost
) -> None:
    """Worker, triggerer and scheduler lose power; the host does not notice. The asset's event names the backup."""
    run_id = deferred(airflow, place)
    airflow.kill()
    assert len(jobs(place)) == 1
    airflow.start()
    (place / "gate").unlink()
    assert airflow.finished("on_host", run_id) == "success"
    assert backups(place) == [run_id]
    assert told(airflow, run_id) == [each.backup_id for each in catalog(place)]
    nothing_is_left(place, host)


def test_marking_the_task_failed_ends_the_job_and_clearing_it_saves_anew(
    airflow: Standalone, place: Path, host: LabHost
) -> None:
    """The trigger ends the job of its own try; the next try has a job of its own and commits."""
    before = backups(place)
    run_id = deferred(airflow, place)
    taken(airflow, run_id)
    airflow.patch(f"dags/on_host/dagRuns/{run_id}/taskInstances/save", {"new_state": "failed"})
    airflow.wait(lambda: jobs(place) == [], "the end of the job", seconds=120)
    assert backups(place) == before
    (place / "gate").unlink()
    clear(airflow, run_id)
    assert airflow.finished("on_host", run_id) == "success"
    assert backups(place) == [run_id, *before]
    nothing_is_left(place, host)


def test_clearing_the_task_while_its_job_runs_ends_that_job_and_saves_anew(
    airflow: Standalone, place: Path, host: LabHost
) -> None:
    """Whoever comes first, the next try or the trigger, ends the first job, and neither harms the second."""
    before = backups(place)
    run_id = deferred(airflow, place)
    taken(airflow, run_id)
    first = jobs(place)
    clear(airflow, run_id)

    def waits_again() -> bool:
        task = airflow.task("on_host", run_id, "save")
        return bool(task["try_number"] == 2 and task["state"] == "deferred" and task["triggerer_job"])

    airflow.wait(waits_again, "the deferral of the second try")
    airflow.wait(lambda: not set(first) & set(jobs(place)), "the end of the first job", seconds=60)
    assert len(jobs(place)) == 1
    (place / "gate").unlink()
    assert airflow.finished("on_host", run_id) == "success"
    assert backups(place) == [run_id, *before]
    assert told(airflow, run_id) == [catalog(place)[0].backup_id]
    nothing_is_left(place, host)
