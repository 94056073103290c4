# SPDX-License-Identifier: Apache-2.0
"""A repository's storage on any fsspec filesystem that is neither a local disk nor S3.

There is no conditional write that all of them know, so creation looks first and writes then: safe for one writer at a
time, and :attr:`ObjectStorage.atomic_create` says so. What is being written has the name of a temporary object until
it is whole.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

from fsspec import AbstractFileSystem

from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
)
from airflow_provider_dockerbackup.transport.storage_errors import object_error
from airflow_provider_dockerbackup.transport.storage_path import joined, object_name, object_parts, prefix_parts

_log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1024 * 1024
_BLOCK_BYTES: Final = 8 * CHUNK_BYTES
_PARTIAL: Final = re.compile(r"\..+\.[0-9a-f]{16}\.partial", re.DOTALL)
_TIME_KEYS: Final = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


class ObjectStorage:
    """Objects below ``root`` of an fsspec filesystem; for one writer at a time.

    :param fs: an ``fsspec.AbstractFileSystem``.
    :param root: path of the repository in it, without scheme.
    :param url: how messages and records name it, without credentials.
    """

    def __init__(self, fs: Any, root: str, *, url: str) -> None:
        self._fs = fs
        self._root = root.rstrip("/")
        self._url = url.rstrip("/")

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return self._url

    @property
    def atomic_create(self) -> bool:
        """Whether of several callers that create one path at once exactly one succeeds: here that is not certain."""
        return False

    def create(self, path: str, data: bytes) -> None:
        """Write a small document.

        :raises ConflictError: when ``path`` exists.
        """
        writer = self.writer(path)
        try:
            writer.write(data)
            writer.commit()
        finally:
            writer.close()

    def writer(self, path: str) -> ObjectStorageWriter:
        """Begin a large object under ``path``."""
        if _PARTIAL.fullmatch(object_parts(path)[-1]):
            raise ConfigurationError(f"object path {path!r} has the form of an unfinished object; choose another name")
        return ObjectStorageWriter(self._fs, self._full(path), path, where=self._where(path))

    def staged(self, folder: str) -> ObjectStorageStagedWriter:
        """Begin an object of the folder ``folder`` whose name is known only at its end."""
        return ObjectStorageStagedWriter(self._fs, self._full(folder), stem="staged", where=self._where(f"{folder}/?"))

    def read(self, path: str, *, max_bytes: int = 64 * 1024 * 1024) -> bytes:
        """Return a document of at most ``max_bytes``.

        :raises NotFoundError: when there is none.
        :raises IntegrityError: when it is larger.
        """
        size = self.stat(path).size_bytes
        if size > max_bytes:
            raise IntegrityError(f"{self._where(path)} has {size} bytes, more than the {max_bytes} a document may have")
        with self.chunks(path) as pieces:
            return b"".join(pieces)

    @contextmanager
    def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
        """Stream an object in pieces of 1 MiB.

        :raises NotFoundError: when there is none.
        """
        size = self.stat(path).size_bytes
        with self._wrapping("read", path):
            file = self._fs.open(self._full(path), "rb", block_size=_BLOCK_BYTES)
        try:
            yield self._pieces(file, path, size)
        finally:
            file.close()

    def stat(self, path: str) -> ObjectInfo:
        """Return size and time of an object.

        :raises NotFoundError: when there is none.
        """
        full = self._full(path)
        with self._wrapping("read", path):
            self._fs.invalidate_cache()
            info = self._fs.info(full)
            if info.get("type") != "file":
                raise NotFoundError(f"{self._where(path)} is not there: the name is a folder")
            return self._info(path, info)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object below the folder ``prefix``; unfinished ones are hidden."""
        for path, info in self._found(prefix):
            if not _PARTIAL.fullmatch(path.rpartition("/")[2]):
                yield self._info(path, info)

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""
        full = self._full(path)
        with suppress(NotFoundError), self._wrapping("delete", path):
            self._fs.rm_file(full)

    def move(self, path: str, *, to: str) -> None:
        """Give an object another path; it may get a new time.

        :raises ConflictError: when ``to`` exists.
        :raises NotFoundError: when there is no object ``path``.
        """
        old, new = self._full(path), self._full(to)
        self.stat(path)
        with self._wrapping("move", path):
            if self._fs.exists(new):
                raise ConflictError(f"{self._where(to)} exists already; it was not changed")
            with suppress(FileExistsError):
                self._fs.makedirs(new.rpartition("/")[0], exist_ok=True)
            _rename(self._fs, old, new)
            self._fs.invalidate_cache()

    def reap(self, prefix: str, *, older_than_seconds: float) -> tuple[str, ...]:
        """Remove unfinished objects below ``prefix`` older than ``older_than_seconds`` by the storage's clock."""
        unfinished = [
            self._info(path, info) for path, info in self._found(prefix) if _PARTIAL.fullmatch(path.rpartition("/")[2])
        ]
        now = self._now() if unfinished else datetime.now(tz=UTC)
        old = [info.path for info in unfinished if (now - info.modified).total_seconds() > older_than_seconds]
        for path in old:
            self.delete(path)
        return tuple(old)

    def is_abandoned(self, path: str, *, older_than_seconds: float) -> bool:
        """Tell whether the object ``path`` is older than ``older_than_seconds`` by the storage's clock.

        :raises NotFoundError: when there is no such object.
        """
        modified = self.stat(path).modified
        return (self._now() - modified).total_seconds() > older_than_seconds

    def _full(self, path: str) -> str:
        return f"{self._root}/{joined(object_parts(path))}"

    def _where(self, path: str) -> str:
        return f"{self._url}/{path}" if path else self._url

    @contextmanager
    def _wrapping(self, doing: str, path: str) -> Iterator[None]:
        try:
            yield
        except DockerBackupError:
            raise
        except Exception as err:
            raise object_error(err, doing=doing, where=self._where(path)) from err

    def _found(self, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        folder = "/".join((self._root, *prefix_parts(prefix)))
        with self._wrapping("list", prefix):
            self._fs.invalidate_cache()
            try:
                found: dict[str, dict[str, Any]] = self._fs.find(folder, detail=True)
            except FileNotFoundError:
                return
        root = self._fs._strip_protocol(self._root).rstrip("/")  # fsspec has no public name for it
        for name, info in found.items():
            path = name.removeprefix(root).lstrip("/")
            if name != folder and info.get("type") == "file":
                yield path, info

    def _info(self, path: str, info: dict[str, Any]) -> ObjectInfo:
        return ObjectInfo(path=path, size_bytes=int(info["size"]), modified=self._modified(path, info))

    def _modified(self, path: str, info: dict[str, Any]) -> datetime:
        moment = next((info[key] for key in _TIME_KEYS if info.get(key)), None)
        if moment is None:
            with self._wrapping("read", path):
                moment = self._fs.modified(self._full(path))
        if isinstance(moment, int | float):
            return datetime.fromtimestamp(moment, tz=UTC)
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        if not isinstance(moment, datetime):
            raise ConfigurationError(f"{self._url} does not say when objects were written; use another storage")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)

    def _now(self) -> datetime:
        """Return the storage's own time, as it stamps an object written this moment."""
        path = f".clock.{secrets.token_hex(8)}.partial"
        try:
            with self._wrapping("write", path):
                self._fs.pipe_file(self._full(path), b"0")
            return self.stat(path).modified
        finally:
            self.delete(path)

    def _pieces(self, file: Any, path: str, size: int) -> Iterator[bytes]:
        left = size
        while left > 0:
            with self._wrapping("read", path):
                piece: bytes = file.read(min(CHUNK_BYTES, left))
            if not piece:
                raise IntegrityError(f"{self._where(path)} ended {left} bytes early; verify this repository")
            left -= len(piece)
            yield piece


