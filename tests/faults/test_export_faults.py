# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import io
import json
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_dockerbackup.core.reading import archive_stream
from airflow_provider_dockerbackup.exceptions import TransientError
from tests.faults.bench import FAULTY, IMAGE, Bench, connect, unharmed
from tests.faults.gate import Gate, docker_script
from tests.faults.worker import Worker
from tests.lab.faults import FaultProxy
from tests.lab.lab import LabHost
from tests.lab.processes import wait_until

MEGABYTE = 1_000_000
# Holds back each 64 KiB: 24 MB take some seconds, time enough for a fault in the middle.
SLOW_SECONDS = 0.01


@pytest.fixture
def container(host: LabHost) -> Iterator[str]:
    """A running container, with 24 MB of its image and a little of its own."""
    name = f"victim-{uuid4().hex[:8]}"
    command = ("sh", "-c", "head -c 1000000 /bin/busybox >/own; : >/ready; exec sleep 1000000")
    docker = host.daemon.docker
    docker("run", "-d", "--network", "none", "--name", name, IMAGE, *command)
    try:
        assert wait_until(lambda: docker("exec", name, "test", "-e", "/ready", check=False).returncode == 0, seconds=20)
        yield name
    finally:
        docker("rm", "-f", "-v", name, check=False)


def asked(host: LabHost, path: str) -> Any:
    """What the host's daemon answers to a request: far cheaper than the command line, for those who ask often."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(host.daemon.socket_path))
        link.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        with link.makefile("rb") as answer:
            return json.loads(answer.read().partition(b"\r\n\r\n")[2])


def temporaries(host: LabHost) -> str:
    """Containers and images that exports made for themselves and that are still there."""
    names = [name for each in asked(host, "/containers/json?all=1") for name in each["Names"]]
    tags = [tag for each in asked(host, "/images/json") for tag in each["RepoTags"] or ()]
    return "\n".join(name.lstrip("/") for name in (*names, *tags) if "dockerbackup-temporary" in name)


def status(host: LabHost, container: str) -> str:
    """What a container does."""
    return str(asked(host, f"/containers/{container}/json")["State"]["Status"])


def in_mid_stream(bench: Bench) -> bool:
    """Whether an export has written something and is not done."""
    root = Path(bench.url.removeprefix("file://"))
    sizes = []
    for path in root.rglob("*rootfs*.partial"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:
            continue
    return any(size > MEGABYTE // 2 for size in sizes)


def recovers(bench: Bench, host: LabHost, container: str, **options: Any) -> None:
    """See the same run succeed without the fault and leave nothing on the host or in the repository."""
    before = bench.backup_ids
    summary = bench.export(container, run_id="fault", **options)
    assert summary["status"] == "committed"
    unharmed(bench, before | {summary["backup_id"]})
    assert temporaries(host) == ""
    assert status(host, container) == "running"


def contents(bench: Bench, backup_id: str) -> dict[str, str]:
    """The files of an exported filesystem, each with the sha256 of what is in it."""
    repository = bench.repository
    with archive_stream(repository, repository.catalog.find(backup_id)) as chunks:
        archive = io.BytesIO(b"".join(chunks))
    found = {}
    with tarfile.open(fileobj=archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            found[member.name] = hashlib.sha256(file.read()).hexdigest() if file else member.linkname
    return found


@pytest.mark.parametrize("consistency", ["snapshot", "pause"])
@pytest.mark.parametrize("fault", ["worker killed", "link reset"])
def test_host_puts_everything_right_by_itself_when_an_export_is_cut(
    fault: str,
    consistency: str,
    bench: Bench,
    container: str,
    host: LabHost,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within seconds, and with nobody of ours left to ask: the container runs, and what is temporary is gone."""
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port)
    proxy.delay(SLOW_SECONDS)
    before = bench.backup_ids
    options = bench.options(docker=FAULTY, container=container, consistency=consistency)
    with Worker("export", run_id="fault", **options) as worker:
        assert wait_until(lambda: in_mid_stream(bench), seconds=30, interval=0.01)
        assert temporaries(host) if consistency == "snapshot" else status(host, container) == "paused"
        if fault == "worker killed":
            worker.kill()
        else:
            proxy.cut_after(0)
        assert wait_until(lambda: temporaries(host) == "", seconds=10, interval=0.1)
        assert wait_until(lambda: status(host, container) == "running", seconds=10, interval=0.1)
        if fault != "worker killed":
            assert worker.result()["error"].startswith("TransientError: docker export")
    assert bench.backup_ids == before
    recovers(bench, host, container, consistency=consistency)


