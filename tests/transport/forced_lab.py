# SPDX-License-Identifier: Apache-2.0
"""Docker hosts that can be reached with a restricted key only."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.forced_command import Action, script
from tests.lab.install import ensure_programs, require_program
from tests.lab.lab import LabHost
from tests.lab.sshd import LabSshd, free_port

Way = Literal["authorized_keys", "sshd_config"]
WAYS: Final[tuple[Way, ...]] = ("authorized_keys", "sshd_config")
# Nobody's on this machine, as far as can be told.
SUDO_UID: Final = 61397
# As docs/how-to/restrict-a-backup-key.md has it, for the user that logs in here.
MATCH: Final = """\
Match User {user}
  ForceCommand exec {script}
  DisableForwarding {no_forwarding}
  AllowTcpForwarding remote
  PermitListen 127.0.0.1:*
  AllowStreamLocalForwarding no
  AllowAgentForwarding no
  X11Forwarding no
  PermitTunnel no
  PermitTTY no
  PermitUserRC no
"""


class RestrictedSshd(LabSshd):
    """An sshd whose one key may do what a script lets through, as authorized_keys or sshd_config says."""

    def __init__(
        self,
        host: LabHost,
        *,
        directory: Path,
        actions: Collection[Action],
        way: Way = "authorized_keys",
        docker: DockerCommand | None = None,
    ) -> None:
        """Describe it; nothing is written or started.

        :param host: the host that it is one more way to.
        :param directory: for its files.
        :param docker: how docker is called there, if not by its name.
        """
        name = f"{host.name}-restricted"
        super().__init__(name, directory=directory / "ssh", run_directory=directory / "run", port=free_port())
        self.script_path = directory / "dockerbackup-ssh"
        self._actions = actions
        self._way = way
        self._docker = docker or DockerCommand()

    def prepare(self, *, session_environment: Mapping[str, str]) -> None:
        """As the lab's, and write the script and what names it."""
        super().prepare(session_environment=session_environment)
        self.script_path.write_text(script(self._actions, docker=self._docker), encoding="ascii")
        self.script_path.chmod(0o755)
        keys = self.directory / "authorized_keys"
        if self._way == "authorized_keys":
            forwarding = ',port-forwarding,permitlisten="127.0.0.1:*"' if self._pushes else ""
            options = f'restrict{forwarding},command="exec {self.script_path}"'
            keys.write_text(f"{options} {keys.read_text(encoding='ascii')}", encoding="ascii")

    @property
    def _pushes(self) -> bool:
        return Action.PUSH in self._actions

    def _server_configuration(self, session_environment: Mapping[str, str]) -> str:
        text = super()._server_configuration(session_environment)
        if self._way == "sshd_config":
            no_forwarding = "no" if self._pushes else "yes"
            return text + MATCH.format(user=self.user, script=self.script_path, no_forwarding=no_forwarding)
        if self._pushes:  # what the script's own first lines ask for
            text = text.replace("AllowTcpForwarding yes", "AllowTcpForwarding remote")
            text = text.replace("AllowStreamLocalForwarding yes", "AllowStreamLocalForwarding no")
        return text


class SudoSshd(RestrictedSshd):
    """One whose user may do nothing but log in and run docker by sudo, without a password.

    User and sudoers are files that this sshd sees in place of the machine's, in a mount namespace of its own: nothing
    of the machine is changed, and all of it is gone with the process.
    """

    def __init__(self, host: LabHost, *, directory: Path, actions: Collection[Action]) -> None:
        """Describe it; nothing is written or started."""
        command = DockerCommand.parse("sudo -n docker", socket=host.daemon.docker_host)
        super().__init__(host, directory=directory, actions=actions, docker=command)
        self.user = "dockerbackup"
        self._etc = directory / "etc"
        self._home = directory / "home"

    def prepare(self, *, session_environment: Mapping[str, str]) -> None:
        """As with any restricted key, and write who the user is and what sudo allows."""
        own = {"HOME": str(self._home), "XDG_RUNTIME_DIR": str(self._home), "PATH": session_environment["PATH"]}
        super().prepare(session_environment=own)
        # What the user must read or reach; keys stay root's, with mode 0600.
        for path in (self.directory.parent, self.directory):
            path.chmod(0o711)
        (self.directory / "authorized_keys").chmod(0o644)
        self._home.mkdir(mode=0o700, exist_ok=True)
        os.chown(self._home, SUDO_UID, SUDO_UID)
        self._etc.mkdir(exist_ok=True)
        for name, line in self._lines().items():
            path = self._etc / name
            path.unlink(missing_ok=True)
            path.write_text(Path("/etc", name).read_text(encoding="utf-8") + line, encoding="utf-8")
            path.chmod(0o440)
        (self._etc / "passwd").chmod(0o644)

    def _lines(self) -> dict[str, str]:
        docker = require_program("docker")
        return {
            "passwd": f"{self.user}:x:{SUDO_UID}:{SUDO_UID}::{self._home}:/bin/sh\n",
            "shadow": f"{self.user}:*:20000:0:99999:7:::\n",
            "sudoers": f"{self.user} ALL=(root) NOPASSWD: {docker}\n",
        }

    def _command(self) -> list[str]:
        mounts = "".join(f"mount --bind {shlex.quote(str(self._etc / each))} /etc/{each} && " for each in self._lines())
        return [str(require_program("unshare")), "--mount", "sh", "-c", f'{mounts}exec "$@"', "sh", *super()._command()]


@contextmanager
def restricted(
    host: LabHost, directory: Path, *, actions: Collection[Action], way: Way = "authorized_keys"
) -> Iterator[LabHost]:
    """Give a host as whoever has nothing but a restricted key reaches it.

    :param directory: for the files of its sshd.
    """
    with _started(LabHost(host.daemon, RestrictedSshd(host, directory=directory, actions=actions, way=way))) as limited:
        yield limited


@contextmanager
def restricted_by_sudo(host: LabHost, *, actions: Collection[Action]) -> Iterator[LabHost]:
    """Give a host as whoever has nothing but a restricted key of a user reaches it who needs sudo for docker."""
    ensure_programs({"sudo": "sudo"})
    # Not below the folder of a test, which is root's alone.
    with (
        tempfile.TemporaryDirectory(prefix="dockerbackup-sudo-") as directory,
        _started(LabHost(host.daemon, SudoSshd(host, directory=Path(directory), actions=actions))) as limited,
    ):
        yield limited


@contextmanager
def _started(limited: LabHost) -> Iterator[LabHost]:
    limited.prepare()
    limited.start_sshd()
    try:
        yield limited
    finally:
        limited.stop_sshd()
