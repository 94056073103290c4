# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import Attempt, BackupKey, reap
from airflow_provider_dockerbackup.core.capture import BackupOutcome
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import ConflictError, IntegrityError
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from airflow_provider_dockerbackup.transport.storage_local import LocalStorage
from tests.core.faults import FaultyStorage, Plan
from tests.core.faulty_docker import FaultyHost
from tests.core.world import (
    BEGIN,
    CONTAINER,
    IMAGE,
    World,
    assert_all_whole,
    assert_nothing_left,
    bury,
    contents,
    paths,
    spoil,
)

SOURCES = pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=str)
RACERS = 8


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty storage, with locks or without."""
    return LocalStorage(tmp_path / "repository") if request.param == "local" else MemoryStorage()


@SOURCES
def test_a_backup_is_committed_whole_with_exactly_its_files(storage: Storage, source: Source) -> None:
    """The happy path: one record, its archive and document, two events, nothing else."""
    world = World(storage=storage)
    outcome = world.backup(1, source)
    assert outcome.status == "committed"
    assert [each.backup_id for each in assert_all_whole(world.repository)] == [world.key(1, source).backup_id]
    assert_nothing_left(world.repository)
    assert len(paths(storage, prefix="audit")) == 2
    assert [note for note in world.progress.notes if "was paused for" not in note] == []
    assert world.progress.open == 0


@SOURCES
def test_the_same_work_done_again_returns_the_backup_that_stands(storage: Storage, source: Source) -> None:
    """A cleared task commits nothing new and asks the host for no bytes."""
    world = World(storage=storage)
    first = world.backup(1, source)
    before = contents(storage, "backups")
    host = FaultyHost(world.host)
    again = world.backup(1, source, host=host)
    assert again.status == "already"
    assert again.backup.backup_id == first.backup.backup_id
    assert host.streams == []
    assert contents(storage, "backups") == before


@SOURCES
def test_of_two_interleaved_tries_the_first_to_commit_wins_and_the_other_withdraws(
    storage: Storage, source: Source
) -> None:
    """A second try that starts and ends while the first one streams wins; the first leaves no file and reports it."""
    world = World(storage=storage)
    inner: list[BackupOutcome] = []

    def meanwhile(call: str) -> None:
        if call in {"save_image", "export_container"}:
            inner.append(world.backup(1, source, consistency="none"))

    host = FaultyHost(world.host, meanwhile=meanwhile)
    outer = world.backup(1, source, host=host, consistency="none")
    (winner,) = inner
    assert (winner.status, outer.status) == ("committed", "already")
    assert outer.backup.whole().attempt == winner.backup.whole().attempt
    assert len(assert_all_whole(world.repository)) == 1
    assert_nothing_left(world.repository)
    assert any("another try committed" in note for note in world.progress.notes)


@SOURCES
def test_of_eight_tries_at_once_exactly_one_commits(storage: Storage, source: Source) -> None:
    """Threads that do the same work at the same time make one backup, harm none and leave nothing."""
    world = World(storage=storage)
    repository, barrier = world.repository, threading.Barrier(RACERS)

    def race(_: int) -> str:
        # Each with a host of its own: the race is about the repository.
        host = World().host
        barrier.wait()
        return world.backup(1, source, repository=repository, host=host).status

    with ThreadPoolExecutor(RACERS) as pool:
        statuses = sorted(pool.map(race, range(RACERS)))
    assert statuses == ["already"] * (RACERS - 1) + ["committed"]
    assert len(assert_all_whole(repository)) == 1
    assert_nothing_left(repository)


@SOURCES
def test_of_eight_runs_of_one_source_at_once_all_commit(storage: Storage, source: Source) -> None:
    """Different runs of one source do not reap, block or spoil each other's work."""
    world = World(storage=storage)
    repository, barrier = world.repository, threading.Barrier(RACERS)

    def race(run: int) -> str:
        host = World().host
        barrier.wait()
        return world.backup(run, source, repository=repository, host=host).status

    with ThreadPoolExecutor(RACERS) as pool:
        assert set(pool.map(race, range(RACERS))) == {"committed"}
    assert len(assert_all_whole(repository)) == RACERS
    assert_nothing_left(repository)


@SOURCES
def test_another_run_does_not_reap_what_a_live_try_has_written(storage: Storage, source: Source) -> None:
    """A try that streams for hours finds its files again, the small document beside the archive included."""
    world = World(storage=storage)
    others: list[str] = []

    def meanwhile(call: str) -> None:
        if call in {"save_image", "export_temporary"} and not others:
            others.append(world.backup(2, source).status)

    outcome = world.backup(1, source, host=FaultyHost(world.host, meanwhile=meanwhile))
    assert (outcome.status, others) == ("committed", ["committed"])
    assert len(assert_all_whole(world.repository)) == 2
    assert_nothing_left(world.repository)


def _key(world: World) -> BackupKey:
    return world.key(1, IMAGE)


def test_a_live_try_keeps_its_published_archive_until_it_lets_go(storage: Storage) -> None:
    """Between publishing the archive and creating the record nobody takes the archive away."""
    world = World(storage=storage)
    repository = world.repository
    with Attempt(repository, _key(world), progress=world.progress) as attempt:
        sink = attempt.archive("image", compression=Compression.GZIP, level=None)
        sink.write(b"bytes")
        assert reap(repository, IMAGE) == ()
        published = sink.publish(content_digest="sha256:x")
        attempt.document("container", b"{}")
        assert reap(repository, IMAGE) == ()
        assert len(paths(storage)) == 2
        assert published.stored_size_bytes == storage.stat(_key(world).path + published.name).size_bytes
    assert paths(storage) == set()


