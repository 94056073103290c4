# SPDX-License-Identifier: Apache-2.0
"""Local disk: crashes, full disks, links, rights, and reapers that race with writers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from airflow_provider_dockerbackup.transport.storage_local_tree import file_system

HOUR = 3600.0
MIB = 1024 * 1024
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")

_WRITER = """
import sys, time
from pathlib import Path
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
root, point = Path(sys.argv[1]), sys.argv[2]
writer = LocalStorage(root).writer("backups/host/archive.tar")
def reached(name):
    if name == point:
        print("reached", flush=True)
        time.sleep(600)
reached("begun")
writer.write(b"x" * 3_000_000)
reached("writing")
writer.commit()
reached("committed")
"""


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """An empty repository folder."""
    return LocalStorage(tmp_path / "repository")


def files(root: Path) -> list[str]:
    """List every file below ``root``, hidden ones included."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


@contextmanager
def writing_process(root: Path, point: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that writes an archive and stops at ``point``; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(root), point], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reached\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def mounted(directory: Path, *options: str) -> Iterator[Path]:
    """A file system of its own at ``directory``."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.mark.parametrize("point", ["begun", "writing"])
def test_next_reap_removes_what_a_killed_writer_left(storage: LocalStorage, tmp_path: Path, point: str) -> None:
    """A writer that dies leaves one hidden file, which goes as soon as somebody looks, however young it is."""
    root = tmp_path / "repository"
    with writing_process(root, point):
        assert storage.reap("", older_than_seconds=-HOUR) == ()
        assert len(files(root)) == 1
    assert list(storage.list("")) == []
    assert len(files(root)) == 1
    assert len(storage.reap("backups", older_than_seconds=HOUR)) == 1
    assert files(root) == []


def test_committed_archive_is_abandoned_when_its_writer_is_killed(storage: LocalStorage, tmp_path: Path) -> None:
    """The lock protects an archive without a record as long as its writer lives, and not longer."""
    with writing_process(tmp_path / "repository", "committed"):
        assert not storage.is_abandoned("backups/host/archive.tar", older_than_seconds=-HOUR)
        assert storage.reap("", older_than_seconds=-HOUR) == ()
    assert storage.is_abandoned("backups/host/archive.tar", older_than_seconds=HOUR)
    assert storage.reap("", older_than_seconds=-HOUR) == ()
    assert storage.stat("backups/host/archive.tar").size_bytes == 3_000_000


def test_object_whose_writer_died_before_it_had_a_name_is_reaped_at_once(storage: LocalStorage, tmp_path: Path) -> None:
    """A writer that dies leaves one hidden file, which goes as soon as its lock is free."""
    writer = storage.staged("blobs/sha256")
    writer.write(b"x" * MIB)
    assert storage.reap("", older_than_seconds=-HOUR) == ()
    (left,) = files(tmp_path / "repository")
    writer.close()
    (tmp_path / "repository" / left).parent.mkdir(parents=True)
    (tmp_path / "repository" / left).write_bytes(b"as after a kill")
    assert list(storage.list("")) == []
    assert storage.reap("blobs", older_than_seconds=HOUR) == (left,)
    assert files(tmp_path / "repository") == []


def test_move_survives_a_folder_that_others_keep_removing(storage: LocalStorage) -> None:
    """Emptied folders go at once; a move that meets that makes its folder anew."""
    for number in range(200):
        storage.create(f"from/{number}", b"x")

    def there_and_back(number: int) -> None:
        storage.move(f"from/{number}", to=f"to/deep/{number}")
        storage.delete(f"to/deep/{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(there_and_back, range(200)))
    assert list(storage.list("")) == []


def test_moved_object_keeps_time_and_lock(storage: LocalStorage) -> None:
    """A move is another name for the same file: its writer goes on protecting it."""
    writer = storage.writer("a")
    try:
        writer.write(b"x")
        writer.commit()
        modified = storage.stat("a").modified
        storage.move("a", to="b/c")
        assert storage.stat("b/c").modified == modified
        assert not storage.is_abandoned("b/c", older_than_seconds=-HOUR)
    finally:
        writer.close()
    assert storage.read("b/c") == b"x"


def test_second_name_left_by_a_crash_inside_commit_is_reaped(storage: LocalStorage, tmp_path: Path) -> None:
    """Between ``link()`` and ``unlink()`` a crash leaves both names; the object stays, the hidden name goes."""
    storage.create("a/archive", b"whole")
    hidden = tmp_path / "repository" / "a" / ".archive.0123456789abcdef.partial"
    hidden.hardlink_to(tmp_path / "repository" / "a" / "archive")
    assert [info.path for info in storage.list("")] == ["a/archive"]
    assert storage.reap("", older_than_seconds=HOUR) == ("a/.archive.0123456789abcdef.partial",)
    assert storage.read("a/archive") == b"whole"


def test_all_writers_succeed_while_reapers_race_with_them(storage: LocalStorage) -> None:
    """A reaper that meets a file between its creation and its lock makes the writer start over, not fail."""
    stop = threading.Event()

    def reap() -> list[str]:
        found: list[str] = []
        while not stop.is_set():
            found += storage.reap("", older_than_seconds=-HOUR)
        return found

    def write(number: int) -> None:
        # Few folders and removals in between: folders vanish and come back under the writers.
        storage.create(f"a/{number % 3}/{number}", b"x" * 1000)
        if number % 2:
            storage.delete(f"a/{number % 3}/{number}")

    with ThreadPoolExecutor(6) as pool:
        reapers = [pool.submit(reap) for _ in range(2)]
        try:
            list(pool.map(write, range(400)))
        finally:
            stop.set()
        for reaper in reapers:
            reaper.result()
    assert len(list(storage.list(""))) == 200
    assert storage.reap("", older_than_seconds=-HOUR) == ()


@needs_root
@pytest.mark.parametrize("large", [True, False], ids=["while writing", "at the first byte"])
def test_full_disk_is_transient_and_leaves_nothing(tmp_path: Path, large: bool) -> None:
    """A full disk fails the task with advice and takes no space with it."""
    with mounted(tmp_path / "small", "-o", "size=8m") as root:
        storage = LocalStorage(root)
        storage.create("before", b"x" * (7 * MIB if not large else 1))
        if not large:
            with (root / "filler").open("wb") as filler, pytest.raises(OSError, match="No space"):
                filler.write(b"x" * 8 * MIB)
        writer = storage.writer("a/archive")
        try:
            with pytest.raises(TransientError, match=r"a/archive: No space left.*free space"):
                writer.write(b"x" * 16 * MIB)
        finally:
            writer.close()
        assert not [name for name in files(root) if name.endswith(".partial") or name.startswith("a")]
        assert storage.read("before", max_bytes=8 * MIB)[:1] == b"x"
        if large:
            storage.create("after", b"y" * 4 * MIB)


@needs_root
def test_read_only_disk_is_a_matter_of_configuration(tmp_path: Path) -> None:
    """Trying again does not help on a disk mounted read-only."""
    with mounted(tmp_path / "readonly", "-o", "ro") as root, pytest.raises(ConfigurationError, match="Read-only"):
        LocalStorage(root).create("a", b"x")


def test_unmounted_disk_is_not_taken_for_an_empty_repository(tmp_path: Path) -> None:
    """When the folder above the repository is missing nothing is written or listed."""
    storage = LocalStorage(tmp_path / "mnt" / "repository")
    for attempt in (lambda: storage.create("a", b"x"), lambda: list(storage.list("")), lambda: storage.read("a")):
        with pytest.raises(ConfigurationError, match="mount the disk"):
            attempt()
    assert not (tmp_path / "mnt").exists()


def test_new_repository_folder_is_made_and_private(storage: LocalStorage, tmp_path: Path) -> None:
    """Backups hold secrets: files 0600, folders 0700, whatever the umask."""
    assert list(storage.list("")) == []
    before = os.umask(0)
    try:
        storage.create("a/b/document", b"x")
    finally:
        os.umask(before)
    root = tmp_path / "repository"
    assert {path.stat().st_mode & 0o777 for path in (root, root / "a", root / "a" / "b")} == {0o700}
    assert (root / "a" / "b" / "document").stat().st_mode & 0o777 == 0o600


def test_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A repository needs a folder."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="not a folder"):
        LocalStorage(tmp_path / "file").create("a", b"x")


def test_links_inside_the_repository_are_not_followed(storage: LocalStorage, tmp_path: Path) -> None:
    """Neither a linked folder nor a linked file leads outside, and a listing does not overlook them silently."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    storage.create("a/document", b"x")
    root = tmp_path / "repository"
    (root / "linked").symlink_to(outside)
    (root / "a" / "file").symlink_to(outside / "secret")
    for attempt in (
        lambda: storage.create("linked/new", b"x"),
        lambda: storage.writer("linked/new"),
        lambda: storage.read("linked/secret"),
        lambda: storage.read("a/file"),
        lambda: storage.delete("linked/secret"),
        lambda: list(storage.list("")),
        lambda: list(storage.list("a")),
        lambda: list(storage.list("linked")),
        lambda: storage.reap("linked", older_than_seconds=-HOUR),
    ):
        with pytest.raises(ConfigurationError, match="symbolic links"):
            attempt()
    with pytest.raises(ConflictError):
        storage.create("a/file", b"x")
    assert files(outside) == ["secret"]


