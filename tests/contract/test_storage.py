# SPDX-License-Identifier: Apache-2.0
"""What every storage MUST do, tried on each of them: local disk, S3, any fsspec filesystem, the in-memory twin."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import fsspec
import pytest

from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.probe import probe
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    NotFoundError,
)
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from airflow_provider_dockerbackup.transport.storage import storage_from_url
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from airflow_provider_dockerbackup.transport.storage_object import ObjectStorage

MIB = 1024 * 1024
HOUR = 3600.0
RACERS = 8


@pytest.fixture(params=["local", "s3", "fsspec", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """An empty storage of each kind."""
    if request.param == "local":
        yield LocalStorage(tmp_path / "repository")
    elif request.param == "s3":
        server = request.getfixturevalue("atomic_s3")
        yield storage_from_url(f"s3://{server.bucket}/{uuid4().hex}/a prefix", **server.storage_options)
    elif request.param == "fsspec":
        yield ObjectStorage(fsspec.filesystem("memory"), f"/{uuid4().hex}/root", url="memory://test")
    else:
        yield MemoryStorage()


# Other fsspec filesystems have no atomic creation: they say so, and are for one writer at a time.
for_several_writers = pytest.mark.parametrize("storage", ["local", "s3", "memory"], indirect=True)


def write(storage: Storage, path: str, *pieces: bytes) -> None:
    """Write an object by a writer."""
    writer = storage.writer(path)
    try:
        for piece in pieces:
            writer.write(piece)
        writer.commit()
    finally:
        writer.close()


def stage(storage: Storage, folder: str, name: str, *pieces: bytes) -> None:
    """Write an object that gets its name at its end."""
    writer = storage.staged(folder)
    try:
        for piece in pieces:
            writer.write(piece)
        writer.commit(name)
    finally:
        writer.close()


def paths(storage: Storage, prefix: str = "") -> list[str]:
    """List paths, sorted."""
    return sorted(info.path for info in storage.list(prefix))


def read(storage: Storage, path: str) -> bytes:
    """Read an object through ``chunks``."""
    with storage.chunks(path) as chunks:
        return b"".join(chunks)


def race(action: Callable[[int], None]) -> list[int]:
    """Run ``action`` in eight threads at once and return who was not refused."""
    barrier = Barrier(RACERS)

    def run(number: int) -> int | None:
        barrier.wait()
        try:
            action(number)
        except ConflictError:
            return None
        return number

    with ThreadPoolExecutor(RACERS) as pool:
        return [winner for winner in pool.map(run, range(RACERS)) if winner is not None]


def test_document_reads_back_after_create(storage: Storage) -> None:
    """What was created is there at once, whole, with size and time."""
    storage.create("backups/host/a/backup.json", b'{"a": 1}')
    info = storage.stat("backups/host/a/backup.json")
    assert storage.read("backups/host/a/backup.json") == b'{"a": 1}'
    assert read(storage, "backups/host/a/backup.json") == b'{"a": 1}'
    assert (info.path, info.size_bytes) == ("backups/host/a/backup.json", 8)
    assert info.modified.tzinfo is not None
    assert abs(datetime.now(UTC) - info.modified) < timedelta(seconds=30)
    assert list(storage.list("")) == [info]


def test_second_create_is_refused_and_changes_nothing(storage: Storage) -> None:
    """A document is never replaced."""
    storage.create("a/b", b"first")
    with pytest.raises(ConflictError, match="a/b exists"):
        storage.create("a/b", b"second")
    assert storage.read("a/b") == b"first"


@for_several_writers
def test_one_of_eight_creators_wins_when_they_race(storage: Storage) -> None:
    """Of several callers that create a path at once exactly one succeeds, and its bytes stay."""
    for turn in range(5):
        path = f"race/{turn}"
        winners = race(lambda number, path=path: storage.create(path, b"%d" % number))  # type: ignore[misc]
        assert len(winners) == 1
        assert storage.read(path) == b"%d" % winners[0]


@for_several_writers
@pytest.mark.parametrize("size", [1000, 9 * MIB])
def test_one_of_eight_writers_wins_when_they_race(storage: Storage, size: int) -> None:
    """Of several writers that commit a path at once exactly one succeeds, and its bytes stay."""
    winners = race(lambda number: write(storage, "race/archive", bytes([number]) * size))
    assert len(winners) == 1
    assert read(storage, "race/archive") == bytes(winners) * size
    assert paths(storage) == ["race/archive"]


@pytest.mark.parametrize("size", [0, 1, MIB, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB + 3])
def test_archive_of_any_size_reads_back_in_pieces(storage: Storage, size: int) -> None:
    """A large object comes back as written, in order, in pieces of about 1 MiB."""
    data = (b"0123456789abcdefghijk" * (size // 21 + 1))[:size]
    pieces = [data[at : at + 700_001] for at in range(0, size, 700_001)]
    write(storage, "a/archive.tar", *pieces)
    with storage.chunks("a/archive.tar") as chunks:
        seen = list(chunks)
    assert b"".join(seen) == data
    assert max([len(piece) for piece in seen], default=0) <= 2 * MIB
    assert storage.stat("a/archive.tar").size_bytes == size


def test_writer_takes_memoryviews(storage: Storage) -> None:
    """What a socket fills need not be copied first, and may be filled anew at once."""
    buffer = bytearray(b"first")
    writer = storage.writer("a")
    writer.write(memoryview(buffer))
    buffer[:] = b"other"
    writer.commit()
    writer.close()
    assert storage.read("a") == b"first"


def test_object_is_invisible_before_commit(storage: Storage) -> None:
    """An object that is being written counts for nobody."""
    writer = storage.writer("a/archive")
    writer.write(b"x" * 9 * MIB)
    try:
        assert paths(storage) == []
        with pytest.raises(NotFoundError):
            storage.stat("a/archive")
        with pytest.raises(NotFoundError):
            read(storage, "a/archive")
        writer.commit()
        assert paths(storage) == ["a/archive"]
    finally:
        writer.close()


@pytest.mark.parametrize("size", [0, 5, 20 * MIB])
def test_nothing_is_left_when_writer_is_closed_without_commit(storage: Storage, size: int) -> None:
    """An abort leaves neither an object nor anything for the next run to clean up."""
    writer = storage.writer("a/archive")
    writer.write(b"x" * size)
    writer.close()
    assert paths(storage) == []
    assert storage.reap("", older_than_seconds=-HOUR) == ()
    storage.create("a/archive", b"free")


def test_nothing_becomes_visible_when_writer_is_dropped(storage: Storage) -> None:
    """A writer that nobody closed does not commit what it has when it is garbage-collected."""
    writer = storage.writer("a/archive")
    writer.write(b"x" * 9 * MIB)
    del writer
    gc.collect()
    assert paths(storage) == []


@pytest.mark.parametrize("size", [5, 20 * MIB])
def test_commit_is_refused_when_path_exists(storage: Storage, size: int) -> None:
    """The object that was there stays as it was, and the loser leaves nothing."""
    storage.create("a/archive", b"first")
    with pytest.raises(ConflictError, match="a/archive exists"):
        write(storage, "a/archive", b"x" * size)
    assert storage.read("a/archive") == b"first"
    assert paths(storage) == ["a/archive"]
    assert storage.reap("", older_than_seconds=-HOUR) == ()


def test_close_is_harmless_when_repeated(storage: Storage) -> None:
    """Closing twice, after a commit or without one, changes nothing."""
    committed, aborted = storage.writer("a"), storage.writer("b")
    committed.write(b"1")
    committed.commit()
    for writer in (committed, committed, aborted, aborted):
        writer.close()
    assert paths(storage) == ["a"]


def test_writer_is_of_no_use_after_commit_or_close(storage: Storage) -> None:
    """Bytes written too late are refused, not lost or added."""
    committed, closed = storage.writer("a"), storage.writer("b")
    committed.commit()
    closed.close()
    for writer in (committed, closed):
        with pytest.raises(ValueError, match="committed or closed"):
            writer.write(b"late")
        with pytest.raises(ValueError, match="committed or closed"):
            writer.commit()
    committed.close()
    assert storage.read("a") == b""


def test_list_yields_more_than_a_page(storage: Storage) -> None:
    """A listing is complete however many objects there are: object stores give 1,000 at once."""
    expected = [f"many/{number % 7}/{number:05}" for number in range(1100)]
    with ThreadPoolExecutor(RACERS) as pool:
        list(pool.map(lambda path: storage.create(path, b"x"), expected))
    assert paths(storage) == sorted(expected)
    assert paths(storage, "many/3") == sorted(path for path in expected if path.startswith("many/3/"))


def test_list_of_a_folder_leaves_out_names_that_begin_alike(storage: Storage) -> None:
    """``a`` does not list ``ab``, nor an object that is called ``a``."""
    for path in ("a/1", "a/b/c/2", "ab/3", "c"):
        storage.create(path, b"x")
    assert paths(storage, "a") == paths(storage, "a/") == ["a/1", "a/b/c/2"]
    assert paths(storage, "a/b") == ["a/b/c/2"]
    assert paths(storage, "c") == paths(storage, "nothing/here") == []
    assert paths(storage) == ["a/1", "a/b/c/2", "ab/3", "c"]


@pytest.mark.parametrize(
    "name",
    [
        "100%",
        "a%20b",
        "a b",
        " leading",
        "ü-世界",
        "a+b&c=d",
        "a#b",
        "~",
        ".hidden",
        "a..b",
        "...",
        "x" * 200,
        "a.partial",
        "quote'\"",
        "back\\slash",
        "[glob]*?",
        "a:b@sha256",
    ],
)
def test_odd_names_are_kept(storage: Storage, name: str) -> None:
    """Whatever a path may hold comes back in listings, and nothing else is touched by it."""
    path = f"f {name}/{name}"
    storage.create(path, b"1")
    write(storage, f"{path}-2", b"2")
    assert storage.read(path) == b"1"
    assert paths(storage) == sorted([path, f"{path}-2"])
    assert paths(storage, f"f {name}") == sorted([path, f"{path}-2"])
    assert storage.stat(path).path == path
    storage.delete(path)
    assert paths(storage) == [f"{path}-2"]


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a/.", "a\0b", "y" * 256]
)
def test_paths_that_leave_the_repository_are_refused(storage: Storage, path: str) -> None:
    """Records may come from anywhere; no path in them reaches outside."""
    attempts: list[Callable[[], object]] = [
        lambda: storage.create(path, b"x"),
        lambda: storage.writer(path),
        lambda: storage.read(path),
        lambda: read(storage, path),
        lambda: storage.stat(path),
        lambda: storage.delete(path),
        lambda: storage.is_abandoned(path, older_than_seconds=0),
    ]
    if path not in {"", "a/"}:
        attempts += [lambda: list(storage.list(path)), lambda: storage.reap(path, older_than_seconds=0)]
    for attempt in attempts:
        with pytest.raises(ConfigurationError):
            attempt()


def test_missing_object_is_not_found(storage: Storage) -> None:
    """An object that is not there is said to be so; removing it is no error."""
    storage.create("folder/there", b"x")
    for path in ("nothing", "folder/nothing", "nothing/at/all", "folder"):
        for attempt in (
            lambda path=path: storage.read(path),
            lambda path=path: storage.stat(path),
            lambda path=path: read(storage, path),
            lambda path=path: storage.is_abandoned(path, older_than_seconds=0),
        ):
            with pytest.raises(NotFoundError, match=path):
                attempt()
    storage.delete("nothing/at/all")
    assert paths(storage) == ["folder/there"]


def test_document_larger_than_allowed_is_refused(storage: Storage) -> None:
    """A document that grew out of bounds does not fill the worker's memory."""
    storage.create("a", b"12345")
    assert storage.read("a", max_bytes=5) == b"12345"
    with pytest.raises(IntegrityError, match="has 5 bytes"):
        storage.read("a", max_bytes=4)


