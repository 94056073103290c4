# SPDX-License-Identifier: Apache-2.0
"""The lab as a whole: Docker hosts behind sshd, a test daemon, and the file by which another process finds them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.daemon import GivenDaemon, LabDaemon, short_directory
from tests.lab.engines import Engine
from tests.lab.errors import LabError
from tests.lab.install import ensure_programs, is_root
from tests.lab.processes import commands_with
from tests.lab.sshd import ADDRESS, LabSshd, free_port

STATE_NAME = "lab.json"
SCHEMA_VERSION = 1
_TEST_DAEMON = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabState:
    """What must be known to find a lab again.

    :param schema_version: of this record.
    :param run_directory: where sockets and pid files are.
    :param ports: of each host's sshd, in order.
    :param engine: version asked for, None for the installed one.
    :param containerd_store: whether the containerd image store is used.
    :param given_docker_host: address of the daemon used because none could be started, else None.
    """

    schema_version: int
    run_directory: str
    ports: tuple[int, ...]
    engine: str | None
    containerd_store: bool
    given_docker_host: str | None


class LabHost:
    """One Docker host: a daemon, and an sshd whose sessions stand in front of that daemon."""

    def __init__(self, daemon: LabDaemon, sshd: LabSshd) -> None:
        """Join the two; nothing is started.

        :param daemon: the host's Docker daemon.
        :param sshd: the host's sshd.
        """
        self.daemon = daemon
        self.sshd = sshd
        self.address = ADDRESS

    @property
    def name(self) -> str:
        """The host's name in the client's configuration."""
        return self.sshd.name

    @property
    def connection_id(self) -> str:
        """The Airflow connection id under which ``env`` announces it, such as ``docker_host_1``."""
        return f"docker_{self.name.replace('-', '_')}"

    @property
    def ssh_port(self) -> int:
        """Where sshd listens; the same after a restart."""
        return self.sshd.port

    @property
    def user(self) -> str:
        """Who logs in."""
        return self.sshd.user

    @property
    def host_key(self) -> str:
        """The public host key: ``ssh-ed25519 AAAA…``."""
        return self.sshd.host_key

    @property
    def private_key_path(self) -> Path:
        """The key that opens a session."""
        return self.sshd.private_key_path

    @property
    def known_hosts_path(self) -> Path:
        """A known_hosts file that holds just this host."""
        return self.sshd.known_hosts_path

    @property
    def ssh_config_path(self) -> Path:
        """A configuration for ``ssh -F`` in which :attr:`name` is this host."""
        return self.sshd.ssh_config_path

    def airflow_connection(self, **extra: str) -> str:
        """Give the connection as the JSON that Airflow reads from ``AIRFLOW_CONN_…``.

        :param extra: more of its extra fields.
        """
        connection = {
            "conn_type": "dockerbackup",
            "host": self.address,
            "port": self.ssh_port,
            "login": self.user,
            "extra": {
                "key_file": str(self.private_key_path),
                "host_key": self.host_key,
                "host_name": self.name,
                **extra,
            },
        }
        return json.dumps(connection)

    def prepare(self) -> None:
        """Write keys and configuration."""
        daemon = self.daemon
        (daemon.directory / "client").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.sshd.prepare(
            session_environment={
                "DOCKER_HOST": daemon.docker_host,
                "DOCKER_CONFIG": str(daemon.directory / "client"),
                # Each host stands for a machine of its own: with its own places for captures, and with an account that
                # has no start-up files for its shell, whatever this machine's user has there.
                "XDG_RUNTIME_DIR": str(daemon.directory / "client"),
                "HOME": str(daemon.directory / "client"),
                "PATH": daemon.files.search_path,
            }
        )

    def start_sshd(self) -> None:
        """Start sshd, on the same port as before."""
        self.sshd.start()

    def stop_sshd(self) -> None:
        """Stop sshd and cut its sessions."""
        self.sshd.stop()

    def kill_sessions(self) -> None:
        """Cut all links in mid-stream; new ones are taken."""
        self.sshd.kill_sessions()

    def commands(self) -> list[str]:
        """Give the command lines of all that sessions on this host have started and that still runs."""
        # Of the host alone, and not in the environment of its daemon.
        return commands_with(f"XDG_RUNTIME_DIR={self.daemon.directory / 'client'}")

    def ssh(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a session on this host, with OpenSSH's client.

        :param command: joined by spaces as ssh does; quote for the remote shell yourself.
        """
        return self.sshd.run(*command)