def test_root_may_be_a_link(tmp_path: Path) -> None:
    """Where the whole repository lives is the operator's business."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    LocalStorage(tmp_path / "link").create("a", b"x")
    assert (tmp_path / "real" / "a").read_bytes() == b"x"


def test_special_files_are_not_objects(storage: LocalStorage, tmp_path: Path) -> None:
    """A FIFO does not hang a reader."""
    storage.create("a/document", b"x")
    os.mkfifo(tmp_path / "repository" / "a" / "pipe")
    with pytest.raises(NotFoundError):
        storage.read("a/pipe")
    assert [info.path for info in storage.list("")] == ["a/document"]


def test_emptied_folders_go_with_their_last_object(storage: LocalStorage, tmp_path: Path) -> None:
    """Rotation leaves no skeleton of empty folders, and keeps those with something in them."""
    storage.create("a/b/c/1", b"x")
    storage.create("a/2", b"x")
    storage.delete("a/b/c/1")
    assert [path.name for path in (tmp_path / "repository" / "a").iterdir()] == ["2"]
    storage.delete("a/2")
    assert list((tmp_path / "repository").iterdir()) == []


def test_object_changed_behind_our_back_is_noticed_while_reading(storage: LocalStorage, tmp_path: Path) -> None:
    """A file that shrinks while it is read is no whole object."""
    storage.create("a", b"x" * 3 * MIB)
    with storage.chunks("a") as chunks:
        next(chunks)
        os.truncate(tmp_path / "repository" / "a", 2 * MIB)
        with pytest.raises(IntegrityError, match=r"ended \d+ bytes early"):
            list(chunks)


def test_name_of_an_unfinished_file_is_refused(storage: LocalStorage) -> None:
    """An object that would be hidden from listings cannot be made."""
    with pytest.raises(ConfigurationError, match="unfinished"):
        storage.create("a/.b.0123456789abcdef.partial", b"x")


def test_closing_after_an_interrupted_commit_removes_the_name(storage: LocalStorage, tmp_path: Path) -> None:
    """When the folders cannot be synced, commit fails, and then nothing may stay visible."""
    writer = storage.writer("a/archive")
    writer.write(b"x")
    (tmp_path / "repository" / "a" / "archive").mkdir()
    with pytest.raises(ConflictError):
        writer.commit()
    writer.close()
    assert files(tmp_path / "repository") == []


def test_locks_of_network_file_systems_are_not_trusted(tmp_path: Path) -> None:
    """Only file systems whose locks reach every writer on the machine let a reaper act at once."""
    assert file_system(tmp_path) != ""
    assert file_system(Path("/proc/self")) == "proc"
