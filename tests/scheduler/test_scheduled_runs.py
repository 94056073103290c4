# SPDX-License-Identifier: Apache-2.0
"""The example DAGs on a schedule, under a real scheduler, while the images change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.reading import archive_stream
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.faults.gate import Gate
from tests.lab.images import build_random
from tests.lab.lab import Lab, LabHost
from tests.scheduler.leftovers import leftovers
from tests.scheduler.standalone import Standalone

EXAMPLES = Path(__file__).parent.parent.parent / "dags"
SAVES, ROTATES = "example_dockerbackup_images", "example_dockerbackup_rotate"
IMAGE = "lab/scheduled:1"


def edited(name: str, target: Path, *changes: tuple[str, str]) -> None:
    """Copy an example with changes to its lines, as its reader makes them."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (target / f"{name}.py").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all of this."""
    return tmp_path_factory.mktemp("scheduled")


@pytest.fixture(scope="module")
def repository_folder(place: Path) -> Path:
    """Where the examples keep their backups."""
    return place / "repository"


@pytest.fixture(scope="module")
def dags(place: Path, repository_folder: Path) -> Path:
    """The two examples, each run as soon as its last one has ended, with a policy that removes something soon."""
    folder = place / "dags"
    folder.mkdir()
    where = ("file:///srv/dockerbackup", f"file://{repository_folder}")
    often = "schedule=timedelta(seconds=20),"
    edited(
        SAVES, folder, ('schedule=None,  # "@daily" in earnest', often), where, ('Param(["*"]', f'Param(["{IMAGE}"]')
    )
    policy = ('{"keep_daily": 7, "keep_weekly": 5, "keep_monthly": 12, "require_verified": True}', '{"keep_last": 2}')
    edited(ROTATES, folder, ('schedule=None,  # "0 5 * * *" in earnest', often), where, policy)
    return folder


@pytest.fixture(scope="module")
def gate(place: Path) -> Iterator[Gate]:
    """Holds a save after its first megabyte, once it is closed."""
    with Gate(place / "gate") as made:
        made.open()
        yield made


@pytest.fixture(scope="module")
def airflow(place: Path, dags: Path, gate: Gate, lab: Lab) -> Iterator[Standalone]:
    """A real Airflow that reaches the lab."""
    command = gate.docker(after_bytes=1_000_000)
    connection = lab.hosts[0].airflow_connection(docker_command=command)
    with Standalone(
        place / "airflow", dags=dags, environment={"AIRFLOW_CONN_DOCKERBACKUP_DEFAULT": connection}
    ) as started:
        yield started
    # The lab is shared, and other modules list its images.
    lab.hosts[0].daemon.docker("rmi", "--force", IMAGE, check=False)


def change(host: LabHost, seed: int) -> None:
    """Put another image behind the tag at once: a run may list the host's images at any moment."""
    new = build_random(host.daemon, f"lab/next:{seed}", size_mb=6, seed=seed)
    host.daemon.docker("tag", new, IMAGE)
    host.daemon.docker("rmi", new)


def catalog(folder: Path) -> list[Backup]:
    """Return the backups, each of which must be whole."""
    repository = Repository.open(storage_from_url(f"file://{folder}"), clock=SystemClock())
    backups = list(repository.catalog.backups())
    for backup in backups:
        with archive_stream(repository, backup) as tar:
            assert sum(map(len, tar)) == backup.whole().size_bytes
    return backups


def successes(airflow: Standalone, dag_id: str) -> list[dict[str, Any]]:
    """Return the scheduled runs that succeeded."""
    return [run for run in airflow.runs(dag_id, run_type="scheduled") if run["state"] == "success"]


@pytest.mark.timeout(1800)
def test_runs_on_a_schedule_save_verify_and_rotate(airflow: Standalone, host: LabHost, repository_folder: Path) -> None:
    """Three runs and more, each with another image: the newest verified ones stay, others went."""
    change(host, seed=100)
    for number in range(1, 4):
        airflow.wait(lambda: len(successes(airflow, SAVES)) >= number, f"run {number}")  # noqa: B023 - called at once
        change(host, seed=100 + number)
    rotated = len(successes(airflow, ROTATES))
    airflow.wait(lambda: len(successes(airflow, ROTATES)) >= max(3, rotated + 1), "a rotation after them")
    assert {run["state"] for run in airflow.runs(SAVES, run_type="scheduled")} <= {"success", "running", "queued"}
    kept = catalog(repository_folder)
    # The policy keeps two points, which one backup has when it was confirmed; and what came since.
    assert 1 <= len(kept) <= 4
    assert any(each.trust == "verified" for each in kept)
    assert len(list(repository_folder.glob("backups/**/backup.json"))) >= 3
    assert list(repository_folder.glob("backups/**/deleted-*.json"))


@pytest.mark.timeout(1800)
def test_a_run_amid_which_all_of_airflow_is_killed_is_finished_by_the_next_start(
    airflow: Standalone, gate: Gate, host: LabHost, repository_folder: Path
) -> None:
    """Its save is tried again, commits one backup, and removes what the killed try left."""
    gate.close()
    change(host, seed=200)
    airflow.wait(lambda: gate.arrived > 0, "a save that is under way")
    run_id = next(run["dag_run_id"] for run in airflow.runs(SAVES, run_type="scheduled") if run["state"] == "running")
    airflow.kill()
    gate.open()
    airflow.start()
    assert airflow.finished(SAVES, run_id) == "success"
    tries = airflow.get(f"dags/{SAVES}/dagRuns/{run_id}/taskInstances/save/0/tries")["task_instances"]
    assert len(tries) > 1
    assert tries[-1]["state"] == "success"
    of_run = [each for each in catalog(repository_folder) if each.whole().actor["run_id"] == run_id]
    assert len(of_run) == 1
    assert of_run[0].trust == "verified"
    airflow.kill()
    assert leftovers(repository_folder) == []
