# SPDX-License-Identifier: Apache-2.0
"""The files of a container's backup: which there are, and what a selection of paths means."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_dockerbackup.core.archive.rootfs import path_in_tree
from airflow_provider_dockerbackup.core.archive.tar import MemberKind, TarLimits, TarMember, TarScanner
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.reading import archive_stream
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError, NotFoundError

_MAX_MEMBERS = 4_000_000
_TYPE_LETTERS = {
    MemberKind.FILE: "-",
    MemberKind.HARDLINK: "h",
    MemberKind.SYMLINK: "l",
    MemberKind.CHARACTER_DEVICE: "c",
    MemberKind.BLOCK_DEVICE: "b",
    MemberKind.DIRECTORY: "d",
    MemberKind.FIFO: "p",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One path of a container's filesystem.

    :param path: without a leading ``/``; ``.`` is the root. Bytes that are no UTF-8 are surrogates.
    :param mode: permission bits with setuid, setgid and sticky bit.
    :param mtime_ns: nanoseconds since 1970.
    :param link_name: target of a symbolic link as written, or path of what a hard link shares its content with.
    """

    path: str
    kind: MemberKind
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    link_name: str

    @classmethod
    def of(cls, member: TarMember) -> FileEntry:
        """Return the entry of a tar's member.

        :raises IntegrityError: when its path, or a hard link's target, could lie outside of the filesystem.
        """
        is_hardlink = member.kind is MemberKind.HARDLINK
        return cls(
            path=path_in_tree(member.name),
            kind=member.kind,
            mode=member.mode & 0o7777,
            uid=member.uid,
            gid=member.gid,
            size_bytes=member.size_bytes,
            mtime_ns=member.mtime_ns,
            link_name=path_in_tree(member.link_name.removeprefix("/")) if is_hardlink else member.link_name,
        )

    @property
    def mode_text(self) -> str:
        """The kind and permissions as ``tar -tv`` prints them: ``-rwsr-xr-x``, ``h`` for a hard link."""
        letters = [letter if self.mode >> (8 - place) & 1 else "-" for place, letter in enumerate("rwxrwxrwx")]
        for bit, place, letter in ((0o4000, 2, "s"), (0o2000, 5, "s"), (0o1000, 8, "t")):
            if self.mode & bit:
                letters[place] = letter if letters[place] == "x" else letter.upper()
        return _TYPE_LETTERS[self.kind] + "".join(letters)


class Selection:
    """Which paths are meant.

    A pattern is a path, with or without a leading ``/``; ``*`` and ``?`` stand for anything but ``/``, ``**`` for
    anything. A folder that matches is meant with all that is in it; ``/`` means everything.

    :param patterns: any of them may match; none means everything.
    :raises ConfigurationError: when one has ``..`` in it.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = {pattern: _compiled(pattern) for pattern in patterns}
        self._unmatched = set(patterns)

    def __contains__(self, path: str) -> bool:
        """Tell whether a path is meant; each pattern that matches is remembered."""
        matching = [pattern for pattern, compiled in self._patterns.items() if compiled.match(path)]
        self._unmatched.difference_update(matching)
        return bool(matching) or not self._patterns

    def require_all_matched(self, where: str) -> None:
        """Return only when every pattern matched a path.

        :raises NotFoundError: naming those that matched none.
        """
        if self._unmatched:
            names = ", ".join(repr(pattern) for pattern in sorted(self._unmatched))
            raise NotFoundError(f"{where} has no file that matches {names}; 'dockerbackup files' shows what is there")


def _compiled(pattern: str) -> re.Pattern[str]:
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ConfigurationError(f"path {pattern!r}: write it without '..'")
    if not parts:
        return re.compile("")
    wild = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    words = (wild.get(word) or re.escape(word) for word in re.split(r"(\*\*|\*|\?)", "/".join(parts)))
    return re.compile(f"(?s:{''.join(words)})(?:/|\\Z)")


class Body(Protocol):
    """What takes the content of one file."""

    def data(self, chunk: memoryview) -> None:
        """Take the next piece; the view is valid only during the call."""

    def end(self) -> None:
        """Take note that the file is over."""


def require_container(backup: Backup) -> None:
    """Return only if the backup is one of a container.

    :raises ConfigurationError: when it is one of an image.
    """
    record = backup.whole()
    if record.filesystem is None:
        raise ConfigurationError(
            f"backup {record.backup_id} is one of image {record.source.name}: files can be taken from backups of "
            "containers only. Restore the image and copy them out of a container made from it"
        )


def read_members(
    repository: Repository, backup: Backup, handler: Callable[[FileEntry], Body | None], *, progress: Progress
) -> None:
    """Read a container's archive to its end and hand out the content of files.

    Returns only after every byte proved to be the recorded one: nothing that was read may be used before.

    :param handler: is told each entry, and returns what takes its content or None.
    :raises ConfigurationError: when it is the backup of an image.
    :raises IntegrityError: when the archive is not the recorded one.
    """
    require_container(backup)
    record = backup.whole()
    scanner = TarScanner(_Dispatcher(handler), limits=TarLimits(members=_MAX_MEMBERS, total_bytes=record.size_bytes))
    progress.start(f"files of {record.backup_id}", record.size_bytes)
    try:
        with archive_stream(repository, backup) as tar:
            for chunk in tar:
                scanner.feed(chunk)
                progress.advance(len(chunk))
        scanner.finish()
    finally:
        progress.finish()


class _Dispatcher:
    def __init__(self, handler: Callable[[FileEntry], Body | None]) -> None:
        self._handler = handler
        self._current: Body | None = None

    def begin(self, member: TarMember) -> None:
        self._current = self._handler(FileEntry.of(member))

    def data(self, chunk: memoryview) -> None:
        if self._current is not None:
            self._current.data(chunk)

    def end(self) -> None:
        if self._current is not None:
            self._current.end()


def list_files(
    repository: Repository, backup: Backup, *, patterns: Sequence[str] = (), progress: Progress
) -> list[FileEntry]:
    """Return the files of a container's backup in the order of the archive; all of it is read and compared.

    :param patterns: see :class:`Selection`.
    :raises NotFoundError: when a pattern matches nothing, or the archive is gone.
    :raises ConfigurationError: when it is the backup of an image, or a pattern has ``..`` in it.
    :raises IntegrityError: when the archive is not the recorded one.
    """
    selection, found = Selection(patterns), []

    def take(entry: FileEntry) -> None:
        if entry.path in selection:
            found.append(entry)

    read_members(repository, backup, take, progress=progress)
    selection.require_all_matched(f"backup {backup.backup_id} of {backup.source}")
    return found
