# SPDX-License-Identifier: Apache-2.0
"""What every test shares: an Airflow of its own, and one lab of real Docker hosts for the whole session."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before the first import of Airflow: its own home and database, and our example DAGs.
_HOME = tempfile.mkdtemp(prefix="dockerbackup-airflow-")
os.environ.update(
    {
        "AIRFLOW_HOME": _HOME,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent.parent / "dags"),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    }
)

import pytest

from tests.lab.images import build_app, build_committed, run_app_container, wait_healthy
from tests.lab.install import ensure_programs
from tests.lab.lab import Lab, LabHost
from tests.lab.s3 import LabS3, s3_server

TESTS = Path(__file__).parent
# Modules that take a minute or more, the longest first. They begin first, and those without a lab last, so that at the
# end no worker is left with minutes of work while the others have none.
LONGEST = (
    "benchmarks/test_suite.py",
    "scheduler/test_scheduled_runs.py",
    "operators/test_engines.py",
    "operators/test_on_host.py",
    "test_dags.py",
    "operators/test_capture_on_host.py",
    "scheduler/test_events.py",
    "scheduler/test_deferred_save.py",
    "scheduler/test_killed_tasks.py",
    "cli/test_alone.py",
    "plugins/test_in_a_browser.py",
    "core/test_bringing_faults.py",
    "core/audit/test_proof.py",
    "test_readme.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules are handed out in this order; the tests of each stay in theirs."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    name = item.path.relative_to(TESTS).as_posix()
    if name in LONGEST:
        return LONGEST.index(name)
    return len(LONGEST) + name.startswith(("core/", "property/"))


def pytest_sessionstart() -> None:
    """Real parts are needed by so many tests that they are installed before the first."""
    ensure_programs()


def pytest_collection_finish() -> None:
    """What was imported stays until the end: garbage is looked for among what the tests make, not in all of Airflow."""
    _keep_what_there_is()


@pytest.fixture(scope="module", autouse=True)
def without_what_earlier_modules_left() -> None:
    """Nor in what earlier modules imported and kept: tests that bury dead processes took up to forty times as long."""
    _keep_what_there_is()


def _keep_what_there_is() -> None:
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Airflow's home was made for this session alone."""
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two Docker hosts; the first has images and a running container, the second is empty."""
    with Lab.start(tmp_path_factory.mktemp("lab"), hosts=2) as started:
        daemon = started.hosts[0].daemon
        build_app(daemon)
        build_committed(daemon)
        run_app_container(daemon)
        wait_healthy(daemon, "lab-app")
        yield started


@pytest.fixture
def host(lab: Lab) -> LabHost:
    """The Docker host that has something to back up."""
    return lab.hosts[0]


@pytest.fixture
def target(lab: Lab) -> Iterator[LabHost]:
    """A Docker host to restore to; what a test leaves there is removed after it."""
    yield lab.hosts[1]
    daemon = lab.hosts[1].daemon
    for image in daemon.docker("image", "ls", "-q", "--no-trunc").stdout.decode().split():
        daemon.docker("image", "rm", "-f", image, check=False)


@pytest.fixture(scope="session")
def s3() -> Iterator[LabS3]:
    """A real S3 server on loopback."""
    with s3_server() as server:
        yield server


@pytest.fixture
def connections(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's hosts as Airflow connections ``docker_host_1`` and ``docker_host_2``."""
    for name, value in lab.airflow_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_CONN_DOCKERBACKUP_DEFAULT", lab.hosts[0].airflow_connection())


@pytest.fixture
def repository_url(tmp_path: Path) -> str:
    """URL of a repository on local disk that is not there yet."""
    return f"file://{tmp_path}/repository"
