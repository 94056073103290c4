# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share, and what they stand for."""

from __future__ import annotations

import getpass
import os
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from airflow_provider_dockerbackup import __version__
from airflow_provider_dockerbackup.core.audit.signature import SigningKey
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.signing_key import read_signing_key
from airflow_provider_dockerbackup.transport.ssh import SshSession
from airflow_provider_dockerbackup.transport.ssh_config import ssh_client_factory
from airflow_provider_dockerbackup.transport.storage import storage_from_url

repository_option = click.option(
    "--repository",
    "-r",
    envvar="DOCKERBACKUP_REPOSITORY",
    required=True,
    metavar="URL",
    help="The repository: /path, file:///path or s3://bucket/prefix (credentials and endpoint from AWS_* variables).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """How a Docker host is reached."""

    target: str
    name: str | None
    identity: Path | None
    ssh_config: Path
    docker_command: str
    docker_socket: str | None

    @contextmanager
    def connected(self) -> Iterator[SshDockerHost]:
        """Give the Docker host; its connections are closed at the end."""
        command = DockerCommand.parse(self.docker_command, socket=self.docker_socket)
        factory = ssh_client_factory(self.target, identity_file=self.identity, config_path=self.ssh_config)
        session = SshSession(factory, where=self.target)
        try:
            yield SshDockerHost(session, name=self.name or self.target, command=command)
        finally:
            session.close()


def host_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a Docker host to a verb; it gets them as the keyword ``host``."""

    @click.option(
        "--host", "-H", "target", required=True, metavar="TARGET", help="Docker host, as for ssh: [USER@]HOST."
    )
    @click.option("--host-name", metavar="NAME", help="Name of the host in the repository.  [default: TARGET]")
    @click.option("--identity", "-i", type=click.Path(path_type=Path), help="SSH private key.")
    @click.option(
        "--ssh-config",
        "-F",
        type=click.Path(path_type=Path),
        default=Path("~/.ssh/config"),
        show_default=True,
        help="SSH configuration file.",
    )
    @click.option("--docker-command", default="docker", show_default=True, help="How docker is called on the host.")
    @click.option("--docker-socket", metavar="unix:///PATH", help="The daemon's socket.  [default: the host's own]")
    @wraps(function)
    def with_host(
        *args: Any,
        target: str,
        host_name: str | None,
        identity: Path | None,
        ssh_config: Path,
        docker_command: str,
        docker_socket: str | None,
        **kwargs: Any,
    ) -> Any:
        host = HostOptions(
            target=target,
            name=host_name,
            identity=identity,
            ssh_config=ssh_config.expanduser(),
            docker_command=docker_command,
            docker_socket=docker_socket,
        )
        return function(*args, host=host, **kwargs)

    return with_host


def open_repository(url: str) -> Repository:
    """Return the repository at ``url``; events are signed when DOCKERBACKUP_SIGNING_KEY names the file of a key."""
    return Repository.open(storage_from_url(url), clock=SystemClock(), signer=signer())


def signer() -> SigningKey | None:
    """Return the key in the file that DOCKERBACKUP_SIGNING_KEY names; None without one."""
    path = os.environ.get("DOCKERBACKUP_SIGNING_KEY")
    return read_signing_key(Path(path)) if path else None


def actor() -> dict[str, str]:
    """Return who acts, for events."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no entry in passwd, as often in containers
        user = str(os.getuid())
    return {
        "user": user,
        "machine": socket.gethostname(),
        "command": "dockerbackup",
        "provider": __version__,
        "python": platform.python_version(),
    }
