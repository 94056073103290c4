# SPDX-License-Identifier: Apache-2.0
"""Faults on purpose: a TCP proxy that cuts, swallows or delays, and a disk that is soon full."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.errors import LabError
from tests.lab.install import is_root
from tests.lab.mounts import unmount_under

_LOOPBACK = "127.0.0.1"
_POLL_SECONDS = 0.05
_CHUNK_BYTES = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class _Link:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    forwarded_bytes: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    reset: bool = False


class FaultProxy:
    """A TCP proxy on loopback that forwards faithfully until told otherwise.

    Bytes are counted per connection, from the server to the client; settings hold for open and for new connections.
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        """Listen and forward.

        :param target_host: where to forward to.
        :param target_port: its port.
        """
        self._target = (target_host, target_port)
        self._cut_after: int | None = None
        self._black_hole_after: int | None = None
        self._delay_seconds = 0.0
        self._closed = threading.Event()
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((_LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        self._acceptor = threading.Thread(target=self._accept, name=f"fault-proxy-{self.port}", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        """Give the proxy."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the proxy."""
        self.close()

    @property
    def connections(self) -> int:
        """How many connections came so far."""
        return len(self._links)

    @property
    def forwarded_bytes(self) -> int:
        """How many bytes went from the server to clients, over all connections."""
        return sum(link.forwarded_bytes for link in self._links)

    def cut_after(self, n_bytes: int) -> None:
        """Reset a connection, on both sides, once exactly this many bytes went to the client.

        :param n_bytes: count per connection.
        """
        self._cut_after = n_bytes

    def black_hole_after(self, n_bytes: int) -> None:
        """Forward nothing more in either direction once this many bytes went to the client; sockets stay open.

        :param n_bytes: count per connection.
        """
        self._black_hole_after = n_bytes

    def delay(self, seconds: float) -> None:
        """Hold back each piece of up to 64 KiB for the client.

        :param seconds: for how long.
        """
        self._delay_seconds = seconds

    def heal(self) -> None:
        """Forward faithfully again; connections in a black hole go on, those that were cut stay so."""
        self._cut_after = self._black_hole_after = None
        self._delay_seconds = 0.0

    def close(self) -> None:
        """Close all connections and stop listening."""
        self._closed.set()
        self._acceptor.join()
        for link in self._links:
            link.over.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            if not _readable(self._listener):
                continue
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            link = _Link(client, server)
            self._links.append(link)
            thread = threading.Thread(target=self._serve, args=(link,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, link: _Link) -> None:
        upward = threading.Thread(target=self._pump_up, args=(link,), daemon=True)
        upward.start()
        try:
            self._pump_down(link)
        finally:
            upward.join()
            # Only here, when no thread uses them any more: a socket in use elsewhere is not closed at once.
            for side in (link.client, link.server):
                if link.reset:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                side.close()

    def _pump_up(self, link: _Link) -> None:
        try:
            while not link.over.is_set():
                if self._swallows(link):
                    time.sleep(_POLL_SECONDS)
                elif _readable(link.client) and not self._pass_on(link, link.client, link.server, _CHUNK_BYTES):
                    return
        except OSError:
            link.over.set()

    def _pump_down(self, link: _Link) -> None:
        try:
            while not link.over.is_set():
                room = self._room(link)
                if room == 0 and self._is_cut(link):
                    link.reset = True
                    self.cuts += 1
                    link.over.set()
                elif room == 0:
                    time.sleep(_POLL_SECONDS)
                elif _readable(link.server) and not self._pass_on(link, link.server, link.client, room):
                    return
        except OSError:
            link.over.set()

    def _pass_on(self, link: _Link, source: socket.socket, target: socket.socket, limit: int) -> bool:
        """Forward one piece; at the end of the source pass that on and tell so."""
        downward = source is link.server
        data = source.recv(min(limit, _CHUNK_BYTES))
        if downward and self._delay_seconds:
            link.over.wait(self._delay_seconds)
        if not data:
            target.shutdown(socket.SHUT_WR)
            return False
        view = memoryview(data)
        while view and not link.over.is_set():
            if select.select([], [target], [], _POLL_SECONDS)[1]:
                sent = target.send(view, socket.MSG_DONTWAIT)
                link.forwarded_bytes += sent if downward else 0
                view = view[sent:]
        return True

    def _room(self, link: _Link) -> int:
        """How many bytes may go to the client before a fault strikes."""
        limits = [limit for limit in (self._cut_after, self._black_hole_after) if limit is not None]
        return max(0, min(limits) - link.forwarded_bytes) if limits else _CHUNK_BYTES

    def _is_cut(self, link: _Link) -> bool:
        return self._cut_after is not None and link.forwarded_bytes >= self._cut_after

    def _swallows(self, link: _Link) -> bool:
        return self._black_hole_after is not None and link.forwarded_bytes >= self._black_hole_after


def _readable(source: socket.socket) -> bool:
    return bool(select.select([source], [], [], _POLL_SECONDS)[0])


@contextmanager
def small_disk(size_bytes: int) -> Iterator[Path]:
    """Give a directory on a disk of its own that holds no more than so many bytes; it is gone afterwards.

    :param size_bytes: rounded up to whole pages.
    :raises LabError: when it cannot be mounted.
    """
    if not is_root():
        raise LabError("a small disk is a mount of its own, which only root may make")
    with tempfile.TemporaryDirectory(prefix="lab-disk-", dir="/tmp") as name:
        path = Path(name)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "lab-disk", str(path)]
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"cannot mount a small disk: {done.stderr.strip()}")
        try:
            yield path
        finally:
            unmount_under(path)
