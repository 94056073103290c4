# SPDX-License-Identifier: Apache-2.0
"""A port of a host's loopback interface whose connections end in this process: no port is opened here."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import paramiko

from airflow_provider_dockerbackup.exceptions import PushUnavailableError, TransientError
from airflow_provider_dockerbackup.transport.registry_access import Activity
from airflow_provider_dockerbackup.transport.ssh_buffers import PacketBuffer, Tail
from airflow_provider_dockerbackup.transport.ssh_command import COMMAND_TIMEOUT, LinkError
from airflow_provider_dockerbackup.transport.ssh_watch import Watch

LOOPBACK: Final = "127.0.0.1"
# Classic engines keep about as many connections as they push layers at once, five unless told otherwise. Those with the
# containerd store ask for all blobs of an image at once, over a connection each.
_MAX_CONNECTIONS: Final = 256
_ANY_PORT: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardedCommand:
    """A command that uses a forwarded port.

    :param line: one quoted command line.
    :param input: what it is sent; its input stays open after that.
    """

    line: str
    input: bytes = field(repr=False)


class ForwardedConnection:
    """One connection that somebody on the host made to the port.

    :param channel: as it came, before anything of it was received.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._buffer = PacketBuffer()
        channel.in_buffer = self._buffer
        self._deadline: float | None = None

    def receive(self, size_bytes: int, *, patient: bool) -> bytes:
        """Return what came, at most ``size_bytes``, or nothing at the end.

        :param patient: may wait a moment for more.
        :raises OSError: when the link is lost or the time is over.
        """
        self._channel.settimeout(None if self._deadline is None else max(self._deadline - time.monotonic(), 0.01))
        try:
            if patient:
                return self._channel.recv(size_bytes)
            # Asked for no more than there is, the buffer does not wait for more.
            first = self._channel.recv(1)
            more = min(len(self._buffer), size_bytes - 1)
            return first + self._channel.recv(more) if first and more else first
        except LinkError as err:
            raise OSError(str(err) or type(err).__name__) from err

    def send(self, data: bytes) -> None:
        """Send all of ``data``.

        :raises OSError: when the link is lost.
        """
        self._channel.settimeout(None)
        try:
            self._channel.sendall(data)
        except LinkError as err:
            raise OSError(str(err) or type(err).__name__) from err

    def limit(self, seconds: float | None) -> None:
        """Set for how long, from now on, anything may still be received."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def close(self) -> None:
        """Close it; safe to call at any time, any number of times."""
        try:
            self._channel.close()
        except LinkError:
            return  # the link is gone, and the channel with it


class ReverseForward:
    """A port on the host, and a thread for each connection that is made to it.

    :param client: a connected client of its own; whoever closes it ends the forward.
    :param serve: called in a thread of its own with each connection; closes it.
    :param where: the host, for messages.
    :param max_connections: how many are served at once; more wait for their turn, as engines take a refusal for an end.
    """

    def __init__(
        self,
        client: paramiko.SSHClient,
        serve: Callable[[ForwardedConnection], None],
        *,
        where: str,
        max_connections: int = _MAX_CONNECTIONS,
    ) -> None:
        self._client = client
        self._serve = serve
        self._where = where
        self._port: int | None = None
        self._arrived: queue.SimpleQueue[ForwardedConnection | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._room = threading.Semaphore(max_connections)
        self._acceptor = threading.Thread(target=self._accept, name="dockerbackup-accept", daemon=True)

    def open(self, ports: Sequence[int], *, seconds: float) -> int:
        """Return the port: the first of ``ports`` that is free there, else any.

        :param seconds: limit for all of it.
        :raises PushUnavailableError: when sshd allows no port.
        :raises TransientError: when the link is lost or the time is over.
        """
        watch = Watch(self._client.close, deadline_seconds=seconds, setting=COMMAND_TIMEOUT)
        try:
            port = self._request((*ports, _ANY_PORT))
        except paramiko.SSHException as err:
            raise self._refused(ports) from err
        except (OSError, EOFError) as err:
            raise TransientError(f"forwarding a port of {self._where}: {watch.reason or err}; try again") from err
        finally:
            watch.stop()
        self._port = port
        self._acceptor.start()
        return port

    def release(self, *, seconds: float) -> None:
        """Give the port back at once, so that the next one gets the same; it goes with the connection in any case.

        :param seconds: how long to wait.
        """
        transport, port = self._client.get_transport(), self._port
        if transport is None or port is None:
            return
        watch = Watch(self._client.close, deadline_seconds=seconds, setting=COMMAND_TIMEOUT)
        with contextlib.suppress(*LinkError):
            transport.cancel_port_forward(LOOPBACK, port)
        watch.stop()

    def close(self, *, seconds: float) -> bool:
        """Take no more connections, wait for the threads, whose connections are closed by then, and tell if all ended.

        :param seconds: how long to wait.
        """
        self._arrived.put(None)
        end = time.monotonic() + seconds
        for thread in (self._acceptor, *self._threads):
            if thread.is_alive():
                thread.join(max(end - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def _request(self, ports: Sequence[int]) -> int:
        """Return the port that sshd gave us: the first of ``ports`` that it does not refuse; it does not say why.

        :raises paramiko.SSHException: when it refuses all.
        """
        transport = self._client.get_transport()
        refusal = paramiko.SSHException("no port was asked for")
        for port in ports:
            try:
                if transport is not None:
                    return transport.request_port_forward(LOOPBACK, port, self._arrive)
            except paramiko.SSHException as err:
                refusal = err
            if transport is None or not transport.is_active():
                raise EOFError("the link was lost")
        raise refusal

    def _refused(self, ports: Sequence[int]) -> PushUnavailableError:
        tried = ", ".join(str(port) for port in ports)
        return PushUnavailableError(
            f"sshd on {self._where} forwards no port to us (tried {LOOPBACK}, ports {tried}, and any); allow it there "
            "with 'AllowTcpForwarding remote' (or 'yes'), and without 'DisableForwarding', 'no-port-forwarding' and a "
            "'PermitListen' that excludes them; or back up by save instead"
        )

    def _arrive(self, channel: paramiko.Channel, *_: object) -> None:
        """Take a new connection; called by paramiko's own thread before anything of it is read."""
        self._arrived.put(ForwardedConnection(channel))

    def _accept(self) -> None:
        while (connection := self._arrived.get()) is not None:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._room.acquire()
            thread = threading.Thread(target=self._serve_one, args=(connection,), name="dockerbackup-push", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve_one(self, connection: ForwardedConnection) -> None:
        try:
            self._serve(connection)
        finally:
            self._room.release()


class HeardOutput:
    """The end of an output of which each piece is a sign of life."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self.tail = Tail(64 * 1024)

    def add(self, data: bytes) -> None:
        """Note that something came, and keep the end of it."""
        self._activity.heard()
        self.tail.add(data)
