# SPDX-License-Identifier: Apache-2.0
"""The own test daemon: what it leaves, and what becomes of one whose worker was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import ConfigurationError, TransientError
from airflow_provider_dockerbackup.transport.throwaway_daemon import reap_throwaway_daemons, throwaway_daemon
from tests.contract.archives import docker_archive, layer
from tests.lab.mounts import mounts_under
from tests.lab.processes import command_line, pids

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a daemon of our own needs root")

_WORKER = """
import sys, time
from pathlib import Path
from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon
from tests.contract.archives import docker_archive, layer
with throwaway_daemon(directory=Path(sys.argv[1])) as daemon:
    daemon.load([docker_archive([layer(a="b")], tags=["drill:1"])])
    daemon.create_container("drill:1", name="drill")
    print("ready", flush=True)
    time.sleep(600)
"""
_NOT_ROOT = """
import os
from airflow_provider_dockerbackup.transport.throwaway_daemon import throwaway_daemon
os.seteuid(65534)
try:
    with throwaway_daemon(): pass
except Exception as err:
    print(type(err).__name__, err)
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder with a short path; sockets live below it."""
    directory = Path(tempfile.mkdtemp(prefix="td-", dir="/tmp"))
    yield directory
    assert left(directory) == []
    shutil.rmtree(directory)


@pytest.fixture
def worker(base: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds a daemon with an image and a container in it."""
    process = subprocess.Popen([sys.executable, "-c", _WORKER, str(base)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        reap_throwaway_daemons(base)


def left(directory: Path) -> list[str]:
    """Whatever a daemon below ``directory`` left: files, mounts, processes."""
    lines = [command_line(pid) for pid in pids() if pid != os.getpid()]
    running = [line for line in lines if f"{directory}/" in line]
    return [*map(str, directory.glob("*")), *map(str, mounts_under(directory)), *running]


def test_nothing_is_left_after_use(base: Path) -> None:
    """No file, no mount and no process stays."""
    with throwaway_daemon(directory=base) as daemon:
        daemon.load([docker_archive([layer(a="b")], tags=["drill:1"])])
        daemon.create_container("drill:1", name="drill")
        assert left(base) != []
    assert left(base) == []


def test_nothing_is_left_when_the_verification_fails(base: Path) -> None:
    """An error, also one that is no ``Exception``, ends the daemon and is passed on."""
    with pytest.raises(KeyboardInterrupt), throwaway_daemon(directory=base):
        raise KeyboardInterrupt
    assert left(base) == []


def test_two_daemons_at_once_are_two(base: Path) -> None:
    """Each has an identity of its own, so that neither can be taken for the source's daemon."""
    with throwaway_daemon(directory=base) as one, throwaway_daemon(directory=base) as other:
        one.load([docker_archive([layer(a="b")], tags=["drill:1"])])
        assert one.engine().engine_id != other.engine().engine_id
        assert other.image_ids() == frozenset()


def test_daemon_of_a_killed_worker_is_removed_by_the_next(base: Path, worker: subprocess.Popen[bytes]) -> None:
    """SIGKILL leaves a daemon that runs; the next verification ends it and removes all it had."""
    (folder,) = base.iterdir()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert len(left(base)) >= 2
    with throwaway_daemon(directory=base) as daemon:
        assert not folder.exists()
        assert daemon.image_ids() == frozenset()
    assert left(base) == []


def test_daemon_that_was_killed_with_its_worker_is_removed(base: Path, worker: subprocess.Popen[bytes]) -> None:
    """When everything died at once, mounts and files are what is left."""
    (folder,) = base.iterdir()
    dockerd = int((folder / "pid").read_text())
    for pid in (worker.pid, dockerd):
        os.kill(pid, signal.SIGKILL)
    worker.wait()
    assert reap_throwaway_daemons(base) == (folder,)
    assert left(base) == []


def test_daemon_of_a_live_worker_is_left_alone(base: Path, worker: subprocess.Popen[bytes]) -> None:
    """Verifications at the same time do not harm each other."""
    (folder,) = base.iterdir()
    assert reap_throwaway_daemons(base) == ()
    with throwaway_daemon(directory=base):
        assert (folder / "docker.sock").exists()
    assert worker.poll() is None


def test_foreign_folders_are_left_alone(base: Path) -> None:
    """Only folders that have our name and are ours are looked at."""
    (base / "dockerbackup-drill-1-link").symlink_to(tempfile.gettempdir())
    (base / "dockerbackup-drill-young").mkdir()
    (base / "other").mkdir()
    assert reap_throwaway_daemons(base) == ()
    for path in base.iterdir():
        path.unlink() if path.is_symlink() else path.rmdir()


def test_missing_program_is_explained(base: Path) -> None:
    """The message says what to install or set."""
    with (
        pytest.raises(ConfigurationError, match=r"install docker\.io .* test_daemon="),
        throwaway_daemon(dockerd="no-such-dockerd", directory=base),
    ):
        pass


def test_long_path_is_explained(tmp_path: Path) -> None:
    """Sockets have short paths, and nobody should learn that from the kernel."""
    deep = tmp_path / ("x" * 60)
    deep.mkdir()
    with pytest.raises(ConfigurationError, match="at most"), throwaway_daemon(directory=deep):
        pass


def test_longest_path_allowed_is_short_enough() -> None:
    """The limit leaves room for the sockets of an engine that starts its own containerd."""
    base = Path(tempfile.mkdtemp(prefix="td-longest-", dir="/tmp"))
    assert len(str(base)) == 24
    try:
        with throwaway_daemon(directory=base) as daemon:
            daemon.load([docker_archive([layer(a="b")], tags=["drill:1"])])
            daemon.create_container("drill:1", name="drill")
        assert left(base) == []
    finally:
        base.rmdir()


def test_daemon_that_does_not_start_shows_its_log(base: Path) -> None:
    """What dockerd said last is in the message, and nothing is left."""
    with (
        pytest.raises(TransientError, match="no-such-option"),
        throwaway_daemon(directory=base, config={"no-such-option": 1}),
    ):
        pass
    assert left(base) == []


def test_root_is_asked_for() -> None:
    """Who is not root learns what else can be done."""
    done = subprocess.run([sys.executable, "-c", _NOT_ROOT], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("ConfigurationError a throw-away test daemon needs root")
    assert "test_daemon=" in done.stdout
