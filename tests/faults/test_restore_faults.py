# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.operators.restore import DockerBackupRestoreOperator
from tests.faults.bench import FAULTY, IMAGE, Bench, connect
from tests.lab.daemon import LabDaemon, temporary_daemon
from tests.lab.faults import FaultProxy, small_disk
from tests.lab.lab import LabHost
from tests.lab.processes import command_line, pids, program, wait_until
from tests.operators.context import context

MEGABYTE = 1_000_000
TAG = "restored/app:1"


@contextmanager
def once(condition: Callable[[], object], act: Callable[[], object]) -> Iterator[None]:
    """Act in another thread as soon as the condition holds while the body runs; it must have come to that."""
    acted = threading.Event()

    def run() -> None:
        if wait_until(lambda: bool(condition()), seconds=30, interval=0.001):
            act()
            acted.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(40)
    assert acted.is_set()


def restore(bench: Bench, **options: Any) -> dict[str, Any]:
    """Restore the one backup to the host behind the faulty connection."""
    operator = DockerBackupRestoreOperator(
        task_id="restore",
        dockerbackup_conn_id=FAULTY,
        backup_id=next(iter(bench.backup_ids)),
        repository=bench.url,
        **options,
    )
    summary: dict[str, Any] = operator.execute(context(task_id="restore"))
    return summary


