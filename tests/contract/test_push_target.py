# SPDX-License-Identifier: Apache-2.0
"""What everything that an engine pushes to must do."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.push import PushTarget
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.memory import MemoryPushTarget
from tests.contract.archives import digest, layer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an engine pushes of an image."""

    layers: tuple[bytes, ...] = field(default_factory=lambda: (layer(a="one"), layer(b="two")))

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """Its compressed layers."""
        return tuple(gzip.compress(each, mtime=0) for each in self.layers)

    @property
    def config(self) -> bytes:
        """Its configuration."""
        diff_ids = [digest(each) for each in self.layers]
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        return json.dumps({**config, "history": [{"created_by": "RUN x"} for _ in diff_ids], "config": {}}).encode()

    @property
    def manifest(self) -> bytes:
        """Its manifest."""
        layers = [_descriptor(each, "application/vnd.docker.image.rootfs.diff.tar.gzip") for each in self.blobs]
        config = _descriptor(self.config, "application/vnd.docker.container.image.v1+json")
        return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(data), "digest": digest(data)}


def send(target: PushTarget, data: bytes, *, name: str | None = None) -> None:
    """Upload a blob in pieces."""
    upload = target.upload()
    try:
        for at in range(0, len(data), 100):
            upload.write(memoryview(data)[at : at + 100])
        upload.finish(name or digest(data))
    finally:
        upload.abort()


def push(target: PushTarget, image: Image, *, name: str = "attempt-1") -> None:
    """Upload all of an image."""
    for blob in (*image.blobs, image.config):
        send(target, blob)
    target.manifest(name, media_type=MANIFEST, data=image.manifest)


@pytest.fixture(params=["memory"])
def new_target(request: pytest.FixtureRequest) -> Callable[[], PushTarget]:
    """Make a target of a new, empty repository."""
    return MemoryPushTarget


def test_a_pushed_image_is_there(new_target: Callable[[], PushTarget]) -> None:
    """Blobs by their size, manifests to the byte by digest and by name."""
    target, image = new_target(), Image()
    for blob in (*image.blobs, image.config):
        assert target.blob_size(digest(blob)) is None
        send(target, blob)
        assert target.blob_size(digest(blob)) == len(blob)
    assert target.manifest_of("attempt-1") is None
    target.manifest("attempt-1", media_type=MANIFEST, data=image.manifest)
    for reference in ("attempt-1", digest(image.manifest)):
        found = target.manifest_of(reference)
        assert found is not None
        assert (found.media_type, found.data, found.digest) == (MANIFEST, image.manifest, digest(image.manifest))


def test_an_index_is_pushed_after_its_manifests(new_target: Callable[[], PushTarget]) -> None:
    """The manifests go by digest; the name is that of the index."""
    target, image = new_target(), Image()
    push(target, image, name=digest(image.manifest))
    entry = {**_descriptor(image.manifest, MANIFEST), "platform": {"architecture": "amd64", "os": "linux"}}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    target.manifest("attempt-1", media_type=INDEX, data=index)
    found = target.manifest_of("attempt-1")
    assert found is not None
    assert (found.media_type, found.data) == (INDEX, index)


def test_a_blob_under_a_false_name_is_refused(new_target: Callable[[], PushTarget]) -> None:
    """And can be sent again, right."""
    target, (blob, other) = new_target(), Image().blobs
    with pytest.raises(IntegrityError):
        send(target, blob, name=digest(other))
    assert target.blob_size(digest(other)) is None
    assert target.blob_size(digest(blob)) is None
    send(target, blob)
    assert target.blob_size(digest(blob)) == len(blob)


def test_an_aborted_blob_is_not_there(new_target: Callable[[], PushTarget]) -> None:
    """However often it is aborted; and one that was finished stays."""
    target, (blob, other) = new_target(), Image().blobs
    upload = target.upload()
    upload.write(blob)
    upload.abort()
    upload.abort()
    assert target.blob_size(digest(blob)) is None
    send(target, other)
    assert target.blob_size(digest(other)) == len(other)


def test_a_manifest_of_blobs_that_are_not_there_is_refused(new_target: Callable[[], PushTarget]) -> None:
    """It names what nobody sent."""
    target, image = new_target(), Image()
    send(target, image.blobs[0])
    send(target, image.config)
    with pytest.raises(NotFoundError):
        target.manifest("attempt-1", media_type=MANIFEST, data=image.manifest)
    assert target.manifest_of("attempt-1") is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"layers": 1}', b"\xff\xfe"])
def test_what_is_no_manifest_is_refused(new_target: Callable[[], PushTarget], data: bytes) -> None:
    """With the error that says so."""
    target = new_target()
    with pytest.raises(IntegrityError):
        target.manifest("attempt-1", media_type=MANIFEST, data=data)
    assert target.manifest_of("attempt-1") is None


def test_blobs_come_side_by_side(new_target: Callable[[], PushTarget]) -> None:
    """Also the same one twice at once."""
    target = new_target()
    image = Image(layers=tuple(layer(**{f"file{number}": "x" * 5000 * number}) for number in range(1, 9)))
    blobs = [*image.blobs, *image.blobs[:2], image.config]
    failed: list[BaseException] = []

    def work(blob: bytes) -> None:
        try:
            send(target, blob)
        except BaseException as err:  # noqa: BLE001 - shown below
            failed.append(err)

    threads = [threading.Thread(target=work, args=(blob,)) for blob in blobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    target.manifest("attempt-1", media_type=MANIFEST, data=image.manifest)
    assert all(target.blob_size(digest(blob)) == len(blob) for blob in blobs)
