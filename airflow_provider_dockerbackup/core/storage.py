# SPDX-License-Identifier: Apache-2.0
"""The port to a repository's storage, and what implementations MUST do.

Implementations live in ``transport``; ``tests/contract/test_storage.py`` holds for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from airflow_provider_dockerbackup.core.model import ObjectInfo


class ObjectWriter(Protocol):
    """One object being written; it becomes visible, whole, with :meth:`commit`, or not at all."""

    @property
    def path(self) -> str:
        """Path of the object, relative to the storage's root."""

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        :raises TransientError: when the storage is full or fails.
        """

    def commit(self) -> None:
        """Make the object durable and visible under its path.

        MUST NOT replace an existing object. MUST return only when the bytes and the name survive a power cut, as far
        as the storage can promise it.

        :raises ConflictError: when the path exists; nothing was changed.
        """

    def close(self) -> None:
        """Release everything; an object that was not committed leaves nothing behind.

        Between :meth:`commit` and :meth:`close` the object MUST be protected from :meth:`Storage.reap`, so that its
        record can be written. Callers always call it, last.
        """


class StagedWriter(Protocol):
    """One object being written whose name is known only at its end, such as its own digest."""

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        :raises TransientError: when the storage is full or fails.
        """

    def commit(self, name: str) -> None:
        """Make the object durable and visible as ``name`` in its folder.

        MUST NOT replace an existing object, and MUST return only when bytes and name survive a power cut, as
        :meth:`ObjectWriter.commit`. When it fails and nobody can tell whether the name was given, the object MAY stay,
        whole: somebody else may count on it by then.

        :raises ConflictError: when it exists; it was not changed.
        """

    def close(self) -> None:
        """Release everything; an object without a name leaves nothing behind. Callers always call it, last."""


class Storage(Protocol):
    """A tree of create-only objects. Paths are relative, ``/``-separated, without ``.`` and ``..``."""

    @property
    def url(self) -> str:
        """Where it is, without credentials; for messages and records."""

    @property
    def atomic_create(self) -> bool:
        """Whether of several callers that create one path at once exactly one succeeds."""

    def create(self, path: str, data: bytes) -> None:
        """Write a small document in one step, durable on return.

        Of several callers that create the same path at once exactly one MUST succeed, if :attr:`atomic_create`.

        :raises ConflictError: when ``path`` exists; it was not changed.
        """

    def writer(self, path: str) -> ObjectWriter:
        """Begin a large object under ``path``."""

    def staged(self, folder: str) -> StagedWriter:
        """Begin an object of the folder ``folder`` whose name is known only at its end."""

    def read(self, path: str, *, max_bytes: int = 64 * 1024 * 1024) -> bytes:
        """Return a document.

        :raises NotFoundError: when there is none.
        :raises IntegrityError: when it is larger than ``max_bytes``.
        """

    def chunks(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """Stream an object in pieces of about 1 MiB, in order; open it once, read it once.

        :raises NotFoundError: when there is none.
        """

    def stat(self, path: str) -> ObjectInfo:
        """Return size and time of an object.

        :raises NotFoundError: when there is none.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every visible object below the folder ``prefix`` (``""``: all), at any depth, in no order.

        MUST yield all of them however many there are; objects being written do not count.
        """

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""

    def move(self, path: str, *, to: str) -> None:
        """Give an object another path.

        MUST NOT replace an existing object. After a crash the object MUST be under one of the two paths, or both. Its
        time may stay or become now.

        :raises ConflictError: when ``to`` exists; nothing was changed.
        :raises NotFoundError: when there is no object ``path``.
        """

    def reap(self, prefix: str, *, older_than_seconds: float) -> tuple[str, ...]:
        """Remove what dead writers left unfinished below the folder ``prefix`` and return the paths.

        MUST NOT touch what a live writer works on: an implementation that can tell (a lock) removes at once what is
        dead, any other only what the storage's own clock says is older than ``older_than_seconds``. Committed objects
        are not its business.
        """

    def is_abandoned(self, path: str, *, older_than_seconds: float) -> bool:
        """Tell whether the writer of the committed object ``path`` is certainly gone.

        Same rule as :meth:`reap`: by lock where there is one, else by the age the storage's own clock gives it.
        """
