# SPDX-License-Identifier: Apache-2.0
"""Files being written below a :class:`~airflow_provider_dockerbackup.transport.storage_local.LocalStorage`.

A file is hidden while it is written, made durable, and then given its name with ``link()``, which fails when the name
exists. Its writer holds an exclusive ``flock`` on it from its creation to its end.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
from contextlib import suppress
from io import FileIO
from typing import Final

from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError
from airflow_provider_dockerbackup.transport.storage_errors import local_error
from airflow_provider_dockerbackup.transport.storage_local_tree import FolderTree, is_same, lock_writer
from airflow_provider_dockerbackup.transport.storage_path import joined, object_name, object_parts

_log = logging.getLogger(__name__)

PARTIAL: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.partial", re.DOTALL)
_WRITEBACK_BYTES: Final = 32 * 1024 * 1024
_LONGEST_NAME_IN_PARTIAL: Final = 120
_TRIES: Final = 100


class HiddenFile:
    """One file without a name yet.

    :param folder: parts of the path of the folder it will be in.
    :param stem: what its hidden name tells of it.
    :param what: how messages name it.
    """

    def __init__(self, tree: FolderTree, folder: tuple[str, ...], *, stem: str, what: str) -> None:
        self._tree = tree
        self._folder = folder
        self._what = what
        self._where = f"{tree.root}/{what}"
        self._committed = False
        self._written = 0
        self._flushed = 0
        self._partial = ""
        try:
            self._file = self._begin(os.fsencode(stem)[:_LONGEST_NAME_IN_PARTIAL].decode("utf-8", "ignore"))
        except OSError as err:
            raise local_error(err, doing="write", where=self._where) from err

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

    def name(self, name: str) -> None:
        """Make the file durable, then visible as ``name`` in its folder.

        :raises ConflictError: when the name exists.
        :raises TransientError: when the disk is full or fails.
        """
        self._require_open()
        where = f"{self._tree.root}/{joined((*self._folder, name))}"
        try:
            os.fsync(self._file.fileno())
            with self._tree.folder(self._folder) as folder:
                os.link(self._partial, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
                os.unlink(self._partial, dir_fd=folder)
            self._tree.sync(self._folder)
        except FileExistsError as err:
            raise ConflictError(f"{where} exists already; it was not changed") from err
        except OSError as err:
            raise local_error(err, doing="commit", where=where) from err
        self._committed = True

    def close(self, *, take_back: str = "") -> None:
        """Release the lock; remove the file unless it was committed.

        :param take_back: a name to remove as well when the file was not committed and has that name all the same.
        """
        if self._file.closed:
            return
        try:
            if not self._committed:
                self._discard(take_back)
            self._file.close()
        except OSError as err:
            _log.warning("cannot clean up %s, the next run will: %s", self._where, err)
        finally:
            with suppress(OSError):
                self._file.close()

    def _require_open(self) -> None:
        if self._committed or self._file.closed:
            raise ValueError(f"the writer of {self._what} was committed or closed before")

    def _begin(self, stem: str) -> FileIO:
        for _ in range(_TRIES):
            self._partial = f".{stem}.{secrets.token_hex(8)}.partial"
            try:
                with self._tree.folder(self._folder, create=True) as folder:
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

    def _discard(self, take_back: str) -> None:
        try:
            with self._tree.folder(self._folder) as folder:
                if take_back and is_same(folder, take_back, self._file.fileno()):
                    os.unlink(take_back, dir_fd=folder)
                with suppress(FileNotFoundError):
                    os.unlink(self._partial, dir_fd=folder)
        except FileNotFoundError:
            return
        self._tree.prune(self._folder)


class LocalWriter:
    """One file being written under a name known from the start; made by ``LocalStorage.writer``."""

    def __init__(self, tree: FolderTree, path: str) -> None:
        self._path = path
        *folder, self._name = object_parts(path)
        if PARTIAL.fullmatch(self._name):
            raise ConfigurationError(f"object path {path!r} has the form of an unfinished file; choose another name")
        self._named = False
        self._file = HiddenFile(tree, tuple(folder), stem=self._name, what=path)

    @property
    def path(self) -> str:
        """Path of the object, relative to the storage's root."""
        return self._path

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        :raises TransientError: when the disk is full or fails.
        """
        self._file.write(data)

    def commit(self) -> None:
        """Make the file durable, then visible under its path.

        :raises ConflictError: when the path exists.
        :raises TransientError: when the disk is full or fails.
        """
        self._named = True
        try:
            self._file.name(self._name)
        except ConflictError:
            self._named = False
            raise

    def close(self) -> None:
        """Release the lock; remove the file unless it was committed, also when the commit was interrupted."""
        self._file.close(take_back=self._name if self._named else "")


class LocalStagedWriter:
    """One file being written that gets its name at its end; made by ``LocalStorage.staged``."""

    def __init__(self, tree: FolderTree, folder: str) -> None:
        self._folder = object_parts(folder)
        self._file = HiddenFile(tree, self._folder, stem="staged", what=f"{folder}/?")

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        :raises TransientError: when the disk is full or fails.
        """
        self._file.write(data)

    def commit(self, name: str) -> None:
        """Make the file durable, then visible as ``name`` in its folder.

        :raises ConflictError: when it exists.
        :raises TransientError: when the disk is full or fails.
        """
        if PARTIAL.fullmatch(object_name(name)):
            raise ConfigurationError(f"object name {name!r} has the form of an unfinished file; choose another name")
        self._file.name(name)

    def close(self) -> None:
        """Release the lock; remove the file unless it has its name: others may count on that one already."""
        self._file.close()
