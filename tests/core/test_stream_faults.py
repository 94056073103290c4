# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import (
    DockerBackupError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport.memory import MemoryStorage
from tests.core.archive.making import BLOCK
from tests.core.faults import Death, FaultyStorage, Plan
from tests.core.faulty_docker import Cutter, FaultyHost, ended_after, flipped_at, in_pieces, lost_after
from tests.core.world import (
    CONTAINER,
    FILESYSTEM,
    IMAGE,
    World,
    app_archive,
    assert_all_whole,
    assert_nothing_left,
    paths,
)

SOURCES = pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["save", "export"])
SIZES = {IMAGE.name: len(app_archive("one")), CONTAINER.name: len(FILESYSTEM)}
LOST = TransientError("docker save of lab/app:1 on ship-1: the link was lost; the task can be tried again")


def _positions(source: Source) -> list[int]:
    """Return places all over a stream: at its ends, around each block, and between."""
    size = SIZES[source.name]
    around = {block + step for block in range(0, size + 1, BLOCK) for step in (-1, 0, 1, 200)}
    return sorted(position for position in around if 0 <= position < size)


def _fails(world: World, source: Source, cutter: Cutter, error: type[BaseException]) -> BaseException:
    """Back up through a faulty stream, require that nothing of it stays, and return the error."""
    host = FaultyHost(world.host, cutter=cutter)
    with pytest.raises(error) as raised:
        world.backup(2, source, host=host, consistency="none")
    assert len(assert_all_whole(world.repository)) == 1
    assert_nothing_left(world.repository)
    assert [stream.closed for stream in host.streams] == [True]
    return raised.value


@SOURCES
def test_a_stream_that_is_lost_anywhere_publishes_nothing(source: Source) -> None:
    """The link breaks after n bytes, for n all over the stream: the error passes on and nothing stays."""
    world = World()
    world.backup(1, source)
    for position in [*_positions(source), SIZES[source.name]]:
        error = _fails(world, source, lost_after(position, LOST), TransientError)
        assert error is LOST
    assert world.backup(2, source).status == "committed"


@SOURCES
def test_a_stream_that_ends_early_with_a_clean_end_publishes_nothing(source: Source) -> None:
    """A tar that is cut anywhere is not taken for a whole one, although the command said it succeeded."""
    world = World()
    world.backup(1, source)
    for position in _positions(source):
        _fails(world, source, ended_after(position), IntegrityError)
    assert world.backup(2, source).status == "committed"


def test_a_save_stream_with_a_flipped_bit_publishes_nothing() -> None:
    """An image proves itself: each flipped bit that changes its content is found before anything is published.

    What is no content, such as a time in a header, may pass; what was stored is then what came, and reads back.
    """
    refused = 0
    archive = app_archive("one")
    for position in _positions(IMAGE):
        world = World()
        host = FaultyHost(world.host, cutter=flipped_at(position))
        try:
            world.backup(1, host=host)
        except IntegrityError:
            refused += 1
            assert paths(world.storage) == set()
            continue
        (backup,) = assert_all_whole(world.repository)
        assert world.verify(backup).verification == "passed"
        stored = world.storage.read(backup.path + backup.whole().archive_file.name)
        assert sum(a != b for a, b in zip(stored, archive, strict=True)) == 1
    assert refused > len(_positions(IMAGE)) * 0.9


def test_an_export_stream_with_a_flipped_bit_is_refused_or_stored_as_it_came() -> None:
    """Nothing but the tar's own checks proves an export; what is stored is exactly what was hashed."""
    for position in _positions(CONTAINER):
        world = World()
        try:
            world.backup(1, CONTAINER, host=FaultyHost(world.host, cutter=flipped_at(position)), consistency="none")
        except IntegrityError:
            assert paths(world.storage) == set()
        else:
            assert len(assert_all_whole(world.repository)) == 1


@SOURCES
@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize("piece_bytes", [1, 511, 512, 4096, 1 << 20])
def test_a_backup_does_not_depend_on_how_the_stream_was_cut(
    source: Source, compression: Compression, piece_bytes: int
) -> None:
    """Pieces of any size give the same archive, in every compression."""
    world = World()
    host = FaultyHost(world.host, cutter=in_pieces(piece_bytes))
    cut = world.backup(1, source, host=host, compression=compression, consistency="none").backup
    plain = world.backup(2, source, compression=compression, consistency="none").backup
    assert cut.whole().archive_file.content_digest == plain.whole().archive_file.content_digest
    assert cut.whole().archive_file.size_bytes == SIZES[source.name]
    assert_all_whole(world.repository)


