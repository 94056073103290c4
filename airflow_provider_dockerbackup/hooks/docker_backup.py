# SPDX-License-Identifier: Apache-2.0
"""A Docker host, reached by SSH through an Airflow connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import paramiko
from airflow.providers.ssh.hooks.ssh import SSHHook
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from airflow_provider_dockerbackup.core.repository import ABANDONED_AFTER_SECONDS
from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, TransientError
from airflow_provider_dockerbackup.hooks.connection import connection_of
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_host import SshDockerHost
from airflow_provider_dockerbackup.transport.slots import DEFAULT_PLACES
from airflow_provider_dockerbackup.transport.ssh import SshSession, SshTimeouts, explain_connect_error
from airflow_provider_dockerbackup.transport.ssh_algorithms import connect_preferring_gcm
from airflow_provider_dockerbackup.transport.ssh_proxy import ProxyProcess

if TYPE_CHECKING:
    from airflow.sdk import Connection

_CONNECTION_TYPES = ("dockerbackup", "ssh")
_CONNECT_ATTEMPTS = 4
# On storage without locks, what is older than ABANDONED_AFTER_SECONDS counts as left behind: no stream takes so long.
LONGEST_DEADLINE_SECONDS = ABANDONED_AFTER_SECONDS - 4 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """What a connection says of a Docker host, besides what SSHHook reads of it.

    :param host_name: name of the host in the repository.
    :param command: how docker is called there.
    :param timeouts: how long to wait for what.
    :param conn_timeout_seconds: how long connecting may take.
    :param max_captures: how many captures the host does at once.
    :param verified: whether the host's key is verified.
    """

    host_name: str
    command: DockerCommand
    timeouts: SshTimeouts
    conn_timeout_seconds: int
    max_captures: int
    verified: bool

    @classmethod
    def of(cls, connection: Connection, extra: Mapping[str, Any] | None = None) -> HostSettings:
        """Return the settings of a connection, each extra read by its name.

        :param extra: the connection's extras, where reading them was not left to this; None reads them now.
        :raises ConfigurationError: when the connection has another type or a setting is wrong.
        """
        if connection.conn_type not in _CONNECTION_TYPES:
            raise ConfigurationError(
                f"connection {connection.conn_id} has type {connection.conn_type!r}; expected "
                f"{' or '.join(_CONNECTION_TYPES)}"
            )
        if not connection.host:
            raise ConfigurationError(f"connection {connection.conn_id} names no host; set its field Host")
        extra = connection.extra_dejson if extra is None else extra
        port = f":{connection.port}" if connection.port not in {None, 22} else ""
        defaults = SshTimeouts()
        return cls(
            host_name=str(extra.get("host_name") or f"{connection.host}{port}"),
            command=DockerCommand.parse(
                str(extra.get("docker_command") or "docker"), socket=str(extra.get("docker_socket") or "") or None
            ),
            timeouts=SshTimeouts(
                command_seconds=defaults.command_seconds,
                first_byte_seconds=_seconds(extra, "first_byte_timeout", defaults.first_byte_seconds),
                stall_seconds=_seconds(extra, "stall_timeout", defaults.stall_seconds),
                deadline_seconds=_seconds(extra, "deadline", defaults.deadline_seconds, most=LONGEST_DEADLINE_SECONDS),
            ),
            conn_timeout_seconds=int(_seconds(extra, "conn_timeout", 20)),
            max_captures=_count(extra, "max_captures", DEFAULT_PLACES),
            verified=not (_skips_host_key_check(extra) or _is_true(extra, "allow_host_key_change")),
        )


class DockerBackupHook(SSHHook):
    """A Docker host through an Airflow connection of type ``dockerbackup``, or an existing one of type ``ssh``.

    Host keys are verified, SSH compression is off (it costs five sixths of the speed) and AES-GCM is preferred.

    :param dockerbackup_conn_id: the connection.
    """

    conn_name_attr = "dockerbackup_conn_id"
    default_conn_name = "dockerbackup_default"
    conn_type = "dockerbackup"
    hook_name = "Docker host (backup over SSH)"

    def __init__(self, dockerbackup_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        self.dockerbackup_conn_id = dockerbackup_conn_id
        connection = connection_of(dockerbackup_conn_id)
        self.settings = HostSettings.of(connection)
        try:
            super().__init__(
                ssh_conn_id=dockerbackup_conn_id,
                conn_timeout=self.settings.conn_timeout_seconds,
                banner_timeout=float(self.settings.conn_timeout_seconds),
                auth_timeout=self.settings.conn_timeout_seconds,
                conn_retry_attempts=1,
                **kwargs,
            )
        except Exception as err:
            # SSHHook raises ValueError, AirflowException and paramiko's own for keys it cannot read.
            raise ConfigurationError(f"connection {dockerbackup_conn_id} cannot be used: {err}") from err
        self.compress = False
        self._wanted_algorithms = self.disabled_algorithms or {}
        where = f"{self.settings.host_name} ({self.username}@{self.remote_host}:{self.port})"
        self._session = SshSession(self._connected_client, where=where, timeouts=self.settings.timeouts)

    @cached_property
    def host_proxy(self) -> ProxyProcess | None:
        """The process through which the next connection goes, if the user's SSH configuration names one."""
        return ProxyProcess(self.host_proxy_cmd) if self.host_proxy_cmd else None

    @contextmanager
    def docker_host(self) -> Iterator[SshDockerHost]:
        """Give the Docker host; its connections are closed at the end."""
        try:
            yield SshDockerHost(
                self._session,
                name=self.settings.host_name,
                command=self.settings.command,
                max_captures=self.settings.max_captures,
                access={"host_key_verified": str(self.settings.verified).lower()},
            )
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection to the host."""
        self._session.close()

    def kill(self) -> None:
        """Cut every stream and let no other begin; fit to be called from a signal handler."""
        self._session.kill()

    def test_connection(self) -> tuple[bool, str]:
        """Return whether Docker answers on the host, and its version and store, or what is wrong, in one line."""
        try:
            with self.docker_host() as host:
                return True, host.test()
        except DockerBackupError as err:
            return False, str(err)

    def _connected_client(self) -> paramiko.SSHClient:
        """Return a new connected client; what may pass is tried again, a refusal is not."""
        for attempt in Retrying(
            reraise=True,
            stop=stop_after_attempt(_CONNECT_ATTEMPTS),
            wait=wait_random_exponential(multiplier=1, max=8),
            retry=retry_if_exception(self._may_pass),
        ):
            with attempt:
                return connect_preferring_gcm(self._connect)
        raise TransientError(f"{self._session.where} was not reached")

    def _may_pass(self, error: BaseException) -> bool:
        """Tell whether a failed connection is worth another try, such as one that sshd's MaxStartups refused."""
        return isinstance(error, Exception) and isinstance(
            explain_connect_error(error, self._session.where), TransientError
        )

    def _connect(self, disabled_algorithms: Mapping[str, list[str]]) -> paramiko.SSHClient:
        self.disabled_algorithms = {
            kind: sorted({*disabled_algorithms.get(kind, ()), *self._wanted_algorithms.get(kind, ())})
            for kind in {*disabled_algorithms, *self._wanted_algorithms}
        }
        # SSHHook hands out the client it has, and the process of a ProxyCommand; here each connection has its own.
        self.client = None
        self.__dict__.pop("host_proxy", None)
        try:
            client = self.get_conn()
        except BaseException:
            if proxy := self.__dict__.pop("host_proxy", None):
                proxy.close()
            raise
        finally:
            self.client = None
        try:
            self._require_pinned_key(client)
        except BaseException:
            client.close()
            raise
        return client

    def _require_pinned_key(self, client: paramiko.SSHClient) -> None:
        """Refuse a host whose key is not the connection's ``host_key``.

        Paramiko looks into the worker's known_hosts first, and when the host is there it never looks at ours.
        """
        transport = client.get_transport()
        if self.host_key is None or transport is None:
            return
        found = transport.get_remote_server_key()
        if found != self.host_key:
            raise paramiko.BadHostKeyException(self.remote_host, found, self.host_key)


def _seconds(extra: Mapping[str, Any], name: str, default: float, *, most: float = float("inf")) -> float:
    value = extra.get(name)
    if value is None or value == "":
        return default
    try:
        seconds = float(str(value))
    except ValueError as err:
        raise ConfigurationError(f"{name}: expected seconds, got {value!r}") from err
    if not 0 < seconds <= most or seconds == float("inf"):
        limit = f" and at most {most:g}" if most < float("inf") else ""
        raise ConfigurationError(f"{name}: expected seconds > 0{limit}, got {value!r}")
    return seconds


def _count(extra: Mapping[str, Any], name: str, default: int) -> int:
    value = extra.get(name)
    if value in {None, ""}:
        return default
    text = str(value)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1000:
        raise ConfigurationError(f"connection extra {name}: expected a number from 1 to 999, got {value!r}")
    return int(text)


def _is_true(extra: Mapping[str, Any], name: str) -> bool:
    return str(extra.get(name, "")).strip().lower() == "true"


def _skips_host_key_check(extra: Mapping[str, Any]) -> bool:
    """Tell whether a connection says not to verify the host's key; SSHHook still knows the older name, too."""
    return _is_true(extra, "no_host_key_check" if "no_host_key_check" in extra else "ignore_hostkey_verification")
