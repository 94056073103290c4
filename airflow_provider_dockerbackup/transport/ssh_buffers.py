# SPDX-License-Identifier: Apache-2.0
"""Buffers between paramiko's transport thread and ours."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from paramiko.buffered_pipe import BufferedPipe, PipeTimeout

from airflow_provider_dockerbackup.exceptions import DockerBackupError

# A quarter of paramiko's window: the remote side goes on sending while we wait.
_ENOUGH_BYTES = 512 * 1024
_MOMENT_SECONDS = 0.005

if TYPE_CHECKING:
    _Pipe = BufferedPipe[bytes]
else:
    _Pipe = BufferedPipe


class PacketBuffer(_Pipe):
    """A channel's receive buffer that keeps packets as they came.

    Paramiko's own copies each byte into an ``array`` and out again, and wakes its reader for each packet; both cost a
    fast stream much of its time. Here a reader that found little waits a moment for more.
    It replaces ``channel.in_buffer`` before the command starts, so nothing was fed to the old one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packets: deque[bytes] = deque()
        self._size_bytes = 0
        self._ended = False
        self._changed = threading.Condition()

    def set_event(self, event: object) -> None:
        """Refuse what only ``channel.fileno()`` needs; nobody here selects on channels."""
        raise NotImplementedError("a channel with a packet buffer has no file descriptor")

    def feed(self, data: bytes) -> None:
        """Append a packet; called by the transport's thread. An empty one would look like the end."""
        if not data:
            return
        with self._changed:
            before_bytes = self._size_bytes
            self._packets.append(data)
            self._size_bytes += len(data)
            if before_bytes == 0 or before_bytes < _ENOUGH_BYTES <= self._size_bytes:
                self._changed.notify_all()

    def read_ready(self) -> bool:
        """Tell whether a read would return at once with data."""
        return len(self) > 0

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        """Return what is there, at most ``nbytes``, or nothing once the buffer is closed and empty.

        :param timeout: seconds to wait for the first byte, None for ever.
        :raises PipeTimeout: when none came in time.
        """
        with self._changed:
            end = None if timeout is None else time.monotonic() + timeout
            while not self._packets and not self._ended:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise PipeTimeout
                self._changed.wait(left)
            if self._size_bytes < min(_ENOUGH_BYTES, nbytes) and not self._ended:
                self._changed.wait(_MOMENT_SECONDS)
            return self._take(nbytes)

    def empty(self) -> bytes:
        """Return all that is there and forget it."""
        with self._changed:
            return self._take(self._size_bytes)

    def close(self) -> None:
        """Let reads end once the buffer is empty; called by the transport's thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """Return the number of buffered bytes."""
        with self._changed:
            return self._size_bytes

    def _take(self, nbytes: int) -> bytes:
        taken: list[bytes] = []
        wanted = nbytes
        while self._packets and wanted > 0:
            packet = self._packets.popleft()
            if len(packet) > wanted:
                self._packets.appendleft(packet[wanted:])
                packet = packet[:wanted]
            wanted -= len(packet)
            taken.append(packet)
        self._size_bytes -= nbytes - wanted
        return taken[0] if len(taken) == 1 else b"".join(taken)


class Tail:
    """The last bytes of a text that may be without end.

    :param limit_bytes: how many to keep.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        """Append ``data``; what is too old is forgotten."""
        self._kept += data
        if len(self._kept) > 2 * self._limit_bytes:
            del self._kept[: -self._limit_bytes]

    def value(self) -> bytes:
        """Return the end of all that was added."""
        return bytes(self._kept[-self._limit_bytes :])


class LimitedOutput:
    """Output of a command up to a limit; what is beyond is drained and dropped."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Append ``data``, while there is room."""
        if len(self._data) <= self._limit_bytes:
            self._data += data

    def whole(self, what: str) -> bytes:
        """Return all of it.

        :param what: whose output it is, for the message.
        :raises DockerBackupError: when it was longer than the limit.
        """
        if len(self._data) > self._limit_bytes:
            raise DockerBackupError(f"{what}: its output is longer than {self._limit_bytes} bytes")
        return bytes(self._data)
