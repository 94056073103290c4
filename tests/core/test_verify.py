# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.audit.checkpoint import CheckpointRequest, make_checkpoint
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import LoadedImage
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryStorage, MemoryTestDaemon
from airflow_provider_dockerbackup.transport.memory_images import memory_engine
from tests.core.faults import Death, Fault, FaultyStorage, Plan
from tests.core.faulty_docker import FaultyDaemon
from tests.core.world import (
    CONTAINER,
    HOST,
    IMAGE,
    TickingClock,
    World,
    app_archive,
    assert_all_whole,
    assert_nothing_left,
    contents,
    paths,
    spoil,
)

SOURCES = pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
LEVELS = pytest.mark.parametrize("level", ["digests", "load"])
FAULTS = pytest.mark.parametrize("fault", list(Fault))


def _archive(backup: Backup) -> str:
    return backup.path + backup.whole().archive_file.name


def _documents(world: World) -> list[str]:
    return sorted(path for path in paths(world.storage) if "/verification-" in path)


@SOURCES
@LEVELS
@pytest.mark.parametrize("compression", list(Compression))
def test_a_sound_backup_passes(source: Source, level: Any, compression: Compression) -> None:
    """The verification says so beside the record, names what it did, and leaves the daemon empty."""
    world, daemon = World(), MemoryTestDaemon()
    backup = world.backup(1, source, compression=compression).backup
    done = world.verify(backup, level, daemon=daemon)
    assert (done.verification, done.problem, done.level) == ("passed", "", level)
    assert done.bytes_read >= backup.whole().archive_file.size_bytes
    assert world.again(backup).verifications == (done,)
    assert world.again(backup).trust == ("verified" if level == "load" else "checked")
    assert (done.cleanup, done.daemon is None) == (("passed", False) if level == "load" else ("none", True))
    assert (done.restore_seconds is None) == (level == "digests")
    assert daemon.image_ids() == frozenset()
    assert_nothing_left(world.repository)


@SOURCES
@LEVELS
@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("harm", ["flipped", "first", "last", "cut", "longer", "gone", "other"])
def test_a_damaged_archive_fails_with_its_problem(
    source: Source, level: Any, compression: Compression, harm: str
) -> None:
    """Whatever was done to the bytes, the verification is written as failed and names the file."""
    world, daemon = World(), MemoryTestDaemon()
    backup = world.backup(1, source, compression=compression).backup
    path = _archive(backup)
    good = world.storage.read(path)
    harmed = {"cut": good[:-512], "longer": good + bytes(512), "other": bytes(len(good))}
    if harm in harmed:
        spoil(world.storage, path, data=harmed[harm])
    elif harm == "gone":
        world.storage.delete(path)
    else:
        spoil(world.storage, path, position={"flipped": None, "first": 0, "last": len(good) - 1}[harm])
    done = world.verify(backup, level, daemon=daemon)
    assert done.verification == "failed"
    assert done.problem
    assert world.again(backup).trust == "failed"
    assert len(_documents(world)) == 1
    assert daemon.image_ids() == frozenset()
    if harm in {"cut", "longer", "gone"}:
        assert path in done.problem


@SOURCES
def test_every_flipped_bit_of_a_plain_archive_is_found(source: Source) -> None:
    """A bit that changes anywhere in an archive fails the digests; padding included."""
    world = World()
    backup = world.backup(1, source).backup
    size = backup.whole().archive_file.stored_size_bytes
    for position in range(0, size, 173):
        spoil(world.storage, _archive(backup), position=position)
        assert world.verify(backup, "digests").verification == "failed", position
        spoil(world.storage, _archive(backup), position=position)
    assert world.verify(backup, "digests").verification == "passed"


