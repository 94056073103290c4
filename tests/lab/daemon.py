# SPDX-License-Identifier: Apache-2.0
"""Docker daemons: our own, started and stopped at will, or one that was there before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.lab.engines import Engine, EngineFiles, provide, version_of
from tests.lab.errors import LabError, log_tail
from tests.lab.install import SEARCH_PATH, require_program
from tests.lab.mounts import mounts_under, unmount_under
from tests.lab.processes import (
    command_line,
    control_groups,
    live_pid,
    pids,
    program,
    send,
    spawn,
    terminate,
    wait_until,
)

# The kernel takes 107 bytes; the engine adds up to 45 for containerd's sockets below the run directory.
_LONGEST_RUN_DIRECTORY = 50
_START_SECONDS = 60.0
_STOP_SECONDS = 25.0
_FAMILY = ("dockerd", "containerd", "containerd-shim", "containerd-shim-runc-v1", "containerd-shim-runc-v2", "runc")


class LabDaemon:
    """A Docker daemon of our own: data, sockets and processes apart from any other's."""

    def __init__(self, name: str, *, directory: Path, run_directory: Path, engine: Engine | None = None) -> None:
        """Describe a daemon; nothing is started.

        :param name: for people.
        :param directory: holds images, containers, configuration and log.
        :param run_directory: holds sockets and pid files; at most 50 bytes long without the name.
        :param engine: which engine; None is the installed one.
        """
        self.name = name
        self.directory = directory
        self.run_directory = run_directory
        self.engine = engine or Engine()
        self._files: EngineFiles | None = None

    def __repr__(self) -> str:
        """Give name, engine and socket."""
        return f"<{type(self).__name__} {self.name}, engine {self.engine}, {self.docker_host}>"

    @property
    def files(self) -> EngineFiles:
        """The engine's programs, fetched when first asked for."""
        if self._files is None:
            self._files = provide(self.engine)
        return self._files

    @property
    def socket_path(self) -> Path:
        """The daemon's socket."""
        return self.run_directory / "docker.sock"

    @property
    def docker_host(self) -> str:
        """The value for DOCKER_HOST and for the SDK's ``base_url``."""
        return f"unix://{self.socket_path}"

    @property
    def data_root(self) -> Path:
        """Where the daemon keeps images and containers."""
        return self.directory / "data"

    @property
    def log_path(self) -> Path:
        """The daemon's log, kept over restarts."""
        return self.directory / "dockerd.log"

    @property
    def running(self) -> bool:
        """Whether the daemon's process lives."""
        return live_pid(self._pid_file) is not None

    @property
    def pid(self) -> int:
        """The pid of dockerd.

        :raises LabError: when it does not run.
        """
        pid = live_pid(self._pid_file)
        if pid is None:
            raise LabError(f"the daemon {self.name} does not run")
        return pid

    def environment(self) -> dict[str, str]:
        """Give the environment in which ``docker`` talks to this daemon and to no other."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        return {
            **kept,
            "PATH": self.files.search_path,
            "LC_ALL": "C.UTF-8",
            "DOCKER_HOST": self.docker_host,
            "DOCKER_CONFIG": str(self.directory / "client"),
        }

    def start(self) -> None:
        """Start the daemon and wait until it answers; nothing to do if it runs.

        :raises LabError: when it does not come up; shows the end of its log.
        """
        if self.running:
            return
        self._prepare()
        spawn(self._command(), pid_file=self._pid_file, log=self.log_path, environment=self.environment())
        wait_until(lambda: self._answers() or not self.running, seconds=_START_SECONDS, interval=0.05)
        if not self.running or not self._answers():
            tail = log_tail(self.log_path)
            self.stop()
            raise LabError(f"the daemon {self.name} (engine {self.engine}) did not come up{tail}")

    def stop(self) -> None:
        """Stop the daemon with its containers and undo its mounts, also what a killed one left; data stay."""
        terminate(self._pid_file, patience=_STOP_SECONDS)
        self._end_leftovers()
        for directory in (self.data_root, self.run_directory):
            unmount_under(directory)
            left = mounts_under(directory)
            if left:
                raise LabError(f"still mounted after the daemon {self.name} was stopped: {left}")

    def kill(self) -> None:
        """End the daemon by SIGKILL, as a crash would: containers live on and mounts stay until ``start`` or ``stop``.

        The daemon that starts next ends the containers it finds and does not restart them, whatever their policy.
        """
        pid = self.pid
        send(pid, signal.SIGKILL)
        gone = wait_until(lambda: not self.running and not self._family("dockerd", "containerd"), seconds=10)
        if not gone:
            raise LabError(f"the daemon {self.name} survives SIGKILL")

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def docker(
        self,
        *arguments: str,
        input: bytes | None = None,  # noqa: A002 - as in subprocess.run
        check: bool = True,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the docker command line client against this daemon.

        :param arguments: what follows ``docker``.
        :param input: bytes for standard input.
        :param check: raise when it fails.
        :raises LabError: with standard error's end.
        """
        done = subprocess.run(
            [str(self.files.docker), *arguments],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            env=self.environment(),
            check=False,
            capture_output=True,
        )
        if check and done.returncode != 0:
            error = (done.stderr or done.stdout).decode("utf-8", "replace")[-2000:]
            raise LabError(f"`docker {' '.join(arguments)}` on {self.name} failed with {done.returncode}: {error}")
        return done

    @property
    def _pid_file(self) -> Path:
        return self.run_directory / "pid"

    @property
    def _configuration(self) -> Path:
        return self.directory / "daemon.json"

    @property
    def _mark(self) -> str:
        return f"{self.run_directory}/"

    def _prepare(self) -> None:
        for directory in (self.directory, self.run_directory, self.directory / "client"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # After a crash dockerd takes any process of that pid, even a zombie, for itself or for its containerd.
        for stale in ("docker.pid", "x/containerd/containerd.pid"):
            (self.run_directory / stale).unlink(missing_ok=True)
        configuration: dict[str, object] = {}
        if self.engine.containerd_store:
            configuration["features"] = {"containerd-snapshotter": True}
        # Else all daemons of a machine have one ID, from /etc/docker/key.json: these stand for different machines.
        if int(version_of(self.files.dockerd).split(".")[0]) < 23:
            configuration["deprecated-key-path"] = str(self.directory / "key.json")
        elif not (identity := self.data_root / "engine-id").exists():
            self.data_root.mkdir(parents=True, exist_ok=True, mode=0o710)
            identity.write_text(str(uuid4()), encoding="ascii")
        self._configuration.write_text(json.dumps(configuration), encoding="utf-8")

    def _command(self) -> list[str]:
        return [
            str(self.files.dockerd),
            f"--config-file={self._configuration}",
            f"--data-root={self.data_root}",
            f"--exec-root={self.run_directory}/x",
            f"--pidfile={self.run_directory}/docker.pid",
            f"--host={self.docker_host}",
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--shutdown-timeout=5",
        ]

    def _answers(self) -> bool:
        return self.socket_path.exists() and self.docker("version", check=False).returncode == 0

    def _family(self, *names: str) -> list[int]:
        return [pid for pid in pids() if program(pid) in (names or _FAMILY) and self._mark in command_line(pid)]

    def _end_leftovers(self) -> None:
        """End what a killed daemon left: shims by our run directory, containers by their control group."""
        for pid in self._family():
            send(pid, signal.SIGKILL)
        containers = self.data_root / "containers"
        ids = [entry.name for entry in containers.iterdir()] if containers.is_dir() else []
        if not wait_until(lambda: not self._kill_members(ids) and not self._family(), seconds=10):
            raise LabError(f"processes of the daemon {self.name} survive SIGKILL")
        for container in ids:
            _remove_control_groups(container)

    def _kill_members(self, ids: list[str]) -> list[int]:
        if not ids:
            return []
        members = [pid for pid in pids() if command_line(pid) and any(name in control_groups(pid) for name in ids)]
        for pid in members:
            send(pid, signal.SIGKILL)
        return members


class GivenDaemon(LabDaemon):
    """A daemon that was there before: used as it is, never started, stopped or killed."""

    def __init__(self, name: str, *, directory: Path, docker_host: str) -> None:
        """Describe the daemon.

        :param name: for people.
        :param directory: for the client's configuration.
        :param docker_host: its address, as in DOCKER_HOST.
        """
        super().__init__(name, directory=directory, run_directory=directory)
        self._docker_host = docker_host

    @property
    def files(self) -> EngineFiles:
        """The installed client; there need be no daemon program here."""
        docker = require_program("docker")
        return EngineFiles(dockerd=docker, docker=docker, search_path=f"{docker.parent}:{SEARCH_PATH}")

    @property
    def docker_host(self) -> str:
        """The address it was given with."""
        return self._docker_host

    @property
    def socket_path(self) -> Path:
        """The daemon's socket.

        :raises LabError: when it is reached otherwise.
        """
        if not self._docker_host.startswith("unix://"):
            raise LabError(f"{self._docker_host} is no socket")
        return Path(self._docker_host.removeprefix("unix://"))

    @property
    def data_root(self) -> Path:
        """Where the daemon says that it keeps its data; perhaps on another machine."""
        return Path(self.docker("info", "--format", "{{.DockerRootDir}}").stdout.decode().strip())

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self.docker("version", check=False).returncode == 0

    @property
    def pid(self) -> int:
        """Not ours to know.

        :raises LabError: always.
        """
        raise self._refusal()

    def start(self) -> None:
        """See that it answers.

        :raises LabError: when it does not.
        """
        (self.directory / "client").mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.running:
            raise LabError(f"no Docker daemon answers at {self._docker_host}")

    def stop(self) -> None:
        """Leave it running."""

    def kill(self) -> None:
        """Refuse.

        :raises LabError: always.
        """
        raise self._refusal()

    def restart(self) -> None:
        """Refuse.

        :raises LabError: always.
        """
        raise self._refusal()

    def _refusal(self) -> LabError:
        return LabError(f"the daemon at {self._docker_host} is not the lab's: as root the lab starts its own")


def short_directory(directory: Path) -> Path:
    """Give a directory for sockets: below the given one if that is short enough, else a fresh one of ours.

    :param directory: where the lab's files are.
    """
    inside = directory / "run"
    if len(os.fsencode(inside)) <= _LONGEST_RUN_DIRECTORY - len("/host-00"):
        inside.mkdir(parents=True, exist_ok=True, mode=0o700)
        return inside
    return Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))


@contextmanager
def temporary_daemon(directory: Path, *, engine: Engine | None = None) -> Iterator[LabDaemon]:
    """Run a daemon with all its data below a directory, such as one on a small disk; give it empty, end it after.

    :param directory: an existing directory; the data below it are removed at the end.
    :param engine: which engine; None is the installed one.
    """
    run = short_directory(directory)
    daemon = LabDaemon("temporary", directory=directory / "daemon", run_directory=run, engine=engine)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(daemon.directory, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)


def _remove_control_groups(container: str) -> None:
    """Remove the empty groups of a container whose daemon could not; on a busy one the kernel refuses."""
    root = Path("/sys/fs/cgroup")
    for group in (*root.glob(f"docker/{container}"), *root.glob(f"*/docker/{container}")):
        try:
            group.rmdir()
        except OSError:
            continue
