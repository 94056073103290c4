# SPDX-License-Identifier: Apache-2.0
"""Archives in frames: read in any pieces, never more than was announced, and stored only when a frame is the layer."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Collection, Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_dockerbackup.core.archive.compression import Compression, compressor
from airflow_provider_dockerbackup.core.archive.layer_reader import DecompressLimits
from airflow_provider_dockerbackup.core.layers.arrival import Arrival
from airflow_provider_dockerbackup.core.model import Packing
from airflow_provider_dockerbackup.core.record import LayerBlob
from airflow_provider_dockerbackup.exceptions import IntegrityError, TransientError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from airflow_provider_dockerbackup.transport.memory_images import MemoryStream
from tests.core.archive.making import (
    IMAGES,
    Entry,
    compact,
    golden,
    image_config,
    layer,
    oci_archive,
    oci_documents,
    pieces,
    tar_of,
)
from tests.core.layers.frames import FIRST_LINE, Frames, framed, packed, raw, unframed
from tests.core.world import IMAGE, World, assert_all_whole

BODY = hashlib.shake_256(b"body").digest(70_000)
ZSTD, GZIP = Compression.ZSTD, Compression.GZIP


@pytest.mark.parametrize("compression", [ZSTD, GZIP])
@pytest.mark.parametrize("name", IMAGES)
def test_archives_of_real_engines_come_out_as_they_went_in(name: str, compression: Compression) -> None:
    """Whatever the link made of the stream."""
    archive = golden(name)
    stream = framed(archive, compression)
    for size in (len(stream), 65_536, 1000, 7):
        assert unframed(pieces(stream, size)) == archive
    assert unframed(pieces(archive, 1000)) == archive


@given(
    parts=st.lists(st.tuples(st.sampled_from(["raw", "zstd", "gzip"]), st.binary(max_size=300)), max_size=6),
    rest=st.binary(max_size=50),
    cut=st.integers(1, 40),
)
def test_any_frames_are_read_in_any_pieces(parts: list[tuple[str, bytes]], rest: bytes, cut: int) -> None:
    """And the consumer gets exactly the zstd frames."""
    made = [FIRST_LINE, *(raw(body) if kind == "raw" else packed(body, Compression(kind)) for kind, body in parts)]
    frames = Frames()
    assert unframed(pieces(b"".join([*made, b"rest\n", rest]), cut), frames) == b"".join(b for _, b in parts) + rest
    plain = [zstandard.ZstdDecompressor().decompressobj().decompress(frame) for frame, _ in frames.whole if frame]
    wanted = [body for kind, body in parts if kind == "zstd" and body]
    assert [body for body in plain if body] == wanted
    assert [size for _, size in frames.whole] == [len(body) for kind, body in parts if kind == "zstd"]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"raw 5\nabc", "ends early"),
        (b"raw 5\nabcde", "ends early"),
        (b"raw 5", "ends early"),
        (b"", "ends early"),
        (packed(BODY)[:-1], "ends early"),
        (packed(BODY, GZIP)[:-1], "ends early"),
        (packed(BODY, size_bytes=len(BODY) - 1), "holds 70000 bytes or more, it announced 69999"),
        (packed(BODY, size_bytes=len(BODY) + 1), "it announced 70001"),
        (packed(BODY, GZIP, size_bytes=0), "it announced 0"),
        (b"packed 5\nabcde", "neither zstd nor gzip"),
        (packed(BODY)[:40] + b"\xff" * 20 + packed(BODY)[60:], "corrupt"),
        (packed(BODY)[:-2] + b"xx", "corrupt"),
        (b"raw -5\n", "not the beginning of a frame"),
        (b"raw 05\n", "not the beginning of a frame"),
        (b"raw 5 \n", "not the beginning of a frame"),
        (b"raw 99999999999999999999\n", "not the beginning of a frame"),
        (b"cooked 5\n", "not the beginning of a frame"),
        (b"rest", "ends early"),
        (b"x" * 33, "not the beginning of a frame"),
        (b"\n", "not the beginning of a frame"),
    ],
)
@pytest.mark.parametrize("cut", [1 << 20, 1])
def test_what_is_not_as_announced_is_refused(stream: bytes, message: str, cut: int) -> None:
    """Nothing that follows is guessed."""
    with pytest.raises(IntegrityError, match=message):
        unframed(pieces(FIRST_LINE + stream, cut))


def test_a_frame_that_grows_without_end_is_refused() -> None:
    """Before it took all the time of the worker; whatever it announces."""
    endless = compressor(ZSTD)
    bomb = b"".join(endless.compress(bytes(1 << 24)) for _ in range(40)) + endless.flush()
    narrow, wide = DecompressLimits(ratio=200, free_bytes=1 << 20), DecompressLimits(free_bytes=1 << 40)
    cases = ((10 << 30, narrow, "grows to more than 200 times"), (1 << 20, wide, "it announced 1048576"))
    for announced, limits, message in cases:
        seen: list[int] = []
        arrival = Arrival(lambda piece, seen=seen: seen.append(len(piece)), Frames(), limits)  # type: ignore[misc]
        with pytest.raises(IntegrityError, match=message):
            arrival.feed(FIRST_LINE + b"packed %d\n" % announced + bomb)
        assert sum(seen) <= 40 << 20
        assert max(seen) <= 1 << 20


def test_a_frame_that_needs_a_large_window_is_refused() -> None:
    """Other readers of OCI images could not read the blob."""
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=24))
    stream = wide.compressobj()
    for frame in (stream.compress(BODY) + stream.flush(), wide.compress(bytes(9 << 20))):
        for cut in (1 << 30, 7, 1):
            with pytest.raises(IntegrityError, match="a window of"):
                unframed(pieces(FIRST_LINE + b"packed 70000\n" + frame, cut))


@pytest.mark.parametrize("stream", [b"", b"\0", FIRST_LINE[:-1], b"(\xb5/", b"text\n"])
def test_what_has_no_first_line_is_handed_on(stream: bytes) -> None:
    """It is for the scanner to refuse."""
    for cut in (1, 100):
        assert unframed(pieces(stream, cut)) == stream


class FramingHost(MemoryDockerHost):
    """A host that sends layers in frames that a test makes."""

    frame: Callable[[bytes], bytes]

    def save_layers(self, image_id: str, *, without: Collection[str], packing: Packing | None) -> MemoryStream:
        """Stream an image; without frames when asked for nothing."""
        archive = b"".join(self.save_image(image_id))
        if packing is None:
            return MemoryStream(archive)
        self.calls.append("in frames")
        return MemoryStream(self.frame(archive), filtered_by="sh")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[str] = []


def image(*layers: bytes) -> bytes:
    """Return an image as a new engine writes it."""
    config = compact(image_config(list(layers)))
    documents = oci_documents(config, list(layers))
    documents["manifest.json"][0]["RepoTags"] = [IMAGE.name]
    return tar_of(oci_archive(list(layers), documents=documents))


def saved(archive: bytes, frame: Callable[[bytes], bytes]) -> tuple[World, FramingHost, tuple[LayerBlob, ...]]:
    """Back an image up that comes in frames."""
    world = World(layout="layers")
    host = FramingHost(world.host.name)
    host.add_archive(archive)
    host.frame = frame
    blobs = world.backup(1, capture="save", host=host).backup.whole().blobs
    assert blobs is not None
    assert_all_whole(world.repository)
    for each in blobs.layers:
        stored = world.repository.storage.read(f"blobs/sha256/{each.digest[7:]}")
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(stored)
        assert (hashlib.sha256(plain).hexdigest(), len(plain)) == (each.diff_id[7:], each.size_bytes)
        assert len(stored) == each.stored_size_bytes
    return world, host, blobs.layers


def body_of(archive: bytes, member: str) -> tuple[int, int]:
    """Return where a member's body begins and ends."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = tar.getmember(member)
        return found.offset_data, found.offset_data + found.size


