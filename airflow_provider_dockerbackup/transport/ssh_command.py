# SPDX-License-Identifier: Apache-2.0
"""One command running on a host, on a channel of a transport that may be its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST

from airflow_provider_dockerbackup.exceptions import TransientError
from airflow_provider_dockerbackup.transport.forced_command import refusal
from airflow_provider_dockerbackup.transport.registry_access import Activity
from airflow_provider_dockerbackup.transport.ssh_buffers import PacketBuffer, Tail
from airflow_provider_dockerbackup.transport.ssh_watch import SshTimeouts, Watch

PIECE_BYTES = 1024 * 1024
STDERR_TAIL_BYTES = 64 * 1024
_DRAIN_JOIN_SECONDS = 10.0
_SIGNAL_SECONDS = 5.0
_GIVE_UP_SECONDS = 15.0
_KEEPALIVE_SECONDS = 30
_TICK_SECONDS = 0.2
# RFC 4344 allows 64 GiB under one AES key. Paramiko asks for new keys after 512 MiB, and when the channel closes while
# it does, its thread waits for itself (paramiko #822): streams that end near a multiple of that would fail every time.
_REKEY_BYTES = 1 << 35
_REKEY_PACKETS = 1 << 31

# Names of the limits as messages give them; fields of SshTimeouts and extras of connections are called likewise.
COMMAND_TIMEOUT = "the command timeout"
_FIRST_BYTE = "the first byte timeout"
_STALL = "the stall timeout"
_DEADLINE = "the deadline"

LinkError = (paramiko.SSHException, OSError, EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What came of a command.

    :param exit_status: its exit status; -1 when none arrived: the link was lost, or a signal killed the command.
    :param stdout: its output, unless that was streamed.
    :param stderr: the end of its standard error, at most 64 KiB.
    :param input_taken: whether the command took all of its input.
    """

    exit_status: int
    stdout: bytes = b""
    stderr: bytes = b""
    input_taken: bool = True


