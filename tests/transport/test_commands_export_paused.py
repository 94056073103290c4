# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.transport import commands
from airflow_provider_dockerbackup.transport.commands import DockerCommand

# A client whose daemon is a few files: `state`, and what to do wrong.
FAKE_DOCKER = """#!/bin/sh
cd "$FAKE" || exit
for last; do :; done
echo "$2 $last" >>calls
is_paused() { [ "$(cat state)" = paused ]; }
case "$1 $2" in
  "container inspect")
    case $4 in
      *Status*) cat state ;;
      *) if is_paused; then echo true; else echo false; fi ;;
    esac ;;
  "container pause")
    if [ -e pause_fails ]; then cat pause_fails >&2; exit 7; fi
    is_paused && { echo "Container $last is already paused" >&2; exit 1; }
    echo paused >state; echo "$last" ;;
  "container unpause")
    if [ -e unpause_fails ]; then echo "cannot connect" >&2; exit 1; fi
    is_paused || { echo "Container $last is not paused" >&2; exit 1; }
    echo running >state; echo "$last" ;;
  "container export")
    cat state >state_at_export; touch exporting
    printf data
    while [ -e slow ]; do sleep 0.05; printf x || exit 4; done
    printf end; exit "$(cat status)" ;;
esac
"""


@dataclass
class FakeHost:
    """A directory that plays a Docker host with one container, ``web``."""

    directory: Path
    shell: tuple[str, ...]
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def set(self, name: str, text: str = "") -> None:
        """Write one of the files that the fake daemon is."""
        (self.directory / name).write_text(text, encoding="ascii")

    def unset(self, name: str) -> None:
        """Remove one."""
        (self.directory / name).unlink()

    def get(self, name: str) -> str:
        """Read one."""
        return (self.directory / name).read_text(encoding="ascii").strip()

    def start(self, *, limit_seconds: int = 60) -> subprocess.Popen[bytes]:
        """Run the line as sshd does: in a session of its own, with pipes."""
        line = commands.export_paused(DockerCommand(), "web", limit_seconds=limit_seconds)
        programs = f"{self.directory}/bin:{os.environ['PATH']}"
        child = subprocess.Popen(
            [*self.shell, "-c", line],
            env={"PATH": programs, "FAKE": str(self.directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def no_switch_left(self) -> bool:
        """Tell whether no process of the switch is alive."""
        return not self.switches()

    def switches(self) -> list[int]:
        """Give the processes of the switch that are alive."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes()
                    words = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if f"FAKE={self.directory}\0".encode() in environment and b"dockerbackup-unpause" in words:
                    found.append(int(entry.name))
        return found


def wait_for(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait until the condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


@pytest.fixture(
    params=[
        pytest.param(shell, marks=pytest.mark.skipif(shutil.which(shell[0]) is None, reason=f"no {shell[0]} here"))
        for shell in (("dash",), ("bash",), ("busybox", "sh"))
    ]
)
def host(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FakeHost]:
    """A host whose container runs; its processes are ended afterwards."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text(FAKE_DOCKER, encoding="ascii")
    docker.chmod(0o755)
    fake = FakeHost(tmp_path, request.param)
    fake.set("state", "running")
    fake.set("status", "0")
    yield fake
    (tmp_path / "slow").unlink(missing_ok=True)
    (tmp_path / "unpause_fails").unlink(missing_ok=True)
    for child in fake.children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    for pid in fake.switches():
        os.kill(pid, signal.SIGKILL)


def test_running_container_is_paused_for_the_export_and_runs_again(host: FakeHost) -> None:
    """The tar alone is on standard output, the container was paused meanwhile, and no switch is left."""
    child = host.start()
    stdout, stderr = child.communicate()
    assert (child.returncode, stdout, stderr) == (0, b"dataend", b"")
    assert host.get("state_at_export") == "paused"
    assert host.get("state") == "running"
    wait_for(host.no_switch_left)


@pytest.mark.parametrize("state", ["paused", "exited", "created"])
def test_container_that_does_not_run_is_exported_as_it_is(host: FakeHost, state: str) -> None:
    """Neither paused nor unpaused: a container that was paused before stays so."""
    host.set("state", state)
    child = host.start()
    stdout, _ = child.communicate()
    assert (child.returncode, stdout) == (0, b"dataend")
    assert host.get("state") == state
    assert "pause web" not in host.get("calls")


def test_exit_status_of_export_is_kept_when_it_fails(host: FakeHost) -> None:
    """The container runs again and the caller sees what export said."""
    host.set("status", "3")
    child = host.start()
    child.communicate()
    assert child.returncode == 3
    assert host.get("state") == "running"
    wait_for(host.no_switch_left)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_container_runs_again_at_once_when_the_session_gets_a_signal(host: FakeHost, number: signal.Signals) -> None:
    """A signal to the process group, as sshd sends it, ends the export and wakes the container."""
    host.set("slow")
    child = host.start()
    wait_for((host.directory / "exporting").exists)
    assert host.get("state") == "paused"
    os.killpg(child.pid, number)
    wait_for(lambda: host.get("state") == "running", seconds=3)
    child.communicate()
    assert child.returncode != 0
    wait_for(host.no_switch_left)


def test_container_runs_again_when_nobody_reads_the_export(host: FakeHost) -> None:
    """A cut link closes the pipe: export fails, and the script cleans up."""
    host.set("slow")
    child = host.start()
    wait_for((host.directory / "exporting").exists)
    assert child.stdout is not None
    child.stdout.close()
    wait_for(lambda: host.get("state") == "running")
    wait_for(host.no_switch_left)
    assert child.wait() != 0


def test_container_runs_again_at_the_limit_when_the_session_is_killed(host: FakeHost) -> None:
    """SIGKILL to the whole process group runs no trap; the switch is outside of it."""
    host.set("slow")
    child = host.start(limit_seconds=5)
    wait_for((host.directory / "exporting").exists)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    time.sleep(0.5)
    assert host.get("state") == "paused"
    wait_for(lambda: host.get("state") == "running")
    wait_for(host.no_switch_left)


def test_export_fails_when_the_limit_ended_its_pause(host: FakeHost) -> None:
    """What was exported after the container ran again is not of one moment."""
    host.set("slow")
    child = host.start(limit_seconds=1)
    wait_for(lambda: host.directory.joinpath("exporting").exists() and host.get("state") == "running")
    host.unset("slow")
    _, stderr = child.communicate()
    assert child.returncode == 75
    assert b"was unpaused before its export ended (limit 1 s)" in stderr


def test_nothing_is_exported_when_the_pause_fails(host: FakeHost) -> None:
    """The status and the words of the failed pause reach the caller."""
    host.set("pause_fails", "no freezer here\n")
    child = host.start()
    stdout, stderr = child.communicate()
    assert (child.returncode, stdout) == (7, b"")
    assert b"no freezer here" in stderr
    assert not (host.directory / "exporting").exists()


def test_somebody_elses_pause_is_left_alone_when_it_came_first(host: FakeHost) -> None:
    """Paused by another between our look and our pause: it stays paused and the export fails."""
    host.set("pause_fails", "Error response from daemon: Container web is already paused\n")
    child = host.start()
    child.communicate()
    assert child.returncode == 7
    assert "unpause web" not in host.get("calls").splitlines()
    wait_for(host.no_switch_left)


def test_switch_stays_when_waking_the_container_fails(host: FakeHost) -> None:
    """The daemon is away when the export ends: the switch tries again at the limit and after it."""
    host.set("unpause_fails")
    child = host.start(limit_seconds=5)
    child.communicate()
    assert host.get("state") == "paused"
    assert host.switches() != []
    time.sleep(2.5)
    host.unset("unpause_fails")
    wait_for(lambda: host.get("state") == "running")
    wait_for(host.no_switch_left)
