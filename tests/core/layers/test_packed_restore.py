# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression, decompressed, inflater, zstd_frame
from airflow_provider_dockerbackup.core.archive.hybrid import (
    PlainLayer,
    image_archive,
    stored_archive,
)
from airflow_provider_dockerbackup.core.archive.load_form import compact_json
from airflow_provider_dockerbackup.core.archive.oci_layout import stored_manifest
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.cover import judge_image
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.layers.reading import Sending
from airflow_provider_dockerbackup.core.model import EngineInfo, LoadedImage, Packing, Store
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.reading import load_stream
from airflow_provider_dockerbackup.core.record import Blob, Source
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.core.rollback_image import candidate_of
from airflow_provider_dockerbackup.exceptions import BadBlobError, IntegrityError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from airflow_provider_dockerbackup.transport.memory_images import memory_engine
from tests.core.encryption.keys import age_pair
from tests.core.layers.framed import framed_layer
from tests.core.world import CONTAINER, IMAGE, World, app_archive, spoil

TAG = "lab/back:1"
ANNA, BERND = age_pair(), age_pair()


class _Receiving(MemoryDockerHost):
    """A target that notes what loads were given, and whether they were given the end."""

    def __init__(self, *, takes: Packing = "frames", refuses: bool = False, engine: EngineInfo | None = None) -> None:
        super().__init__("target", engine=engine)
        self.takes = takes
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


def sent(world: World, backup: Backup, *, packing: Packing, without: Iterable[str] = (), prove: bool = True) -> bytes:
    """Return what a load would be given."""
    sending = Sending(without=frozenset(without), packing=packing, prove=prove)
    with load_stream(world.repository, backup, tags=(TAG,), sending=sending) as stream:
        return b"".join(stream)


@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
@pytest.mark.parametrize("make", [lambda: World(layout="layers"), encrypted], ids=["plain", "encrypted"])
@pytest.mark.parametrize("thin", [False, True], ids=["whole", "thin"])
def test_the_frames_decompress_to_the_very_archive(make: type[World], source: object, *, thin: bool) -> None:
    """Whatever is left out."""
    world = make()
    backup = world.backup(1, source).backup  # type: ignore[arg-type]
    without = backup.whole().diff_ids[:1] if thin else ()
    packed = sent(world, backup, packing="frames", without=without)
    plain = sent(world, backup, packing="none", without=without)
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


@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
@pytest.mark.parametrize("thin", [False, True], ids=["whole", "thin"])
@pytest.mark.parametrize("prove", [True, False])
def test_a_target_that_decompresses_layers_gets_the_blobs_with_the_manifest_that_names_them(
    source: Source, *, thin: bool, prove: bool
) -> None:
    """Each is a member under its own name, and the index names the very manifest of the repository."""
    world = World(layout="layers")
    backup = world.backup(1, source).backup
    record = backup.whole()
    assert record.blobs is not None
    without = record.diff_ids[:1] if thin else ()
    data = sent(world, backup, packing="blobs", without=without, prove=prove)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]
    left = [layer.digest for layer in record.blobs.layers[: len(without)]]
    names = [record.blobs.config.digest, record.blobs.manifest.digest, *(each.digest for each in record.blobs.layers)]
    expected = {blob_path(name): world.storage.read(blob_path(name)) for name in names if name not in left}
    assert {name: data for name, data in members.items() if name.startswith("blobs/")} == expected
    index, (entry,) = json.loads(members["index.json"]), json.loads(members["manifest.json"])
    assert [each["digest"] for each in index["manifests"]] == [record.blobs.manifest.digest]
    assert entry["Layers"] == [blob_path(layer.digest) for layer in record.blobs.layers]
    assert list(members)[-2:] == ["index.json", "manifest.json"]


def test_a_target_that_decompresses_layers_has_the_recorded_image_then() -> None:
    """Told by the digest that names it there."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    target = _Receiving(takes="blobs")
    assert world.restore(backup, RestoreRequest(tags=(TAG,)), host=target).identical
    assert [Compression.of(each) for each in target.streams] == [Compression.NONE]
    blobs = backup.whole().blobs
    assert blobs is not None
    assert all(world.storage.read(blob_path(layer.digest)) in target.streams[0] for layer in blobs.layers)
    assert {blobs.manifest.digest, blobs.config.digest} <= backup.whole().image_ids


def test_an_image_that_is_called_by_the_repositorys_manifest_is_covered_by_its_backup_and_what_a_rollback_brings() -> (
    None
):
    """As a containerd store calls what was restored there."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    record = backup.whole()
    assert record.blobs is not None
    image = replace(world.host.inspect_image(IMAGE.name), id=record.blobs.manifest.digest)
    assert judge_image(record, image) == ""
    assert candidate_of(world.repository, backup, step=None).is_(image, store="graphdriver")
    assert judge_image(record, replace(image, id=sha256_of(b"another"))) is None


