# SPDX-License-Identifier: Apache-2.0
"""A repository's storage on a local disk, or on whatever else is mounted.

An object is written into a temporary file beside its target, made durable, and then given its name with ``link()``,
which fails when the name exists. The writer holds an exclusive ``flock`` on the file from its creation until
:meth:`LocalWriter.close`; a lock dies with its process, so whoever can take it knows that the writer is gone. The lock
belongs to the file, not to a name, and so goes on protecting the object after :meth:`LocalWriter.commit`.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import stat as stat_bits
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Final

from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.storage_errors import local_error
from airflow_provider_dockerbackup.transport.storage_local_tree import FolderTree, is_same, lock_writer, sync_folder
from airflow_provider_dockerbackup.transport.storage_path import object_parts, prefix_parts

_log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1024 * 1024
_WRITEBACK_BYTES: Final = 32 * 1024 * 1024
_PARTIAL: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.partial", re.DOTALL)
_LONGEST_NAME_IN_PARTIAL: Final = 120
_TRIES: Final = 100


class LocalStorage:
    """Objects as files below ``root``, private to the user who writes them (files 0600, folders 0700).

    Symbolic links below the root are refused, not followed; the root itself may be one.

    :param root: folder of the repository. It is created when it is missing, its parent is not: a disk that is not
        mounted must not be mistaken for an empty one.
    :param url: how messages and records name it; ``file://<root>`` when not given.
    """

    def __init__(self, root: Path, *, url: str | None = None) -> None:
        self._root = root
        self._tree = FolderTree(root)
        self._url = url if url is not None else f"file://{root.absolute()}"

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return self._url

    @property
    def atomic_create(self) -> bool:
        """Whether of several callers that create one path at once exactly one succeeds."""
        return True

    def create(self, path: str, data: bytes) -> None:
        """Write a small document in one step, durable on return.

        :raises ConflictError: when ``path`` exists.
        :raises TransientError: when the disk is full or fails.
        :raises ConfigurationError: when the root is missing or not writable, or the path is not a relative one.
        """
        writer = self.writer(path)
        try:
            writer.write(data)
            writer.commit()
        finally:
            writer.close()

    def writer(self, path: str) -> LocalWriter:
        """Begin a large object under ``path``; the same errors as :meth:`create`."""
        return LocalWriter(self._tree, path)

    def read(self, path: str, *, max_bytes: int = 64 * 1024 * 1024) -> bytes:
        """Return a document of at most ``max_bytes``.

        :raises NotFoundError: when there is none.
        :raises IntegrityError: when it is larger.
        """
        with self._reading(path) as file:
            try:
                size = os.fstat(file.fileno()).st_size
                data = b"" if size > max_bytes else b"".join(iter(lambda: file.read(CHUNK_BYTES), b""))
            except OSError as err:
                raise local_error(err, doing="read", where=self._shown(path)) from err
        if size > max_bytes or len(data) > max_bytes:
            raise IntegrityError(f"{self._shown(path)} has {size} bytes, more than the {max_bytes} a document may have")
        return data

    @contextmanager
    def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
        """Stream an object in pieces of 1 MiB.

        :raises NotFoundError: when there is none.
        """
        with self._reading(path) as file:
            with suppress(OSError):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            yield self._pieces(file, path)

    def stat(self, path: str) -> ObjectInfo:
        """Return size and time of an object.

        :raises NotFoundError: when there is none.
        """
        with self._reading(path) as file:
            return _info(path, os.fstat(file.fileno()))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object below the folder ``prefix``, in no order; unfinished ones are hidden.

        :raises ConfigurationError: when there is a symbolic link: objects behind it would be overlooked.
        """
        for path, entry in self._listed(prefix):
            if _PARTIAL.fullmatch(entry.name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as err:
                raise local_error(err, doing="list", where=self._shown(path)) from err
            yield _info(path, status)

    def delete(self, path: str) -> None:
        """Remove an object, durably, and the folders it leaves empty; one that is not there is no error."""
        parts = object_parts(path)
        try:
            with self._tree.folder(parts[:-1]) as folder:
                os.unlink(parts[-1], dir_fd=folder)
                sync_folder(folder)
        except FileNotFoundError:
            return
        except OSError as err:
            raise local_error(err, doing="delete", where=self._shown(path)) from err
        self._tree.prune(parts[:-1])

    def reap(self, prefix: str, *, older_than_seconds: float) -> tuple[str, ...]:
        """Remove unfinished files below ``prefix`` whose writers are dead, at once, and return their paths.

        Where locks cannot be trusted (a network file system, one without ``flock``), only those whose last write is
        older than ``older_than_seconds`` by that file system's own clock.
        """
        removed: list[str] = []
        for path, entry in self._listed(prefix):
            if not _PARTIAL.fullmatch(entry.name):
                continue
            parts = tuple(path.split("/"))
            try:
                gone = self._reap_one(parts, older_than_seconds)
            except FileNotFoundError:
                continue
            except OSError as err:
                raise local_error(err, doing="reap", where=self._shown(path)) from err
            if gone:
                removed.append(path)
                self._tree.prune(parts[:-1])
        return tuple(removed)

    def is_abandoned(self, path: str, *, older_than_seconds: float) -> bool:
        """Tell whether the writer of the object ``path`` is gone: its lock is free, as in :meth:`reap`.

        :raises NotFoundError: when there is no such object.
        """
        with self._reading(path) as file:
            try:
                return self._tree.is_dead(file.fileno(), fcntl.LOCK_SH, older_than_seconds)
            except OSError as err:
                raise local_error(err, doing="look at", where=self._shown(path)) from err

    def _listed(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        try:
            yield from self._tree.entries(prefix_parts(prefix))
        except OSError as err:
            raise local_error(err, doing="list", where=self._shown(prefix)) from err

    @contextmanager
    def _reading(self, path: str) -> Iterator[FileIO]:
        parts = object_parts(path)
        try:
            with self._tree.folder(parts[:-1]) as folder:
                descriptor = os.open(
                    parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder
                )
        except OSError as err:
            raise local_error(err, doing="read", where=self._shown(path)) from err
        if not stat_bits.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotFoundError(f"{self._shown(path)} is not there: the name is a folder or a special file")
        with FileIO(descriptor, "r") as file:
            yield file

    def _pieces(self, file: FileIO, path: str) -> Iterator[bytes]:
        left = os.fstat(file.fileno()).st_size
        while left > 0:
            try:
                piece = file.read(CHUNK_BYTES)
            except OSError as err:
                raise local_error(err, doing="read", where=self._shown(path)) from err
            if not piece:
                raise IntegrityError(
                    f"{self._shown(path)} ended {left} bytes early; something else changes this folder"
                )
            left -= len(piece)
            yield piece

    def _reap_one(self, parts: tuple[str, ...], older_than_seconds: float) -> bool:
        with self._tree.folder(parts[:-1]) as folder:
            descriptor = os.open(parts[-1], os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            with FileIO(descriptor, "r+"):
                if not self._tree.is_dead(descriptor, fcntl.LOCK_EX, older_than_seconds):
                    return False
                if not is_same(folder, parts[-1], descriptor):
                    return False
                # The lock is ours now. A writer that made this file and waits for the lock will see that its name is
                # gone and start over.
                os.unlink(parts[-1], dir_fd=folder)
                return True

    def _shown(self, path: str) -> str:
        return f"{self._root}/{path}" if path else str(self._root)


class LocalWriter:
    """One file being written below a :class:`LocalStorage`; made by :meth:`LocalStorage.writer`."""

    def __init__(self, tree: FolderTree, path: str) -> None:
        self._tree = tree
        self._path = path
        self._where = f"{tree.root}/{path}"
        self._parts = object_parts(path)
        if _PARTIAL.fullmatch(self._parts[-1]):
            raise ConfigurationError(f"object path {path!r} has the form of an unfinished file; choose another name")
        self._committed = False
        self._named = False
        self._written = 0
        self._flushed = 0
        self._partial = ""
        try:
            self._file = self._begin()
        except OSError as err:
            raise local_error(err, doing="write", where=self._where) from err

    @property
    def path(self) -> str:
        """Path of the object, relative to the storage's root."""
        return self._path

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        :raises TransientError: when the disk is full or fails.
        """
        self._require_open()
        left = memoryview(data).cast("B")
        try:
            while left:
                done = self._file.write(left) or 0
                left = left[done:]
                self._written += done
            self._start_writeback()
        except OSError as err:
            raise local_error(err, doing="write", where=self._where) from err

    def commit(self) -> None:
        """Make the file durable, then visible under its path.

        :raises ConflictError: when the path exists.
        :raises TransientError: when the disk is full or fails.
        """
        self._require_open()
        try:
            os.fsync(self._file.fileno())
            with self._tree.folder(self._parts[:-1]) as folder:
                self._named = True
                os.link(self._partial, self._parts[-1], src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                os.unlink(self._partial, dir_fd=folder)
            self._tree.sync(self._parts[:-1])
        except FileExistsError as err:
            self._named = False
            raise ConflictError(f"{self._where} exists already; it was not changed") from err
        except OSError as err:
            raise local_error(err, doing="commit", where=self._where) from err
        self._committed = True

    def close(self) -> None:
        """Release the lock; remove the file unless it was committed."""
        if self._file.closed:
            return
        try:
            if not self._committed:
                self._discard()
            self._file.close()
        except OSError as err:
            _log.warning("cannot clean up %s, the next run will: %s", self._where, err)
        finally:
            with suppress(OSError):
                self._file.close()

    def _require_open(self) -> None:
        if self._committed or self._file.closed:
            raise ValueError(f"the writer of {self._path} was committed or closed before")

    def _begin(self) -> FileIO:
        for _ in range(_TRIES):
            name = os.fsencode(self._parts[-1])[:_LONGEST_NAME_IN_PARTIAL].decode("utf-8", "ignore")
            self._partial = f".{name}.{secrets.token_hex(8)}.partial"
            try:
                with self._tree.folder(self._parts[:-1], create=True) as folder:
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    file = FileIO(os.open(self._partial, flags, 0o600, dir_fd=folder), "r+")
                    lock_writer(file)
                    if is_same(folder, self._partial, file.fileno()):
                        return file
                    file.close()  # a reaper was faster than our lock
            except FileNotFoundError:
                continue  # an emptied folder was removed between its creation and ours
        raise OSError(errno.EAGAIN, "other processes keep removing the folder")

    def _start_writeback(self) -> None:
        """Let the kernel write out what is complete, so that the fsync at the end is short."""
        if self._written - self._flushed >= _WRITEBACK_BYTES:
            with suppress(OSError):
                length = self._written - self._flushed
                os.posix_fadvise(self._file.fileno(), self._flushed, length, os.POSIX_FADV_DONTNEED)
            self._flushed = self._written

    def _discard(self) -> None:
        try:
            with self._tree.folder(self._parts[:-1]) as folder:
                if self._named and is_same(folder, self._parts[-1], self._file.fileno()):
                    os.unlink(self._parts[-1], dir_fd=folder)  # commit() was interrupted after it gave the name
                with suppress(FileNotFoundError):
                    os.unlink(self._partial, dir_fd=folder)
        except FileNotFoundError:
            return
        self._tree.prune(self._parts[:-1])


def _info(path: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        path=path, size_bytes=status.st_size, modified=datetime.fromtimestamp(status.st_mtime_ns / 1e9, tz=UTC)
    )
