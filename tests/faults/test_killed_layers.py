# SPDX-License-Identifier: Apache-2.0
"""Workers that are killed while layers come: by save and by push, slowed down so that the kill strikes in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.gc.collect import GcRequest, collect_garbage
from airflow_provider_dockerbackup.core.layers.choice import Way
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.world import Notes, assert_all_whole
from tests.faults.bench import IMAGE, Bench, connect
from tests.faults.worker import Worker
from tests.lab.lab import LabHost
from tests.lab.processes import wait_until

BYTES_A_SECOND = 4_000_000
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "pinned": lambda root: any(root.glob("pins/*/*.json")),
    "within a layer": lambda root: sum(path.stat().st_size for path in root.glob("blobs/*/.*.partial")) > 1_000_000,
    "between layers": lambda root: any(root.glob("layers/sha256/*.json")),
}


def _unfinished(root: Path) -> set[Path]:
    return {*root.glob("pins/*/*"), *root.glob("blobs/*/.*.partial")}


def _names(host: LabHost) -> set[bytes]:
    """What the host shows of images, and of ours that run there."""
    listed = host.daemon.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout
    return set(listed.split())


@pytest.mark.parametrize("moment", list(MOMENTS))
@pytest.mark.parametrize("capture", ["push", "save"])
def test_next_try_commits_when_a_worker_was_killed_while_layers_came(
    capture: Way, moment: str, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is visible is whole, nothing stays tagged on the host, and what the dead one left goes with the garbage."""
    connect(monkeypatch, host)
    root = tmp_path / "repository"
    Repository.open_or_create(LocalStorage(root), clock=SystemClock(), layout="layers")
    bench, before = Bench(f"file://{root}"), _names(host)
    options = bench.options(image=IMAGE, force=True, capture=capture, bandwidth_limit=BYTES_A_SECOND)
    with Worker("save", run_id="killed", **options) as worker:
        assert wait_until(lambda: MOMENTS[moment](root), seconds=60, interval=0.005)
        worker.kill()
    assert bench.backup_ids == set()
    assert _unfinished(root)
    assert wait_until(lambda: _names(host) == before, seconds=30)
    assert bench.save(run_id="killed", capture=capture)["status"] == "committed"
    assert len(assert_all_whole(bench.repository)) == 1
    collect_garbage(bench.repository, GcRequest(grace_hours=0), progress=Notes())
    assert _unfinished(root) == set()
    assert len(assert_all_whole(bench.repository)) == 1
    assert _names(host) == before
