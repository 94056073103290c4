# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.reading import archive_stream, config_digest_of, load_stream, restored_config
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.faults import FaultyStorage, Plan
from tests.core.world import CONTAINER, FILESYSTEM, IMAGE, World, app_archive, spoil

SOURCES = pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
PIECE_BYTES = 700


def _pieces(world: World, backup: Backup) -> Iterator[bytes]:
    repository = world.on(FaultyStorage(world.storage, Plan(), piece_bytes=PIECE_BYTES))
    with archive_stream(repository, backup) as tar:
        yield from tar


@SOURCES
@pytest.mark.parametrize("compression", list(Compression))
def test_an_archive_reads_back_as_it_was_captured(source: Source, compression: Compression) -> None:
    """Whatever it was compressed with, the tar is the one that came."""
    world = World()
    backup = world.backup(1, source, compression=compression).backup
    expected = app_archive("one") if source is IMAGE else FILESYSTEM
    assert b"".join(_pieces(world, backup)) == expected


@SOURCES
@pytest.mark.parametrize("compression", list(Compression))
def test_the_last_piece_of_a_damaged_archive_is_withheld(source: Source, compression: Compression) -> None:
    """For bits all over the file, the last included: the reader gets an error in the place of the last piece."""
    world = World()
    backup = world.backup(1, source, compression=compression).backup
    path, size = backup.path + backup.whole().archive_file.name, backup.whole().archive_file.stored_size_bytes
    whole = list(_pieces(world, backup))
    for position in [*range(0, size, max(1, size // 40)), size - 1]:
        spoil(world.storage, path, position=position)
        got: list[bytes] = []
        with pytest.raises(IntegrityError):
            _read_into(got, _pieces(world, backup))
        assert sum(map(len, got)) <= sum(map(len, whole[:-1])), position
        spoil(world.storage, path, position=position)
    assert list(_pieces(world, backup)) == whole


def _read_into(got: list[bytes], pieces: Iterator[bytes]) -> None:
    """Read to the end, and keep what came also when an error comes instead of it."""
    for piece in pieces:
        got.append(piece)  # noqa: PERF402 - extend() would lose what came before the error


def test_a_damaged_filesystem_is_never_imported_whole() -> None:
    """``import`` gets the same protection as ``load``: no image, no tag."""
    world, target = World(), MemoryDockerHost("ship-2")
    backup = world.backup(1, CONTAINER).backup
    spoil(world.storage, backup.path + backup.whole().archive_file.name, position=len(FILESYSTEM) - 1)
    with pytest.raises(IntegrityError):
        world.restore(backup, RestoreRequest(method="import"), host=target)
    assert target.list_images() == ()


def test_a_missing_archive_is_not_found_by_its_path() -> None:
    """The message names the file."""
    world = World()
    backup = world.backup(1).backup
    world.storage.delete(backup.path + backup.whole().archive_file.name)
    with pytest.raises(NotFoundError, match=backup.whole().archive_file.name):
        list(_pieces(world, backup))


def test_a_load_stream_names_no_tag_but_those_asked_for() -> None:
    """A load takes tags from other images without asking, so recorded ones must not be in the stream."""
    world, target = World(), MemoryDockerHost("ship-2")
    backup = world.backup(1).backup
    with load_stream(world.repository, backup, tags=("lab/asked:1",)) as stream:
        target.load_image(stream)
    assert [each.reference for each in target.list_images()] == ["lab/asked:1"]


def test_the_configuration_of_a_restored_container_is_always_the_same_bytes() -> None:
    """Its digest is the identity that verify and restore compare with."""
    world = World()
    backup = world.backup(1, CONTAINER).backup
    assert restored_config(world.repository, backup) == restored_config(world.repository, world.again(backup))
    with load_stream(world.repository, backup, tags=()) as stream:
        loaded = MemoryDockerHost("ship-2").load_image(stream)
    assert loaded.names == (config_digest_of(world.repository, backup),)


def test_an_image_has_no_filesystem_to_import() -> None:
    """Asking an image's backup for a container's configuration names the backup."""
    world = World()
    backup = world.backup(1).backup
    with pytest.raises(IntegrityError, match=f"{backup.backup_id} of .* holds no filesystem"):
        restored_config(world.repository, backup)
