# SPDX-License-Identifier: Apache-2.0
"""In-memory twins of an engine that pushes and of what it pushes to; public through :mod:`.memory`."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from airflow_provider_dockerbackup.core.push import PushedManifest, PushResult, PushTarget
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError

_DOCKER: Final = "application/vnd.docker"
_MANIFEST: Final = f"{_DOCKER}.distribution.manifest.v2+json"
_PIECE_BYTES: Final = 32 * 1024


class MemoryPushTarget:
    """Blobs and manifests in dictionaries, by digest.

    :param blobs: shared between pushes, it makes a repository that remembers; None is a new, empty one.
    """

    def __init__(self, blobs: dict[str, bytes] | None = None) -> None:
        self.blobs = {} if blobs is None else blobs
        self.manifests: dict[str, PushedManifest] = {}
        self.asked: list[str] = []  # digests the engine asked for, in order
        self.uploads: list[MemoryBlobUpload] = []
        self._lock = threading.Lock()

    def blob_size(self, digest: str) -> int | None:
        """Return the size of a blob that is there, else None."""
        with self._lock:
            self.asked.append(digest)
            found = self.blobs.get(digest)
        return None if found is None else len(found)

    def upload(self) -> MemoryBlobUpload:
        """Begin a blob."""
        upload = MemoryBlobUpload(self._keep)
        with self._lock:
            self.uploads.append(upload)
        return upload

    def manifest(self, reference: str, *, media_type: str, data: bytes) -> None:
        """Take a manifest or an index of which everything is there.

        :raises IntegrityError: when it is no such thing.
        :raises NotFoundError: when it names what is not there.
        """
        manifest = PushedManifest(media_type=media_type, data=data)
        with self._lock:
            for digest in _named(data):
                if digest not in self.blobs and digest not in self.manifests:
                    raise NotFoundError(f"the manifest names {digest}, which was not pushed")
            self.manifests[manifest.digest] = manifest
            self.manifests[reference] = manifest

    def manifest_of(self, reference: str) -> PushedManifest | None:
        """Return what was put under a digest or a name, or None."""
        with self._lock:
            return self.manifests.get(reference)

    def _keep(self, digest: str, data: bytes) -> None:
        with self._lock:
            self.blobs[digest] = data


class MemoryBlobUpload:
    """One blob on its way into a :class:`MemoryPushTarget`."""

    def __init__(self, keep: Callable[[str, bytes], None]) -> None:
        self._keep = keep
        self._data = bytearray()
        self.state = "open"

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        :raises ValueError: when the upload has ended.
        """
        if self.state != "open":
            raise ValueError(f"the upload is {self.state}")
        self._data += data

    def finish(self, digest: str) -> None:
        """Keep the blob.

        :raises IntegrityError: when its bytes have another digest.
        :raises ValueError: when the upload has ended.
        """
        if self.state != "open":
            raise ValueError(f"the upload is {self.state}")
        found = _digest(self._data)
        if found != digest:
            raise IntegrityError(f"the blob is {found}, not {digest}")
        self._keep(digest, bytes(self._data))
        self.state = "finished"

    def abort(self) -> None:
        """Forget the blob, unless it was finished."""
        if self.state == "open":
            self.state = "aborted"
            self._data.clear()


def push(
    layers: Sequence[bytes], config: bytes, *, target: PushTarget, attempt: str, remembered: dict[str, str]
) -> PushResult:
    """Push an image as a classic engine does, and return what came.

    A layer whose compressed digest the engine does not remember is compressed and sent without a question.

    :param layers: uncompressed, lowest first.
    :param config: the configuration document.
    :param remembered: digests of compressed layers by diff_id, as the engine keeps them for one registry; added to.
    """
    pushing = _Push(target)
    entries = []
    for plain in layers:
        diff_id = _digest(plain)
        known = remembered.get(diff_id)
        size_bytes = target.blob_size(known) if known is not None else None
        if known is None or size_bytes is None:
            compressed = gzip.compress(plain, compresslevel=6, mtime=0)
            known, size_bytes = pushing.send(compressed), len(compressed)
            remembered[diff_id] = known
        entries.append({"mediaType": f"{_DOCKER}.image.rootfs.diff.tar.gzip", "size": size_bytes, "digest": known})
    if target.blob_size(_digest(config)) is None:
        pushing.send(config)
    described = {"mediaType": f"{_DOCKER}.container.image.v1+json", "size": len(config), "digest": _digest(config)}
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": entries}
    return pushing.finish(attempt, json.dumps(manifest, indent=3).encode())


class _Push:
    def __init__(self, target: PushTarget) -> None:
        self._target = target
        self._sent: list[int] = []

    def send(self, data: bytes) -> str:
        upload = self._target.upload()
        try:
            for at in range(0, len(data), _PIECE_BYTES):
                upload.write(data[at : at + _PIECE_BYTES])
            upload.finish(_digest(data))
        finally:
            upload.abort()
        self._sent.append(len(data))
        return _digest(data)

    def finish(self, attempt: str, data: bytes) -> PushResult:
        self._target.manifest(attempt, media_type=_MANIFEST, data=data)
        return PushResult(
            manifest=PushedManifest(media_type=_MANIFEST, data=data),
            received_bytes=sum(self._sent) + len(data),
            uploaded_blobs=len(self._sent),
            uploaded_bytes=sum(self._sent),
        )


def _digest(data: bytes | bytearray) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _named(data: bytes) -> Iterator[str]:
    """Yield the digests that a manifest or an index names, without those of layers that live elsewhere (``urls``)."""
    try:
        document: dict[str, Any] = json.loads(data)
        children = [*document.get("manifests", ()), *document.get("layers", ())]
        config = document.get("config")
        for each in [*children, *([config] if config else [])]:
            if not each.get("urls"):
                yield str(each["digest"])
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise IntegrityError(f"the manifest cannot be read: {type(err).__name__}: {err}") from err
