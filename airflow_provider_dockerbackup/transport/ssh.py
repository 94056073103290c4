# SPDX-License-Identifier: Apache-2.0
"""Commands and streams over SSH, from a factory of connected clients.

Short commands share one control connection. Each stream has a connection of its own, tuned for it: paramiko's rekeying
and closing must not meet (see :mod:`~airflow_provider_dockerbackup.transport.ssh_command`), and a cut stream must not
take anything else with it.
"""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import paramiko

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport.registry_access import Activity
from airflow_provider_dockerbackup.transport.ssh_ahead import ConnectionAhead, is_alive
from airflow_provider_dockerbackup.transport.ssh_buffers import LimitedOutput
from airflow_provider_dockerbackup.transport.ssh_command import (
    COMMAND_TIMEOUT,
    CommandResult,
    LinkError,
    RunningCommand,
    tune,
)
from airflow_provider_dockerbackup.transport.ssh_errors import explain_connect_error, fingerprint
from airflow_provider_dockerbackup.transport.ssh_forward import (
    ForwardedCommand,
    ForwardedConnection,
    HeardOutput,
    ReverseForward,
)
from airflow_provider_dockerbackup.transport.ssh_stream import Explain, SshRemoteStream
from airflow_provider_dockerbackup.transport.ssh_watch import SshTimeouts

__all__ = [
    "CommandResult",
    "SshClientFactory",
    "SshRemoteStream",
    "SshSession",
    "SshTimeouts",
    "explain_connect_error",
]

SshClientFactory = Callable[[], paramiko.SSHClient]
"""Returns a new client, connected and logged in, whose host key was checked; the session closes it."""

Spoil = Callable[[int], bytes]

_MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024


