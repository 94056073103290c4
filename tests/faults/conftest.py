# SPDX-License-Identifier: Apache-2.0
"""A lab that faults may break, and a repository with one good backup that must survive them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.bench import IMAGE, Bench, connect
from tests.faults.gate import Gate
from tests.lab.faults import FaultProxy
from tests.lab.images import build_random
from tests.lab.lab import Lab, LabHost
from tests.lab.s3 import LabS3


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two Docker hosts apart from those of the other tests; the first has an image of 24 MB, the second is empty."""
    with Lab.start(tmp_path_factory.mktemp("faults"), hosts=2) as started:
        build_random(started.hosts[0].daemon, IMAGE, size_mb=24, layers=3)
        yield started


@pytest.fixture(scope="session")
def earlier(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one good backup, to be copied."""
    path = tmp_path_factory.mktemp("earlier") / "repository"
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, lab.hosts[0])
        Bench(f"file://{path}").save(run_id="earlier")
    return path


@pytest.fixture
def bench(earlier: Path, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A repository of this test's own that holds one good backup, and the connection ``docker_host_1``."""
    connect(monkeypatch, host)
    shutil.copytree(earlier, tmp_path / "repository")
    return Bench(f"file://{tmp_path}/repository")


@pytest.fixture(params=["local disk", "S3"])
def anywhere(request: pytest.FixtureRequest, bench: Bench, s3: LabS3, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A repository on each kind of storage."""
    if request.param == "S3":
        monkeypatch.setenv("AIRFLOW_CONN_BACKUPS", s3.airflow_connection)
        bench = Bench(f"s3://{s3.new_bucket()}/docker", conn_id="backups")
        bench.save(run_id="earlier")
    return bench


@pytest.fixture
def proxy(host: LabHost) -> Iterator[FaultProxy]:
    """A proxy in front of the first host's sshd."""
    with FaultProxy(host.address, host.ssh_port) as opened:
        yield opened


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A docker command that stops in the middle of a stream."""
    with Gate(tmp_path / "gate") as made:
        yield made
