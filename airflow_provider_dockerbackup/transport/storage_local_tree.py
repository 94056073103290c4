# SPDX-License-Identifier: Apache-2.0
"""A tree of folders on a mounted file system: walked without following links, made durable, locked.

Everything here raises ``OSError`` as the system gives it, except for a root that cannot be reached.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Final

from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.storage_path import joined

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF})  # CIFS and some of FUSE
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRUSTED_LOCKS: Final = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "overlay", "f2fs", "bcachefs", "jfs"}
)
# A link and the unlink after it survive a power cut in this order, without a sync between them.
_ORDERED: Final = _TRUSTED_LOCKS - {"ext2", "ramfs"}


class FolderTree:
    """The folders below ``root``.

    :param root: may be a symbolic link; nothing below it may.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def folder(self, parts: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """Open the folder ``parts`` below the root, without following links, and lend its descriptor.

        :raises OSError: as the system gives it.
        """
        descriptor = self._open_root(create=create)
        try:
            for part in parts:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=descriptor)
                below = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def sync(self, parts: tuple[str, ...]) -> None:
        """Make the names from the folder ``parts`` up to the root durable.

        All of them each time: another writer may have created one and not synced it yet, and a folder that is clean
        costs next to nothing.

        :raises OSError: as the system gives it.
        """
        with ExitStack() as opened:
            folders = [opened.enter_context(self.folder(()))]
            for part in parts:
                folders.append(os.open(part, _FOLDER, dir_fd=folders[-1]))
                opened.callback(os.close, folders[-1])
            for descriptor in reversed(folders):
                sync_folder(descriptor)
        with suppress(PermissionError):
            above = os.open(self.root.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sync_folder(above)
            finally:
                os.close(above)

    @cached_property
    def keeps_order(self) -> bool:
        """Whether changes of names survive a power cut in the order in which they were made, if at all."""
        return file_system(self.root) in _ORDERED

    def prune(self, parts: tuple[str, ...]) -> None:
        """Remove the folder ``parts`` and those above it as far as they are empty; whoever needs one makes it anew."""
        for depth in range(len(parts), 0, -1):
            try:
                with self.folder(parts[: depth - 1]) as above:
                    os.rmdir(parts[depth - 1], dir_fd=above)
            except OSError:
                return

    def entries(self, below: tuple[str, ...]) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield every file below the folder ``below`` with its path; what vanishes meanwhile is passed over.

        A symbolic link raises: whoever relies on the list being whole must not overlook what is behind it.
        """
        try:
            with self.folder(below) as folder:
                yield from self._walk(folder, below)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            if not self._is_file(below):
                raise

    def _walk(self, folder: int, parts: tuple[str, ...]) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield the files below an open folder; each folder is opened from the one above it, not from the root."""
        below = []
        with os.scandir(folder) as entries:
            for entry in entries:
                path = joined((*parts, entry.name))
                if entry.is_symlink():
                    raise OSError(errno.ELOOP, "there is a symbolic link", path)
                if entry.is_file(follow_symlinks=False):
                    yield path, entry
                elif entry.is_dir(follow_symlinks=False) and path != "lost+found":  # the file system's own
                    below.append(entry.name)
        for name in below:
            try:
                descriptor = os.open(name, _FOLDER, dir_fd=folder)
            except FileNotFoundError:
                continue
            try:
                yield from self._walk(descriptor, (*parts, name))
            finally:
                os.close(descriptor)

    def _is_file(self, parts: tuple[str, ...]) -> bool:
        with self.folder(parts[:-1]) as folder:
            return stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode)

    def is_dead(self, descriptor: int, lock: int, older_than_seconds: float) -> bool:
        """Tell whether the writer of an open file is gone: its lock can be taken, and is, by ``lock``.

        Where locks do not reach every writer (a network file system), its last write must be older than
        ``older_than_seconds`` as well, by the file system's own clock; where there are none, that alone decides.

        :param lock: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.
        """
        try:
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as err:
            if err.errno not in _NO_LOCKS:
                raise
        else:
            if file_system(self.root) in _TRUSTED_LOCKS:
                return True
        return self.now() - os.fstat(descriptor).st_mtime > older_than_seconds

    def now(self) -> float:
        """Return the file system's own time, as it stamps a file written this moment."""
        with self.folder(()) as root:
            name = f".clock.{secrets.token_hex(8)}.partial"
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root)
            try:
                os.write(descriptor, b"0")
                os.fsync(descriptor)
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=root)

    def _open_root(self, *, create: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if create:
            with suppress(FileExistsError):
                try:
                    self.root.mkdir(mode=0o700)
                except FileNotFoundError as err:
                    raise self._no_root() from err
        try:
            return os.open(self.root, flags)
        except NotADirectoryError as err:
            raise ConfigurationError(f"{self.root} is not a folder; give the repository a folder of its own") from err
        except FileNotFoundError as err:
            if self.root.absolute().parent.is_dir():
                raise
            raise self._no_root() from err

    def _no_root(self) -> ConfigurationError:
        return ConfigurationError(
            f"repository folder {self.root} cannot be reached: {self.root.absolute().parent} does not exist; "
            "create that folder, or mount the disk it belongs to"
        )


def lock_writer(file: FileIO) -> None:
    """Take the writer's lock; where there are none, the age of the file must do."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            file.close()
            raise


def is_same(folder: int, name: str, descriptor: int) -> bool:
    """Tell whether ``name`` in the folder ``folder`` is the file open as ``descriptor``."""
    try:
        named = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def sync_folder(descriptor: int) -> None:
    """Make the names in an open folder durable, where the file system knows how."""
    try:
        os.fsync(descriptor)
    except OSError as err:
        if err.errno not in _NO_FOLDER_SYNC:
            raise


def file_system(path: Path) -> str:
    """Return the type of the file system that holds ``path``; empty when it cannot be told."""
    best, kind = "", ""
    here = str(path.resolve())
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields.split(" ")[4])
        if (here == point or here.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, rest.split(" ")[0]
    return kind