@LEVELS
def test_a_damaged_container_document_fails(level: Any) -> None:
    """The configuration is part of the backup."""
    world = World()
    backup = world.backup(1, CONTAINER).backup
    part = backup.whole().container
    assert part is not None
    spoil(world.storage, backup.path + part.configuration_file.name)
    done = world.verify(backup, level)
    assert done.verification == "failed"
    assert part.configuration_file.name in done.problem


def test_the_event_of_a_verification_names_its_document() -> None:
    """So no checkpoint takes it for one that was never told."""
    clock = TickingClock()
    world = World(storage=MemoryStorage(clock=clock), clock=clock)
    world.verify(world.backup(1).backup)
    clock.advance(timedelta(days=2))
    made = make_checkpoint(world.repository, CheckpointRequest(), progress=world.progress)
    assert (made.made, made.reconciled) == (True, 0)


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_a_damaged_file_of_the_image_layout_fails(name: str) -> None:
    """No restore of ours reads it, but other programs do."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    spoil(world.storage, f"{backup.path}oci-{backup.whole().attempt}/{name}")
    verification = world.verify(backup, "digests")
    assert (verification.verification, name in verification.problem) == ("failed", True)


def test_the_daemon_of_the_source_is_refused_as_test_daemon() -> None:
    """A load into the source's own daemon proves nothing and could harm; nothing is loaded or written."""
    world = World()
    backup = world.backup(1).backup
    daemon = MemoryTestDaemon(engine=memory_engine(HOST))
    with pytest.raises(ConfigurationError, match=rf"is the daemon that backup {backup.backup_id} was taken from"):
        world.verify(backup, daemon=daemon)
    assert _documents(world) == []
    assert daemon.image_ids() == frozenset()


def test_an_unknown_level_is_refused() -> None:
    """The message names field and value."""
    world = World()
    with pytest.raises(ConfigurationError, match="level: expected one of digests, load, run, got 'deep'"):
        world.verify(world.backup(1).backup, "deep")  # type: ignore[arg-type]


def test_layers_that_the_daemon_knows_make_it_checked_only() -> None:
    """A daemon does not read again what it has, so such a load proves only the digests; the reader is told."""
    world, daemon = World(), MemoryTestDaemon(disposable=False)
    backup = world.backup(1).backup
    daemon.load([app_archive("two", tag="lab/mine:1")])  # shares the lower layer
    before = daemon.image_ids()
    done = world.verify(backup, daemon=daemon)
    assert done.verification == "passed"
    assert done.daemon is not None
    assert done.daemon.known_layers == backup.whole().diff_ids[:1]
    assert world.again(backup).trust == "checked"
    assert any("already had 1 of 2 layers" in note for note in world.progress.notes)
    assert daemon.image_ids() == before


def test_an_image_that_the_daemon_had_keeps_its_names() -> None:
    """The very image of the backup may be in use there; only our own name goes."""
    world, daemon = World(), MemoryTestDaemon(disposable=False)
    backup = world.backup(1).backup
    daemon.load([app_archive("one")])
    before = daemon.inspect_image(IMAGE.name)
    assert world.verify(backup, daemon=daemon).cleanup == "passed"
    assert daemon.inspect_image(IMAGE.name) == before


class _Stubborn(FaultyDaemon):
    """A daemon that removes nothing."""

    def remove_image(self, reference: str) -> None:
        raise ConflictError(f"image {reference} is being used")


class _Substituting(FaultyDaemon):
    """A daemon that says it loaded, and holds something else under the name."""

    def load(self, chunks: Iterable[bytes]) -> LoadedImage:
        loaded = super().load(chunks)
        name = loaded.names[0]
        super().load([app_archive("one", tag=name, config={"User": "other"})])
        return loaded


class _NotUnpacking(FaultyDaemon):
    """A daemon that reports a good load although unpacking failed."""

    def create_container(self, image: str, *, name: str) -> str:
        raise IntegrityError(f"failed to unpack {image}")