class Lab:
    """Docker hosts and a test daemon below one directory."""

    def __init__(self, directory: Path, state: LabState) -> None:
        """Describe a lab; use :meth:`start` or :meth:`open`.

        :param directory: where its files are.
        :param state: how to find its parts.
        """
        self.directory = directory
        self.state = state
        self._run = Path(state.run_directory)
        self.engine = Engine(version=state.engine, containerd_store=state.containerd_store)
        self.hosts = tuple(self._host(number, port) for number, port in enumerate(state.ports, start=1))
        self._test_daemon = None if state.given_docker_host else self._own_daemon(_TEST_DAEMON)

    @classmethod
    def start(cls, directory: Path, *, hosts: int = 1, engine: Engine | None = None) -> Self:
        """Start a lab; one that was left behind dead is cleaned away first. If it fails, all is stopped again.

        :param directory: made if missing; what the lab writes there goes when it is stopped.
        :param hosts: how many Docker hosts.
        :param engine: which engine for all daemons; None is the installed one.
        :raises LabError: when a lab runs there already, or something does not come up.
        """
        directory = directory.absolute()
        old = cls.open(directory)
        if old is not None and old.running:
            raise LabError(f"a lab runs in {directory} already; stop it with `down` first")
        if old is not None:
            old.stop()
        ensure_programs()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lab = cls(directory, _plan(directory, hosts=hosts, engine=engine or Engine()))
        try:
            lab._begin()
        except BaseException:
            lab.stop()
            raise
        return lab

    @classmethod
    def open(cls, directory: Path) -> Self | None:
        """Give the lab that was started in a directory, running or not; None if there is none.

        :param directory: as given to :meth:`start`.
        :raises LabError: when its state cannot be read.
        """
        path = directory.absolute() / STATE_NAME
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["schema_version"] != SCHEMA_VERSION:
                raise LabError(f"{path}: schema_version: expected {SCHEMA_VERSION}, got {record['schema_version']!r}")
            return cls(directory.absolute(), LabState(**{**record, "ports": tuple(record["ports"])}))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(f"{path} cannot be read: {error}") from error

    def __enter__(self) -> Self:
        """Give the lab."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the lab."""
        self.stop()

    @property
    def test_daemon(self) -> LabDaemon:
        """The daemon where backups are loaded to prove that they restore.

        :raises LabError: when the lab has none since it could not start daemons.
        """
        if self._test_daemon is None:
            raise LabError("this lab has no test daemon: run it as root, then it starts its own daemons")
        return self._test_daemon

    @property
    def daemons(self) -> tuple[LabDaemon, ...]:
        """All daemons: each host's, then the test daemon if there is one."""
        extra = () if self._test_daemon is None else (self._test_daemon,)
        return (*(host.daemon for host in self.hosts), *extra)

    @property
    def parts(self) -> dict[str, bool]:
        """Which parts there are, and whether each runs."""
        daemons = {f"dockerd {daemon.name}": daemon.running for daemon in self.daemons}
        return daemons | {f"sshd {host.name}": host.sshd.running for host in self.hosts}

    @property
    def running(self) -> bool:
        """Whether all parts run."""
        return all(self.parts.values())

    @property
    def ssh_config_path(self) -> Path:
        """A configuration for ``ssh -F`` with all hosts."""
        return self.directory / "ssh_config"

    def airflow_environment(self) -> dict[str, str]:
        """Give one ``AIRFLOW_CONN_…`` variable per host."""
        return {f"AIRFLOW_CONN_{host.connection_id.upper()}": host.airflow_connection() for host in self.hosts}

    def stop(self) -> None:
        """Stop every part, undo the mounts and remove what the lab wrote; also after a crash, also twice."""
        for host in self.hosts:
            host.sshd.stop()
        _at_once(daemon.stop for daemon in self.daemons)
        for path in (*(self.directory / name for name in self._names()), self._run):
            shutil.rmtree(path, ignore_errors=True)
        self.ssh_config_path.unlink(missing_ok=True)
        # Last: as long as it is there, a later `down` can go on where this one failed.
        (self.directory / STATE_NAME).unlink(missing_ok=True)

    def _begin(self) -> None:
        self._write_state()
        _at_once(daemon.start for daemon in self.daemons)
        for host in self.hosts:
            host.prepare()
            host.start_sshd()
        includes = "".join(f'Include "{host.ssh_config_path}"\n' for host in self.hosts)
        self.ssh_config_path.write_text(includes, encoding="utf-8")

    def _write_state(self) -> None:
        """Before the first process is started: whatever happens, `down` finds it."""
        path = self.directory / STATE_NAME
        temporary = path.with_name(f"{STATE_NAME}.{os.getpid()}.{time.monotonic_ns()}")
        temporary.write_text(json.dumps(asdict(self.state), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)

    def _names(self) -> tuple[str, ...]:
        return (*(host.name for host in self.hosts), _TEST_DAEMON)

    def _host(self, number: int, port: int) -> LabHost:
        name = f"host-{number}"
        sshd = LabSshd(name, directory=self.directory / name / "ssh", run_directory=self._run / name, port=port)
        return LabHost(self._host_daemon(name), sshd)

    def _host_daemon(self, name: str) -> LabDaemon:
        given = self.state.given_docker_host
        if given is not None:
            return GivenDaemon(name, directory=self.directory / name, docker_host=given)
        return self._own_daemon(name)

    def _own_daemon(self, name: str) -> LabDaemon:
        return LabDaemon(name, directory=self.directory / name, run_directory=self._run / name, engine=self.engine)


def _at_once(actions: Iterable[Callable[[], None]]) -> None:
    """Do all, for each may wait for its daemon; raise the first error when all are through."""
    with ThreadPoolExecutor() as pool:
        endings = [pool.submit(action) for action in actions]
    for ending in endings:
        ending.result()


def _plan(directory: Path, *, hosts: int, engine: Engine) -> LabState:
    if hosts < 1:
        raise ValueError(f"hosts: expected an integer >= 1, got {hosts}")
    given = None if is_root() else _given_docker_host()
    if given is not None and (hosts > 1 or engine != Engine()):
        raise LabError("without root there is one host, the daemon that runs already, with the engine it has")
    ports: list[int] = []
    for _ in range(hosts):
        ports.append(free_port(taken=frozenset(ports)))
    return LabState(
        schema_version=SCHEMA_VERSION,
        run_directory=str(short_directory(directory)),
        ports=tuple(ports),
        engine=engine.version,
        containerd_store=engine.containerd_store,
        given_docker_host=given,
    )


def _given_docker_host() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