LOWER, UPPER = layer("bin/sh", "etc/passwd"), layer("app/one")


@pytest.mark.parametrize("more_bytes", [0, 1, 100, 511, 512])
def test_a_layer_that_comes_compressed_is_stored_as_it_came(more_bytes: int) -> None:
    """Nothing compresses it once more, whatever its length."""
    lower = LOWER + bytes(more_bytes)
    frames = {packed(each).partition(b"\n")[2] for each in (lower, UPPER)}
    world, host, layers = saved(image(lower, UPPER), lambda archive: framed(archive, ZSTD))
    assert (host.calls, [note for note in world.progress.notes if "saving all" in note]) == (["in frames"], [])
    stored = {world.repository.storage.read(f"blobs/sha256/{each.digest[7:]}") for each in layers}
    assert stored == frames


def test_gzip_is_stored_as_zstd() -> None:
    """As OCI readers expect it of the manifest."""
    world, _, layers = saved(image(LOWER, UPPER), lambda archive: framed(archive, GZIP))
    for each in layers:
        assert world.repository.storage.read(f"blobs/sha256/{each.digest[7:]}").startswith(b"\x28\xb5\x2f\xfd")


def whole_archive(archive: bytes) -> bytes:
    """All members in one frame."""
    return FIRST_LINE + packed(archive) + b"rest\n"


