# SPDX-License-Identifier: Apache-2.0
"""A registry that takes a push, on socket pairs, with a real HTTP client or with plain bytes at the other end."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from airflow_provider_dockerbackup.core.push import PushTarget
from airflow_provider_dockerbackup.transport.memory import MemoryPushTarget
from airflow_provider_dockerbackup.transport.registry import PushRegistry
from airflow_provider_dockerbackup.transport.registry_access import Activity, Credential
from airflow_provider_dockerbackup.transport.registry_http import serve

NAME = "dockerbackup/nightly"
ATTEMPT = "abc123"
CREDENTIAL = Credential()


class SocketConnection:
    """One end of a socket pair, as the registry takes it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._deadline: float | None = None

    def receive(self, size_bytes: int, *, patient: bool) -> bytes:
        """Give what came."""
        self._end.settimeout(None if self._deadline is None else max(self._deadline - time.monotonic(), 0.01))
        return self._end.recv(size_bytes)

    def send(self, data: bytes) -> None:
        """Send all."""
        self._end.settimeout(None)
        self._end.sendall(data)

    def limit(self, seconds: float | None) -> None:
        """Set for how long anything may come."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def close(self) -> None:
        """Close it."""
        self._end.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The specification's error code."""
        return str(json.loads(self.body)["errors"][0]["code"])

    @property
    def location(self) -> str:
        """Where to go on."""
        return self.headers["location"]


class ServedRegistry:
    """A registry and the threads that serve its connections."""

    def __init__(self, target: PushTarget | None = None, *, unknown_seconds: float = 15.0) -> None:
        self.memory = MemoryPushTarget()
        self.activity = Activity()
        self.registry = PushRegistry(
            target or self.memory, name=NAME, attempt=ATTEMPT, credential=CREDENTIAL, activity=self.activity
        )
        self._unknown_seconds = unknown_seconds
        self._threads: list[threading.Thread] = []

    def connect(self) -> socket.socket:
        """Give the client's end of a new connection."""
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        self._serve(theirs)
        return ours

    def _serve(self, end: socket.socket) -> None:
        options: dict[str, Any] = {"activity": self.activity, "unknown_seconds": self._unknown_seconds}
        thread = threading.Thread(
            target=serve, args=(SocketConnection(end), self.registry.answer), kwargs=options, daemon=True
        )
        self._threads.append(thread)
        thread.start()

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Serve on a TCP port of loopback, for programs that know nothing else, and give it."""
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        end, _ = listener.accept()
                        self._serve(end)

            threading.Thread(target=accept, daemon=True).start()
            yield int(listener.getsockname()[1])

    def client(self) -> http.client.HTTPConnection:
        """Give Python's own HTTP client on a new connection."""
        client = http.client.HTTPConnection("127.0.0.1:1")
        client.sock = self.connect()
        return client

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        *,
        authorization: str | None = None,
        client: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Reply:
        """Send one request and give what came back; a body in pieces is sent in chunks.

        :param headers: ``_`` stands for ``-``.
        """
        used = client or self.client()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named["Authorization"] = basic() if authorization is None else authorization
        used.request(method, path, body=body, headers=named, encode_chunked=not isinstance(body, (bytes, type(None))))
        response = used.getresponse()
        reply = Reply(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=response.read(),
        )
        if client is None:
            used.close()
        return reply

    def raw(self, data: bytes, *, end: bool = True) -> bytes:
        """Send bytes as they are, end our half of the connection, and give all that comes back."""
        connection = self.connect()
        with contextlib.suppress(OSError):
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                received += piece
        connection.close()
        return received

    def join(self) -> None:
        """Wait for the end of all connections."""
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


def basic(credential: Credential = CREDENTIAL) -> str:
    """Give the header that carries a credential."""
    auths: dict[str, dict[str, str]] = json.loads(credential.client_configuration("r"))["auths"]
    return f"Basic {auths['r']['auth']}"


def pieces(data: bytes, size_bytes: int) -> Iterator[bytes]:
    """Cut bytes in pieces."""
    for at in range(0, len(data), size_bytes):
        yield data[at : at + size_bytes]


def uploads() -> str:
    """Give the path that uploads begin at."""
    return f"/v2/{NAME}/blobs/uploads/"