def test_name_is_free_again_after_delete(storage: Storage) -> None:
    """Removal is complete: no listing, no reading, and the name can be used."""
    storage.create("a/b", b"1")
    storage.delete("a/b")
    assert paths(storage) == []
    storage.create("a/b", b"2")
    assert storage.read("a/b") == b"2"


def test_reading_may_stop_early(storage: Storage) -> None:
    """Leaving a stream before its end hangs nothing and breaks nothing."""
    write(storage, "a", b"x" * 40 * MIB)
    with storage.chunks("a") as chunks:
        assert next(chunks)[:1] == b"x"
    with suppress(RuntimeError), storage.chunks("a") as chunks:
        next(chunks)
        raise RuntimeError
    assert storage.stat("a").size_bytes == 40 * MIB


def test_reap_leaves_a_live_writer_alone(storage: Storage) -> None:
    """What somebody works on is never removed; the writer commits as if nothing had happened."""
    writer = storage.writer("a/archive")
    try:
        writer.write(b"x" * 20 * MIB)
        assert storage.reap("", older_than_seconds=HOUR) == ()
        assert storage.reap("a", older_than_seconds=HOUR) == ()
        writer.write(b"y")
        writer.commit()
        assert storage.reap("", older_than_seconds=HOUR) == ()
    finally:
        writer.close()
    assert storage.stat("a/archive").size_bytes == 20 * MIB + 1


