# SPDX-License-Identifier: Apache-2.0
"""A commit pauses its container: whatever happens then, it runs again, and no torn image gets a name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.operators.commit import DockerCommitOperator
from tests.faults.bench import CLEAN, FAULTY, IMAGE, Bench, connect, unharmed
from tests.faults.gate import docker_script
from tests.faults.test_export_faults import asked, recovers, status, temporaries
from tests.faults.worker import Worker
from tests.lab.faults import FaultProxy
from tests.lab.lab import LabHost
from tests.lab.processes import wait_until
from tests.operators.context import context

COMMITTED = "faults/committed:1"
KINDS = ["export", "commit"]


@pytest.fixture
def container(host: LabHost) -> Iterator[str]:
    """A running container; what is committed of it goes at the end."""
    name = f"committed-{uuid4().hex[:8]}"
    host.daemon.docker("run", "-d", "--network", "none", "--name", name, IMAGE, "sleep", "1000000")
    try:
        yield name
    finally:
        host.daemon.docker("unpause", name, check=False)
        host.daemon.docker("rm", "-f", "-v", name, check=False)
        host.daemon.docker("rmi", COMMITTED, check=False)


class Hold:
    """A docker command that stands still before it commits, as a daemon does that has much to copy."""

    def __init__(self, directory: Path) -> None:
        self.reached = directory / "reached"
        self._open = directory / "open"
        body = f"""
case "$*" in
  *"container commit"*)
    : >{self.reached}
    tries=0
    while [ ! -e {self._open} ] && [ "$tries" -lt 1200 ]; do tries=$((tries + 1)); sleep 0.05; done ;;
esac
exec docker "$@\""""
        self.docker = docker_script(directory / "docker", body)

    def release(self) -> None:
        """Let it go on."""
        self._open.touch()


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """A commit that stands still until it is released."""
    made = Hold(tmp_path)
    yield made
    made.release()


def options_of(kind: str, bench: Bench, container: str, **options: Any) -> dict[str, Any]:
    """Give the arguments of the operator that commits, for itself or for an export."""
    if kind == "export":
        return bench.options(docker=FAULTY, container=container, **options)
    return {"dockerbackup_conn_id": FAULTY, "container": container, "image": COMMITTED, **options}


def commit(container: str, *, docker: str = CLEAN, **options: Any) -> dict[str, Any]:
    """Commit a container and return the summary."""
    operator = DockerCommitOperator(
        task_id="commit", dockerbackup_conn_id=docker, container=container, image=COMMITTED, **options
    )
    summary: dict[str, Any] = operator.execute(context(task_id="commit"))
    return summary


def is_there(host: LabHost, reference: str) -> bool:
    """Whether the host has an image of that name."""
    return any(reference in (each["RepoTags"] or ()) for each in asked(host, "/images/json"))


def succeeds(kind: str, bench: Bench, host: LabHost, container: str) -> None:
    """See the same work succeed without the fault, and leave nothing temporary on the host."""
    if kind == "export":
        recovers(bench, host, container)
        return
    assert 0 < commit(container)["pause_seconds"] < 60
    assert is_there(host, COMMITTED)
    assert temporaries(host) == ""
    assert status(host, container) == "running"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["worker killed", "link reset"])
def test_container_runs_again_long_before_the_limit_when_its_commit_is_cut(
    fault: str,
    kind: str,
    bench: Bench,
    container: str,
    hold: Hold,
    host: LabHost,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commit then goes on without a pause; its image gets no name of its own, and the next run removes it."""
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port, docker_command=hold.docker)
    before = bench.backup_ids
    with Worker(kind, run_id="fault", **options_of(kind, bench, container)) as worker:
        assert wait_until(hold.reached.exists, seconds=30, interval=0.02)
        assert status(host, container) == "paused"
        if fault == "worker killed":
            worker.kill()
        else:
            proxy.cut_after(0)
        assert wait_until(lambda: status(host, container) == "running", seconds=20, interval=0.1)
    proxy.heal()
    hold.release()
    assert wait_until(lambda: temporaries(host).startswith("dockerbackup-temporary:"), seconds=20, interval=0.1)
    assert not is_there(host, COMMITTED)
    assert bench.backup_ids == before
    succeeds(kind, bench, host, container)


@pytest.mark.parametrize("kind", KINDS)
def test_container_runs_again_at_the_limit_when_the_link_goes_dead_in_mid_commit(
    kind: str,
    bench: Bench,
    container: str,
    hold: Hold,
    host: LabHost,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host sees no end of the connection then; its own switch ends the pause."""
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port, docker_command=hold.docker)
    options = options_of(kind, bench, container, pause_limit_seconds=4)
    with Worker(kind, run_id="fault", **options) as worker:
        assert wait_until(hold.reached.exists, seconds=30, interval=0.02)
        proxy.black_hole_after(0)
        assert status(host, container) == "paused"
        assert wait_until(lambda: status(host, container) == "running", seconds=10, interval=0.05)
        worker.kill()
    hold.release()
    assert wait_until(lambda: temporaries(host).startswith("dockerbackup-temporary:"), seconds=20, interval=0.1)
    assert not is_there(host, COMMITTED)
    succeeds(kind, bench, host, container)


