# SPDX-License-Identifier: Apache-2.0
"""An S3 server on loopback with a fresh bucket: ``python -m tests.lab.s3`` or :func:`s3_server`."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final
from uuid import uuid4

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

_LOOPBACK: Final = "127.0.0.1"
CONNECTION_ID: Final = "aws_lab"
REGION: Final = "us-east-1"
# The server accepts any; they are no secret.
ACCESS_KEY: Final = "testing"
SECRET_KEY: Final = "testing"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabS3:
    """A running S3 server.

    :param endpoint_url: where it answers.
    :param bucket: an empty bucket of it.
    """

    endpoint_url: str
    bucket: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """The options for ``fsspec.filesystem("s3", …)``."""
        return {
            "key": ACCESS_KEY,
            "secret": SECRET_KEY,
            "client_kwargs": {"endpoint_url": self.endpoint_url, "region_name": REGION},
        }

    @property
    def airflow_connection(self) -> str:
        """The connection as the JSON that Airflow reads from ``AIRFLOW_CONN_…``."""
        connection = {
            "conn_type": "aws",
            "login": ACCESS_KEY,
            "password": SECRET_KEY,
            "extra": {"endpoint_url": self.endpoint_url, "region_name": REGION},
        }
        return json.dumps(connection)

    @property
    def airflow_environment(self) -> dict[str, str]:
        """The variable that gives Airflow the connection ``aws_lab``."""
        return {f"AIRFLOW_CONN_{CONNECTION_ID.upper()}": self.airflow_connection}

    def new_bucket(self, name: str | None = None) -> str:
        """Make a bucket and give its name.

        :param name: None makes one up.
        """
        name = name or f"lab-{uuid4().hex[:12]}"
        request = urllib.request.Request(f"{self.endpoint_url}/{name}", method="PUT")  # noqa: S310
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310
            return name


class _Moto(DomainDispatcherApplication):
    """Moto, which without this memory goes through the folder of all its services at each request."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self._services: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        if host not in self._services:
            self._services[host] = super().get_backend_for_host(host)
        return self._services[host]


class _OneAtATime:
    """S3 decides conditional writes atomically; moto looks and writes in two steps, so requests must not overlap."""

    def __init__(self) -> None:
        self._application = _Moto()
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with self._lock:
            answer: Iterable[bytes] = self._application(environ, start_response)
            return list(answer)


@contextmanager
def s3_server(*, port: int = 0, bucket: str | None = None, one_at_a_time: bool = False) -> Iterator[LabS3]:
    """Run an S3 server in this process and give it with a fresh bucket.

    :param port: 0 takes a free one.
    :param bucket: name of the bucket; None makes one up.
    :param one_at_a_time: let no requests overlap, so that conditional writes are atomic.
    """
    application = _OneAtATime() if one_at_a_time else _Moto()
    server = make_server(_LOOPBACK, port, application, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        endpoint_url = f"http://{_LOOPBACK}:{server.server_port}"
        bucket = LabS3(endpoint_url=endpoint_url, bucket="").new_bucket(bucket)
        yield LabS3(endpoint_url=endpoint_url, bucket=bucket)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> int:
    """Serve until SIGINT or SIGTERM; print the connection as an export line for a shell."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.s3", description="An S3 server on loopback.")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--bucket", help="name of the bucket (default: a fresh one)")
    options = parser.parse_args()
    # Both go through the same way out: the context manager's end.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    with s3_server(port=options.port, bucket=options.bucket) as server:
        for name, value in server.airflow_environment.items():
            print(f"export {name}={shlex.quote(value)}")
        print(f"# s3://{CONNECTION_ID}@{server.bucket}/ at {server.endpoint_url}", flush=True)
        while True:
            signal.pause()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