@pytest.mark.parametrize(
    "error", [Death(), KeyboardInterrupt(), ValueError("a bug")], ids=lambda each: type(each).__name__
)
@SOURCES
def test_a_try_that_is_stopped_by_anything_takes_its_files_back(source: Source, error: BaseException) -> None:
    """A timeout of Airflow, an interrupt or a defect of ours ends the try as cleanly as an error does."""
    world = World()
    world.backup(1, source)
    assert _fails(world, source, lost_after(600, error), type(error)) is error
    failed = [
        data for data in map(world.storage.read, paths(world.storage, prefix="audit")) if b"backup.failed" in data
    ]
    assert len(failed) == 1
    assert type(error).__name__.encode() in failed[0]


def test_an_image_that_is_retagged_during_the_save_is_saved_as_it_was_announced() -> None:
    """A tag that moves between inspect and save changes nothing: what was inspected is what is saved."""
    world = World()
    announced = world.host.inspect_image(IMAGE.name)

    def meanwhile(call: str) -> None:
        if call == "save_image":
            world.host.tag_image(announced.id, reference="lab/kept:1")
            world.host.add_archive(app_archive("two"))

    record = world.backup(1, host=FaultyHost(world.host, meanwhile=meanwhile)).backup.whole()
    assert world.host.inspect_image(IMAGE.name).id != announced.id
    assert record.image is not None
    assert record.image.id == announced.id
    assert len(assert_all_whole(world.repository)) == 1


def test_another_image_in_the_stream_than_the_announced_one_is_refused() -> None:
    """A stream that holds a whole image, but not the one asked for, publishes nothing and says what came."""
    world = World()
    announced = world.host.inspect_image(IMAGE.name).id
    with pytest.raises(IntegrityError, match=f"not {announced} that was asked for; was the image replaced"):
        world.backup(1, host=FaultyHost(world.host, cutter=lambda _: iter([app_archive("two")])))
    assert paths(world.storage) == set()


def test_an_image_that_is_deleted_during_the_save_is_not_found() -> None:
    """The image goes between inspect and save: the error names it, and nothing was published."""
    world = World()
    gone = world.host.inspect_image(IMAGE.name).id

    def meanwhile(call: str) -> None:
        if call == "save_image":
            world.host._images.remove(IMAGE.name)  # by force, for a container uses it

    with pytest.raises(NotFoundError, match=gone):
        world.backup(1, host=FaultyHost(world.host, meanwhile=meanwhile))
    assert paths(world.storage) == set()


@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["save", "export"])
def test_a_source_that_is_not_there_is_named(source: Source) -> None:
    """Whoever misspelled a name reads it in the message."""
    world = World()
    missing = source.model_copy(update={"name": "lab/typo:9" if source is IMAGE else "typo"})
    with pytest.raises(NotFoundError, match=missing.name):
        world.backup(1, missing)
    assert paths(world.storage) == set()


def test_a_snapshot_whose_container_cannot_be_created_leaves_no_image() -> None:
    """Commit went well and create failed: the temporary image is removed, the first error is the one that is told."""
    world = World()
    plan = Plan()
    world_host = FaultyHost(world.host, plan)
    world.backup(1, CONTAINER, host=world_host)
    plan = Plan(plan.calls.index("create_container") + 1)
    with pytest.raises(TransientError, match="create_container was refused"):
        world.backup(2, CONTAINER, host=FaultyHost(world.host, plan))
    assert [each.reference for each in world.host.list_images()] == [IMAGE.name]
    assert [each.name for each in world.host.list_containers()] == ["web"]


def test_a_clean_up_that_fails_does_not_hide_why_the_snapshot_failed() -> None:
    """The host stops answering at create: the reader learns that; what stays is noted, and goes with the next run."""
    world = World()
    failed: list[str] = []

    def meanwhile(call: str) -> None:
        if call == "create_container" or (failed and call == "remove_container"):
            failed.append(call)
            raise TransientError(f"ship-1 does not answer to {call}")

    with pytest.raises(TransientError, match="ship-1 does not answer to create_container"):
        world.backup(1, CONTAINER, host=FaultyHost(world.host, meanwhile=meanwhile))
    assert failed == ["create_container", "remove_container"]
    assert any("stays on ship-1 for the next run to remove" in note for note in world.progress.notes)
    assert len(world.host.list_images()) == 2
    world.backup(1, CONTAINER)
    assert len(world.host.list_images()) == 1


def test_a_full_disk_publishes_nothing_and_passes_its_message_on() -> None:
    """The storage fails in the middle of the archive: its message, which names the place, is the one that is raised."""
    inner = MemoryStorage()
    world = World(storage=inner)
    counting = Plan()
    host = FaultyHost(world.host, cutter=in_pieces(1000))
    world.backup(1, repository=world.on(FaultyStorage(inner, counting)), host=host)
    at = [n for n, call in enumerate(counting.calls, 1) if call.startswith("write ")][4]
    with pytest.raises(
        DockerBackupError, match=r"injected: write backups/ship-1/image-lab%2Fapp%3A1/.*\.tar was refused"
    ):
        world.backup(2, repository=world.on(FaultyStorage(inner, Plan(at))), host=host)
    assert len(assert_all_whole(world.repository)) == 1
    assert_nothing_left(world.repository)