@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_that_takes_longer_than_the_limit_fails_and_is_not_claimed(
    kind: str, bench: Bench, container: str, hold: Hold, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container ran again before the daemon was done; the message says which limit to raise."""
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=hold.docker)
    before = bench.backup_ids
    with Worker(kind, run_id="fault", **options_of(kind, bench, container, pause_limit_seconds=1)) as worker:
        assert wait_until(hold.reached.exists, seconds=30, interval=0.02)
        assert wait_until(lambda: status(host, container) == "running", seconds=10, interval=0.05)
        hold.release()
        error = worker.result()["error"]
    assert error.startswith("TransientError: docker commit")
    assert "was unpaused before its commit ended (limit 1 s); raise the pause limit" in error
    assert temporaries(host) == ""
    assert not is_there(host, COMMITTED)
    unharmed(bench, before)
    succeeds(kind, bench, host, container)


@pytest.mark.parametrize("consistency", ["snapshot", "pause", "none"])
def test_a_container_that_somebody_paused_is_exported_and_stays_paused(
    consistency: str, bench: Bench, container: str, host: LabHost
) -> None:
    """Its pause is not ours: neither measured nor ended."""
    host.daemon.docker("pause", container)
    summary = bench.export(container, consistency=consistency)
    assert status(host, container) == "paused"
    record = bench.repository.catalog.find(summary["backup_id"]).whole()
    assert record.container is not None
    assert (record.capture, record.container.pause_seconds) == ("paused", None)


def test_a_container_that_somebody_paused_is_committed_and_stays_paused(
    container: str, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the limit passes meanwhile, for no switch is started."""
    connect(monkeypatch, host)
    host.daemon.docker("pause", container)
    assert commit(container, pause_limit_seconds=1)["pause_seconds"] is None
    time.sleep(2)
    assert status(host, container) == "paused"
    assert is_there(host, COMMITTED)
    assert temporaries(host) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_that_somebody_pauses_at_the_same_moment_stays_paused(
    kind: str, bench: Bench, container: str, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look and our pause: ours is refused, so there is no capture, and theirs stays."""
    script = 'case "$*" in *"container pause"*) docker "$@" ;; esac\nexec docker "$@"'
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker_script(tmp_path / "docker", script))
    before = bench.backup_ids
    with Worker(kind, run_id="fault", **options_of(kind, bench, container, pause_limit_seconds=2)) as worker:
        error = worker.result()["error"]
        assert error.startswith("TransientError: docker ")
        assert "is already paused" in error
    time.sleep(3)
    assert status(host, container) == "paused"
    assert temporaries(host) == ""
    assert bench.backup_ids == before
    host.daemon.docker("unpause", container)
    succeeds(kind, bench, host, container)


def test_an_export_fails_when_whoever_paused_the_container_wakes_it_in_mid_stream(
    bench: Bench, container: str, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came is not of one moment, though all bytes came."""
    host.daemon.docker("pause", container)
    script = f'case "$*" in *"container export"*) docker unpause {container} >&2 ;; esac\nexec docker "$@"'
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker_script(tmp_path / "docker", script))
    before = bench.backup_ids
    with pytest.raises(TransientError, match="paused by somebody else and woken while it was exported"):
        bench.export(container, docker=FAULTY, run_id="fault")
    unharmed(bench, before)
    succeeds("export", bench, host, container)


@pytest.mark.parametrize("kind", KINDS)
def test_commands_for_a_container_that_does_not_run_are_refused_before_anything_is_touched(
    kind: str, bench: Bench, container: str, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written, nothing is made or removed on the host."""
    connect(monkeypatch, host, conn_id=FAULTY)
    host.daemon.docker("stop", "-t", "0", container)
    before = files(bench), names(host)
    with Worker(kind, **options_of(kind, bench, container, pre_command=["sync"])) as worker:
        assert "is exited, so pre_command and post_command cannot run in it" in worker.result()["error"]
    assert (files(bench), names(host)) == before


def names(host: LabHost) -> list[str]:
    """All images and containers of a host, with what these do."""
    images = [f"{each['Id']} {each['RepoTags']}" for each in asked(host, "/images/json")]
    containers = [f"{each['Id']} {each['State']}" for each in asked(host, "/containers/json?all=1")]
    return sorted([*images, *containers])


def files(bench: Bench) -> list[str]:
    """All files of a repository, audit events too."""
    return sorted(str(path) for path in Path(bench.url.removeprefix("file://")).rglob("*"))
