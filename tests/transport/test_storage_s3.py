# SPDX-License-Identifier: Apache-2.0
"""S3: uploads left behind, lost answers, wrong settings, memory."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import s3fs

from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, TransientError
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from tests.lab.processes import wait_until
from tests.lab.s3 import LabS3

MIB = 1024 * 1024
HOUR = 3600.0

_ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL")


@pytest.fixture
def prefix(s3: LabS3) -> str:
    """A prefix that nobody else uses."""
    return f"s3://{s3.bucket}/{uuid4().hex}"


@pytest.fixture
def storage(s3: LabS3, prefix: str) -> Storage:
    """An empty storage."""
    return storage_from_url(prefix, **s3.storage_options)


def uploads(s3: LabS3, url: str) -> list[dict[str, Any]]:
    """The multipart uploads under way whose URLs begin with ``url``."""
    found: list[dict[str, Any]] = s3fs.S3FileSystem(**s3.storage_options).list_multipart_uploads(s3.bucket)
    return [each for each in found if f"s3://{s3.bucket}/{each['Key']}".startswith(url)]


def unfinished(s3: LabS3, prefix: str) -> list[str]:
    """Keys of the multipart uploads under way below ``prefix``."""
    return sorted(each["Key"] for each in uploads(s3, f"{prefix}/"))


def wait_for_parts(s3: LabS3, url: str, count: int) -> None:
    """Wait until that many parts of an upload have arrived: they are sent in the background."""
    fs = s3fs.S3FileSystem(**s3.storage_options)
    (upload,) = uploads(s3, url)

    def arrived() -> bool:
        answer = fs.call_s3("list_parts", Bucket=s3.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return len(answer.get("Parts", [])) == count

    assert wait_until(arrived, seconds=20)


@contextmanager
def losing_first_answer(server: LabS3, method: bytes) -> Iterator[str]:
    """A way to the server that passes everything on, but drops the answer to the first request of ``method``."""
    host, _, port = server.endpoint_url.removeprefix("http://").partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    lost = threading.Event()

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as upstream:
            request = client.recv(1 << 20)
            lose = request.startswith(method + b" ") and not lost.is_set()
            if lose:
                lost.set()
            upstream.sendall(request)
            pump = threading.Thread(target=forward, args=(client, upstream), daemon=True)
            pump.start()
            while answer := upstream.recv(1 << 20):
                if not lose or answer.startswith(b"HTTP/1.1 100"):
                    client.sendall(answer)
            client.shutdown(socket.SHUT_RDWR)

    def forward(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 20):
                sink.sendall(data)
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert lost.is_set()
    finally:
        listener.close()


def test_aborted_writer_leaves_no_upload(s3: LabS3, storage: Storage, prefix: str) -> None:
    """Parts of an upload cost money until it is aborted."""
    writer = storage.writer("a/archive")
    writer.write(b"x" * 30 * MIB)
    assert len(unfinished(s3, prefix)) == 1
    writer.close()
    assert unfinished(s3, prefix) == []


def test_upload_of_a_dead_writer_is_aborted_when_old_enough(s3: LabS3, storage: Storage, prefix: str) -> None:
    """There are no locks on S3, so only age by the store's clock tells a dead writer."""
    for path in ("a/archive", "ab/archive"):
        storage.writer(path).write(b"x" * 16 * MIB)
        wait_for_parts(s3, f"{prefix}/{path}", 2)
    assert storage.reap("", older_than_seconds=HOUR) == ()
    assert storage.reap("a", older_than_seconds=-HOUR) == ("a/archive",)
    assert [key.split("/", 1)[1] for key in unfinished(s3, prefix)] == ["ab/archive"]


def test_uploads_beside_the_repository_are_left_alone(s3: LabS3, prefix: str) -> None:
    """A bucket may hold other things, also under names that begin alike."""
    other = storage_from_url(f"{prefix}-other", **s3.storage_options)
    other.writer("a").write(b"x" * 9 * MIB)
    assert storage_from_url(prefix, **s3.storage_options).reap("", older_than_seconds=-HOUR) == ()
    assert other.reap("", older_than_seconds=-HOUR) == ("a",)


def test_commit_fails_when_the_upload_was_aborted_meanwhile(s3: LabS3, storage: Storage, prefix: str) -> None:
    """A writer that was too slow for a lifecycle rule fails, to be tried again, and publishes nothing."""
    writer = storage.writer("a")
    writer.write(b"x" * 16 * MIB)
    wait_for_parts(s3, f"{prefix}/a", 2)
    storage.reap("", older_than_seconds=-HOUR)
    with pytest.raises(TransientError, match="ry again"):
        writer.commit()
    writer.close()
    assert list(storage.list("")) == []


def test_create_succeeds_when_the_answer_was_lost(s3: LabS3, prefix: str) -> None:
    """The request that is sent again meets its own first try, which is no conflict."""
    with losing_first_answer(s3, b"PUT") as endpoint:
        through = storage_from_url(
            prefix, key="testing", secret="testing", endpoint_url=endpoint, client_kwargs={"region_name": "us-east-1"}
        )
        through.create("document", b"x")
        with pytest.raises(ConflictError):
            through.create("document", b"x")
        assert through.read("document") == b"x"


