# SPDX-License-Identifier: Apache-2.0
"""An S3 server that answers one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.lab.s3 import LabS3


class _OneAtATime:
    """S3 decides conditional writes atomically; moto looks and writes in two steps, so requests must not overlap."""

    def __init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with self._lock:
            answer: Iterable[bytes] = self._application(environ, start_response)
            return list(answer)


@pytest.fixture(scope="session")
def atomic_s3() -> Iterator[LabS3]:
    """A real S3 server on loopback whose conditional writes are atomic."""
    server = make_server("127.0.0.1", 0, _OneAtATime(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        endpoint_url = f"http://127.0.0.1:{server.server_port}"
        bucket = LabS3(endpoint_url=endpoint_url, bucket="").new_bucket()
        yield LabS3(endpoint_url=endpoint_url, bucket=bucket)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