def with_the_header(archive: bytes) -> bytes:
    """A frame that begins before the layer does."""
    start, end = body_of(archive, f"blobs/sha256/{hashlib.sha256(LOWER).hexdigest()}")
    parts = raw(archive[: start - 512]), packed(archive[start - 512 : end]), b"rest\n", archive[end:]
    return FIRST_LINE + b"".join(parts)


def with_what_follows(archive: bytes) -> bytes:
    """A frame that ends after the layer does."""
    start, end = body_of(archive, f"blobs/sha256/{hashlib.sha256(LOWER).hexdigest()}")
    return FIRST_LINE + raw(archive[:start]) + packed(archive[start : end + 512]) + b"rest\n" + archive[end + 512 :]


def half_raw(archive: bytes) -> bytes:
    """A layer whose second half alone is in a frame."""
    start, end = body_of(archive, f"blobs/sha256/{hashlib.sha256(LOWER).hexdigest()}")
    return FIRST_LINE + raw(archive[: start + 700]) + packed(archive[start + 700 : end]) + b"rest\n" + archive[end:]


def in_two_frames(archive: bytes) -> bytes:
    """A layer of two frames."""
    start, end = body_of(archive, f"blobs/sha256/{hashlib.sha256(LOWER).hexdigest()}")
    parts = raw(archive[:start]), packed(archive[start : start + 700]), packed(archive[start + 700 : end])
    return FIRST_LINE + b"".join(parts) + b"rest\n" + archive[end:]


def damaged(archive: bytes) -> bytes:
    """A frame that holds other bytes than the layer."""
    start, end = body_of(archive, f"blobs/sha256/{hashlib.sha256(LOWER).hexdigest()}")
    return FIRST_LINE + raw(archive[:start]) + packed(b"x" * (end - start)) + b"rest\n" + archive[end:]


@pytest.mark.parametrize("frame", [whole_archive, with_the_header, with_what_follows, half_raw, in_two_frames, damaged])
def test_a_frame_that_is_not_exactly_a_layer_is_not_stored_as_one(frame: Callable[[bytes], bytes]) -> None:
    """The layer is compressed here, or the image comes once more without frames."""
    saved(image(LOWER, UPPER), frame)


def test_a_layer_that_begins_like_json_is_stored_whole() -> None:
    """Its first bytes are looked at before it is taken for a layer."""
    odd = tar_of([Entry("{", b"x" * 3000)])
    _, host, _ = saved(image(LOWER, odd), lambda archive: framed(archive, ZSTD))
    assert host.calls == ["in frames"]


def test_a_frame_that_begins_within_a_layer_like_json_is_not_stored_as_it() -> None:
    """Such a layer is known as one at its end only; here a frame as long as it holds its last byte and others."""
    odd = tar_of([Entry("{", b"x" * 3000)])
    name = f"blobs/sha256/{hashlib.sha256(odd).hexdigest()}"
    config = compact(image_config([odd]))
    documents = oci_documents(config, [odd])
    documents["manifest.json"][0]["RepoTags"] = [IMAGE.name]
    entries = oci_archive([odd], documents=documents)
    whole = tar_of(sorted(entries, key=lambda entry: entry.name == name)) + bytes(10_240)

    def shifted(archive: bytes) -> bytes:
        start, end = body_of(archive, name)
        last = end - 1 + (end - start)
        return FIRST_LINE + raw(archive[: end - 1]) + packed(archive[end - 1 : last]) + b"rest\n" + archive[last:]

    saved(whole, shifted)


