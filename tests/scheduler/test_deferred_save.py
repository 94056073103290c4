# SPDX-License-Identifier: Apache-2.0
"""Saves on the host that wait in a real triggerer: through a restart of all of Airflow, marked failed, and cleared."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.lab import Lab
from tests.scheduler.standalone import Standalone

pytestmark = pytest.mark.timeout(900)

SOURCE = """
from airflow.sdk import DAG

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


def backups(place: Path) -> list[str]:
    """Return the runs that made backups."""
    repository = Repository.open(storage_from_url(f"file://{place}/repository"), clock=SystemClock())
    return [each.whole().actor["run_id"] for each in repository.catalog.backups()]


def test_the_job_goes_on_while_all_of_airflow_is_killed_and_is_committed_afterwards(
    airflow: Standalone, place: Path
) -> None:
    """Worker, triggerer and scheduler lose power; the host does not notice."""
    run_id = deferred(airflow, place)
    airflow.kill()
    assert len(jobs(place)) == 1
    airflow.start()
    (place / "gate").unlink()
    assert airflow.finished("on_host", run_id) == "success"
    assert backups(place) == [run_id]
    assert jobs(place) == []


def test_marking_the_task_failed_ends_the_job_and_clearing_it_saves_anew(airflow: Standalone, place: Path) -> None:
    """The trigger ends the job of its own try; the next try has a job of its own and commits."""
    before = len(backups(place)) if (place / "repository").exists() else 0
    run_id = deferred(airflow, place)
    # Before a triggerer has taken the trigger there is nobody who could end the job.
    airflow.wait(lambda: bool(airflow.task("on_host", run_id, "save")["triggerer_job"]), "a triggerer for the trigger")
    time.sleep(3)
    airflow.patch(f"dags/on_host/dagRuns/{run_id}/taskInstances/save", {"new_state": "failed"})
    airflow.wait(lambda: jobs(place) == [], "the end of the job", seconds=120)
    assert len(backups(place)) == before
    (place / "gate").unlink()
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["save"], "only_failed": False}
    airflow.post("dags/on_host/clearTaskInstances", body)
    assert airflow.finished("on_host", run_id) == "success"
    assert backups(place)[0] == run_id
    assert jobs(place) == []
    assert len(list((place / "archives").iterdir())) == len(backups(place))