def images(daemon: LabDaemon) -> list[str]:
    """All tags of a daemon with their IDs, and images without any."""
    lines = daemon.docker("images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout
    return sorted(lines.decode().splitlines())


def loading(daemon: LabDaemon) -> list[Path]:
    """Folders where a daemon unpacks what it is being given."""
    return list((daemon.data_root / "tmp").glob("docker-import-*"))


def test_no_verification_is_recorded_when_the_throwaway_daemon_is_killed_in_the_middle_of_a_load(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test daemon that dies says nothing about the backup: worth a retry, and nothing of the daemon stays."""
    here = Path(tempfile.mkdtemp(prefix="vf-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    daemons: list[int] = []

    def in_mid_load() -> bool:
        # The pid is looked up before it is needed: a load takes but a fraction of a second.
        if not daemons:
            daemons.extend(pid for pid in pids() if program(pid) == "dockerd" and str(here) in command_line(pid))
        return bool(daemons) and any(here.glob("dockerbackup-drill-*/data/tmp/docker-import-*"))

    try:
        (backup_id,) = bench.backup_ids
        with (
            once(in_mid_load, lambda: os.kill(daemons[0], signal.SIGKILL)),
            pytest.raises(TransientError, match=r"test daemon .*went away.*try again"),
        ):
            bench.verify(backup_id, level="load")
        assert bench.repository.catalog.find(backup_id).verifications == ()
        assert list(here.iterdir()) == []
        passed = bench.verify(backup_id, level="load")
        assert (passed["verification"], passed["trust"]) == ("passed", "verified")
    finally:
        shutil.rmtree(here, ignore_errors=True)


def test_no_tag_moves_when_the_link_is_cut_in_the_middle_of_a_restore(
    bench: Bench, target: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was half loaded has no name, the tag that was asked for still stands for its old image, and again works."""
    connect(monkeypatch, target, conn_id=FAULTY)
    daemon = target.daemon
    daemon.docker("import", "-", TAG, input=bytes(10240))
    before = images(daemon)
    # The daemon is held while the link is cut, or the upload would be over first.
    pid = daemon.pid

    def cut() -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            target.kill_sessions()
        finally:
            os.kill(pid, signal.SIGCONT)

    with (
        once(lambda: loading(daemon), cut),
        pytest.raises(TransientError, match=r"docker load on host-2 .*try again"),
    ):
        restore(bench, tags=[TAG], replace_tags=True)
    assert wait_until(lambda: not loading(daemon), seconds=10)
    assert images(daemon) == before
    told = [event["type"] for event in bench.events("restore.")]
    assert told == ["restore.started", "restore.failed"]
    restored = restore(bench, tags=[TAG], replace_tags=True)
    assert restored["identical"]
    assert images(daemon) != before
    assert not any("dockerbackup-restored" in line for line in images(daemon))


def test_restore_gives_up_after_the_stall_timeout_when_the_link_goes_dead(
    bench: Bench, target: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that takes no more data is not waited for longer than the connection says; it is back a little later."""
    with FaultProxy(target.address, target.ssh_port) as proxy:

        def go_dead_for_a_while() -> None:
            proxy.black_hole_after(0)
            time.sleep(4)
            proxy.heal()

        connect(monkeypatch, target, conn_id=FAULTY, port=proxy.port, stall_timeout=2)
        before = images(target.daemon)
        with (
            once(lambda: loading(target.daemon), go_dead_for_a_while),
            pytest.raises(TransientError, match=r"docker load on host-2 .*for 2 s \(the stall timeout\)"),
        ):
            restore(bench, tags=[TAG])
    assert wait_until(lambda: not loading(target.daemon), seconds=10)
    assert images(target.daemon) == before


def test_no_tag_moves_when_dockerd_is_killed_in_the_middle_of_a_restore(
    bench: Bench, target: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target's daemon may crash; when it is back it has what it had, and the restore can be done again."""
    connect(monkeypatch, target, conn_id=FAULTY)
    before = images(target.daemon)
    try:
        with (
            once(lambda: loading(target.daemon), target.daemon.kill),
            pytest.raises(TransientError, match=r"docker load on host-2 .*daemon"),
        ):
            restore(bench, tags=[TAG])
    finally:
        target.daemon.start()
    assert images(target.daemon) == before
    assert restore(bench, tags=[TAG])["identical"]


def test_restore_is_transient_when_the_targets_disk_is_full(
    bench: Bench, host: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says on which host to free space, and nothing half-loaded stays there."""
    with small_disk(96 * MEGABYTE) as disk, temporary_daemon(disk) as daemon:
        connect(monkeypatch, host, conn_id=FAULTY, docker_socket=daemon.docker_host)
        free = shutil.disk_usage(disk).free
        with (disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - 16 * MEGABYTE)
        with pytest.raises(TransientError, match=r"docker load on host-1 .*no space left.*free space on the host"):
            restore(bench, tags=[TAG])
        assert images(daemon) == []
        (disk / "filler").unlink()
        assert shutil.disk_usage(disk).free > free - MEGABYTE
        assert restore(bench, tags=[TAG])["identical"]


def test_restore_is_permanent_and_touches_nothing_when_the_archive_was_cut_short(
    bench: Bench, target: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged backup is no matter of trying again: nothing of it reaches the target."""
    connect(monkeypatch, target, conn_id=FAULTY)
    archive = next(Path(bench.url.removeprefix("file://")).rglob("image-*.tar"))
    with archive.open("r+b") as file:
        file.truncate(archive.stat().st_size // 2)
    before = images(target.daemon)
    with pytest.raises(AirflowFailException, match=r"IntegrityError: .*image-.*bytes, the record says"):
        restore(bench, tags=[TAG])
    assert images(target.daemon) == before


def test_no_tag_moves_when_a_byte_in_the_middle_of_the_archive_is_another(
    bench: Bench, target: LabHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is bad shows only while it is being sent; then the load is spoilt and broken off."""
    connect(monkeypatch, target, conn_id=FAULTY)
    archive = next(Path(bench.url.removeprefix("file://")).rglob("image-*.tar"))
    with archive.open("r+b") as file:
        file.seek(archive.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    before = images(target.daemon)
    with pytest.raises(AirflowFailException, match=r"IntegrityError"):
        restore(bench, tags=[IMAGE])
    assert wait_until(lambda: not loading(target.daemon), seconds=10)
    assert images(target.daemon) == before
