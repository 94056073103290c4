# SPDX-License-Identifier: Apache-2.0
"""Short commands over SSH on an event loop, for what waits beside thousands of others.

Nothing here takes more than a command's answer through memory: bytes of backups never pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncssh
import paramiko

from airflow_provider_dockerbackup.exceptions import ConfigurationError, DockerBackupError, TransientError
from airflow_provider_dockerbackup.transport.forced_command import refusal
from airflow_provider_dockerbackup.transport.ssh_buffers import LimitedOutput, Tail
from airflow_provider_dockerbackup.transport.ssh_command import CommandResult

_MAX_OUTPUT_BYTES: Final = 1024 * 1024
_STDERR_TAIL_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 64 * 1024
_KEEPALIVE_SECONDS: Final = 30
_SSH_PORT: Final = 22
_REFUSALS: Final[Mapping[type[Exception], str]] = {
    asyncssh.HostKeyNotVerifiable: (
        "the host key is not the expected one, or not known; compare the fingerprint on the host itself (ssh-keygen "
        "-lf /etc/ssh/ssh_host_ed25519_key.pub), then put it into the connection's host_key or the triggerer's "
        "known_hosts"
    ),
    asyncssh.PermissionDenied: ("login refused; see user name and key, and the user's authorized_keys on the host"),
    asyncssh.KeyExchangeFailed: "no algorithm in common with sshd",
    asyncssh.KeyImportError: "the private key cannot be read; see key and passphrase",
    asyncssh.KeyEncryptionError: "the private key cannot be decrypted; see its passphrase",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncSshTarget:
    """A host, who logs in there, and which keys of the host are believed.

    :param where: the host, for messages.
    :param host_keys: public keys ``TYPE BASE64``, of which the host must show one; empty believes nobody, None anybody.
    :param private_key: the key itself, or ``key_file`` its path.
    :param look_for_keys: whether keys in ``~/.ssh`` are tried as well.
    :param connect_seconds: limit for connecting, and for logging in.
    """

    where: str
    host: str
    port: int
    user: str
    host_keys: tuple[str, ...] | None
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    key_file: str | None = None
    passphrase: str | None = field(default=None, repr=False)
    look_for_keys: bool = True
    connect_seconds: float = 20.0


class AsyncSshConnection:
    """A connection that runs short commands, one after another or several at once.

    :param connection: asyncssh's, connected.
    :param where: the host, for messages.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, *, where: str) -> None:
        self._connection = connection
        self.where = where

    async def run(
        self,
        command: str,
        *,
        what: str = "remote command",
        stdin: bytes = b"",
        timeout_seconds: float = 60.0,
        max_output_bytes: int = _MAX_OUTPUT_BYTES,
    ) -> CommandResult:
        """Run a command and return what came of it; its exit status is one that the host sent.

        :param command: one quoted command line.
        :param what: what it does, for messages; the command line itself may hold secrets and is never shown.
        :param stdin: its input.
        :param timeout_seconds: limit for all of it.
        :param max_output_bytes: limit of its output.
        :raises TransientError: when no exit status came (the link was lost, a signal killed the command), or the time
            was over.
        :raises ConfigurationError: when the host lets this key run less than that.
        :raises DockerBackupError: when the output is longer than allowed.
        """
        doing = f"{what} on {self.where}"
        output, errors = LimitedOutput(max_output_bytes), Tail(_STDERR_TAIL_BYTES)
        try:
            async with asyncio.timeout(timeout_seconds):
                status = await self._status(command, stdin, output.add, errors.add)
        except TimeoutError as err:
            raise TransientError(f"{doing}: was not done after {timeout_seconds:g} s; try again") from err
        except (asyncssh.Error, OSError) as err:
            raise TransientError(f"{doing}: the link was lost ({_text(err)}); try again") from err
        if status is None or status < 0:
            raise TransientError(f"{doing}: the link was lost, or the command was killed, before its end; try again")
        refused = refusal(command, exit_status=status, stderr=errors.value(), what=doing)
        if refused is not None:
            raise refused
        return CommandResult(exit_status=status, stdout=output.whole(doing), stderr=errors.value())

    async def _status(
        self, command: str, stdin: bytes, use_output: Callable[[bytes], object], use_errors: Callable[[bytes], object]
    ) -> int | None:
        process: Any = await self._connection.create_process(command, encoding=None)
        try:
            if stdin:
                process.stdin.write(stdin)
            process.stdin.write_eof()
            await asyncio.gather(_drain(process.stdout, use_output), _drain(process.stderr, use_errors))
            await process.wait_closed()
        finally:
            process.close()
        status: int | None = process.exit_status
        return status