def test_a_clean_up_that_fails_is_recorded_and_spoils_no_proof() -> None:
    """Loaded and compared is proven; that the daemon could not be cleaned up is a fact of its own."""
    world = World()
    backup = world.backup(1).backup
    done = world.verify(backup, daemon=_Stubborn(MemoryTestDaemon(), Plan()))
    assert (done.verification, done.cleanup) == ("passed", "failed")
    assert world.again(backup).trust == "verified"
    assert any("could not be cleaned up: image dockerbackup-verification:" in note for note in world.progress.notes)


@pytest.mark.parametrize(
    ("daemon", "problem"),
    [(_Substituting, "was loaded with configuration sha256:"), (_NotUnpacking, "failed to unpack")],
)
def test_a_daemon_that_holds_something_else_fails_the_verification(daemon: type[FaultyDaemon], problem: str) -> None:
    """Passed means that what the daemon holds is the recorded image, unpacked."""
    world = World()
    backup = world.backup(1).backup
    done = world.verify(backup, daemon=daemon(MemoryTestDaemon(), Plan()))
    assert done.verification == "failed"
    assert problem in done.problem
    assert world.again(backup).trust == "failed"


def test_trust_goes_from_none_to_checked_to_verified_to_failed_and_back() -> None:
    """Each verification counts in the order of time; digests alone never make up for a failure or a load."""
    world = World()
    backup = world.backup(1).backup
    good = world.storage.read(_archive(backup))
    assert backup.trust == "none"
    world.verify(backup, "digests")
    assert world.again(backup).trust == "checked"
    world.verify(backup, "load")
    assert world.again(backup).trust == "verified"
    world.verify(backup, "digests")
    assert world.again(backup).trust == "verified"
    spoil(world.storage, _archive(backup))
    world.verify(backup, "digests")
    assert world.again(backup).trust == "failed"
    spoil(world.storage, _archive(backup), data=good)
    world.verify(backup, "digests")
    assert world.again(backup).trust == "checked"
    world.verify(backup, "load")
    assert world.again(backup).trust == "verified"


@FAULTS
@SOURCES
@LEVELS
def test_a_fault_says_nothing_about_the_backup(source: Source, level: Any, fault: Fault) -> None:
    """Each call to storage and daemon fails once: the error passes on, no backup is called bad, the next run heals."""
    counting = Plan()
    world = World()
    backup = world.backup(1, source).backup
    daemon = FaultyDaemon(MemoryTestDaemon(), counting)
    world.verify(backup, level, repository=world.on(FaultyStorage(world.storage, counting)), daemon=daemon)
    for at in range(1, len(counting.calls) + 1):
        world, plan, inner = World(), Plan(at, fault), MemoryTestDaemon()
        backup = world.backup(1, source).backup
        good = contents(world.storage, backup.path)
        try:
            repository = world.on(FaultyStorage(world.storage, plan))
            done = world.verify(backup, level, repository=repository, daemon=FaultyDaemon(inner, plan))
            # Only a lost event, and a clean-up that failed and is recorded, let a verification go on.
            assert done.verification == "passed"
            assert world.progress.notes or done.cleanup == "failed"
        except (TransientError, Death):
            pass
        assert {path: world.storage.read(path) for path in good} == good
        assert world.again(backup).trust != "failed"
        assert_all_whole(world.repository)
        assert world.verify(world.again(backup), level).verification == "passed"
        assert_nothing_left(world.repository)
        assert (
            plan.dead or inner.image_ids() == frozenset() or any("cleaned up" in note for note in world.progress.notes)
        )


def test_a_backup_with_an_unreadable_record_is_not_verified() -> None:
    """Nobody can say what its bytes should be; the message names the record."""
    world = World()
    backup = world.backup(1).backup
    spoil(world.storage, f"{backup.path}backup.json", data=b"{")
    with pytest.raises(DockerBackupError, match=r"record of backup .* is unreadable"):
        world.verify(world.again(backup))
    assert _documents(world) == []