class SshSession:
    """Commands and streams on one host.

    :param factory: see :data:`SshClientFactory`; called for the control connection and for each stream.
    :param where: the host, for messages.
    :param timeouts: how long to wait for what.
    """

    def __init__(self, factory: SshClientFactory, *, where: str, timeouts: SshTimeouts | None = None) -> None:
        self.where = where
        self.timeouts = timeouts or SshTimeouts()
        self._factory = factory
        self._lock = threading.Lock()
        self._connecting = threading.Lock()  # a factory makes one client at a time
        self._control: paramiko.SSHClient | None = None
        self._ahead: ConnectionAhead | None = None
        self._peer: dict[str, str] | None = None
        self._streams: weakref.WeakSet[RunningCommand] = weakref.WeakSet()
        self._killed = False

    def run(
        self,
        command: str,
        *,
        what: str = "remote command",
        stdin: bytes = b"",
        timeout_seconds: float | None = None,
        max_output_bytes: int = _MAX_OUTPUT_BYTES,
    ) -> CommandResult:
        """Run a short command on the control connection and return what came of it, whatever its exit status.

        :param command: one quoted command line.
        :param what: what it does, for messages; the command line itself may hold secrets and is never shown.
        :param stdin: its input.
        :param timeout_seconds: limit for all of it; None is ``command_seconds``.
        :param max_output_bytes: limit of its output.
        :raises TransientError: when the link is lost or the time is over.
        :raises ConfigurationError: when the host cannot be trusted or does not let us in.
        :raises DockerBackupError: when the output is longer than allowed.
        """
        limit = self.timeouts.command_seconds if timeout_seconds is None else timeout_seconds
        running = self._start_control(command, what=what, deadline_seconds=limit)
        try:
            output = LimitedOutput(max_output_bytes)
            thread = running.output_beside(output.add)
            if stdin:
                running.write(stdin)
            running.end_input()
            running.join(thread)
            status = running.finish()
        finally:
            running.close_channel()
        stdout = output.whole(f"{what} on {self.where}")
        return CommandResult(exit_status=status, stdout=stdout, stderr=running.stderr())

    @contextmanager
    def held(self, command: str, *, what: str) -> Iterator[Iterator[bytes]]:
        """Run a command on the control connection for as long as the body takes; its input ends with the body.

        :returns: gives what the command prints, as it comes; raises a ConfigurationError when this key may not run it.
        :raises TransientError: when the link is lost before it prints anything.
        """
        # What the body does has deadlines of its own, and may wait for one before it begins.
        limit = 2 * self.timeouts.deadline_seconds + self.timeouts.command_seconds
        running = self._start_control(command, what=what, deadline_seconds=limit)
        try:
            yield running.answers()
        finally:
            running.end_input()
            running.close_channel()

    def stream_out(
        self, command: str, *, explain: Explain, what: str = "remote command", pauses: bool = False
    ) -> SshRemoteStream:
        """Return the output of a command as a stream; nothing is connected or started before it is iterated.

        :param command: one quoted command line.
        :param explain: turns a result with an exit status other than 0 into the error to raise.
        :param what: what it does, for messages.
        :param pauses: whether it may work in silence amid its output, too, as long as before the first byte.
        """
        return SshRemoteStream(lambda: self._start_own(command, what=what, pauses=pauses), explain=explain, what=what)

    def stream_in(
        self, command: str, chunks: Iterable[bytes], *, what: str = "remote command", spoil: Spoil | None = None
    ) -> CommandResult:
        """Run a command on a connection of its own, with ``chunks`` as its input, and return what came of it.

        When ``chunks`` raises, what was sent is spoilt, the command is killed where sshd allows that, and the exception
        is passed on. When the link is cut, the command just sees its input end: it cannot tell that from a whole one.

        :param command: one quoted command line.
        :param chunks: input in pieces of any size.
        :param what: what it does, for messages.
        :param spoil: returns bytes which, sent after so many bytes, make the command refuse the whole.
        :raises TransientError: when the link is lost, or a limit passes.
        :raises DockerBackupError: when the output is longer than 64 MiB.
        """
        running = self._start_own(command, what=what)
        try:
            output = LimitedOutput(_MAX_OUTPUT_BYTES)
            thread = running.output_beside(output.add)
            taken = _send_all(running, chunks, spoil=spoil)
            running.end_input()
            running.join(thread)
            status = running.finish()
        finally:
            running.abort()
        stdout = output.whole(f"{what} on {self.where}")
        return CommandResult(exit_status=status, stdout=stdout, stderr=running.stderr(), input_taken=taken)

    def run_forwarding(
        self,
        command: Callable[[int], ForwardedCommand],
        serve: Callable[[ForwardedConnection], None],
        *,
        ports: Sequence[int],
        activity: Activity,
        what: str = "remote command",
    ) -> CommandResult:
        """Run a command with a port of the host's loopback interface beside it that leads to ``serve``.

        Both live on a connection of their own. The command's input stays open until it has ended, so that it can tell
        when the connection is gone; it must write something now and then, so that we can.

        :param command: gives the command for the port that was got.
        :param serve: called in a thread of its own with each connection made to that port; closes it.
        :param ports: those to try first, in order.
        :param activity: tells whether anything moves on these connections.
        :param what: what the command does, for messages.
        :raises PushUnavailableError: when sshd allows no forwarding.
        :raises TransientError: when the link is lost, or a limit passes.
        """
        client = self._connect_own()
        forward = ReverseForward(client, serve, where=self.where)
        try:
            port = forward.open(ports, seconds=self.timeouts.command_seconds)
            result = self._run_beside(client, command(port), activity=activity, what=what)
            forward.release(seconds=self.timeouts.command_seconds)
            return result
        finally:
            client.close()
            forward.close(seconds=self.timeouts.command_seconds)

    def connect(self) -> None:
        """Make the control connection, if there is none that lives.

        :raises DockerBackupError: when that fails.
        """
        self._connected()

    def expect_stream(self) -> None:
        """Begin to connect for the next stream, which is to follow soon; returns at once and raises nothing.

        The host is asked other things meanwhile. What goes wrong is told by the stream. Does nothing without a control
        connection that lives, for a login that is refused should not be tried twice; nor while others connect.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            expected = self._ahead is not None and not self._ahead.is_spent
            if not expected and not self._killed and is_alive(self._control):
                with suppress(RuntimeError):  # no further thread can be started
                    self._ahead = ConnectionAhead(self._connect)
        finally:
            self._lock.release()

    def peer(self) -> dict[str, str]:
        """Return how the host was reached: ``user``, ``address``, ``host_key`` (fingerprint), ``cipher``.

        :raises DockerBackupError: when it was never reached and cannot be now.
        """
        if self._peer is None:
            self._connected()
        return dict(self._peer or {})

    def close(self) -> None:
        """Close the control connection, and one that no stream took; the session can be used again."""
        with self._lock:
            client, self._control = self._control, None
            ahead, self._ahead = self._ahead, None
        if client is not None:
            client.close()
        if ahead is not None:
            ahead.drop()

    def kill(self) -> None:
        """Cut every stream and let no other begin; short commands, which clean up, still run.

        Returns at once and takes no lock, so that a signal handler may call it in the midst of anything.
        """
        self._killed = True
        threading.Thread(target=self._cut, name="dockerbackup-kill", daemon=True).start()

    def _cut(self) -> None:
        for running in list(self._streams):
            running.abort()

    def __enter__(self) -> SshSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_control(self, command: str, *, what: str, deadline_seconds: float) -> RunningCommand:
        """Start a command on the control connection; a connection that died since its last use is made again."""

        def start(client: paramiko.SSHClient) -> RunningCommand:
            return RunningCommand(
                client,
                command,
                what=what,
                where=self.where,
                timeouts=self.timeouts,
                deadline_seconds=deadline_seconds,
                setting=COMMAND_TIMEOUT,
            )

        used = self._control
        client = self._connected()
        try:
            return start(client)
        except TransientError:
            if client is not used:
                raise
            self._forget(client)
            return start(self._connected())

    def _run_beside(
        self, client: paramiko.SSHClient, command: ForwardedCommand, *, activity: Activity, what: str
    ) -> CommandResult:
        running = self._start_on(client, command.line, what=what)
        try:
            output = HeardOutput(activity)
            thread = running.output_beside(output.add)
            running.write(command.input)
            running.join_moving(thread, activity)
            status = running.finish()
        finally:
            running.close_channel()
        return CommandResult(exit_status=status, stdout=output.tail.value(), stderr=running.stderr())

    def _start_own(self, command: str, *, what: str, pauses: bool = False) -> RunningCommand:
        return self._start_on(self._connect_own(), command, what=what, pauses=pauses)

    def _start_on(self, client: paramiko.SSHClient, command: str, *, what: str, pauses: bool = False) -> RunningCommand:
        try:
            running = RunningCommand(
                client,
                command,
                what=what,
                where=self.where,
                timeouts=self.timeouts,
                deadline_seconds=self.timeouts.deadline_seconds,
                pauses=pauses,
            )
            self._streams.add(running)
            self._refuse_if_killed(what)
            return running
        except BaseException:
            client.close()
            raise

    def _refuse_if_killed(self, what: str) -> None:
        if self._killed:
            raise TransientError(f"{what} on {self.where}: the task was killed")

    def _connected(self) -> paramiko.SSHClient:
        with self._lock:
            if is_alive(self._control):
                return self._control
            if self._control is not None:
                self._control.close()
            self._control = None
            self._control = self._connect()
            return self._control

    def _forget(self, client: paramiko.SSHClient) -> None:
        with self._lock:
            if self._control is client:
                self._control = None
        client.close()

    def _connect_own(self) -> paramiko.SSHClient:
        """Return a connection for one stream: what was made ahead, else a new one."""
        with self._lock:
            ahead, self._ahead = self._ahead, None
        client = ahead.take() if ahead is not None else None
        return self._connect() if client is None else client

    def _connect(self) -> paramiko.SSHClient:
        try:
            with self._connecting:
                client = self._factory()
        except Exception as err:
            raise explain_connect_error(err, self.where) from err
        try:
            self._peer = _prepare(client)
        except BaseException as err:
            client.close()
            if isinstance(err, LinkError):
                raise explain_connect_error(err, self.where) from err
            raise
        return client


def _send_all(running: RunningCommand, chunks: Iterable[bytes], *, spoil: Spoil | None) -> bool:
    """Send all ``chunks`` and return whether the command took them."""
    try:
        return all(running.write(chunk) for chunk in chunks)
    except BaseException:
        running.give_up(spoil(running.sent_bytes) if spoil is not None else b"")
        raise


def _prepare(client: paramiko.SSHClient) -> dict[str, str]:
    """Tune a new connection and return how the host was reached."""
    transport: Any = client.get_transport()
    if transport is None or not transport.is_active():
        raise EOFError("the connection was closed as soon as it was made")
    tune(transport)
    direct = isinstance(transport.sock, socket.socket)
    address, port = transport.getpeername()[:2] if direct else ("through a proxy", "")
    return {
        "user": str(transport.get_username() or ""),
        "address": f"{address}:{port}" if direct else address,
        "host_key": fingerprint(transport.get_remote_server_key()),
        "cipher": str(transport.remote_cipher),
    }