def test_object_that_never_got_its_name_is_reaped_when_old_enough(s3: LabS3, storage: Storage, prefix: str) -> None:
    """A writer that died between upload and copy leaves an object that nobody lists, and that goes with its age."""
    path = f"staging/{uuid4().hex}"
    fs = s3fs.S3FileSystem(**s3.storage_options)
    fs.pipe_file(f"{prefix}/{path}", b"x")
    fs.pipe_file(f"{prefix}/staging/other", b"foreign")
    assert [info.path for info in storage.list("")] == ["staging/other"]
    assert storage.reap("", older_than_seconds=HOUR) == ()
    assert storage.reap("blobs", older_than_seconds=-HOUR) == ()
    assert storage.reap("staging", older_than_seconds=-HOUR) == (path,)
    assert not fs.exists(f"{prefix}/{path}")
    assert storage.read("staging/other") == b"foreign"


def test_path_of_an_object_without_a_name_is_refused(storage: Storage) -> None:
    """An object that would be hidden from listings cannot be made."""
    path = f"staging/{uuid4().hex}"
    storage.create("a", b"x")
    for attempt in (
        lambda: storage.create(path, b"x"),
        lambda: storage.writer(path),
        lambda: storage.move("a", to=path),
    ):
        with pytest.raises(ConfigurationError, match="unfinished"):
            attempt()
    assert storage.read("a") == b"x"


def test_name_stays_when_the_answer_to_giving_it_was_lost(s3: LabS3, prefix: str) -> None:
    """Somebody else may count on an object as soon as it has its name, so nobody takes it back."""
    with losing_first_answer(s3, b"PUT") as endpoint:
        through = storage_from_url(
            prefix, key="testing", secret="testing", endpoint_url=endpoint, client_kwargs={"region_name": "us-east-1"}
        )
        writer = through.staged("blobs")
        try:
            writer.write(b"x")
            writer.commit("d1")
        finally:
            writer.close()
        assert through.read("blobs/d1") == b"x"


def test_object_that_is_reaped_before_it_gets_its_name_fails_its_writer(
    s3: LabS3, storage: Storage, prefix: str
) -> None:
    """A writer that was too slow fails, to be tried again, and publishes nothing."""
    writer = storage.staged("blobs")
    try:
        writer.write(b"x" * 16 * MIB)
        (upload,) = uploads(s3, prefix)
        wait_for_parts(s3, f"s3://{s3.bucket}/{upload['Key']}", 2)
        assert len(storage.reap("staging", older_than_seconds=-HOUR)) == 1
        with pytest.raises(TransientError, match="ry again"):
            writer.commit("d1")
    finally:
        writer.close()
    assert list(storage.list("")) == []
    assert unfinished(s3, prefix) == []


def test_missing_bucket_is_named(s3: LabS3) -> None:
    """A bucket that is not there must be created by somebody."""
    storage = storage_from_url("s3://no-such-bucket/x", **s3.storage_options)
    for attempt in (lambda: storage.create("a", b"x"), lambda: list(storage.list("")), lambda: write_large(storage)):
        with pytest.raises(ConfigurationError, match="no bucket 'no-such-bucket'"):
            attempt()


def write_large(storage: Storage) -> None:
    """Write more than one part."""
    writer = storage.writer("a")
    try:
        writer.write(b"x" * 9 * MIB)
    finally:
        writer.close()


def test_endpoint_that_does_not_answer_is_transient() -> None:
    """A store that is down comes back."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
    once: dict[str, Any] = {"config_kwargs": {"retries": {"max_attempts": 0}}}
    storage = storage_from_url("s3://bucket/x", key="the-key", secret="the-secret", endpoint_url=endpoint, **once)
    with pytest.raises(TransientError, match="endpoint answers") as caught:
        storage.create("a", b"x")
    assert "the-" not in str(caught.value)


def test_missing_credentials_are_a_matter_of_configuration(s3: LabS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials trying again is of no use."""
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    storage = storage_from_url(f"s3://{s3.bucket}/x", endpoint_url=s3.endpoint_url, skip_instance_cache=True)
    with pytest.raises(ConfigurationError, match="check the credentials"):
        storage.create("a", b"x")


def test_settings_come_from_the_environment_of_aws_tools(
    s3: LabS3, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line finds a store as other tools do."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    storage_from_url(prefix).create("a", b"x")
    assert storage_from_url(prefix, **s3.storage_options).read("a") == b"x"


def test_large_object_needs_little_memory(s3: LabS3, prefix: str) -> None:
    """Writing 150 MiB to S3 and reading it back grows the process by less than 100 MiB."""
    code = f"""
import re
from pathlib import Path
from airflow_provider_dockerbackup.transport.storage import storage_from_url
peak_kib = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
storage = storage_from_url({prefix!r}, **{s3.storage_options!r})
storage.create("warm", b"x")
before = peak_kib()
writer = storage.writer("a")
piece = b"x" * (1 << 20)
for _ in range(150):
    writer.write(piece)
writer.commit()
writer.close()
with storage.chunks("a") as chunks:
    assert sum(len(chunk) for chunk in chunks) == 150 << 20
print(peak_kib() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100 * 1024
    print(f"{int(done.stdout) / 1024:.0f} MiB")