def test_an_empty_frame_before_a_body_is_not_stored_as_it() -> None:
    """It ended where the layer begins."""

    def empty_first(archive: bytes) -> bytes:
        start, _ = body_of(archive, f"blobs/sha256/{hashlib.sha256(LOWER).hexdigest()}")
        return FIRST_LINE + raw(archive[:start]) + packed(b"") + b"rest\n" + archive[start:]

    saved(image(LOWER, UPPER), empty_first)


def test_a_frame_within_the_header_of_another_is_refused() -> None:
    """Fed from there, the library takes it for the whole; but nobody could read what is stored."""
    plain = zstandard.ZstdCompressionParameters.from_level(
        3, write_content_size=False, write_checksum=False, window_log=17
    )
    frame = zstandard.ZstdCompressor(compression_params=plain).compress(LOWER)
    magic = b"\x28\xb5\x2f\xfd"
    assert (frame[:4], frame[4]) == (magic, 0)
    outer, inner = FIRST_LINE + b"packed %d\n" % len(LOWER) + magic + b"\x63", frame
    for cut in ([outer, inner], [outer + inner], list(pieces(outer + inner, 1))):
        with pytest.raises(IntegrityError, match="a dictionary is needed"):
            unframed([*cut, b"rest\n"])


@pytest.mark.parametrize("block", [b"\0\0\0", b"\2\0\0x"])
def test_a_frame_of_empty_blocks_is_refused(block: bytes) -> None:
    """It would be held without end, waiting for the first byte."""
    stream = FIRST_LINE + b"packed 100000\n\x28\xb5\x2f\xfd\0\x50" + block * 100
    with pytest.raises(IntegrityError, match="an empty block that is not the last"):
        unframed([stream])


def test_a_save_that_dies_within_a_compressed_layer_is_told_as_what_it_is() -> None:
    """The host then sends a whole frame of less than it announced, and its exit status last."""
    world = World(layout="layers")
    host = FramingHost(world.host.name)
    host.add_archive(image(LOWER, UPPER))
    start, end = body_of(image(LOWER, UPPER), f"blobs/sha256/{hashlib.sha256(LOWER).hexdigest()}")

    def dying(archive: bytes) -> bytes:
        short = packed(archive[start : end - 700], size_bytes=end - start)
        return FIRST_LINE + raw(archive[:start]) + short + b"raw 0\n"

    class Dying(MemoryStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from super().__iter__()
            raise TransientError("no space left on device")

    def save_layers(image_id: str, *, without: Collection[str], packing: Packing | None) -> MemoryStream:
        host.calls.append("dying")
        return Dying(dying(b"".join(host.save_image(image_id))))

    host.save_layers = save_layers  # type: ignore[method-assign]
    with pytest.raises(TransientError, match="no space left on device"):
        world.backup(1, capture="save", host=host)
    assert host.calls == ["dying"]


def test_not_much_is_read_after_a_body_that_ended_early() -> None:
    """A host that goes on as if nothing were is refused."""
    short = FIRST_LINE + packed(BODY, size_bytes=len(BODY) + 1)
    arrival = Arrival(hashlib.sha256().update, Frames(), DecompressLimits())
    arrival.feed(short + b"raw 5\nabcde")
    assert arrival.archive_bytes == len(BODY)
    with pytest.raises(IntegrityError, match="it announced 70001"):
        arrival.feed(bytes(2 << 20))


def test_an_engine_that_has_layers_compressed_is_not_asked_to_compress() -> None:
    """Its blobs would come compressed twice; if they do, they are stored as what they hold."""
    gzipped = compressor(GZIP)
    stored = gzipped.compress(LOWER) + gzipped.flush()
    config = compact(image_config([LOWER]))
    documents = oci_documents(config, [stored])
    documents["manifest.json"][0]["RepoTags"] = [IMAGE.name]
    archive = tar_of(oci_archive([LOWER], stored=[stored], documents=documents))
    _, _, layers = saved(archive, lambda whole: framed(whole, ZSTD))
    assert layers[0].diff_id == f"sha256:{hashlib.sha256(LOWER).hexdigest()}"
