# SPDX-License-Identifier: Apache-2.0
"""An HTTP endpoint on loopback that keeps what is posted to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True, kw_only=True)
class Post:
    """One request: its path, its headers and its JSON body."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class LabWebhook:
    """A running endpoint.

    :param port: of 127.0.0.1.
    :param statuses: what the next requests are answered; 200 when there are none left.
    """

    port: int
    posts: list[Post] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def connection(self, **fields: Any) -> str:
        """Return an Airflow connection to it, as ``AIRFLOW_CONN_…`` has it; ``fields`` besides."""
        where = {"conn_type": "http", "schema": "http", "host": "127.0.0.1", "port": self.port}
        return json.dumps(where | fields)


@contextmanager
def webhook_server() -> Iterator[LabWebhook]:
    """Run an endpoint in this process and give it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            lab.posts.append(Post(path=self.path, headers=dict(self.headers), body=body))
            self.send_response(lab.statuses.pop(0) if lab.statuses else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            """Say nothing: the tests look at what came."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        lab = LabWebhook(port=server.server_address[1])
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield lab
        finally:
            server.shutdown()
