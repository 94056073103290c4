# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share, and what they stand for."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from airflow_provider_dockerbackup import __version__
from airflow_provider_dockerbackup.cli.quick_start import quick_imports
from airflow_provider_dockerbackup.core.archive.compression import Compression, check_compression
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.encryption.recipient import Recipient, parse_recipients
from airflow_provider_dockerbackup.core.freshness import Rpo
from airflow_provider_dockerbackup.core.period import Period
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands
from airflow_provider_dockerbackup.core.repository import Layout, Repository
from airflow_provider_dockerbackup.core.sizes import bytes_in
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.storage import storage_from_url

if TYPE_CHECKING:
    from airflow_provider_dockerbackup.core.audit.signature import SigningKey
    from airflow_provider_dockerbackup.core.encryption.identity import Identities
    from airflow_provider_dockerbackup.core.onhost.ports import HostFilesFactory
    from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost

SSH_CONFIG_VARIABLE = "DOCKERBACKUP_SSH_CONFIG"
repository_option = click.option(
    "--repository",
    "-r",
    envvar="DOCKERBACKUP_REPOSITORY",
    required=True,
    metavar="URL",
    help="The repository: /path, file:///path or s3://bucket/prefix (credentials and endpoint from AWS_* variables).",
)
identity_option = click.option(
    "--age-identity",
    envvar="DOCKERBACKUP_IDENTITY",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Private key, mode 0600, of a recipient of an encrypted repository.  [env: DOCKERBACKUP_IDENTITY]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def period_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the two ends of a period; a verb gets it as ``period``, None without either."""

    @click.option("--since", metavar="TIME", help="Only backups with a point at this date or time (UTC) or later.")
    @click.option("--until", metavar="TIME", help="Only backups with a point before this date or time (UTC).")
    @wraps(function)
    def with_period(*args: Any, since: str | None, until: str | None, **kwargs: Any) -> Any:
        return function(*args, period=Period.parse(since, until, names=("--since", "--until")), **kwargs)

    return with_period


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """How a Docker host is reached."""

    target: str
    name: str | None
    identity: Path | None
    ssh_config: Path
    docker_command: str
    docker_socket: str | None
    max_captures: int = 2

    @contextmanager
    def connected(self) -> Iterator[SshDockerHost]:
        """Give the Docker host; its connections are closed at the end."""
        with quick_imports():
            from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
            from airflow_provider_dockerbackup.transport.ssh import SshSession
            from airflow_provider_dockerbackup.transport.ssh_config import ssh_client_factory

        command = DockerCommand.parse(self.docker_command, socket=self.docker_socket)
        factory = ssh_client_factory(self.target, identity_file=self.identity, config_path=self.ssh_config)
        session = SshSession(factory, where=self.target)
        try:
            yield SshDockerHost(session, name=self.name or self.target, command=command, max_captures=self.max_captures)
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
        envvar=SSH_CONFIG_VARIABLE,
        help=f"SSH configuration file.  [env: {SSH_CONFIG_VARIABLE}]",
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


def host_of(text: str, *, ssh_config: Path, identity: Path | None) -> HostOptions:
    """Return the Docker host that ``[NAME=]TARGET`` names, with docker's defaults there."""
    name, _, target = text.rpartition("=")
    return HostOptions(
        target=target,
        name=name or None,
        identity=identity,
        ssh_config=ssh_config.expanduser(),
        docker_command="docker",
        docker_socket=None,
    )


def ssh_config_path() -> Path:
    """Return the SSH configuration that counts where no option names one."""
    return Path(os.environ.get(SSH_CONFIG_VARIABLE) or "~/.ssh/config").expanduser()


def open_repository(
    url: str, *, age_identity: Path | None = None, archive_hosts: HostFilesFactory | None = None
) -> Repository:
    """Return the repository at ``url``; events are signed when DOCKERBACKUP_SIGNING_KEY names the file of a key.

    :param age_identity: file of the private key that decrypts archives; read only when they are encrypted.
    :param archive_hosts: gives the archives that lie on Docker hosts.
    """
    return Repository.open(
        storage_from_url(url),
        clock=SystemClock(),
        signer=signer(),
        identities=lambda: _identities(age_identity),
        host_files=archive_hosts,
    )


def _identities(path: Path | None) -> Identities | None:
    if path is None:
        return None
    from airflow_provider_dockerbackup.transport.identity_file import read_identities

    return read_identities(path)


def open_or_create_repository(
    url: str, *, compression: str | None, layout: str = "archive", recipients: Sequence[Recipient] = ()
) -> Repository:
    """Return the repository at ``url``, made now if there is none, with this layout and compression.

    :param recipients: to whom backups in a new one are encrypted; an existing one must have the same, if there are.
    """
    return Repository.open_or_create(
        storage_from_url(url),
        clock=SystemClock(),
        layout=layout,
        compression=Compression(compression) if compression else None,
        recipients=recipients,
        signer=signer(),
    )


def recipient_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of who can decrypt a new repository; a verb gets them as the keyword ``recipients``, parsed."""

    @click.option(
        "--recipient",
        "texts",
        multiple=True,
        metavar="[NAME=]KEY",
        help="Encrypt a new repository to this age or SSH public key; repeat it, two are needed.",
    )
    @click.option("--allow-single-recipient", is_flag=True, help="Accept only one --recipient.")
    @wraps(function)
    def with_recipients(*args: Any, texts: tuple[str, ...], allow_single_recipient: bool, **kwargs: Any) -> Any:
        return function(*args, recipients=parse_recipients(texts, allow_single=allow_single_recipient), **kwargs)

    return with_recipients


def compression_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of how bytes come and are stored, below those of the host.

    A verb gets them as ``layout``, ``compression`` and ``tuning``.
    """

    @click.option(
        "--layout",
        type=click.Choice(get_args(Layout)),
        default="archive",
        show_default=True,
        help="Of a new repository: one plain file a backup, or each layer once for all of them.",
    )
    @tuning_options
    @click.option(
        "--max-captures",
        type=click.IntRange(1, 999),
        default=2,
        show_default=True,
        help="How many captures the host does at once, over all who say the same.",
    )
    @wraps(function)
    def with_compression(*args: Any, host: HostOptions, max_captures: int, **kwargs: Any) -> Any:
        return function(*args, host=replace(host, max_captures=max_captures), **kwargs)

    return with_compression


def tuning_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of how bytes are moved; a verb gets them as ``compression`` and ``tuning``."""

    @click.option(
        "--compression",
        type=click.Choice([each.value for each in Compression]),
        help="How it is stored.  [default: the repository's own; for a new one none, in layout layers zstd]",
    )
    @click.option("--compression-level", type=int, metavar="N", help="Level of that compression.")
    @click.option(
        "--compression-threads", type=int, default=2, show_default=True, metavar="N", help="Threads, in layout layers."
    )
    @click.option("--bandwidth-limit", metavar="BYTES", help="Bytes a second that may come in, such as 20M.")
    @wraps(function)
    def with_tuning(
        *args: Any,
        compression_level: int | None,
        compression_threads: int,
        bandwidth_limit: str | None,
        **kwargs: Any,
    ) -> Any:
        limit = None if bandwidth_limit is None else bytes_in(bandwidth_limit, name="--bandwidth-limit")
        tuning = Tuning(level=compression_level, threads=compression_threads, bandwidth_limit=limit)
        tuning.check()
        check_compression(kwargs.get("compression"), level=compression_level)
        return function(*args, tuning=tuning, **kwargs)

    return with_tuning


def quiesce_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the commands that are run in a container around a capture."""
    for name, when in (("post", "after the capture, also when that failed"), ("pre", "before the capture")):
        function = click.option(
            f"--{name}-command", metavar="WORDS", help=f"Run in the container {when}; quoted words, no shell."
        )(function)
    return click.option(
        "--command-timeout", type=float, default=60.0, show_default=True, help="Seconds each of the two may take."
    )(function)


def quiesce_commands(before: str | None, after: str | None, *, timeout_seconds: float) -> QuiesceCommands:
    """Return the commands that the options name.

    :raises ConfigurationError: when one cannot be split into words.
    """
    return QuiesceCommands.of(
        words("--pre-command", before), words("--post-command", after), timeout_seconds=timeout_seconds
    )


def words(option: str, text: str | None) -> list[str] | None:
    """Return the words in an option's text, quoted as for a shell; None without a text.

    :raises ConfigurationError: when a quote is not closed.
    """
    try:
        return None if text is None else shlex.split(text)
    except ValueError as err:
        raise ConfigurationError(f"{option}: {err}: {text!r}") from err


def one_off_work() -> tuple[str, ...]:
    """Return a name for work that no DAG run names: each run of the command is work of its own."""
    return ("dockerbackup", uuid.uuid4().hex)


def signer() -> SigningKey | None:
    """Return the key in the file that DOCKERBACKUP_SIGNING_KEY names; None without one."""
    path = os.environ.get("DOCKERBACKUP_SIGNING_KEY")
    if not path:
        return None
    from airflow_provider_dockerbackup.transport.signing_key import read_signing_key

    return read_signing_key(Path(path))


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


def rpo_of(limit: str, by_source: Sequence[str]) -> Rpo:
    """Return what ``--rpo DURATION`` and ``--rpo-for PATTERN=DURATION`` mean.

    :raises ConfigurationError: names the option.
    """
    limits: dict[str, str] = {}
    for text in by_source:
        pattern, _, duration = text.rpartition("=")
        if not pattern:
            raise ConfigurationError(f"--rpo-for: expected PATTERN=DURATION, got {text!r}")
        limits[pattern] = duration
    return Rpo.parse(limit, limits, names=("--rpo", "--rpo-for"))
