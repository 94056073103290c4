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
import os
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
from airflow_provider_dockerbackup.transport.storage_local_tree import FolderTree, is_same, sync_folder
from airflow_provider_dockerbackup.transport.storage_local_writer import PARTIAL, LocalStagedWriter, LocalWriter
from airflow_provider_dockerbackup.transport.storage_path import object_parts, prefix_parts

CHUNK_BYTES: Final = 1024 * 1024
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

    def staged(self, folder: str) -> LocalStagedWriter:
        """Begin an object of the folder ``folder`` whose name is known only at its end; errors of :meth:`create`."""
        return LocalStagedWriter(self._tree, folder)

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
            if PARTIAL.fullmatch(entry.name):
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

    def move(self, path: str, *, to: str) -> None:
        """Give an object another path by ``link()`` and ``unlink()``; it keeps its time.

        After a power cut it has the old name, the new one, or both; which of these is not waited for.

        :raises ConflictError: when ``to`` exists.
        :raises NotFoundError: when there is no object ``path``.
        """
        old, new = object_parts(path), object_parts(to)
        if PARTIAL.fullmatch(new[-1]):
            raise ConfigurationError(f"object path {to!r} has the form of an unfinished file; choose another name")
        try:
            with self._tree.folder(old[:-1]) as source:
                if not stat_bits.S_ISREG(os.stat(old[-1], dir_fd=source, follow_symlinks=False).st_mode):
                    raise NotFoundError(f"{self._shown(path)} is not there: the name is a folder or a special file")
                self._link(source, old[-1], new)
                if not self._tree.keeps_order:
                    self._tree.sync(new[:-1])
                os.unlink(old[-1], dir_fd=source)
        except FileExistsError as err:
            raise ConflictError(f"{self._shown(to)} exists already; it was not changed") from err
        except OSError as err:
            raise local_error(err, doing="move", where=self._shown(path)) from err
        self._tree.prune(old[:-1])

    def _link(self, source: int, name: str, new: tuple[str, ...]) -> None:
        for turn in range(_TRIES):
            try:
                # Most often the folder is there.
                with self._tree.folder(new[:-1], create=turn > 0) as target:
                    os.link(name, new[-1], src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
                    return
            except FileNotFoundError:
                os.stat(name, dir_fd=source, follow_symlinks=False)  # or another process removed the new folder
        raise OSError(errno.EAGAIN, "other processes keep removing the folder")

    def reap(self, prefix: str, *, older_than_seconds: float) -> tuple[str, ...]:
        """Remove unfinished files below ``prefix`` whose writers are dead, at once, and return their paths.

        Where locks cannot be trusted (a network file system, one without ``flock``), only those whose last write is
        older than ``older_than_seconds`` by that file system's own clock.
        """
        removed: list[str] = []
        for path, entry in self._listed(prefix):
            if not PARTIAL.fullmatch(entry.name):
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


def _info(path: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        path=path, size_bytes=status.st_size, modified=datetime.fromtimestamp(status.st_mtime_ns / 1e9, tz=UTC)
    )