def test_an_encrypted_repository_sends_frames_to_a_target_that_decompresses_layers() -> None:
    """Its blobs have the names of what is encrypted."""
    world = encrypted()
    target = _Receiving(takes="blobs")
    backup = world.backup(1).backup
    assert world.restore(backup, RestoreRequest(tags=(TAG,)), host=target).identical
    assert [Compression.of(each) for each in target.streams] == [Compression.ZSTD]
    assert backup.whole().image_ids == {*backup.whole().image.known_ids, backup.whole().image.config_digest}  # type: ignore[union-attr]


@pytest.mark.parametrize("store", ["graphdriver", "containerd"])
@pytest.mark.parametrize("takes", ["frames", "blobs"])
def test_a_layer_that_is_not_in_its_blob_is_found_whoever_compares_it(takes: Packing, store: Store) -> None:
    """A classic engine does it itself, and the worker tells then which blob it is; for the other the worker does it."""
    world = World(layout="layers")
    backup = _with_a_wrong_blob(world)
    target = _Receiving(takes=takes, engine=replace(memory_engine("target"), store=store))
    before = target.list_images()
    with pytest.raises(BadBlobError):
        world.restore(backup, RestoreRequest(tags=(TAG,)), host=target)
    assert target.list_images() == before
    assert target.ends == (1 if store == "graphdriver" else 0)


def _with_a_wrong_blob(world: World) -> Backup:
    """Return a backup whose record, manifest and blobs agree, but one blob holds another layer than the record says."""
    backup = world.backup(1).backup
    record = backup.whole()
    blobs = record.blobs
    assert blobs is not None
    old = blobs.layers[-1]
    plain = b"".join(decompressed([world.storage.read(blob_path(old.digest))], Compression.ZSTD))
    frames = zstd_frame(plain[:-1] + b"x")
    layers = (
        *blobs.layers[:-1],
        old.model_copy(update={"digest": sha256_of(frames), "stored_size_bytes": len(frames)}),
    )
    config = world.storage.read(blob_path(blobs.config.digest))
    manifest = stored_manifest(config, [(each.digest, each.stored_size_bytes) for each in layers])
    for data in (frames, manifest):
        world.storage.create(blob_path(sha256_of(data)), data)
    named = Blob(digest=sha256_of(manifest), size_bytes=len(manifest))
    other = record.model_copy(update={"blobs": blobs.model_copy(update={"layers": layers, "manifest": named})})
    return replace(backup, record=other)


def test_one_blob_cannot_be_two_layers() -> None:
    """Of one member only one diff_id would be compared."""
    layers = [framed_layer(body, zstd_frame(b"upper")) for body in (b"lower", b"upper")]
    with pytest.raises(BadBlobError, match="one blob cannot be both"):
        stored_archive(config=b"{}", layers=layers, tags=[TAG])


def test_a_manifest_that_says_more_than_the_record_is_never_sent() -> None:
    """A containerd store would keep it, with sizes and types that nobody compared."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    record = backup.whole()
    assert record.blobs is not None
    document = json.loads(world.storage.read(blob_path(record.blobs.manifest.digest)))
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    manifest = compact_json(document)
    world.storage.create(blob_path(sha256_of(manifest)), manifest)
    named = Blob(digest=sha256_of(manifest), size_bytes=len(manifest))
    changed = replace(
        backup, record=record.model_copy(update={"blobs": record.blobs.model_copy(update={"manifest": named})})
    )
    target = _Receiving(takes="blobs")
    assert world.restore(changed, RestoreRequest(tags=(TAG,)), host=target).identical
    assert len(target.streams) == 1
    assert manifest not in target.streams[0]
    assert any("is not the manifest of the record's blobs" in note for note in world.progress.notes)


@pytest.mark.parametrize("takes", ["none", "frames", "blobs"])
def test_the_progress_counts_what_is_sent(takes: Packing) -> None:
    """Stored bytes where they go packed."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    blobs = backup.whole().blobs
    assert blobs is not None
    world.restore(backup, RestoreRequest(tags=(TAG,)), host=_Receiving(takes=takes))
    plain, stored = (sum(getattr(each, size) for each in blobs.layers) for size in ("size_bytes", "stored_size_bytes"))
    assert plain != stored
    assert world.progress.totals[-1] == (plain if takes == "none" else stored)


