# SPDX-License-Identifier: Apache-2.0
"""An Airflow connection's host, reached from a trigger."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.connection import get_async_extra_dejson

from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.hooks.connection import async_connection_of
from airflow_provider_dockerbackup.hooks.docker_backup import DockerBackupHook, HostSettings
from airflow_provider_dockerbackup.transport.async_ssh import (
    AsyncSshConnection,
    AsyncSshTarget,
    connect,
    known_host_keys,
)
from airflow_provider_dockerbackup.transport.commands import DockerCommand

if TYPE_CHECKING:
    from airflow.sdk import Connection

# What changes how a host is spoken to, and a trigger's SSH library would pass over in silence.
NOT_IN_TRIGGERS = ("allow_host_key_change", "ciphers", "disabled_algorithms")
_SSH_PORT = 22


@asynccontextmanager
async def connected(conn_id: str) -> AsyncIterator[AsyncSshConnection]:
    """Give a connection to the host of an Airflow connection of type ``dockerbackup`` or ``ssh``; closed at the end.

    Host keys are verified as :class:`~airflow_provider_dockerbackup.hooks.docker_backup.DockerBackupHook` does.

    :raises ConfigurationError: when the connection cannot be used here, the host not be believed, or it refuses us.
    :raises TransientError: when the host cannot be reached.
    """
    async with connect(await target_of(conn_id)) as connection:
        yield connection


async def target_of(conn_id: str) -> AsyncSshTarget:
    """Return where and how a trigger reaches the host of an Airflow connection.

    :raises ConfigurationError: when there is no such connection, or a trigger cannot use it.
    """
    connection = await async_connection_of(conn_id)
    extra = await get_async_extra_dejson(connection)
    settings = HostSettings.of(connection, extra)
    _refuse(conn_id, extra)
    return await asyncio.to_thread(_target, connection, extra, settings)


async def docker_command_of(conn_id: str) -> DockerCommand:
    """Return how docker is called on the host of an Airflow connection.

    :raises ConfigurationError: when there is no such connection, or it cannot be used.
    """
    connection = await async_connection_of(conn_id)
    return HostSettings.of(connection, await get_async_extra_dejson(connection)).command


def refuse_unless_for_triggers(hook: DockerBackupHook, extra: Mapping[str, Any]) -> None:
    """Refuse a connection that works in a worker and would not, or not as strictly, in a trigger; ask before deferring.

    :param hook: the hook of that connection.
    :param extra: its extras.
    :raises ConfigurationError: when it has extras that triggers cannot use, or relies on ``~/.ssh/config``.
    """
    conn_id = hook.dockerbackup_conn_id
    _refuse(conn_id, extra)
    if hook.host_proxy_cmd:
        raise ConfigurationError(
            f"connection {conn_id}: ~/.ssh/config has a ProxyCommand for this host, which triggers do not read; "
            "use deferrable=False with this connection"
        )
    if hook.key_file and not extra.get("key_file"):
        raise ConfigurationError(
            f"connection {conn_id}: its key comes from ~/.ssh/config, which triggers do not read; set key_file or "
            "private_key in the connection, or use deferrable=False"
        )


def _refuse(conn_id: str, extra: Mapping[str, Any]) -> None:
    # An extra that says no is none.
    found = [name for name in NOT_IN_TRIGGERS if str(extra.get(name) or "").strip().lower() not in {"", "false"}]
    if found:
        raise ConfigurationError(
            f"connection {conn_id}: a trigger cannot use its extra {', '.join(found)}; remove it, or use "
            "deferrable=False with this connection"
        )


def _target(connection: Connection, extra: Mapping[str, Any], settings: HostSettings) -> AsyncSshTarget:
    host, port = str(connection.host), connection.port or _SSH_PORT
    user = connection.login or getpass.getuser()
    key_file = str(extra.get("key_file") or "") or None
    private_key = str(extra.get("private_key") or "") or None
    if key_file and private_key:
        raise ConfigurationError(f"connection {connection.conn_id}: key_file and private_key are both set; keep one")
    password = (connection.password or "").strip() or None
    passphrase = extra.get("private_key_passphrase") if private_key else password
    return AsyncSshTarget(
        where=f"{settings.host_name} ({user}@{host}:{port})",
        host=host,
        port=port,
        user=user,
        host_keys=_host_keys(host, port, extra, verified=settings.verified),
        password=password,
        private_key=private_key,
        key_file=key_file,
        passphrase=str(passphrase) if passphrase else None,
        look_for_keys=str(extra.get("look_for_keys", "")).lower() != "false",
        connect_seconds=settings.conn_timeout_seconds,
    )


def _host_keys(host: str, port: int, extra: Mapping[str, Any], *, verified: bool) -> tuple[str, ...] | None:
    """Return which keys are believed: the connection's alone, else those in known_hosts.

    Without verification any key will do, unless known_hosts has the host's: a changed one is refused then, too.
    """
    pinned = str(extra.get("host_key") or "").split()
    if pinned and not verified:
        raise ConfigurationError("host_key and no_host_key_check are both set; keep one")
    if pinned:
        # A bare key is RSA, as the SSH provider has it.
        return (" ".join(pinned[:2]) if len(pinned) > 1 else f"ssh-rsa {pinned[0]}",)
    known = known_host_keys(host, port=port, known_hosts=Path("~/.ssh/known_hosts").expanduser())
    return known if known or verified else None