class _TemporaryObject:
    """One object being written under a temporary name.

    :param folder: full path of the folder it will be in.
    :param stem: what the temporary name tells of it.
    :param where: how messages name it.
    """

    def __init__(self, fs: Any, folder: str, *, stem: str, where: str) -> None:
        self._fs = fs
        self._folder = folder
        self._where = where
        self._partial = f"{folder}/.{stem[:60]}.{secrets.token_hex(8)}.partial"
        self._size = 0
        self._committed = False
        with self._wrapping():
            with suppress(FileExistsError):
                fs.makedirs(folder, exist_ok=True)
            self._file: Any = fs.open(self._partial, "wb", block_size=2 * _BLOCK_BYTES)

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        :raises TransientError: when the storage is full or fails.
        """
        self._require_open()
        with self._wrapping():
            self._file.write(data)
        self._size += len(data)

    def close(self) -> None:
        """Release everything; remove the temporary object unless it was committed."""
        try:
            if self._file is not None:
                file, self._file = self._file, None
                file.close()
            if not self._committed and self._fs.exists(self._partial):
                self._fs.rm_file(self._partial)
        except Exception as err:  # noqa: BLE001 - a failing clean-up must not hide the first error; reap() comes later
            _log.warning("cannot clean up %s, a later run will: %s", self._where, err)

    def _commit(self, name: str) -> None:
        self._require_open()
        full = f"{self._folder}/{name}"
        with self._wrapping():
            file, self._file = self._file, None
            file.close()
            self._fs.invalidate_cache()
            if self._fs.exists(full):
                raise ConflictError(f"{self._where} exists already; it was not changed")
            _rename(self._fs, self._partial, full)
            self._fs.invalidate_cache()
            if int(self._fs.info(full)["size"]) != self._size:
                raise IntegrityError(f"{self._where} does not have the {self._size} bytes that were written")
        self._committed = True

    def _require_open(self) -> None:
        if self._file is None:
            raise ValueError(f"the writer of {self._where} was committed or closed before")

    @contextmanager
    def _wrapping(self) -> Iterator[None]:
        try:
            yield
        except DockerBackupError:
            raise
        except Exception as err:
            raise object_error(err, doing="write", where=self._where) from err


class ObjectStorageWriter(_TemporaryObject):
    """One object being written whose name is known from the start; made by :meth:`ObjectStorage.writer`."""

    def __init__(self, fs: Any, full: str, path: str, *, where: str) -> None:
        folder, _, self._name = full.rpartition("/")
        self._path = path
        super().__init__(fs, folder, stem=self._name, where=where)

    @property
    def path(self) -> str:
        """Path of the object, relative to the storage's root."""
        return self._path

    def commit(self) -> None:
        """Finish the temporary object and move it to its name.

        :raises ConflictError: when the path exists.
        """
        self._commit(self._name)


class ObjectStorageStagedWriter(_TemporaryObject):
    """One object being written whose name is known only at its end; made by :meth:`ObjectStorage.staged`."""

    def commit(self, name: str) -> None:
        """Finish the temporary object and move it to ``name`` in its folder.

        :raises ConflictError: when it exists.
        """
        self._where = f"{self._where.removesuffix('?')}{name}"
        self._commit(object_name(name))


def _rename(fs: Any, old: str, new: str) -> None:
    if type(fs).mv is AbstractFileSystem.mv:  # it would take brackets in names for patterns
        fs.cp_file(old, new)
        fs.rm_file(old)
    else:
        fs.mv(old, new)