def test_what_a_dead_try_left_is_reaped_and_named(storage: Storage) -> None:
    """Unfinished and published files of a try whose process is gone are removed by the next run of the source."""
    world = World(storage=storage)
    repository, plan = world.repository, Plan()
    attempt = Attempt(world.on(FaultyStorage(storage, plan)), _key(world), progress=world.progress)
    sink = attempt.archive("image", compression=Compression.NONE, level=None)
    sink.write(b"bytes")
    sink.publish(content_digest="sha256:x")
    attempt.document("container", b"{}")
    attempt.archive("rootfs", compression=Compression.NONE, level=None).write(b"half")
    left = paths(storage)
    assert len(left) == 2
    plan.dead = True
    del attempt, sink
    bury()
    reaped = reap(repository, IMAGE)
    assert left <= set(reaped)
    assert len(reaped) == 3
    assert paths(storage) == set()
    root = Path(storage.url.removeprefix("file://"))
    assert [each for each in root.rglob("*") if each.is_file() and each.name != "repository.json"] == []


def test_files_beside_an_unreadable_record_are_never_reaped(storage: Storage) -> None:
    """Which files an unreadable record names nobody knows, so all of them stay."""
    world = World(storage=storage)
    made = world.backup(1).backup
    storage.create(f"{made.path}image-0123456789ab.tar", b"whose?")
    spoil(storage, f"{made.path}backup.json", data=b"{")
    before = contents(storage, "backups")
    assert reap(world.repository, IMAGE) == ()
    assert contents(storage, "backups") == before


def test_files_of_other_sources_are_not_reaped(storage: Storage) -> None:
    """A run cleans up after its own source only."""
    world = World(storage=storage)
    other = world.key(1, CONTAINER).path + "rootfs-0123456789ab.tar"
    storage.create(other, b"left")
    assert reap(world.repository, IMAGE) == ()
    assert reap(world.repository, CONTAINER) == (other,)


def test_a_file_that_vanishes_while_the_dead_are_looked_for_is_no_error() -> None:
    """A loser that withdraws at this very moment does not make another run fail."""
    storage = MemoryStorage()
    world = World(storage=storage)
    path = world.key(1).path + "image-0123456789ab.tar"
    storage.create(path, b"left")

    class Vanishing(FaultyStorage):
        def is_abandoned(self, path: str, *, older_than_seconds: float) -> bool:
            storage.delete(path)
            return super().is_abandoned(path, older_than_seconds=older_than_seconds)

    assert reap(world.on(Vanishing(storage, Plan())), IMAGE) == ()


def test_a_record_that_appears_while_the_dead_are_looked_for_saves_its_files() -> None:
    """A writer that creates its record and lets go between the two looks loses nothing."""
    storage = MemoryStorage()
    world = World(storage=storage)
    made = world.backup(1).backup
    record = storage.read(f"{made.path}backup.json")
    storage.delete(f"{made.path}backup.json")

    class Committing(FaultyStorage):
        def is_abandoned(self, path: str, *, older_than_seconds: float) -> bool:
            if f"{made.path}backup.json" not in paths(storage):
                storage.create(f"{made.path}backup.json", record)
            return super().is_abandoned(path, older_than_seconds=older_than_seconds)

    assert reap(world.on(Committing(storage, Plan())), IMAGE) == ()
    assert len(assert_all_whole(world.repository)) == 1


@SOURCES
def test_a_backup_that_was_deleted_since_is_not_made_again_by_the_same_run(source: Source) -> None:
    """A cleared task does not bring back what rotation removed; it says what to do instead."""
    world = World()
    made = world.backup(1, source).backup
    world.storage.create(f"{made.path}deleted-20260401T000000Z.json", b"{}")
    with pytest.raises(ConflictError, match=rf"{made.backup_id} of .* deleted since; start a new run"):
        world.backup(1, source)


@SOURCES
def test_an_unreadable_record_is_not_reported_as_success(source: Source) -> None:
    """A run whose own record cannot be read does not say 'already'."""
    world = World()
    made = world.backup(1, source).backup
    spoil(world.storage, f"{made.path}backup.json", data=b"{")
    with pytest.raises(IntegrityError, match=rf"{made.backup_id} of ship-1 .* record is unreadable: .*new run"):
        world.backup(1, source)


def test_a_key_is_the_same_for_every_try_and_another_for_any_other_work() -> None:
    """Run, task, map index, host and source make the key; nothing else does."""
    work = ("dag", "run", "task", "-1")
    one = BackupKey.of(IMAGE, run_time=BEGIN, work=work)
    assert one == BackupKey.of(IMAGE, run_time=BEGIN, work=list(work))
    others = [
        BackupKey.of(CONTAINER, run_time=BEGIN, work=work),
        BackupKey.of(IMAGE.model_copy(update={"host": "ship-2"}), run_time=BEGIN, work=work),
        BackupKey.of(IMAGE, run_time=BEGIN, work=("dag", "run", "task", "0")),
        BackupKey.of(IMAGE, run_time=BEGIN, work=("dagrun", "", "task", "-1")),
    ]
    assert len({one.idempotency_key, *(each.idempotency_key for each in others)}) == 5
    assert one.backup_id == f"20260301T060000Z-{one.idempotency_key[:16]}"