def tune(transport: paramiko.Transport) -> None:
    """Prepare a transport for one long stream: no rekeying of ours, no Nagle, keepalive."""
    transport.packetizer.REKEY_BYTES = _REKEY_BYTES
    transport.packetizer.REKEY_PACKETS = _REKEY_PACKETS
    transport.set_keepalive(_KEEPALIVE_SECONDS)
    if isinstance(transport.sock, socket.socket):
        with contextlib.suppress(OSError):  # not a TCP socket: a proxy command's socket pair
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class RunningCommand:
    """One command on a channel, with limits of time, its standard error drained beside.

    :param client: a connected client; :meth:`abort` and every passed limit close its transport.
    :param what: what the command does, for messages.
    :param where: the host, for messages.
    :param deadline_seconds: limit for the command as a whole; ``setting`` names it in messages.
    :param pauses: whether it may work in silence also in the middle of its output, as long as before the first byte.
    :raises TransientError: when the command cannot be started.
    """

    def __init__(
        self,
        client: paramiko.SSHClient,
        command: str,
        *,
        what: str,
        where: str,
        timeouts: SshTimeouts,
        deadline_seconds: float,
        setting: str = _DEADLINE,
        pauses: bool = False,
    ) -> None:
        self._client = client
        self._what = f"{what} on {where}"
        self._line = command
        self._timeouts = timeouts
        self._pauses = pauses
        self._aborted = False
        self._stderr = Tail(STDERR_TAIL_BYTES)
        self.received_bytes = 0
        self.sent_bytes = 0
        self._watch = Watch(client.close, deadline_seconds=deadline_seconds, setting=setting)
        try:
            self._channel = self._start(command)
        except BaseException:
            self._watch.stop()
            raise
        self._drain = self.beside(self._channel.recv_stderr, self._stderr.add)

    def read(self) -> bytes:
        """Return the next piece of output, at most 1 MiB, or nothing at its end.

        The end may be that of the output or that of the link: :meth:`finish` tells.

        :raises TransientError: when the link is lost or a limit passes.
        """
        works = self.received_bytes == 0 or self._pauses
        seconds = self._timeouts.first_byte_seconds if works else self._timeouts.stall_seconds
        setting = _FIRST_BYTE if works else _STALL
        with self._link(), self._watch.limit(seconds, waiting_for="no data came", setting=setting):
            data = self._channel.recv(PIECE_BYTES)
        self.received_bytes += len(data)
        return data

    def answers(self) -> Iterator[bytes]:
        """Yield the output as it comes.

        :raises ConfigurationError: at its end, when the host lets this key run less than that.
        :raises TransientError: when the link is lost or a limit passes.
        """
        while data := self.read():
            yield data
        self.finish()

    def write(self, data: bytes | memoryview) -> bool:
        """Send ``data`` to the command's input; return whether the command still took it.

        :raises TransientError: when the link is lost or a limit passes.
        """
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            try:
                with self._link(), self._stall("no data was taken"):
                    self._channel.sendall(bytes(piece))
            except TransientError:
                if self._watch.reason is None and self._channel.status_event.wait(1) and self._channel.exit_status >= 0:
                    return False
                raise
            self.sent_bytes += len(piece)
        return True

    def give_up(self, last: bytes) -> None:
        """End a command whose input must not be taken for a whole: send ``last``, a signal and the end of the input.

        Then wait some seconds for the command to end: sshd drops what is under way when the connection is closed.
        """
        limit = self._watch.limit(_GIVE_UP_SECONDS, waiting_for="the command did not end", setting="fixed")
        with contextlib.suppress(*LinkError), limit:
            self._channel.sendall(last)
            self.signal("KILL")
            self._channel.shutdown_write()
            self._channel.status_event.wait(_GIVE_UP_SECONDS)

    def end_input(self) -> None:
        """Tell the command that its input is complete.

        In one step with finding that the channel is still open: paramiko's own ``shutdown_write`` sends after that, and
        an end of file that comes after the answer to sshd's CLOSE is a breach of protocol, which ends the connection.
        """
        channel: Any = self._channel  # paramiko has no public name for it
        with contextlib.suppress(*LinkError), self._stall("no data was taken"), channel.lock:
            message = channel._send_eof()  # None once the channel is closed: the command may have ended by itself
            if message is not None and channel.transport is not None:
                channel.transport._send_user_message(message)

    def finish(self) -> int:
        """Return the exit status; to be called once the output has ended.

        :raises TransientError: unless the output ended by an explicit end of file and an exit status arrived: else the
            link was lost, or a signal killed the command.
        :raises ConfigurationError: when the host lets this key run less than that.
        """
        with self._link(), self._stall("no exit status came"):
            status = self._channel.recv_exit_status()
        self._drain.join(_DRAIN_JOIN_SECONDS)
        if status < 0 or not self._channel.eof_received:
            transport = self._client.get_transport()
            alive = transport is not None and transport.is_active()
            # Of a command that a signal ended sshd tells the signal, which paramiko drops, and no exit status.
            lost = "a signal killed the command" if alive else "the link was lost"
            raise self._lost(f"{lost} before its end")
        refused = refusal(self._line, exit_status=status, stderr=self.stderr(), what=self._what)
        if refused is not None:
            raise refused
        return status

    def stderr(self) -> bytes:
        """Return the end of what the command wrote to standard error so far."""
        return self._stderr.value()

    def beside(self, read: Callable[[int], bytes], use: Callable[[bytes], object]) -> threading.Thread:
        """Start a thread that hands all that ``read`` returns to ``use``, so that the remote side never waits for us.

        Standard output and standard error share one window: whichever is not read blocks the other.
        """

        def run() -> None:
            with contextlib.suppress(*LinkError):  # the thread that reads the output meets the same and says so
                while data := read(PIECE_BYTES):
                    use(data)

        thread = threading.Thread(target=run, name="dockerbackup-drain", daemon=True)
        thread.start()
        return thread

    def output_beside(self, use: Callable[[bytes], object]) -> threading.Thread:
        """Start a thread that hands the command's output to ``use``; see :meth:`join`."""
        return self.beside(self._channel.recv, use)

    def join(self, output: threading.Thread) -> None:
        """Wait for the end of the output, while the command may work in silence for ``first_byte_seconds``.

        :raises TransientError: when a limit passes.
        """
        limit = self._timeouts.first_byte_seconds
        with self._link(), self._watch.limit(limit, waiting_for="no answer came", setting=_FIRST_BYTE):
            output.join()

    def join_moving(self, output: threading.Thread, activity: Activity) -> None:
        """Wait for the end of the output of a command that does its work through something else beside it.

        :param activity: tells what moves there.
        :raises TransientError: when the link is silent or something that has begun does not go on for
            ``stall_seconds``, when nothing is begun for ``first_byte_seconds``, or when another limit passes.
        """
        while output.is_alive():
            with self._link():
                output.join(_TICK_SECONDS)
            if output.is_alive():
                self._check_moving(activity)

    def _check_moving(self, activity: Activity) -> None:
        stall = self._timeouts.stall_seconds
        if activity.silent_seconds() > stall or (activity.is_receiving and activity.idle_seconds() > stall):
            raise self._lost(f"nothing came for {stall:g} s ({_STALL})")
        if activity.idle_seconds() > self._timeouts.first_byte_seconds:
            raise self._lost(f"nothing was sent for {self._timeouts.first_byte_seconds:g} s ({_FIRST_BYTE})")

    def signal(self, name: Literal["TERM", "KILL"]) -> None:
        """Ask sshd to send a signal to the command's process group; best effort.

        OpenSSH does so since 7.9, but up to 9.7 not for root, and it does not reach programs run through ``sudo``.
        """
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_REQUEST)
        message.add_int(self._channel.remote_chanid)
        message.add_string("signal")
        message.add_boolean(False)  # no reply wanted
        message.add_string(name)
        transport: Any = self._channel.transport  # paramiko offers no public way to send this request
        limit = self._watch.limit(_SIGNAL_SECONDS, waiting_for="the link did not take a signal", setting="fixed")
        with contextlib.suppress(*LinkError), limit:
            if transport is not None and transport.is_active() and not self._channel.closed:
                transport._send_user_message(message)

    def close_channel(self) -> None:
        """End the command's channel and leave the transport open for others."""
        self._watch.stop()
        with contextlib.suppress(*LinkError):
            self._channel.close()

    def abort(self) -> None:
        """Close the transport; whatever waits wakes up. Safe to call at any time, any number of times."""
        self._aborted = True
        self._watch.stop()
        with contextlib.suppress(*LinkError):
            self._client.close()

    def _start(self, command: str) -> paramiko.Channel:
        transport = self._client.get_transport()
        if transport is None:
            raise self._lost("the connection is closed")
        limit = self._watch.limit(
            self._timeouts.command_seconds, waiting_for="the command was not started", setting=COMMAND_TIMEOUT
        )
        with self._link(), limit:
            channel = transport.open_session(timeout=self._timeouts.command_seconds)
            channel.in_buffer = PacketBuffer()
            channel.exec_command(command)
        return channel

    def _stall(self, waiting_for: str) -> AbstractContextManager[None]:
        return self._watch.limit(self._timeouts.stall_seconds, waiting_for=waiting_for, setting=_STALL)

    @contextmanager
    def _link(self) -> Iterator[None]:
        """Turn what paramiko raises, and limits that passed, into our error."""
        try:
            yield
        except LinkError as err:
            # paramiko tells of a link that is gone by an EOFError without a word.
            told = str(err) or ("the link was lost" if isinstance(err, EOFError) else type(err).__name__)
            raise self._lost(told) from err
        if self._watch.reason is not None or self._aborted:
            raise self._lost("the connection was closed")

    def _lost(self, reason: str) -> TransientError:
        if self._watch.reason is not None:
            reason = self._watch.reason
        elif self._aborted:
            reason = "it was closed before its end"
        advice = (
            "try again" if self._watch.reason is None else "raise that limit if the host is just slow, else try again"
        )
        moved = f"{self.received_bytes} bytes received" + (f", {self.sent_bytes} sent" if self.sent_bytes else "")
        return TransientError(f"{self._what}: {reason} ({moved}); {advice}")
