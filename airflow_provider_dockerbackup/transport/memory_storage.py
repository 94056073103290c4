# SPDX-License-Identifier: Apache-2.0
"""The in-memory twin of a storage, for tests of code that uses this package."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.core.ports import Clock
from airflow_provider_dockerbackup.exceptions import ConflictError, IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.storage_path import joined, object_name, object_parts, prefix_parts

CHUNK_BYTES: Final = 1024 * 1024


class MemoryStorage:
    """Objects in a dictionary. A writer that was dropped without ``close()`` counts as dead.

    :param clock: gives objects their times.
    """

    def __init__(self, *, clock: Clock | None = None, url: str = "memory://repository") -> None:
        self._clock = clock or SystemClock()
        self._url = url
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._unfinished: dict[int, tuple[str, weakref.ref[_Writer]]] = {}
        self._held: dict[str, weakref.ref[_Writer]] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return self._url

    @property
    def atomic_create(self) -> bool:
        """Whether of several callers that create one path at once exactly one succeeds."""
        return True

    def create(self, path: str, data: bytes) -> None:
        """Write a small document in one step.

        :raises ConflictError: when ``path`` exists.
        """
        object_parts(path)
        with self._lock:
            if path in self._objects:
                raise ConflictError(f"{self._url}/{path} exists already; it was not changed")
            self._objects[path] = (bytes(data), self._clock.now())

    def writer(self, path: str) -> MemoryWriter:
        """Begin a large object under ``path``."""
        object_parts(path)
        writer = MemoryWriter(self, path)
        self._begin(writer, path)
        return writer

    def staged(self, folder: str) -> MemoryStagedWriter:
        """Begin an object of the folder ``folder`` whose name is known only at its end."""
        object_parts(folder)
        writer = MemoryStagedWriter(self, folder)
        self._begin(writer, f"{folder}/?")
        return writer

    def read(self, path: str, *, max_bytes: int = 64 * 1024 * 1024) -> bytes:
        """Return a document of at most ``max_bytes``.

        :raises NotFoundError: when there is none.
        :raises IntegrityError: when it is larger.
        """
        data, _ = self._object(path)
        if len(data) > max_bytes:
            raise IntegrityError(
                f"{self._url}/{path} has {len(data)} bytes, more than the {max_bytes} a document may have"
            )
        return data

    @contextmanager
    def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
        """Stream an object in pieces of 1 MiB.

        :raises NotFoundError: when there is none.
        """
        data, _ = self._object(path)
        yield (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))

    def stat(self, path: str) -> ObjectInfo:
        """Return size and time of an object.

        :raises NotFoundError: when there is none.
        """
        data, modified = self._object(path)
        return ObjectInfo(path=path, size_bytes=len(data), modified=modified)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object below the folder ``prefix``."""
        below = "".join(f"{part}/" for part in prefix_parts(prefix))
        with self._lock:
            found = [
                ObjectInfo(path=path, size_bytes=len(data), modified=modified)
                for path, (data, modified) in self._objects.items()
                if path.startswith(below)
            ]
        yield from found

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""
        object_parts(path)
        with self._lock:
            self._objects.pop(path, None)
            self._held.pop(path, None)

    def move(self, path: str, *, to: str) -> None:
        """Give an object another path; it keeps its time.

        :raises ConflictError: when ``to`` exists.
        :raises NotFoundError: when there is no object ``path``.
        """
        object_parts(path)
        object_parts(to)
        with self._lock:
            if path not in self._objects:
                raise NotFoundError(f"{self._url}/{path} is not there")
            if to in self._objects:
                raise ConflictError(f"{self._url}/{to} exists already; it was not changed")
            self._objects[to] = self._objects.pop(path)
            if path in self._held:
                self._held[to] = self._held.pop(path)

    def reap(self, prefix: str, *, older_than_seconds: float) -> tuple[str, ...]:  # noqa: ARG002 - as in the port
        """Forget what dead writers left unfinished below ``prefix``, at once; the age does not matter here."""
        below = joined((*prefix_parts(prefix), ""))
        with self._lock:
            dead = [
                key for key, (path, writer) in self._unfinished.items() if writer() is None and path.startswith(below)
            ]
            return tuple(self._unfinished.pop(key)[0] for key in dead)

    def is_abandoned(self, path: str, *, older_than_seconds: float) -> bool:  # noqa: ARG002 - as in the port
        """Tell whether the writer of the object ``path`` was closed or dropped.

        :raises NotFoundError: when there is no such object.
        """
        self._object(path)
        with self._lock:
            holder = self._held.get(path)
            return holder is None or holder() is None

    def _object(self, path: str) -> tuple[bytes, datetime]:
        object_parts(path)
        with self._lock:
            if path not in self._objects:
                raise NotFoundError(f"{self._url}/{path} is not there")
            return self._objects[path]

    def _begin(self, writer: _Writer, path: str) -> None:
        with self._lock:
            self._unfinished[id(writer)] = (path, weakref.ref(writer))

    def _commit(self, writer: _Writer, path: str, data: bytes) -> None:
        self.create(path, data)
        with self._lock:
            self._held[path] = weakref.ref(writer)
            self._unfinished.pop(id(writer), None)

    def _release(self, writer: _Writer) -> None:
        with self._lock:
            self._unfinished.pop(id(writer), None)
            for path, holder in tuple(self._held.items()):
                if holder() is writer:
                    del self._held[path]


class _Writer:
    """What both kinds of writers share.

    :param what: how messages name the object.
    """

    def __init__(self, storage: MemoryStorage, what: str) -> None:
        self._storage = storage
        self._what = what
        self._buffer = bytearray()
        self._open = True

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``."""
        self._require_open()
        self._buffer += data

    def close(self) -> None:
        """Release everything; an object that was not committed was never there."""
        self._open = False
        self._buffer = bytearray()
        self._storage._release(self)

    def _commit(self, path: str) -> None:
        self._require_open()
        self._storage._commit(self, path, bytes(self._buffer))
        self._open = False

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError(f"the writer of {self._what} was committed or closed before")


class MemoryWriter(_Writer):
    """One object being written; made by :meth:`MemoryStorage.writer`."""

    @property
    def path(self) -> str:
        """Path of the object, relative to the storage's root."""
        return self._what

    def commit(self) -> None:
        """Make the object visible.

        :raises ConflictError: when the path exists.
        """
        self._commit(self.path)


class MemoryStagedWriter(_Writer):
    """One object being written whose name is known only at its end; made by :meth:`MemoryStorage.staged`."""

    def __init__(self, storage: MemoryStorage, folder: str) -> None:
        super().__init__(storage, f"{folder}/?")
        self._folder = folder

    def commit(self, name: str) -> None:
        """Make the object visible as ``name`` in its folder.

        :raises ConflictError: when it exists.
        """
        self._commit(f"{self._folder}/{object_name(name)}")
