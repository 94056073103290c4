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

from airflow_provider_dockerbackup.transport import commands, docker_output
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
  "container commit")
    for word; do printf '%s\\0' "$word"; done >argv
    cat state >state_at_commit; touch exporting
    while [ -e slow ]; do sleep 0.05; done
    echo sha256:made; exit "$(cat status)" ;;
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

    def start(self, *, limit_seconds: int = 60, line: str = "", below: str = "") -> subprocess.Popen[bytes]:
        """Run the line as sshd does: in a session of its own, with pipes.

        :param line: another than that of an export.
        :param below: the script of a shell that plays sshd's process and is its parent; empty for none.
        """
        line = line or commands.export_paused(DockerCommand(), "web", limit_seconds=limit_seconds)
        programs = f"{self.directory}/bin:{os.environ['PATH']}"
        # A shell cannot trap what was ignored when it began; sshd's sessions begin with nothing ignored, unlike a test
        # that runs in the background.
        defaults = ["env", "--default-signal=HUP,INT,TERM"]
        session = ["sh", "-c", below, "sshd", *self.shell, "-c", line] if below else [*self.shell, "-c", line]
        child = subprocess.Popen(
            [*defaults, *session],
            env={"PATH": programs, "FAKE": str(self.directory), "TMPDIR": f"{self.directory}/tmp"},
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
    assert (child.returncode, stdout) == (0, b"dataend")
    assert docker_output.pause_seconds(stderr) is not None
    assert stderr.count(b"\n") == 1
    assert host.get("state_at_export") == "paused"
    assert host.get("state") == "running"
    wait_for(host.no_switch_left)


@pytest.mark.parametrize("state", ["paused", "exited", "created"])
def test_container_that_does_not_run_is_exported_as_it_is(host: FakeHost, state: str) -> None:
    """Neither paused nor unpaused: a container that was paused before stays so."""
    host.set("state", state)
    child = host.start()
    stdout, stderr = child.communicate()
    assert (child.returncode, stdout, stderr) == (0, b"dataend", b"")
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
    _, stderr = child.communicate()
    assert (child.returncode, docker_output.pause_seconds(stderr)) == (75, None)
    assert b"could not be unpaused after its export: cannot connect" in stderr
    assert host.get("state") == "paused"
    assert host.switches() != []
    time.sleep(2.5)
    host.unset("unpause_fails")
    wait_for(lambda: host.get("state") == "running")
    wait_for(host.no_switch_left)


def commit(*, limit_seconds: int = 60, text: str = "m") -> str:
    """Give the line that commits while paused."""
    about = {"message": text, "author": text, "changes": [text]}
    return commands.commit_paused(DockerCommand(), "web", reference="made:1", limit_seconds=limit_seconds, **about)  # type: ignore[arg-type]


def test_a_commit_is_paused_by_the_script_alone_and_measured(host: FakeHost) -> None:
    """Docker's own pause has no limit; odd characters reach the client as they are."""
    text = 'it\'s $HOME; `id` "quoted"\n$(x) \\\\ *'
    host.set("slow")
    child = host.start(line=commit(text=text))
    wait_for((host.directory / "exporting").exists)
    time.sleep(0.5)
    host.unset("slow")
    stdout, stderr = child.communicate()
    assert (child.returncode, stdout) == (0, b"sha256:made\n")
    assert (host.get("state_at_commit"), host.get("state")) == ("paused", "running")
    words = (host.directory / "argv").read_text(encoding="utf-8").split("\0")[:-1]
    about = [f"--change={text}", f"--message={text}", f"--author={text}"]
    assert words == ["container", "commit", "--pause=false", *about, "--", "web", "made:1"]
    assert 0.4 < (docker_output.pause_seconds(stderr) or 0) < 30
    wait_for(host.no_switch_left)


def test_a_commit_of_a_container_that_somebody_paused_leaves_it_paused(host: FakeHost) -> None:
    """And is measured as none of ours."""
    host.set("state", "paused")
    child = host.start(line=commit())
    stdout, stderr = child.communicate()
    assert (child.returncode, stdout, stderr) == (0, b"sha256:made\n", b"")
    assert host.get("state") == "paused"
    assert "unpause web" not in host.get("calls").splitlines()


def test_a_commit_fails_when_the_limit_ended_its_pause(host: FakeHost) -> None:
    """What was committed after the container ran again is not of one moment."""
    host.set("slow")
    child = host.start(line=commit(limit_seconds=1))
    wait_for(lambda: host.directory.joinpath("exporting").exists() and host.get("state") == "running")
    host.unset("slow")
    _, stderr = child.communicate()
    assert child.returncode == 75
    assert b"container web was unpaused before its commit ended (limit 1 s)" in stderr


def test_container_runs_again_soon_when_the_process_of_the_connection_is_gone(host: FakeHost) -> None:
    """A commit writes nothing and so does not notice a cut link; the switch sees that sshd's process is gone."""
    host.set("slow")
    child = host.start(line=commit(), below='"$@" & wait')
    wait_for((host.directory / "exporting").exists)
    time.sleep(1.5)
    assert host.get("state") == "paused"
    child.kill()
    child.wait()
    wait_for(lambda: host.get("state") == "running", seconds=10)
    host.unset("slow")
    wait_for(host.no_switch_left)
