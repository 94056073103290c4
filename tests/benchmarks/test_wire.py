# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire are counted exactly, for one port alone."""

from __future__ import annotations

import socket
import threading

from benchmarks.wire import Traffic, WireMeter

_UP, _DOWN = b"u" * 3_000_000, b"d" * 500_000


def exchange(server: socket.socket) -> None:
    """Send some bytes to a server, and some back."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            while connection.recv(1 << 20):
                pass
            connection.sendall(_DOWN)

    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection(server.getsockname()) as client:
        client.sendall(_UP)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 20):
            pass
    thread.join()


def test_traffic_is_the_payload_of_both_directions_and_of_the_ports_connections_only() -> None:
    """The kernel counts the end of each direction as one byte more."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        meter = WireMeter(server.getsockname()[1])
        exchange(server)
        with meter.counting():
            exchange(server)
            exchange(other)
            exchange(server)
    assert meter.traffic == Traffic(received_bytes=2 * (len(_UP) + 1), sent_bytes=2 * (len(_DOWN) + 1))
    assert meter.traffic.bytes == meter.traffic.received_bytes + meter.traffic.sent_bytes
