# SPDX-License-Identifier: Apache-2.0
"""In-memory twin of what an engine pushes to; public through :mod:`.memory`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_dockerbackup.core.push import PushedManifest
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError


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
        found = f"sha256:{hashlib.sha256(self._data).hexdigest()}"
        if found != digest:
            raise IntegrityError(f"the blob is {found}, not {digest}")
        self._keep(digest, bytes(self._data))
        self.state = "finished"

    def abort(self) -> None:
        """Forget the blob, unless it was finished."""
        if self.state == "open":
            self.state = "aborted"
            self._data.clear()


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
