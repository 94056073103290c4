# SPDX-License-Identifier: Apache-2.0
"""Zombies: workers that stand still while the next try of their task does the work, and that come back afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.gc.collect import GcRequest, collect_garbage
from airflow_provider_dockerbackup.core.layers.choice import Way
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.world import Notes, assert_all_whole
from tests.faults.bench import CLEAN, FAULTY, IMAGE, Bench, connect, unharmed
from tests.faults.gate import Gate
from tests.faults.worker import Worker
from tests.lab.lab import LabHost
from tests.lab.processes import wait_until

MIDDLE_BYTES = 4_000_000
BYTES_A_SECOND = 4_000_000
RUN = "zombie"


def _while_it_stands_still(
    options: dict[str, Any],
    *,
    begun: Callable[[], object],
    meanwhile: Callable[[], object],
    afterwards: Callable[[], object] = lambda: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Stop a worker in the middle of a save, let the next try end, then let the first go on; return what both said.

    :param options: of both tries, but for the connection: the next try has the clean one.
    :param begun: returns, or is true, when the first is in the middle.
    :param meanwhile: called when it stands still, before the next try begins.
    :param afterwards: called when the next try has ended, before the first goes on.
    """
    with Worker("save", run_id=RUN, try_number=1, **options) as zombie:
        assert begun() is not False
        zombie.stop()
        meanwhile()
        with Worker("save", run_id=RUN, try_number=2, **options | {"dockerbackup_conn_id": CLEAN}) as successor:
            second = successor.result()
        assert not zombie.has_said_something
        afterwards()
        zombie.go_on()
        return zombie.result(), second


def _told(bench: Bench) -> list[str]:
    """Return what the audit trail tells of the run, oldest first."""
    return [event["type"] for event in bench.events("backup.") if event["actor"]["run_id"] == RUN]


def _is_at_rest(host: LabHost) -> bool:
    """Whether nothing that a session has started runs on the host."""
    return wait_until(lambda: host.commands() == [], seconds=30, interval=0.1)


def _images(host: LabHost) -> set[bytes]:
    return set(host.daemon.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split())


def test_a_zombie_finds_the_backup_of_the_next_try_and_withdraws(
    anywhere: Bench, gate: Gate, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads its stream to the end, loses when it commits, and returns the other's backup."""
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=gate.docker(after_bytes=MIDDLE_BYTES))
    before = anywhere.backup_ids
    options = anywhere.options(docker=FAULTY, image=IMAGE, force=True)
    first, second = _while_it_stands_still(options, begun=gate.wait, meanwhile=gate.open)
    assert second["status"] == "committed"
    assert (first["status"], first["backup_id"]) == ("already", second["backup_id"])
    unharmed(anywhere, before | {second["backup_id"]})
    assert _told(anywhere) == ["backup.started", "backup.started", "backup.committed", "backup.superseded"]
    assert _is_at_rest(host)


def test_a_zombie_whose_link_was_cut_meanwhile_fails_and_harms_nothing(
    anywhere: Bench, gate: Gate, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what became of its stream, that trying again would help, and takes its own file back."""
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=gate.docker(after_bytes=MIDDLE_BYTES))
    before = anywhere.backup_ids

    def cut() -> None:
        gate.open()
        host.kill_sessions()

    options = anywhere.options(docker=FAULTY, image=IMAGE, force=True)
    first, second = _while_it_stands_still(options, begun=gate.wait, meanwhile=cut)
    assert second["status"] == "committed"
    assert re.match(r"TransientError: docker save .* bytes received\); try again", first["error"])
    assert "EOFError" not in first["error"]
    unharmed(anywhere, before | {second["backup_id"]})
    assert _told(anywhere) == ["backup.started", "backup.started", "backup.committed", "backup.failed"]
    assert _is_at_rest(host)


@pytest.mark.parametrize("capture", ["push", "save"])
def test_a_zombie_that_fetches_layers_finds_the_backup_of_the_next_try(
    capture: Way, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two stored a layer, it is whole and there once; the host has no tag of either."""
    connect(monkeypatch, host)
    root, images = tmp_path / "repository", _images(host)
    Repository.open_or_create(LocalStorage(root), clock=SystemClock(), layout="layers")
    bench = Bench(f"file://{root}")

    def within_a_layer() -> bool:
        def amount() -> int:
            return sum(path.stat().st_size for path in root.glob("blobs/*/.*.partial"))

        return wait_until(lambda: amount() > 1_000_000, seconds=60, interval=0.005)

    options = bench.options(image=IMAGE, force=True, capture=capture, bandwidth_limit=BYTES_A_SECOND)
    first, second = _while_it_stands_still(options, begun=within_a_layer, meanwhile=lambda: None)
    assert second["status"] == "committed"
    assert (first["status"], first["backup_id"]) == ("already", second["backup_id"])
    assert bench.backup_ids == {second["backup_id"]}
    assert len(assert_all_whole(bench.repository)) == 1
    assert _told(bench) == ["backup.started", "backup.started", "backup.committed", "backup.superseded"]
    collect_garbage(bench.repository, GcRequest(grace_hours=0), progress=Notes())
    assert {*root.glob("pins/*/*"), *root.glob("blobs/*/.*.partial")} == set()
    assert len(assert_all_whole(bench.repository)) == 1
    assert _is_at_rest(host)
    assert _images(host) == images


@pytest.mark.parametrize("job", ["runs", "is over"])
def test_a_zombie_that_waits_for_the_host_finds_the_backup_of_the_next_try(
    job: str, bench: Bench, gate: Gate, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try ends the zombie's job and removes what it made; the one archive there is its own."""
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=gate.docker(after_bytes=MIDDLE_BYTES))
    before, archives = bench.backup_ids, tmp_path / "archives"
    options = bench.options(docker=FAULTY, image=IMAGE, force=True, archive_location=f"host:{archives}")

    def meanwhile() -> None:
        if job == "is over":
            gate.open()
            assert wait_until(lambda: not any("image save" in line for line in host.commands()), seconds=30)

    def afterwards() -> None:
        assert len(list(archives.iterdir())) == 1
        assert not any("image save" in line for line in host.commands())

    first, second = _while_it_stands_still(options, begun=gate.wait, meanwhile=meanwhile, afterwards=afterwards)
    assert second["status"] == "committed"
    assert (first["status"], first["backup_id"]) == ("already", second["backup_id"])
    assert bench.backup_ids == before | {second["backup_id"]}
    record = bench.repository.catalog.find(second["backup_id"]).whole()
    assert [str(path) for path in archives.iterdir()] == [record.path_on_host]
    assert bench.verify(second["backup_id"], archive_host_conn_ids=[CLEAN])["verification"] == "passed"
    assert _told(bench) == ["backup.started", "backup.started", "backup.committed"]
    assert _is_at_rest(host)