def test_container_runs_again_within_the_pause_limit_when_the_link_goes_dead(
    bench: Bench, container: str, host: LabHost, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host sees no end of the connection then; its own switch ends the pause."""
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port, stall_timeout=4)
    before = bench.backup_ids
    proxy.black_hole_after(4 * MEGABYTE)
    options = bench.options(docker=FAULTY, container=container, consistency="pause", pause_limit_seconds=2)
    with Worker("export", run_id="fault", **options) as worker:
        assert wait_until(lambda: status(host, container) == "paused", seconds=30, interval=0.02)
        paused = time.monotonic()
        assert wait_until(lambda: status(host, container) == "running", seconds=20, interval=0.05)
        assert 1 < time.monotonic() - paused < 5
        assert "no data came for 4 s (the stall timeout)" in worker.result()["error"]
    unharmed(bench, before)
    recovers(bench, host, container, consistency="pause")


def test_export_is_refused_when_the_pause_limit_passes_in_mid_stream(
    bench: Bench, container: str, host: LabHost, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes came and docker is content, but they are not of one moment: the message says which limit to raise."""
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port)
    proxy.delay(SLOW_SECONDS / 2)
    before = bench.backup_ids
    with pytest.raises(TransientError, match=r"host-1 .*unpaused before its export ended.*limit 1 s.*raise"):
        bench.export(container, docker=FAULTY, run_id="fault", consistency="pause", pause_limit_seconds=1)
    unharmed(bench, before)
    recovers(bench, host, container, consistency="pause")


def test_next_try_removes_the_temporary_image_when_a_worker_was_killed_before_it_was_used(
    bench: Bench, container: str, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between commit and create nobody on the host watches; the same work, done again, cleans up."""
    flag = tmp_path / "committed"
    script = f'case "$*" in *"container create"*) : >{flag}; sleep 2; exit 1 ;; esac\nexec docker "$@"'
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker_script(tmp_path / "docker", script))
    with Worker("export", run_id="fault", **bench.options(docker=FAULTY, container=container)) as worker:
        assert wait_until(flag.exists, seconds=30)
        worker.kill()
    assert temporaries(host).startswith("dockerbackup-temporary:")
    assert status(host, container) == "running"
    recovers(bench, host, container)


def test_export_leaves_nothing_when_the_temporary_container_cannot_be_created(
    bench: Bench, container: str, host: LabHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that fails half-way takes back its first half and reports the second."""
    script = 'case "$*" in *"container create"*) echo "no space left on device" >&2; exit 1 ;; esac\nexec docker "$@"'
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker_script(tmp_path / "docker", script))
    before = bench.backup_ids
    with pytest.raises(TransientError, match=r"docker create .* host-1 .*no space left.*free space on the host"):
        bench.export(container, docker=FAULTY, run_id="fault")
    assert temporaries(host) == ""
    unharmed(bench, before)
    recovers(bench, host, container)


@pytest.mark.parametrize("consistency", ["snapshot", "pause", "none"])
def test_export_is_whole_or_refused_when_the_container_is_removed_in_mid_stream(
    consistency: str,
    bench: Bench,
    container: str,
    host: LabHost,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Docker may go on as if nothing had happened, or stop early; a part is never taken for the whole."""
    whole = bench.export(container, run_id="whole", consistency=consistency)
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port)
    proxy.delay(SLOW_SECONDS)
    before = bench.backup_ids
    options = bench.options(docker=FAULTY, container=container, consistency=consistency)
    with Worker("export", run_id="fault", **options) as worker:
        assert wait_until(lambda: in_mid_stream(bench), seconds=30, interval=0.01)
        host.daemon.docker("rm", "-f", container)
        proxy.heal()
        result = worker.result()
    if "error" in result:
        assert consistency == "pause", result
        unharmed(bench, before)
    else:
        assert contents(bench, result["backup_id"]) == contents(bench, whole["backup_id"])
        unharmed(bench, before | {result["backup_id"]})
    assert temporaries(host) == ""


def test_export_is_refused_when_a_stopped_container_is_started_in_mid_stream(
    bench: Bench, container: str, host: LabHost, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stopped container held is promised, and a running one writes."""
    host.daemon.docker("stop", "-t", "0", container)
    connect(monkeypatch, host, conn_id=FAULTY, port=proxy.port)
    proxy.delay(SLOW_SECONDS)
    before = bench.backup_ids
    with Worker("export", run_id="fault", **bench.options(docker=FAULTY, container=container)) as worker:
        assert wait_until(lambda: in_mid_stream(bench), seconds=30, interval=0.01)
        host.daemon.docker("start", container)
        proxy.heal()
        error = worker.result()["error"]
    assert error.startswith("TransientError: container victim-")
    assert "host-1 was started while it was exported" in error
    unharmed(bench, before)
    recovers(bench, host, container)


@pytest.mark.parametrize("runs", [("same", "same"), ("one", "other")])
def test_exports_at_the_same_time_commit_one_backup_a_run(
    runs: tuple[str, str], bench: Bench, container: str, gate: Gate, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another try takes a live one's snapshot for a leftover at worst: then that one is worth a retry, and agrees."""
    docker = gate.docker(after_bytes=MEGABYTE, subcommand="container export")
    connect(monkeypatch, host, conn_id=FAULTY, docker_command=docker)
    before = bench.backup_ids
    options = bench.options(docker=FAULTY, container=container)
    with Worker("export", run_id=runs[0], **options) as first:
        gate.wait()
        with Worker("export", run_id=runs[1], try_number=2, **options) as second:
            gate.wait(streams=2)
            gate.open()
            results = [first.result(), second.result()]
    for number, result in enumerate(results):
        if "error" in result:
            assert result["error"].startswith("TransientError"), result
            results[number] = bench.export(container, run_id=runs[number])
    ids = {result["backup_id"] for result in results}
    assert len(ids) == len(set(runs))
    unharmed(bench, before | ids)
    assert wait_until(lambda: temporaries(host) == "", seconds=10, interval=0.1)
    assert status(host, container) == "running"