@asynccontextmanager
async def connect(target: AsyncSshTarget) -> AsyncIterator[AsyncSshConnection]:
    """Give a connection to a host; it is closed at the end.

    The user's SSH configuration is not read, no host certificate is believed, and nothing is forwarded.

    :raises ConfigurationError: when the host cannot be believed, does not let us in, or a key cannot be read.
    :raises TransientError: when the host cannot be reached, or did not answer in time.
    """
    # It tells of each connection and channel; a poll every few seconds would fill the log.
    asyncssh.set_log_level("WARNING")
    try:
        async with asyncio.timeout(2 * target.connect_seconds):
            connection = await asyncssh.connect(**await _options(target))
    except Exception as err:
        raise explain_async_connect_error(err, target.where) from err
    try:
        yield AsyncSshConnection(connection, where=target.where)
    finally:
        connection.abort()


def known_host_keys(host: str, *, port: int, known_hosts: Path) -> tuple[str, ...]:
    """Return the keys that a known_hosts file has for a host, found by paramiko, as for connections that stream.

    :param known_hosts: a file that is not there is an empty one.
    """
    keys = paramiko.HostKeys()
    if known_hosts.is_file():
        keys.load(str(known_hosts))
    found = keys.lookup(host if port == _SSH_PORT else f"[{host}]:{port}")
    return tuple(f"{key.get_name()} {key.get_base64()}" for key in found.values()) if found else ()


def explain_async_connect_error(err: BaseException, where: str) -> DockerBackupError:
    """Return our error for one that connecting raised; to be raised ``from err``."""
    if isinstance(err, DockerBackupError):
        return err
    for kind, advice in _REFUSALS.items():
        if isinstance(err, kind):
            return ConfigurationError(f"{where}: {advice} ({_text(err)})")
    if isinstance(err, (FileNotFoundError, PermissionError)) and err.filename:
        return ConfigurationError(f"{where}: cannot read {err.filename}: {err.strerror}; the triggerer needs it too")
    if isinstance(err, (asyncssh.Error, OSError)):  # with all that timeouts raise
        return TransientError(f"{where}: cannot connect: {_text(err)}; see whether host and port are right, sshd runs")
    return ConfigurationError(f"{where}: cannot connect: {type(err).__name__}: {err}; see the connection's settings")


async def _options(target: AsyncSshTarget) -> dict[str, Any]:
    options: dict[str, Any] = {
        "host": target.host,
        "port": target.port,
        "username": target.user,
        # Without it the user's own configuration would decide what is believed.
        "config": None,
        "known_hosts": None if target.host_keys is None else _trusted(target),
        "x509_trusted_certs": None,
        "connect_timeout": target.connect_seconds,
        "login_timeout": target.connect_seconds,
        "keepalive_interval": _KEEPALIVE_SECONDS,
        "compression_algs": None,
    }
    if target.password:
        options["password"] = target.password
    keys = await asyncio.to_thread(_client_keys, target)
    if keys or not target.look_for_keys:
        options["client_keys"] = keys
    return options


def _trusted(target: AsyncSshTarget) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
    """Return trusted keys, trusted authorities and revoked keys, without a name that anything could fail to match."""
    try:
        return [asyncssh.import_public_key(key) for key in target.host_keys or ()], [], []
    except asyncssh.KeyImportError as err:
        raise ConfigurationError(f"{target.where}: host_key: expected TYPE BASE64, cannot be read: {err}") from err


def _client_keys(target: AsyncSshTarget) -> list[asyncssh.SSHKey]:
    if target.private_key:
        return [asyncssh.import_private_key(target.private_key, target.passphrase or None)]
    if target.key_file:
        return [asyncssh.read_private_key(str(Path(target.key_file).expanduser()), target.passphrase or None)]
    return []


async def _drain(stream: asyncssh.SSHReader[bytes], use: Callable[[bytes], object]) -> None:
    while data := await stream.read(_PIECE_BYTES):
        use(data)


def _text(err: BaseException) -> str:
    return str(err) or type(err).__name__
