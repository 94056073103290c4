# SPDX-License-Identifier: Apache-2.0
"""Connected SSH clients from the user's own SSH configuration, for use without Airflow."""

from __future__ import annotations

import contextlib
import getpass
import re
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paramiko

from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.ssh import SshClientFactory, explain_connect_error
from airflow_provider_dockerbackup.transport.ssh_algorithms import DisabledAlgorithms, connect_preferring_gcm
from airflow_provider_dockerbackup.transport.ssh_proxy import ProxyProcess

DEFAULT_CONFIG = Path("~/.ssh/config")
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[?[0-9A-Fa-f:]+(?:%[A-Za-z0-9]+)?\]?", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?", re.ASCII)
_SSH_PORT = 22
_MAX_JUMPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """A host as the user names it; None is what the configuration says.

    :param host: name of a section of the configuration, or an address.
    """

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> SshTarget:
        """Return the target that ``name``, ``user@name`` or ``ssh://user@name:port`` names.

        :raises ConfigurationError: for anything else.
        """
        refused = f"SSH target {text!a} is not accepted; write NAME, USER@NAME or ssh://USER@NAME:PORT"
        try:
            if text.startswith("ssh://"):
                parts = urlsplit(text)
                if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.password is not None:
                    raise ConfigurationError(refused)
                user, host, port = parts.username, parts.hostname or "", parts.port
            else:
                before, at, host = text.rpartition("@")
                user, port = (before if at else None), None
        except ValueError as err:
            raise ConfigurationError(refused) from err
        if _HOST.fullmatch(host) is None or (user is not None and _USER.fullmatch(user) is None):
            raise ConfigurationError(refused)
        return cls(host=host.strip("[]"), user=user, port=port)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """All that is needed to reach one host."""

    host: str
    port: int
    user: str
    key_name: str | None
    identity_files: tuple[str, ...]
    identities_only: bool
    known_hosts: tuple[str, ...]
    proxy_command: str | None
    jumps: tuple[SshTarget, ...]


class _Client(paramiko.SSHClient):
    """A client that also closes what it was reached through."""

    def __init__(self) -> None:
        super().__init__()
        self.through: list[paramiko.SSHClient | ProxyProcess] = []

    def close(self) -> None:
        super().close()
        through, self.through = self.through, []
        for each in reversed(through):
            each.close()


class _Factory:
    """Connects by one route of a configuration."""

    def __init__(
        self,
        target: SshTarget,
        *,
        config: paramiko.SSHConfig,
        identity_file: Path | None,
        known_hosts: Path | None,
        connect_timeout: float,
    ) -> None:
        self._target = target
        self._config = config
        self._identity_file = identity_file
        self._known_hosts = known_hosts
        self._connect_timeout = connect_timeout

    def __call__(self) -> paramiko.SSHClient:
        """Return a new connected client.

        :raises DockerBackupError: when that fails; says what to do.
        """
        where = self._target.host
        try:
            route = self._route(self._target)
            return connect_preferring_gcm(lambda disabled: self._connect(route, disabled, depth=0))
        except Exception as err:
            raise explain_connect_error(err, where) from err

    def _route(self, target: SshTarget) -> _Route:
        found = self._config.lookup(target.host)
        identities: Any = found.get("identityfile", [])
        chosen = [str(self._identity_file)] if self._identity_file else [name for name in identities if name != "none"]
        files = [str(self._known_hosts)] if self._known_hosts else _words(found.get("userknownhostsfile"))
        return _Route(
            host=str(found.get("hostname") or target.host),
            port=target.port or int(found.get("port") or _SSH_PORT),
            user=target.user or str(found.get("user") or getpass.getuser()),
            key_name=found.get("hostkeyalias"),
            identity_files=tuple(str(Path(name).expanduser()) for name in chosen),
            identities_only=self._identity_file is not None or str(found.get("identitiesonly", "no")).lower() == "yes",
            known_hosts=tuple(files or _KNOWN_HOSTS),
            proxy_command=_unless_none(found.get("proxycommand")),
            jumps=_jumps(_unless_none(found.get("proxyjump"))),
        )

    def _connect(self, route: _Route, disabled: DisabledAlgorithms, *, depth: int) -> paramiko.SSHClient:
        client = _Client()
        try:
            _trust(client, route.known_hosts, must_exist=self._known_hosts is not None)
            client.connect(
                route.key_name or route.host,
                port=_SSH_PORT if route.key_name else route.port,
                username=route.user,
                key_filename=_existing(route.identity_files, must_exist=self._identity_file is not None),
                sock=self._socket(route, client, depth=depth),
                timeout=self._connect_timeout,
                banner_timeout=self._connect_timeout,
                auth_timeout=self._connect_timeout,
                channel_timeout=self._connect_timeout,
                allow_agent=self._identity_file is None,
                look_for_keys=not route.identities_only,
                compress=False,
                disabled_algorithms=disabled,
            )
        except BaseException:
            client.close()
            raise
        return client

    def _socket(self, route: _Route, client: _Client, *, depth: int) -> socket.socket | paramiko.Channel | ProxyProcess:
        """Open the way to the host: directly, by a proxy command, or through other hosts, which ``client`` closes."""
        if route.jumps:
            jump = self._jump(route.jumps, depth=depth)
            client.through.append(jump)
            transport = jump.get_transport()
            if transport is None:
                raise EOFError("the connection to the jump host was closed")
            address = (route.host, route.port)
            return transport.open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=self._connect_timeout)
        if route.proxy_command is not None:
            proxy = ProxyProcess(route.proxy_command)
            client.through.append(proxy)
            return proxy
        return socket.create_connection((route.host, route.port), timeout=self._connect_timeout)

    def _jump(self, jumps: Sequence[SshTarget], *, depth: int) -> paramiko.SSHClient:
        """Connect to the last of ``jumps`` through those before it; each has its own section of the configuration."""
        if depth >= _MAX_JUMPS:
            raise ConfigurationError(
                f"{self._target.host}: ProxyJump goes through more than {_MAX_JUMPS} hosts, or round"
            )
        route = self._route(jumps[-1])
        if len(jumps) > 1:
            route = _through(route, tuple(jumps[:-1]))
        return connect_preferring_gcm(lambda disabled: self._connect(route, disabled, depth=depth + 1))


