# SPDX-License-Identifier: Apache-2.0
"""Docker hosts that can be reached with a restricted key only."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.forced_command import Action, script
from tests.lab.lab import LabHost
from tests.lab.sshd import LabSshd, free_port

Way = Literal["authorized_keys", "sshd_config"]
WAYS: Final[tuple[Way, ...]] = ("authorized_keys", "sshd_config")
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

    def __init__(self, host: LabHost, *, directory: Path, actions: Collection[Action], way: Way) -> None:
        """Describe it; nothing is written or started.

        :param host: the host that it is one more way to.
        :param directory: for its files.
        """
        name = f"{host.name}-restricted"
        super().__init__(name, directory=directory / "ssh", run_directory=directory / "run", port=free_port())
        self.script_path = directory / "dockerbackup-ssh"
        self._actions = actions
        self._way = way

    def prepare(self, *, session_environment: Mapping[str, str]) -> None:
        """As the lab's, and write the script and what names it."""
        super().prepare(session_environment=session_environment)
        self.script_path.write_text(script(self._actions, docker=DockerCommand()), encoding="ascii")
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


@contextmanager
def restricted(
    host: LabHost, directory: Path, *, actions: Collection[Action], way: Way = "authorized_keys"
) -> Iterator[LabHost]:
    """Give a host as whoever has nothing but a restricted key reaches it.

    :param directory: for the files of its sshd.
    """
    limited = LabHost(host.daemon, RestrictedSshd(host, directory=directory, actions=actions, way=way))
    limited.prepare()
    limited.start_sshd()
    try:
        yield limited
    finally:
        limited.stop_sshd()
