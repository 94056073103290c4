# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading

import paramiko

from airflow_provider_dockerbackup.transport.ssh_forward import ForwardedConnection, ReverseForward


class Client(paramiko.SSHClient):
    """A client whose sshd gives any port."""

    def get_transport(self) -> paramiko.Transport | None:
        """Return ourselves, as far as a forward needs it."""
        return self  # type: ignore[return-value]

    def request_port_forward(self, address: str, port: int, handler: object) -> int:
        """Give the port, and remember who takes its connections."""
        assert address == "127.0.0.1"
        self.handler = handler
        return port


def test_connections_beyond_those_that_are_served_at_once_wait_for_their_turn() -> None:
    """An engine that asks for a hundred layers at once takes a closed connection for the end of the push."""
    lock, served, most, now = threading.Lock(), 0, 0, 0
    go_on = threading.Event()

    def serve(_: ForwardedConnection) -> None:
        nonlocal served, most, now
        with lock:
            now += 1
            most = max(most, now)
        assert go_on.wait(20)
        with lock:
            now -= 1
            served += 1

    forward = ReverseForward(client := Client(), serve, where="web-1", max_connections=3)
    assert forward.open([24000], seconds=5) == 24000
    for _ in range(10):
        client.handler(paramiko.Channel(0), ("127.0.0.1", 1), ("127.0.0.1", 24000))  # type: ignore[operator]
    go_on.set()
    assert forward.close(seconds=20)
    assert (served, most <= 3) == (10, True)