@pytest.mark.parametrize("prove", [True, False])
@pytest.mark.parametrize("cut", ["longer", "shorter"])
def test_a_blob_of_another_size_is_never_sent_to_its_end(cut: str, *, prove: bool) -> None:
    """What follows it would be read as members of the archive, whatever is in the frames."""
    body = b"layer " * 50_000
    frames = zstd_frame(body)
    given = [frames, b"members of", b" their own"] if cut == "longer" else [frames[:-1]]
    layer = framed_layer(body, frames, given=given)
    got: list[bytes] = []
    with pytest.raises(BadBlobError) as caught:
        got.extend(stored_archive(config=b"{}", layers=[layer], tags=[TAG], prove=prove))
    assert caught.value.digest == sha256_of(frames)
    assert b"members of" not in b"".join(got)
    assert b"index.json" not in b"".join(got)


def test_a_target_that_does_not_decompress_gets_a_plain_archive() -> None:
    """One that has neither zstd nor a new engine."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    target = _Receiving(takes="none")
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


class _Keeping(MemoryDockerHost):
    """A target that keeps what it could not unpack, as containerd stores do, and says so the first time."""

    def __init__(self) -> None:
        super().__init__("target", engine=replace(memory_engine("target"), store="containerd"))
        self.takes = "blobs"
        self.stood: list[int] = []

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Load, and note how many images stood here before."""
        self.stood.append(len(self.list_images()))
        loaded = super().load_image(chunks)
        if len(self.stood) == 1:
            raise IntegrityError("Error unpacking image")
        return loaded


def test_what_a_target_keeps_of_the_first_try_is_removed_before_the_second() -> None:
    """It would stay there without any name: the second brings another image under the same one."""
    world, target = World(layout="layers"), _Keeping()
    assert world.restore(world.backup(1).backup, RestoreRequest(tags=(TAG,)), host=target).identical
    assert target.stood == [0, 0]
    assert [each.reference for each in target.list_images()] == [TAG]


@pytest.mark.parametrize("make", [lambda: World(layout="layers"), encrypted], ids=["plain", "encrypted"])
@pytest.mark.parametrize("known", [False, True], ids=["whole", "thin"])
@pytest.mark.parametrize("takes", ["none", "frames", "blobs"])
def test_a_damaged_blob_is_never_sent_to_its_end(make: type[World], takes: Packing, *, known: bool) -> None:
    """Wherever the byte is, and whether its frame still decompresses or not; the target has no image more."""
    world = make()
    backup = world.backup(1).backup
    blobs = backup.whole().blobs
    assert blobs is not None
    path = blob_path(blobs.layers[-1].digest)
    for position in range(blobs.layers[-1].stored_size_bytes):
        spoil(world.storage, path, position=position)
        target = _Receiving(takes=takes)
        if known:
            target.add_archive(app_archive("two"))
        before = target.list_images()
        with pytest.raises(IntegrityError):
            world.restore(backup, RestoreRequest(tags=(TAG,)), host=target)
        assert target.ends == 0, position
        # What is not left out and not packed is not sent twice.
        assert len(target.streams) == (1 if takes == "none" and not known else 2)
        assert target.list_images() == before
        spoil(world.storage, path, position=position)


@pytest.mark.parametrize("prove", [True, False])
@pytest.mark.parametrize("cut", ["longer", "shorter", "other", "torn", "torn in pieces"])
def test_frames_that_do_not_hold_their_layer_are_never_sent_to_their_end(cut: str, *, prove: bool) -> None:
    """The blob has its name and the layer's diff_id is in the record; only what it decompresses to is another thing.

    Of the right length it goes to a daemon that compares digests itself.
    """
    body = b"layer " * 50_000
    held = {"longer": body + b"x", "shorter": body[:-1], "other": body[:-1] + b"x"}.get(cut, body)
    frames = zstd_frame(held[:100_000]) + zstd_frame(held[100_000:])
    frames = frames[:-3] if cut.startswith("torn") else frames
    pieces = [frames] if cut == "torn" else [frames[:1000], frames[1000:]]
    layer = framed_layer(body, frames, given=pieces)
    got: list[bytes] = []
    stream = image_archive(config=b"{}", layers=[layer], tags=[TAG], packed=True, prove=prove)
    if cut == "other" and not prove:
        got.extend(stream)
        assert body[:-1] + b"x" in b"".join(decompressed(got, Compression.ZSTD))
        return
    with pytest.raises(BadBlobError) as caught:
        got.extend(stream)
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
