# SPDX-License-Identifier: Apache-2.0
"""Sessions on the lab's hosts."""

from __future__ import annotations

from typing import Any

from airflow_provider_dockerbackup.exceptions import DockerBackupError
from airflow_provider_dockerbackup.transport.ssh import CommandResult, SshClientFactory, SshSession, SshTimeouts
from airflow_provider_dockerbackup.transport.ssh_config import ssh_client_factory
from tests.lab.lab import LabHost


class CommandFailedError(DockerBackupError):
    """What the tests' streams raise for an exit status other than 0."""

    def __init__(self, result: CommandResult) -> None:
        super().__init__(f"exit status {result.exit_status}")
        self.result = result


def factory(host: LabHost, *, port: int | None = None) -> SshClientFactory:
    """Give a factory of clients of a host, or of a proxy in front of it.

    :param port: the proxy's port.
    """
    if port is None:
        return ssh_client_factory(host.name, config_path=host.ssh_config_path)
    proxied = host.known_hosts_path.with_name(f"known_hosts.{port}")
    proxied.write_text(f"[127.0.0.1]:{port} {host.host_key}\n", encoding="ascii")
    target = f"ssh://{host.user}@127.0.0.1:{port}"
    return ssh_client_factory(
        target, identity_file=host.private_key_path, known_hosts=proxied, config_path=None, connect_timeout=5
    )


def session(host: LabHost, *, port: int | None = None, **timeouts: Any) -> SshSession:
    """Give a session on a host, or through a proxy in front of it.

    :param port: the proxy's port.
    :param timeouts: as :class:`SshTimeouts` takes them.
    """
    return SshSession(factory(host, port=port), where=host.name, timeouts=SshTimeouts(**timeouts))


def read_all(ssh: SshSession, command: str) -> int:
    """Read a stream to its end and return how many bytes came."""
    return sum(len(piece) for piece in ssh.stream_out(command, explain=CommandFailedError))
