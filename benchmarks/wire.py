# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire: what the kernel says of each TCP connection to a port when that connection ends.

The kernel broadcasts a socket's own counters as it destroys the socket (``ss --events`` shows the same). They are
exact, count the payload of both directions (and one byte for the end of each), neither headers nor what was sent twice,
and cost the connection nothing: no byte takes another way than without the meter.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import wait_until

_NETLINK_SOCK_DIAG = 4
_TCP_DESTROYED = 1
_RECEIVE_BUFFER_BYTES = 16 << 20
_SILENCE_SECONDS = 0.2
_PATIENCE_SECONDS = 10.0
# struct nlmsghdr, struct inet_diag_msg; then attributes.
_HEADER = struct.Struct("=IHHII")
_PORTS = struct.Struct(">HH")
_PORTS_AT = _HEADER.size + 4
_ATTRIBUTES_AT = _HEADER.size + 72
_ATTRIBUTE = struct.Struct("=HH")
_TCP_INFO = 2
# tcpi_bytes_acked and tcpi_bytes_received of struct tcp_info.
_COUNTERS = struct.Struct("=QQ")
_COUNTERS_AT = 120
_LISTEN, _TIME_WAIT = "0A", "06"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Payload of all connections to a port together.

    :param received_bytes: what the listening side got.
    :param sent_bytes: what it sent, as far as the other side acknowledged it.
    """

    received_bytes: int = 0
    sent_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Both directions."""
        return self.received_bytes + self.sent_bytes

    def __add__(self, other: Traffic) -> Traffic:
        """Add up two."""
        return Traffic(
            received_bytes=self.received_bytes + other.received_bytes, sent_bytes=self.sent_bytes + other.sent_bytes
        )


class WireMeter:
    """Counts the traffic of one port of this machine.

    :param port: where somebody listens, such as sshd.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._traffic: Traffic | None = None

    @property
    def traffic(self) -> Traffic:
        """The traffic of the connections that ended while :meth:`counting`."""
        if self._traffic is None:
            raise RuntimeError("nothing was counted")
        return self._traffic

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the connections that begin and end in here; returns once none is open.

        :raises RuntimeError: when connections stay open, or the kernel had to drop reports.
        """
        self._traffic = None
        self._wait_until_closed()
        time.sleep(_SILENCE_SECONDS)  # what ended before is reported before
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            kernel.bind((0, _TCP_DESTROYED))
            yield
            self._wait_until_closed()
            self._traffic = sum(self._ended(kernel), Traffic())

    def _wait_until_closed(self) -> None:
        if not wait_until(lambda: not _is_open(self._port), seconds=_PATIENCE_SECONDS, interval=0.01):
            raise RuntimeError(f"a connection to port {self._port} stays open: its traffic is not known")

    def _ended(self, kernel: socket.socket) -> Iterator[Traffic]:
        """Yield one figure for each connection of ours; the kernel's reports come a moment after the end."""
        end = time.monotonic() + _SILENCE_SECONDS
        while (left := end - time.monotonic()) > 0:
            kernel.settimeout(left)
            with suppress(TimeoutError):
                report = _receive(kernel)
                if _PORTS.unpack_from(report, _PORTS_AT)[0] == self._port:
                    yield _traffic(report)


def _receive(kernel: socket.socket) -> bytes:
    try:
        return kernel.recv(1 << 16)
    except OSError as err:
        if err.errno == errno.ENOBUFS:
            raise RuntimeError("so many connections ended on this machine that the kernel dropped reports") from err
        raise


def _traffic(report: bytes) -> Traffic:
    at, size = _ATTRIBUTES_AT, _HEADER.unpack_from(report)[0]
    while at < size:
        length, kind = _ATTRIBUTE.unpack_from(report, at)
        if kind == _TCP_INFO:
            acked, received = _COUNTERS.unpack_from(report, at + _ATTRIBUTE.size + _COUNTERS_AT)
            return Traffic(received_bytes=received, sent_bytes=acked)
        at += (length + 3) & ~3
    raise RuntimeError("the kernel reported the end of a connection without its counters")


def _is_open(port: int) -> bool:
    """Whether a connection to the port is there that the kernel has not reported yet."""
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and state not in {_LISTEN, _TIME_WAIT}:
            return True
    return False