def test_reap_leaves_committed_objects_alone(storage: Storage) -> None:
    """However old a committed object is, reaping is not about it."""
    storage.create("a/document", b"1")
    write(storage, "a/archive", b"2")
    assert storage.reap("", older_than_seconds=-HOUR) == ()
    assert paths(storage) == ["a/archive", "a/document"]


def test_committed_object_is_not_abandoned_while_its_writer_is_open(storage: Storage) -> None:
    """Between the commit of an archive and its record nobody may take the archive for garbage."""
    writer = storage.writer("a")
    writer.write(b"x")
    writer.commit()
    assert not storage.is_abandoned("a", older_than_seconds=HOUR)
    writer.close()
    assert storage.is_abandoned("a", older_than_seconds=-HOUR)


@pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 70 * MIB + 3])
def test_object_gets_its_name_at_its_end(storage: Storage, size: int) -> None:
    """An object whose name is its digest is written before anybody can know it, and nothing else remains."""
    data = (b"0123456789abcdefghijk" * (size // 21 + 1))[:size]
    stage(storage, "blobs/sha256", "d1", *(data[at : at + 700_001] for at in range(0, size, 700_001)))
    assert read(storage, "blobs/sha256/d1") == data
    assert paths(storage) == ["blobs/sha256/d1"]
    assert storage.reap("", older_than_seconds=-HOUR) == ()


@pytest.mark.parametrize("size", [5, 20 * MIB])
def test_object_is_invisible_before_it_has_its_name(storage: Storage, size: int) -> None:
    """It counts for nobody until it is whole."""
    writer = storage.staged("blobs")
    try:
        writer.write(b"x" * size)
        assert paths(storage) == []
        writer.commit("d1")
        assert paths(storage) == ["blobs/d1"]
    finally:
        writer.close()


@pytest.mark.parametrize("size", [0, 5, 20 * MIB])
def test_nothing_is_left_when_an_object_never_gets_its_name(storage: Storage, size: int) -> None:
    """An abort leaves neither an object nor anything for the next run to clean up."""
    writer = storage.staged("blobs")
    writer.write(b"x" * size)
    writer.close()
    writer.close()
    assert paths(storage) == []
    assert storage.reap("", older_than_seconds=-HOUR) == ()


@pytest.mark.parametrize("size", [5, 20 * MIB])
def test_name_that_is_taken_is_refused_at_the_end(storage: Storage, size: int) -> None:
    """The object that was there stays as it was, and the loser leaves nothing."""
    storage.create("blobs/d1", b"first")
    with pytest.raises(ConflictError, match="blobs/d1 exists"):
        stage(storage, "blobs", "d1", b"x" * size)
    assert storage.read("blobs/d1") == b"first"
    assert paths(storage) == ["blobs/d1"]
    assert storage.reap("", older_than_seconds=-HOUR) == ()


@for_several_writers
@pytest.mark.parametrize("size", [1000, 9 * MIB])
def test_one_of_eight_gets_the_name_when_they_race(storage: Storage, size: int) -> None:
    """Of several writers that want one name at once exactly one gets it, and its bytes stay."""
    winners = race(lambda number: stage(storage, "blobs", "d1", bytes([number]) * size))
    assert len(winners) == 1
    assert read(storage, "blobs/d1") == bytes(winners) * size
    assert paths(storage) == ["blobs/d1"]


def test_reap_leaves_an_object_without_a_name_yet_alone(storage: Storage) -> None:
    """What somebody works on is never removed."""
    writer = storage.staged("blobs")
    try:
        writer.write(b"x" * 20 * MIB)
        assert storage.reap("", older_than_seconds=HOUR) == ()
        assert storage.reap("staging", older_than_seconds=HOUR) == ()
        writer.commit("d1")
    finally:
        writer.close()
    assert storage.stat("blobs/d1").size_bytes == 20 * MIB


def test_writer_without_a_name_is_of_no_use_after_commit_or_close(storage: Storage) -> None:
    """Bytes written too late are refused, not lost or added."""
    committed, closed = storage.staged("a"), storage.staged("b")
    committed.commit("1")
    closed.close()
    for writer in (committed, closed):
        with pytest.raises(ValueError, match="committed or closed"):
            writer.write(b"late")
        with pytest.raises(ValueError, match="committed or closed"):
            writer.commit("2")
    committed.close()
    assert paths(storage) == ["a/1"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "/x", "a\0b"])
def test_name_that_leaves_its_folder_is_refused(storage: Storage, name: str) -> None:
    """A name that comes from outside reaches no other folder."""
    writer = storage.staged("blobs")
    try:
        writer.write(b"x")
        with pytest.raises(ConfigurationError):
            writer.commit(name)
    finally:
        writer.close()
    for path in ("", "../x", "a/", "/x"):
        with pytest.raises(ConfigurationError):
            storage.staged(path)
    assert paths(storage) == []


@pytest.mark.parametrize("size", [0, 5, 70 * MIB + 3])
def test_moved_object_is_whole_under_its_new_path_alone(storage: Storage, size: int) -> None:
    """A move carries every byte, and the old name is free again."""
    data = (b"0123456789abcdefghijk" * (size // 21 + 1))[:size]
    write(storage, "blobs/d1", data)
    storage.create("blobs/d2", b"other")
    storage.move("blobs/d1", to="trash/1/blobs/d1")
    assert read(storage, "trash/1/blobs/d1") == data
    assert paths(storage) == ["blobs/d2", "trash/1/blobs/d1"]
    storage.create("blobs/d1", b"new")
    assert storage.reap("", older_than_seconds=-HOUR) == ()


@pytest.mark.parametrize("size", [5, 20 * MIB])
def test_move_replaces_nothing(storage: Storage, size: int) -> None:
    """When the new path is taken both objects stay as they were."""
    write(storage, "a", b"x" * size)
    storage.create("b", b"second")
    with pytest.raises(ConflictError, match="b exists"):
        storage.move("a", to="b")
    assert storage.stat("a").size_bytes == size
    assert storage.read("b") == b"second"
    assert storage.reap("", older_than_seconds=-HOUR) == ()


def test_move_of_nothing_is_not_found(storage: Storage) -> None:
    """An object that is not there is said to be so, and nothing is made in its place."""
    storage.create("folder/there", b"x")
    for path in ("nothing", "folder/nothing", "nothing/at/all", "folder"):
        with pytest.raises(NotFoundError, match=path):
            storage.move(path, to="new/place")
    for path, to in (("../x", "a"), ("folder/there", "../x"), ("folder/there", "a//b")):
        with pytest.raises(ConfigurationError):
            storage.move(path, to=to)
    assert paths(storage) == ["folder/there"]


@for_several_writers
def test_one_of_eight_movers_wins_when_they_race(storage: Storage) -> None:
    """Of several that move to one path at once exactly one succeeds; the others' objects stay."""
    for number in range(RACERS):
        storage.create(f"from/{number}", b"%d" % number)
    (winner,) = race(lambda number: storage.move(f"from/{number}", to="to/place"))
    assert storage.read("to/place") == b"%d" % winner
    assert paths(storage) == sorted([*(f"from/{number}" for number in range(RACERS) if number != winner), "to/place"])


def test_url_holds_no_credentials(storage: Storage) -> None:
    """A storage's name can be printed."""
    assert "testing" not in storage.url
    assert "@" not in storage.url


def test_probe_finds_a_sound_storage_and_leaves_nothing(storage: Storage) -> None:
    """Every storage passes the probe, which removes what it wrote."""
    report = probe(storage, clock=SystemClock())
    assert [(check.name, check.detail) for check in report.checks if not check.ok] == []
    assert report.ok
    assert report.skew_seconds is not None
    assert abs(report.skew_seconds) < 30
    assert paths(storage) == []
