# SPDX-License-Identifier: Apache-2.0
"""An sshd of our own on loopback, and the files a client needs to trust it and to be let in."""

from __future__ import annotations

import getpass
import os
import random
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.lab.errors import LabError, log_tail
from tests.lab.install import is_root, require_program
from tests.lab.processes import (
    command_line,
    descendants,
    live_pid,
    program,
    send,
    spawn,
    terminate,
    wait_until,
)

ADDRESS = "127.0.0.1"
# Below the range from which the kernel takes ports for outgoing connections: ours stays free while sshd is down.
_PORTS = range(20000, 32000)
_START_SECONDS = 15.0


class LabSshd:
    """One sshd: its keys, its configuration and its process."""

    def __init__(self, name: str, *, directory: Path, run_directory: Path, port: int) -> None:
        """Describe an sshd; nothing is written or started.

        :param name: the host's name in the client's configuration.
        :param directory: holds keys, configuration and log.
        :param run_directory: holds the pid file.
        :param port: where it listens on loopback, also after a restart.
        """
        self.name = name
        self.directory = directory
        self.run_directory = run_directory
        self.port = port
        self.user = getpass.getuser()

    @property
    def host_key(self) -> str:
        """The public host key: ``ssh-ed25519 AAAA…``, without a comment."""
        return " ".join(self._host_key_path.with_suffix(".pub").read_text(encoding="ascii").split()[:2])

    @property
    def private_key_path(self) -> Path:
        """The key that opens a session here."""
        return self.directory / "id_ed25519"

    @property
    def known_hosts_path(self) -> Path:
        """A known_hosts file that holds just this host."""
        return self.directory / "known_hosts"

    @property
    def ssh_config_path(self) -> Path:
        """A client configuration with a section for this host."""
        return self.directory / "ssh_config"

    @property
    def log_path(self) -> Path:
        """The log of sshd, kept over restarts."""
        return self.directory / "sshd.log"

    @property
    def running(self) -> bool:
        """Whether sshd lives."""
        return live_pid(self._pid_file) is not None

    def prepare(self, *, session_environment: Mapping[str, str]) -> None:
        """Make keys and write the configuration of server and client.

        :param session_environment: variables that each session gets, such as DOCKER_HOST.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.run_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for key in (self._host_key_path, self.private_key_path):
            if not key.exists():
                _make_key(key, comment=f"lab-{self.name}")
        public = self.private_key_path.with_suffix(".pub").read_text(encoding="ascii")
        (self.directory / "authorized_keys").write_text(public, encoding="ascii")
        self.known_hosts_path.write_text(f"[{ADDRESS}]:{self.port} {self.host_key}\n", encoding="ascii")
        self.ssh_config_path.write_text(self._client_configuration(), encoding="utf-8")
        self._configuration_path.write_text(self._server_configuration(session_environment), encoding="utf-8")

    def start(self) -> None:
        """Start sshd and wait until it greets; nothing to do if it runs.

        :raises LabError: when it does not come up; shows the end of its log.
        """
        if self.running:
            return
        if is_root():
            Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
        spawn(self._command(), pid_file=self._pid_file, log=self.log_path, environment=dict(os.environ))
        wait_until(lambda: self._greets() or not self.running, seconds=_START_SECONDS)
        if not self.running or not self._greets():
            tail = log_tail(self.log_path)
            self.stop()
            raise LabError(f"sshd of {self.name} did not come up on {ADDRESS}:{self.port}{tail}")

    def stop(self) -> None:
        """Stop sshd and cut its sessions."""
        self.kill_sessions()
        terminate(self._pid_file, patience=5)

    def kill_sessions(self) -> None:
        """Cut all links: SIGKILL to this sshd's processes for connections; it goes on taking new ones."""
        pid = live_pid(self._pid_file)
        if pid is None:
            return
        sessions = [child for child in descendants(pid) if program(child).startswith("sshd")]
        for child in sessions:
            send(child, signal.SIGKILL)
        wait_until(lambda: not any(command_line(child) for child in sessions), seconds=5)

    def run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a session, as a shell there reads it, and give what came of it.

        :param command: joined by spaces as ssh does; quote for the remote shell yourself.
        """
        client = [str(require_program("ssh")), "-F", str(self.ssh_config_path), self.name, *command]
        return subprocess.run(client, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def _command(self) -> list[str]:
        return [str(require_program("sshd")), "-D", "-e", "-f", str(self._configuration_path)]

    @property
    def _host_key_path(self) -> Path:
        return self.directory / "ssh_host_ed25519_key"

    @property
    def _configuration_path(self) -> Path:
        return self.directory / "sshd_config"

    @property
    def _pid_file(self) -> Path:
        return self.run_directory / "sshd.pid"

    def _greets(self) -> bool:
        try:
            with socket.create_connection((ADDRESS, self.port), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _client_configuration(self) -> str:
        return (
            f"Host {self.name}\n"
            f"  HostName {ADDRESS}\n"
            f"  Port {self.port}\n"
            f"  User {self.user}\n"
            f'  IdentityFile "{self.private_key_path}"\n'
            "  IdentitiesOnly yes\n"
            "  IdentityAgent none\n"
            f'  UserKnownHostsFile "{self.known_hosts_path}"\n'
            "  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
            "  BatchMode yes\n"
            "  LogLevel ERROR\n"
        )

    def _server_configuration(self, session_environment: Mapping[str, str]) -> str:
        # sshd takes the first SetEnv line only, so all variables stand on one.
        variables = " ".join(f'"{name}={value}"' for name, value in session_environment.items())
        return (
            f"ListenAddress {ADDRESS}:{self.port}\n"
            f'HostKey "{self._host_key_path}"\n'
            "PidFile none\n"
            f'AuthorizedKeysFile "{self.directory}/authorized_keys"\n'
            "StrictModes no\n"
            # Without PAM sshd refuses a locked account even to a key.
            f"UsePAM {'yes' if is_root() and _is_locked(self.user) else 'no'}\n"
            "PermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            f"AllowUsers {self.user}\n"
            "AllowTcpForwarding yes\n"
            "AllowStreamLocalForwarding yes\n"
            "MaxStartups 100\n"
            "MaxSessions 50\n"
            "UseDNS no\n"
            "PrintMotd no\n"
            "Subsystem sftp internal-sftp\n"
            f"SetEnv {variables}\n"
        )


def free_port(*, taken: frozenset[int] = frozenset()) -> int:
    """Give a port nobody listens on.

    :param taken: ports given away already though nobody listens yet.
    :raises LabError: when none is found.
    """
    for port in random.sample(_PORTS, 200):
        if port in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((ADDRESS, port))
            except OSError:
                continue
        return port
    raise LabError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _make_key(path: Path, *, comment: str) -> None:
    command = [str(require_program("ssh-keygen")), "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True)


def _is_locked(user: str) -> bool:
    shadow = Path("/etc/shadow")
    lines = shadow.read_text(encoding="utf-8", errors="replace").splitlines() if shadow.exists() else []
    return any(line.startswith(f"{user}:!") for line in lines)
