# SPDX-License-Identifier: Apache-2.0
"""Layers handed on while their archive streams by."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field

import pytest
import zstandard

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.docker_archive import DecompressLimits, DockerArchiveScanner
from airflow_provider_dockerbackup.exceptions import IntegrityError

from .making import IMAGES, blob, entries_of, golden, layer, legacy_archive, oci_archive, pieces, sha256, tar_of

LAYERS = [layer("etc/one"), layer("etc/two")]


@dataclass
class Taken:
    """One member as it was handed on."""

    member: str
    plain: bytes = b""
    ends: list[tuple[str | None, str, int, Compression]] = field(default_factory=list)


class Keeper:
    """A consumer that keeps all it is given."""

    def __init__(self, *, fails: str = "") -> None:
        self.taken: list[Taken] = []
        self._fails = fails

    def begin(self, member: str) -> None:
        """Note the member."""
        assert all(each.ends for each in self.taken)
        self.taken.append(Taken(member))

    def plain(self, piece: memoryview | bytes) -> None:
        """Keep the piece."""
        assert len(piece) > 0
        if self._fails:
            raise IntegrityError(self._fails)
        self.taken[-1].plain += piece

    def end(self, *, diff_id: str | None, digest: str, size_bytes: int, compression: Compression) -> None:
        """Note what is said."""
        self.taken[-1].ends.append((diff_id, digest, size_bytes, compression))


def handed_on(data: bytes, *, piece_bytes: int = 1 << 20) -> list[Taken]:
    """Return what a scan of an archive hands on."""
    keeper = Keeper()
    scanner = DockerArchiveScanner(layers=keeper)
    for piece in pieces(data, piece_bytes):
        scanner.feed(piece)
    scanner.finish()
    return keeper.taken


def stored_as(body: bytes, compression: Compression, plain: bytes) -> list[Taken]:
    """Return what must be handed on for a whole layer."""
    said = (f"sha256:{sha256(plain)}", f"sha256:{sha256(body)}", len(plain), compression)
    return [Taken(blob(body).name, plain, [said])]


@pytest.mark.parametrize("piece_bytes", [1, 3, 511, 1 << 20])
@pytest.mark.parametrize("name", IMAGES)
def test_each_layer_of_a_real_engine_is_handed_on_whole(name: str, piece_bytes: int) -> None:
    """Uncompressed, in order, with its digests, and no document among them."""
    data = golden(name)
    scanner = DockerArchiveScanner()
    scanner.feed(data)
    image = scanner.finish().image
    bodies = {entry.name: entry.body for entry in entries_of(data)}
    taken = {each.member: each for each in handed_on(data, piece_bytes=piece_bytes)}
    assert {each.member for each in image.layers} <= set(taken)
    for each in image.layers:
        stored = bodies[each.member]
        assert taken[each.member].plain == (gzip.decompress(stored) if each.compression == "gzip" else stored)
        assert taken[each.member].ends == [(each.diff_id, each.digest, each.size_bytes, each.compression)]
    assert not any(bodies[each.member].startswith(b"{") for each in taken.values())


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
def test_a_compressed_layer_is_handed_on_decompressed(piece_bytes: int) -> None:
    """Both compressions, larger than a piece of the decompressor."""
    plain = layer("etc/one") + bytes(3 << 20)
    for compression, body in ((Compression.GZIP, gzip.compress(plain)), (Compression.ZSTD, zstandard.compress(plain))):
        data = tar_of(oci_archive([plain], stored=[body]))
        assert handed_on(data, piece_bytes=piece_bytes) == stored_as(body, compression, plain)


@pytest.mark.parametrize("plain", [b"", b"\x1f", b"\x1f\x8b\x08", b"abcd", b"{"])
@pytest.mark.parametrize("piece_bytes", [1, 512])
def test_a_layer_too_short_for_a_mark_is_handed_on_whole(plain: bytes, piece_bytes: int) -> None:
    """The first bytes are held back only until they can be told."""
    taken = handed_on(tar_of(legacy_archive([plain])), piece_bytes=piece_bytes)
    if plain == b"{":
        assert taken == []
    else:
        digest = f"sha256:{sha256(plain)}"
        assert [(each.plain, each.ends) for each in taken] == [
            (plain, [(digest, digest, len(plain), Compression.NONE)])
        ]


def test_a_small_tar_that_begins_with_a_brace_is_a_layer() -> None:
    """A file may be named like the beginning of a JSON document."""
    plain = layer('{"schemaVersion"')
    assert handed_on(tar_of(oci_archive([plain]))) == stored_as(plain, Compression.NONE, plain)


def test_a_layer_that_does_not_decompress_ends_without_a_diff_id() -> None:
    """The consumer learns that what it was given is of no use, whatever becomes of the archive."""
    good = gzip.compress(LAYERS[0], mtime=0)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    for bad in (good[:-1], good[:-9], good + b"x", bytes(flipped)):
        keeper = Keeper()
        scanner = DockerArchiveScanner(layers=keeper)
        scanner.feed(tar_of(oci_archive([LAYERS[0]], stored=[bad])))
        ((diff_id, digest, size_bytes, compression),) = keeper.taken[0].ends
        assert (diff_id, digest) == (None, f"sha256:{sha256(bad)}")
        assert size_bytes == len(keeper.taken[0].plain)
        assert compression is Compression.GZIP


def test_a_member_that_no_engine_can_mean_is_handed_on_before_it_is_refused() -> None:
    """The documents come last; what belongs to no image is known only then."""
    keeper = Keeper()
    scanner = DockerArchiveScanner(layers=keeper)
    stranger = layer("stranger")
    scanner.feed(tar_of([blob(stranger), *oci_archive(LAYERS)]))
    with pytest.raises(IntegrityError, match="belongs to no image"):
        scanner.finish()
    assert [each.plain for each in keeper.taken] == [stranger, *LAYERS]


@pytest.mark.parametrize("body", [LAYERS[0], gzip.compress(LAYERS[0], mtime=0)], ids=["plain", "gzip"])
def test_what_a_consumer_raises_ends_the_scan(body: bytes) -> None:
    """Also when it is the same kind of error as that of a decompressor."""
    scanner = DockerArchiveScanner(layers=Keeper(fails="the disk is full"))
    with pytest.raises(IntegrityError, match="the disk is full"):
        scanner.feed(tar_of(oci_archive([LAYERS[0]], stored=[body])))


def test_a_decompression_bomb_is_not_handed_on_beyond_the_limits() -> None:
    """What the consumer gets is bounded as well."""
    keeper = Keeper()
    limits = DecompressLimits(ratio=10, free_bytes=1 << 20)
    scanner = DockerArchiveScanner(decompress_limits=limits, layers=keeper)
    plain = bytes(64 << 20)
    with pytest.raises(IntegrityError, match="grow to more than 10 times"):
        scanner.feed(tar_of(oci_archive([plain], stored=[gzip.compress(plain)])))
    assert len(keeper.taken[0].plain) <= 2 << 20
    assert keeper.taken[0].ends == []


def test_what_is_said_of_an_archive_is_the_same_with_and_without_a_consumer() -> None:
    """Handing on changes nothing else."""
    data = tar_of(oci_archive(LAYERS, stored=[LAYERS[0], gzip.compress(LAYERS[1])]))
    archives = []
    for consumer in (None, Keeper()):
        scanner = DockerArchiveScanner(layers=consumer)
        scanner.feed(data)
        archives.append(scanner.finish())
    assert archives[0] == archives[1]