def ssh_client_factory(
    target: str,
    *,
    user: str | None = None,
    port: int | None = None,
    identity_file: str | Path | None = None,
    known_hosts: str | Path | None = None,
    config_path: str | Path | None = DEFAULT_CONFIG,
    connect_timeout: float = 30.0,
) -> SshClientFactory:
    """Return a factory of connected clients, set up as the user's SSH configuration says.

    Understood: HostName, Port, User, IdentityFile, IdentitiesOnly, ProxyCommand, ProxyJump, UserKnownHostsFile and
    HostKeyAlias, and ssh-agent. Host keys are always verified, whatever StrictHostKeyChecking says. AES-GCM is used if
    sshd has it; compression is off.

    :param target: ``name``, ``user@name`` or ``ssh://user@name:port``.
    :param user: in place of the one in ``target`` or the configuration; likewise ``port``.
    :param identity_file: the only private key to try.
    :param known_hosts: the only file of known host keys.
    :param config_path: the configuration; a missing file is an empty one, None is none.
    :param connect_timeout: seconds for the connection, the banner and the login each.
    :raises ConfigurationError: when target or configuration cannot be read; the factory raises whatever
        :func:`~airflow_provider_dockerbackup.transport.ssh.explain_connect_error` makes of a failure.
    """
    parsed = SshTarget.parse(target)
    return _Factory(
        SshTarget(host=parsed.host, user=user or parsed.user, port=port or parsed.port),
        config=_load(config_path),
        identity_file=None if identity_file is None else Path(identity_file).expanduser(),
        known_hosts=None if known_hosts is None else Path(known_hosts).expanduser(),
        connect_timeout=connect_timeout,
    )


def _load(path: str | Path | None) -> paramiko.SSHConfig:
    config = paramiko.SSHConfig()
    if path is None:
        return config
    file = Path(path).expanduser()
    try:
        with file.open(encoding="utf-8") as lines:
            config.parse(lines)
    except FileNotFoundError:
        return config
    except Exception as err:
        raise ConfigurationError(f"SSH configuration {file} cannot be read: {err}") from err
    return config


def _through(route: _Route, jumps: tuple[SshTarget, ...]) -> _Route:
    return replace(route, jumps=jumps, proxy_command=None)


def _jumps(text: str | None) -> tuple[SshTarget, ...]:
    targets: list[SshTarget] = []
    for part in (text or "").split(",") if text else []:
        word = part.strip()
        # ProxyJump writes [user@]host[:port], unlike ssh's own first argument.
        targets.append(SshTarget.parse(word if word.startswith("ssh://") else f"ssh://{word}"))
    return tuple(targets)


def _trust(client: paramiko.SSHClient, files: Sequence[str], *, must_exist: bool) -> None:
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    for name in files:
        path = Path(name).expanduser()
        with contextlib.nullcontext() if must_exist else contextlib.suppress(FileNotFoundError):
            client.load_system_host_keys(str(path))


def _existing(names: Sequence[str], *, must_exist: bool) -> Any:
    """Return the key files that are there: OpenSSH skips missing ones that the configuration names."""
    present = [name for name in names if must_exist or Path(name).exists()]
    return present or None


def _words(text: str | None) -> list[str]:
    return [word for word in shlex.split(text or "") if word != "none"]


def _unless_none(text: str | None) -> str | None:
    return None if text is None or text.lower() == "none" else text
