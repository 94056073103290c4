# SPDX-License-Identifier: Apache-2.0
"""Backups by a ``docker save`` from which the host leaves out what is held, or more, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression, compressor
from airflow_provider_dockerbackup.core.archive.layer_reader import DecompressLimits
from airflow_provider_dockerbackup.core.layers.arrival import Arrival
from airflow_provider_dockerbackup.core.record import BlobSet
from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from airflow_provider_dockerbackup.transport.memory_images import MemoryStream, without_members
from tests.core.archive.making import compact, image_config, layer, oci_archive, oci_documents, tar_of
from tests.core.world import IMAGE, World, assert_all_whole


def archive(version: str) -> bytes:
    """Return an image of two layers as a new engine writes it; the lower is the same in every version."""
    plain = [layer("bin/sh", "etc/passwd"), layer(f"app/{version}")]
    config = compact(image_config(plain))
    documents = oci_documents(config, plain)
    documents["manifest.json"][0]["RepoTags"] = [IMAGE.name]
    return tar_of(oci_archive(plain, documents=documents))


class CarelessHost(MemoryDockerHost):
    """A host that leaves out more than it was asked to: a configuration, or whatever else a test names."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.also: tuple[str, ...] = ()
        self.asked: list[tuple[str, ...]] = []
        self.packs = Compression.NONE
        self.loses_bytes = 0
        self.sent_bytes = self.archive_bytes = 0

    def save_image(self, image_id: str, *, without: Collection[str] = ()) -> MemoryStream:
        """Stream an image."""
        self.asked.append(tuple(without))
        if not without:
            return super().save_image(image_id)
        whole = b"".join(super().save_image(image_id))
        packer, rest = compressor(self.packs), without_members(whole, [*without, *self.also])
        sent = packer.compress(rest) + packer.flush()
        self.archive_bytes = len(rest)
        self.sent_bytes = len(sent) - self.loses_bytes
        return MemoryStream(sent[: self.sent_bytes], filtered_by="sh")


def careless_world() -> tuple[World, CarelessHost]:
    """Return a world with one backup of the first image, and its host with the second."""
    world = World(layout="layers")
    host = CarelessHost(world.host.name)
    host.add_archive(archive("one"))
    world.backup(1, capture="save", host=host)
    host.add_archive(archive("two"))
    host.asked.clear()
    return world, host


def blobs_of(world: World, number: int, host: MemoryDockerHost) -> BlobSet:
    """Back up by save and return what the record names."""
    blobs = world.backup(number, capture="save", host=host).backup.whole().blobs
    assert blobs is not None
    return blobs


def test_layers_that_are_held_do_not_come() -> None:
    """The names of exactly these are given to the host, and the reader is told."""
    world, host = careless_world()
    blobs = blobs_of(world, 2, host)
    assert host.asked == [(f"blobs/sha256/{blobs.layers[0].diff_id[7:]}",)]
    assert blobs.received_bytes < len(archive("two")) - blobs.layers[0].size_bytes
    assert "layers that are held were left out of docker save on the host" in world.progress.notes
    assert_all_whole(world.repository)


def test_a_host_without_the_tools_sends_all_and_the_reader_is_told() -> None:
    """Nothing is stored again for that."""
    world, host = careless_world()
    plain = MemoryDockerHost(host.name)
    plain.add_archive(archive("two"))
    plain.filters_by = "none"
    blobs = blobs_of(world, 2, plain)
    assert blobs.received_bytes == len(archive("two"))
    assert any("the host lacks dd or od" in note for note in world.progress.notes)
    assert_all_whole(world.repository)


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_what_the_host_compressed_is_counted_as_it_crossed_the_wire(
    compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive in it is looked at as any other; the reader is told how much of that came."""
    world, host = careless_world()
    host.packs = compression
    moved: list[int] = []
    monkeypatch.setattr(world.progress, "advance", moved.append)
    blobs = blobs_of(world, 2, host)
    assert blobs.received_bytes == host.sent_bytes
    assert sum(moved) == host.archive_bytes
    assert len(host.asked) == 1
    assert_all_whole(world.repository)


@pytest.mark.parametrize("lost_bytes", [1, 4, 200])
def test_a_compressed_archive_without_its_end_is_saved_once_more_whole(lost_bytes: int) -> None:
    """Even when all of the archive is there."""
    world, host = careless_world()
    host.packs, host.loses_bytes = Compression.ZSTD, lost_bytes
    blobs_of(world, 2, host)
    assert [bool(names) for names in host.asked] == [True, False]
    assert any("saving all of it" in note for note in world.progress.notes)
    assert_all_whole(world.repository)


def test_a_compressed_archive_that_grows_without_end_is_refused() -> None:
    """Before it took all the time of the worker; no layer is so small for what it holds."""
    endless = compressor(Compression.ZSTD)
    bomb = b"".join(endless.compress(bytes(1 << 24)) for _ in range(40)) + endless.flush()
    arrival = Arrival(hashlib.sha256().update, DecompressLimits(ratio=200, free_bytes=1 << 20))
    with pytest.raises(IntegrityError, match="grows to more than 200 times"):
        arrival.feed(bomb)


def test_a_stream_of_less_than_four_bytes_is_handed_on() -> None:
    """What is too short for a tar is for the scanner to refuse."""
    pieces: list[bytes] = []
    arrival = Arrival(pieces.append, DecompressLimits())
    for piece in (b"(", b"\xb5", b"/"):
        arrival.feed(piece)
    arrival.finish()
    assert b"".join(pieces) == b"(\xb5/"


@pytest.mark.parametrize("lacking", ["layer", "configuration"])
def test_where_too_much_was_left_out_the_image_is_saved_once_more_whole(lacking: str) -> None:
    """Once, and the reader is told why."""
    world, host = careless_world()
    image = host.inspect_image(IMAGE.name)
    host.also = (f"blobs/sha256/{(image.diff_ids[1] if lacking == 'layer' else image.id)[7:]}",)
    blobs = blobs_of(world, 2, host)
    assert [bool(names) for names in host.asked] == [True, False]
    assert tuple(each.diff_id for each in blobs.layers) == image.diff_ids
    assert any("saving all of it" in note for note in world.progress.notes)
    assert_all_whole(world.repository)


def test_an_image_that_is_damaged_on_the_host_is_refused_also_when_it_comes_whole() -> None:
    """The second stream is looked at as strictly as the first."""
    world, host = careless_world()

    def broken(image_id: str, *, without: Collection[str] = ()) -> MemoryStream:
        host.asked.append(tuple(without))
        whole = b"".join(MemoryDockerHost.save_image(host, image_id))
        return MemoryStream(whole[:-2048], filtered_by="sh" if without else None)

    host.save_image = broken  # type: ignore[method-assign]
    with pytest.raises(IntegrityError):
        world.backup(2, capture="save", host=host)
    assert len(host.asked) == 2
    assert_all_whole(world.repository)
