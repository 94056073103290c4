# SPDX-License-Identifier: Apache-2.0
"""Files of a container's backup, written to a local folder.

The archive is not believed. Contents are first written under numbers into a folder of our own within the destination;
only when all of the archive proved right, they get their names there, each at once and whole. No link of the archive or
of the destination is ever followed on the way.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_dockerbackup.core.archive.tar import MemberKind, shown_name
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.look.files import FileEntry, Selection, read_members, require_container
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.reading import require_readable
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    TransientError,
)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TRY_AGAIN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_WRITTEN = (MemberKind.FILE, MemberKind.SYMLINK)
_NEXT = "next"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What was written.

    :param paths: files and links, relative to the destination.
    :param size_bytes: sum of the sizes of the files.
    :param left_out: devices and pipes that were selected; they are never made.
    """

    paths: tuple[str, ...]
    size_bytes: int
    left_out: tuple[str, ...]


def extract_files(
    repository: Repository,
    backup: Backup,
    destination: Path,
    *,
    patterns: Sequence[str],
    overwrite: bool = False,
    progress: Progress,
) -> Extracted:
    """Write files of a container's backup below a local folder, under the paths they had, and return which.

    Permissions (within the umask) and times of files are kept; owners, setuid, setgid and sticky bits and extended
    attributes are not. Symbolic links are written as they are and not followed.

    :param destination: folder; it is made when its parent is there.
    :param patterns: at least one, see :class:`Selection`.
    :param overwrite: replace files and links that are there; folders are never replaced.
    :raises ConfigurationError: when the backup is one of an image or cannot be decrypted, or the destination cannot be
        written.
    :raises NotFoundError: when a pattern matches nothing, or the archive is gone.
    :raises ConflictError: when a file is there already; nothing was written.
    :raises IntegrityError: when the archive is not the recorded one, or an entry in it cannot be written safely;
        nothing was written.
    """
    require_container(backup)
    if not patterns:
        raise ConfigurationError("name the files to extract; '/' means all of them")
    require_readable(repository, backup)
    selection = Selection(patterns)
    where = f"backup {backup.backup_id} of {backup.source}"
    try:
        with _workspace(destination) as (folder, work):
            chosen = _Contents(work, lambda path: path in selection)
            read_members(repository, backup, chosen.take, progress=progress)
            selection.require_all_matched(where)
            targets = _targets_elsewhere(chosen.entries)
            linked = _Contents(work, targets.__contains__)
            if targets:
                read_members(repository, backup, linked.take, progress=progress)
            numbers = _numbers(chosen, linked, where)
            _check_places(folder, destination, chosen.entries, numbers, overwrite=overwrite)
            _publish(folder, work, chosen.entries, numbers, overwrite=overwrite)
    except OSError as err:
        raise _failed(err, destination) from err
    files = [entry for entry in chosen.entries.values() if entry.path in numbers]
    return Extracted(
        paths=tuple(entry.path for entry in files),
        size_bytes=sum(entry.size_bytes for entry in files),
        left_out=tuple(
            path
            for path, entry in chosen.entries.items()
            if path not in numbers and entry.kind is not MemberKind.DIRECTORY
        ),
    )


@contextmanager
def _workspace(destination: Path) -> Iterator[tuple[int, int]]:
    """Give the destination and an empty folder in it, both opened; what is left in the latter goes at the end."""
    made = not destination.exists()
    if made:
        destination.mkdir()
    folder = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f".dockerbackup-{secrets.token_hex(8)}"
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
        try:
            work = os.open(name, _FOLDER, dir_fd=folder)
            try:
                yield folder, work
            finally:
                for left in os.listdir(work):  # noqa: PTH208 - a descriptor has no Path
                    os.unlink(left, dir_fd=work)
                os.close(work)
        finally:
            os.rmdir(name, dir_fd=folder)
    except BaseException:
        if made:
            with suppress(OSError):  # something is in it: it stays, and the first error counts
                destination.rmdir()
        raise
    finally:
        os.close(folder)


class _Contents:
    """Takes the entries that are wanted, and writes each file and symbolic link into the workspace under a number."""

    def __init__(self, work: int, wanted: Callable[[str], bool]) -> None:
        self.entries: dict[str, FileEntry] = {}
        self.numbers: dict[str, str] = {}
        self._work = work
        self._wanted = wanted

    def take(self, entry: FileEntry) -> _File | None:
        if entry.path == "." or not self._wanted(entry.path):
            return None
        if entry.path in self.entries:
            raise IntegrityError(f"tar member {shown_name(entry.path)}: the path comes twice")
        self.entries[entry.path] = entry
        if entry.kind not in _WRITTEN:
            return None
        number = self.numbers[entry.path] = secrets.token_hex(8)
        if entry.kind is MemberKind.SYMLINK:
            os.symlink(os.fsencode(entry.link_name), number, dir_fd=self._work)
            return None
        return _File(os.open(number, _NEW_FILE, entry.mode & 0o777, dir_fd=self._work), entry.mtime_ns)


class _File:
    """One file being written."""

    def __init__(self, descriptor: int, mtime_ns: int) -> None:
        self._file = os.fdopen(descriptor, "wb")
        self._mtime_ns = mtime_ns

    def data(self, chunk: memoryview) -> None:
        self._file.write(chunk)

    def end(self) -> None:
        self._file.flush()
        with suppress(OSError, OverflowError):  # a time that the file system cannot hold stays that of now
            os.utime(self._file.fileno(), ns=(self._mtime_ns, self._mtime_ns))
        self._file.close()


