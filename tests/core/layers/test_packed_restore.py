# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression, decompressed, inflater, zstd_frame
from airflow_provider_dockerbackup.core.archive.hybrid import PlainLayer, image_archive
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.model import LoadedImage
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.reading import load_stream
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.exceptions import BadBlobError, IntegrityError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from tests.core.encryption.keys import age_pair
from tests.core.world import CONTAINER, IMAGE, World, app_archive, spoil

TAG = "lab/back:1"
ANNA, BERND = age_pair(), age_pair()


class _Receiving(MemoryDockerHost):
    """A target that notes what loads were given, and whether they were given the end."""

    def __init__(self, *, decompresses: bool = True, refuses: bool = False) -> None:
        super().__init__("target")
        self.decompresses = decompresses
        self.refuses = refuses
        self.streams: list[bytes] = []
        self.ends = 0

    def _noted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        self.streams.append(b"")
        for chunk in chunks:
            self.streams[-1] += chunk
            yield chunk
        self.ends += 1

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Load what was noted; frames not, if it refuses them."""
        pieces = list(self._noted(chunks))
        if self.refuses and Compression.of(pieces[0]) is Compression.ZSTD:
            raise IntegrityError("zstd ended by signal 9")
        return super().load_image(pieces)


def encrypted() -> World:
    """Return a world whose repository is encrypted."""
    return World(layout="layers", recipients=(ANNA.recipient, BERND.recipient), identities=ANNA.identities)


def sent(world: World, backup: Backup, *, packed: bool, without: Iterable[str] = ()) -> bytes:
    """Return what a load would be given."""
    with load_stream(world.repository, backup, tags=(TAG,), without=tuple(without), packed=packed) as stream:
        return b"".join(stream)


@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
@pytest.mark.parametrize("make", [lambda: World(layout="layers"), encrypted], ids=["plain", "encrypted"])
@pytest.mark.parametrize("thin", [False, True], ids=["whole", "thin"])
def test_the_frames_decompress_to_the_very_archive(make: type[World], source: object, *, thin: bool) -> None:
    """Whatever is left out."""
    world = make()
    backup = world.backup(1, source).backup  # type: ignore[arg-type]
    without = backup.whole().diff_ids[:1] if thin else ()
    packed = sent(world, backup, packed=True, without=without)
    plain = sent(world, backup, packed=False, without=without)
    assert b"".join(decompressed([packed], Compression.ZSTD)) == plain
    assert len(packed) < len(plain)


def test_layers_are_sent_in_the_very_blobs_they_are_stored_in() -> None:
    """So nothing is decompressed or compressed on the way."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    target = _Receiving()
    assert world.restore(backup, RestoreRequest(tags=(TAG,)), host=target).identical
    blobs = backup.whole().blobs
    assert blobs is not None
    assert len(target.streams) == 1
    for layer in blobs.layers:
        assert world.storage.read(blob_path(layer.digest)) in target.streams[0]
    assert world.progress.open == 0


def test_a_target_that_does_not_decompress_gets_a_plain_archive() -> None:
    """One that has neither zstd nor a new engine."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    target = _Receiving(decompresses=False)
    assert world.restore(backup, RestoreRequest(tags=(TAG,)), host=target).identical
    assert [Compression.of(each) for each in target.streams] == [Compression.NONE]


def test_layout_archive_is_sent_as_a_plain_archive() -> None:
    """Its file is rewritten on the way, so it cannot stay as it is stored."""
    world = World()
    target = _Receiving()
    assert world.restore(world.backup(1).backup, RestoreRequest(tags=(TAG,)), host=target).identical
    assert [Compression.of(each) for each in target.streams] == [Compression.NONE]


def test_a_target_whose_zstd_fails_gets_a_plain_archive_then() -> None:
    """And readers are told."""
    world = World(layout="layers")
    target = _Receiving(refuses=True)
    assert world.restore(world.backup(1).backup, RestoreRequest(tags=(TAG,)), host=target).identical
    assert [Compression.of(each) for each in target.streams] == [Compression.ZSTD, Compression.NONE]
    assert "target does not take it so; sending all, uncompressed: zstd ended by signal 9" in world.progress.notes
    assert world.progress.open == 0


@pytest.mark.parametrize("make", [lambda: World(layout="layers"), encrypted], ids=["plain", "encrypted"])
@pytest.mark.parametrize("known", [False, True], ids=["whole", "thin"])
def test_a_damaged_blob_is_never_sent_to_its_end(make: type[World], *, known: bool) -> None:
    """Wherever the byte is, and whether its frame still decompresses or not; the target has no image more."""
    world = make()
    backup = world.backup(1).backup
    blobs = backup.whole().blobs
    assert blobs is not None
    path = blob_path(blobs.layers[-1].digest)
    for position in range(blobs.layers[-1].stored_size_bytes):
        spoil(world.storage, path, position=position)
        target = _Receiving()
        if known:
            target.add_archive(app_archive("two"))
        before = target.list_images()
        with pytest.raises(IntegrityError):
            world.restore(backup, RestoreRequest(tags=(TAG,)), host=target)
        assert target.ends == 0, position
        assert target.list_images() == before
        spoil(world.storage, path, position=position)


@pytest.mark.parametrize("cut", ["longer", "shorter", "other", "torn", "torn in pieces"])
def test_frames_that_do_not_hold_their_layer_are_never_sent_to_their_end(cut: str) -> None:
    """The blob has its name and the layer's diff_id is in the record; only what it decompresses to is another thing."""
    body = b"layer " * 50_000
    held = {"longer": body + b"x", "shorter": body[:-1], "other": body[:-1] + b"x"}.get(cut, body)
    frames = zstd_frame(held[:100_000]) + zstd_frame(held[100_000:])
    frames = frames[:-3] if cut.startswith("torn") else frames
    pieces = [frames] if cut == "torn" else [frames[:1000], frames[1000:]]
    layer = PlainLayer(
        diff_id=sha256_of(body),
        size_bytes=len(body),
        chunks=lambda: nullcontext([body]),
        blob=sha256_of(frames),
        frames=lambda: nullcontext(pieces),
    )
    got: list[bytes] = []
    with pytest.raises(BadBlobError) as caught:
        got.extend(image_archive(config=b"{}", layers=[layer], tags=[TAG], packed=True))
    assert caught.value.digest == sha256_of(frames)
    plain = b"".join(_inflated(got))
    assert plain.count(b"layer ") <= 50_000
    assert b"layer x" not in plain
    assert b"index.json" not in plain


def test_what_makes_a_plain_layer_longer_is_never_sent() -> None:
    """Nor is it where the worker decompresses."""
    body = b"layer " * 100
    layer = PlainLayer(
        diff_id=sha256_of(body), size_bytes=len(body), chunks=lambda: nullcontext([body, b"more", b"and more"])
    )
    got: list[bytes] = []
    with pytest.raises(BadBlobError, match="is longer than its recorded 600 bytes"):
        got.extend(image_archive(config=b"{}", layers=[layer], tags=[TAG]))
    assert b"more" not in b"".join(got)


def _inflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress what was sent, however it ends."""
    stream = inflater(Compression.ZSTD)
    for piece in pieces:
        yield from stream.feed(piece)