def _targets_elsewhere(entries: dict[str, FileEntry]) -> frozenset[str]:
    """Return the paths whose content hard links among the entries share, and that are not among them."""
    links = (entry.link_name for entry in entries.values() if entry.kind is MemberKind.HARDLINK)
    return frozenset(target for target in links if target not in entries)


def _numbers(chosen: _Contents, linked: _Contents, where: str) -> dict[str, str]:
    """Return for each path that gets written where its content lies; hard links have that of their targets."""
    numbers = dict(chosen.numbers)
    contents = {**linked.numbers, **chosen.numbers}
    for path, entry in chosen.entries.items():
        if entry.kind is not MemberKind.HARDLINK:
            continue
        target = chosen.entries.get(entry.link_name) or linked.entries.get(entry.link_name)
        if target is None or target.kind in (MemberKind.HARDLINK, MemberKind.DIRECTORY):
            raise IntegrityError(
                f"{where}: {shown_name(path)} is a hard link to {shown_name(entry.link_name)}, which is no file in it"
            )
        if entry.link_name in contents:
            numbers[path] = contents[entry.link_name]
    return numbers


def _check_places(
    folder: int, destination: Path, entries: dict[str, FileEntry], numbers: dict[str, str], *, overwrite: bool
) -> None:
    """Return only if all entries can get their names, before the first of them does."""
    folders = set()
    for path, entry in entries.items():
        parents = _parents(path)
        folders.update(parents)
        if entry.kind is MemberKind.DIRECTORY:
            folders.add(path)
        for parent in parents:
            if parent in entries and entries[parent].kind is not MemberKind.DIRECTORY:
                raise IntegrityError(f"{shown_name(path)} lies below {shown_name(parent)}, which is no folder")
    absent = set()
    for path in sorted(folders, key=lambda each: each.count("/")):
        # Parents come first, and each was seen to be a folder, so no link is followed in looking.
        found = None if _parents(path)[-1:] and _parents(path)[-1] in absent else _mode(folder, path)
        if found is None:
            absent.add(path)
        elif not stat.S_ISDIR(found):
            raise ConflictError(f"{destination}/{path} is no folder (links are not followed); remove it first")
    taken = []
    for path in numbers:
        if _parents(path)[-1:] and _parents(path)[-1] in absent:
            continue
        found = _mode(folder, path)
        if found is not None and (stat.S_ISDIR(found) or not overwrite):
            taken.append(path)
    if taken:
        raise ConflictError(
            f"there already in {destination}: {', '.join(map(shown_name, taken[:5]))}"
            f"{f' and {len(taken) - 5} more' if len(taken) > 5 else ''}; nothing was written. "
            "Extract into an empty folder, or have files replaced (--overwrite; folders never are)"
        )


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _mode(folder: int, path: str) -> int | None:
    try:
        return os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _publish(
    folder: int, work: int, entries: dict[str, FileEntry], numbers: dict[str, str], *, overwrite: bool
) -> None:
    """Give every entry its name."""
    modes = {path: entry.mode & 0o777 | 0o700 for path, entry in entries.items()}
    for path, entry in entries.items():
        if entry.kind is not MemberKind.DIRECTORY and path not in numbers:
            continue
        parent, _, name = path.rpartition("/")
        with _opened(folder, path if entry.kind is MemberKind.DIRECTORY else parent, modes) as place:
            if path not in numbers:
                continue
            if not overwrite:
                os.link(numbers[path], name, src_dir_fd=work, dst_dir_fd=place, follow_symlinks=False)
                continue
            os.link(numbers[path], _NEXT, src_dir_fd=work, dst_dir_fd=work, follow_symlinks=False)
            os.rename(_NEXT, name, src_dir_fd=work, dst_dir_fd=place)
            with suppress(FileNotFoundError):  # it stays when both names were the same file already
                os.unlink(_NEXT, dir_fd=work)


@contextmanager
def _opened(folder: int, path: str, modes: dict[str, int]) -> Iterator[int]:
    """Give a folder below the destination, made where it is missing, reached without following a link."""
    here = os.dup(folder)
    try:
        walked = ""
        for name in path.split("/") if path else ():
            walked = f"{walked}/{name}".lstrip("/")
            with suppress(FileExistsError):
                os.mkdir(name, modes.get(walked, 0o777), dir_fd=here)
            inner = os.open(name, _FOLDER, dir_fd=here)
            os.close(here)
            here = inner
        yield here
    finally:
        os.close(here)


def _failed(err: OSError, destination: Path) -> DockerBackupError:
    """Return what a failed system call means to the reader."""
    if isinstance(err, FileExistsError):
        return ConflictError(f"{destination}: {err.filename2 or err.filename} appeared meanwhile; it was not changed")
    if err.errno in _TRY_AGAIN:
        return TransientError(f"cannot write to {destination}: {err.strerror}; make room, then try again")
    return ConfigurationError(
        f"cannot write to {destination}: {err.strerror or err}; choose a folder that you may write, whose parent is "
        "there, on a file system with hard and symbolic links"
    )
