# SPDX-License-Identifier: Apache-2.0
"""Restores to containerd stores, which say which blobs they hold: these are not sent, and called by their names."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from airflow_provider_dockerbackup.core import thin
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.oci_layout import LayerName
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice
from airflow_provider_dockerbackup.core.layers.documents import EngineHint, hint_path
from airflow_provider_dockerbackup.core.layers.hints import hints_of
from airflow_provider_dockerbackup.core.layers.reading import Sending
from airflow_provider_dockerbackup.core.model import (
    EngineInfo,
    ImageInspect,
    ImageManifest,
    LoadedImage,
    Packing,
)
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.reading import loaded_manifest_of
from airflow_provider_dockerbackup.core.record import BlobSet
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, TransientError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from airflow_provider_dockerbackup.transport.memory_images import memory_engine
from tests.core.archive.making import Entry, image_config, layer, legacy_archive, tar_of
from tests.core.encryption.keys import age_pair
from tests.core.world import HOST, IMAGE, World

TAG = "back:1"
ANNA, BERND = age_pair(), age_pair()
# Two that are worth asking about and one that is not.
LOW, MIDDLE = (
    tar_of([Entry(name, random.Random(name).randbytes(size_bytes))])  # noqa: S311 - it shall be the same each time
    for name, size_bytes in (("low", 2_500_000), ("middle", 2_000_000))
)
TOP = layer("top")
LAYERS = [LOW, MIDDLE, TOP]
DIFF_IDS = tuple(sha256_of(each) for each in LAYERS)
CONTAINERD = replace(memory_engine("target"), store="containerd")


class _Target(MemoryDockerHost):
    """A containerd store that notes what it was asked and given, and has the layers unpacked."""

    def __init__(self, *, engine: EngineInfo = CONTAINERD, takes: Packing = "blobs", has: int = 3) -> None:
        super().__init__("target", engine=engine)
        self.takes = takes
        self.asked: list[dict[str, int]] = []
        self.streams: list[bytes] = []
        self.asking: DockerBackupError | None = None
        if has:
            held = LAYERS[:has]
            self.add_archive(tar_of(legacy_archive(held, config=image_config(held), tags=["other:1"])))

    def held_blobs(self, sizes: Mapping[str, int], *, engine: EngineInfo) -> frozenset[str]:
        """Note the question."""
        self.asked.append(dict(sizes))
        if self.asking is not None:
            raise self.asking
        return super().held_blobs(sizes, engine=engine)

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Note what it is given."""
        pieces = list(chunks)
        self.streams.append(b"".join(pieces))
        return super().load_image(pieces)

    def members(self, load: int = 0) -> dict[str, bytes]:
        """Return what a load was given."""
        with tarfile.open(fileobj=io.BytesIO(self.streams[load])) as tar:
            return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]

    def manifest(self, load: int = 0) -> list[tuple[str, str, int]]:
        """Return media type, digest and size of each layer that the manifest names."""
        members = self.members(load)
        (named,) = json.loads(members["index.json"])["manifests"]
        manifest = json.loads(members[blob_path(named["digest"])])
        return [(each["mediaType"].rpartition(".")[2], each["digest"], each["size"]) for each in manifest["layers"]]


@pytest.fixture(params=["plain", "encrypted"])
def world(request: pytest.FixtureRequest) -> World:
    """A repository with a backup of three layers, and another of which all blobs are encrypted."""
    if request.param == "plain":
        return _world()
    return _world(recipients=(ANNA.recipient, BERND.recipient), identities=ANNA.identities)


def _world(**options: object) -> World:
    host = MemoryDockerHost(HOST)
    host.add_archive(tar_of(legacy_archive(LAYERS, config=image_config(LAYERS), tags=[IMAGE.name])))
    return World(layout="layers", host=host, **options)  # type: ignore[arg-type]


def _blobs(backup: Backup) -> BlobSet:
    blobs = backup.whole().blobs
    assert blobs is not None
    return blobs


def _hint(
    world: World,
    engine_id: str,
    *,
    digest: str,
    at: int = 0,
    compression: Compression | None,
    size_bytes: int = 4711,
) -> None:
    hint = EngineHint(
        engine_id=engine_id,
        diff_id=world.repository.layer_name(DIFF_IDS[at]),
        digest=digest,
        size_bytes=size_bytes,
        compression=compression,
    )
    world.storage.create(hint_path(hint), hint.to_bytes())


def _restored(world: World, backup: Backup, target: MemoryDockerHost, *, all_layers: bool = False) -> None:
    request = RestoreRequest(tags=(TAG,), all_layers=all_layers)
    assert world.restore(backup, request, host=target).identical
    assert target.inspect_image(TAG).diff_ids == DIFF_IDS


def test_a_layer_is_asked_about_by_every_name_and_a_small_one_by_none(world: World) -> None:
    """The repository's own, the plain one, and what source and target engine call it."""
    backup = world.backup(1).backup
    _hint(world, world.host.engine().engine_id, digest=sha256_of(b"source"), compression=Compression.GZIP)
    _hint(world, CONTAINERD.engine_id, digest=sha256_of(b"target"), at=1, compression=Compression.ZSTD)
    target = _Target()
    _restored(world, backup, target)
    low, middle, _ = _blobs(backup).layers
    own = {} if world.recipients else {each.digest: each.stored_size_bytes for each in (low, middle)}
    plain = {each: size.size_bytes for each, size in zip(DIFF_IDS, (low, middle), strict=False)}
    learned = {sha256_of(b"source"): 4711, sha256_of(b"target"): 4711}
    assert target.asked == [own | plain | learned]


def test_what_it_holds_is_called_by_that_name_and_not_sent(world: World) -> None:
    """Whatever the name; the rest is sent as ever."""
    backup = world.backup(1).backup
    _hint(world, world.host.engine().engine_id, digest=sha256_of(b"source"), compression=Compression.GZIP)
    target = _Target(takes="none")
    target.blobs = {sha256_of(b"source"), DIFF_IDS[1]}
    _restored(world, backup, target)
    assert target.manifest() == [
        ("tar+gzip", sha256_of(b"source"), 4711),
        ("tar", DIFF_IDS[1], len(MIDDLE)),
        ("tar", DIFF_IDS[2], len(TOP)),
    ]
    members = target.members()
    assert blob_path(DIFF_IDS[2]) in members
    assert LOW not in target.streams[0]
    assert MIDDLE not in target.streams[0]
    (entry,) = json.loads(members["manifest.json"])
    assert entry["Layers"] == [blob_path(digest) for _, digest, _ in target.manifest()]
    assert "target has 2 of 3 layers; they are not sent" in world.progress.notes


@pytest.mark.parametrize(
    ("compression", "kind"),
    [(Compression.NONE, "tar"), (Compression.GZIP, "tar+gzip"), (Compression.ZSTD, "tar+zstd")],
)
def test_the_manifest_says_how_a_held_layer_is_compressed(compression: Compression, kind: str) -> None:
    """As the hint does."""
    world = _world()
    backup = world.backup(1).backup
    _hint(world, CONTAINERD.engine_id, digest=sha256_of(b"held"), compression=compression)
    target = _Target()
    target.blobs = {sha256_of(b"held")}
    _restored(world, backup, target)
    assert target.manifest()[0] == (kind, sha256_of(b"held"), 4711)


@pytest.mark.parametrize("capture", ["push", "save"])
def test_backups_learn_how_an_engine_compresses(capture: CaptureChoice) -> None:
    """From what it sends."""
    packed = [gzip.compress(each, mtime=0) for each in LAYERS]
    world = World(layout="layers", host=MemoryDockerHost(HOST))
    world.host.add_archive(tar_of(legacy_archive(packed, config=image_config(LAYERS), tags=[IMAGE.name])))
    world.backup(1, capture=capture)
    hints = hints_of(world.repository, world.host.engine().engine_id, DIFF_IDS)
    assert [hint.compression for hint in hints] == [Compression.GZIP] * 3
    if capture == "save":
        assert [hint.digest for hint in hints] == [sha256_of(each) for each in packed]


@pytest.mark.parametrize("takes", ["none", "frames"])
def test_by_its_own_blobs_it_is_not_asked_where_they_are_not_sent(takes: Packing) -> None:
    """A store that takes none as they are has none."""
    world = _world()
    backup = world.backup(1).backup
    target = _Target(takes=takes)
    _restored(world, backup, target)
    assert target.asked == [dict(zip(DIFF_IDS[:2], map(len, LAYERS[:2]), strict=True))]


def test_the_repositorys_own_name_is_the_best() -> None:
    """So the image is called as the repository's manifest, by which it counts as the backup's."""
    world = _world()
    backup = world.backup(1).backup
    low, middle, top = _blobs(backup).layers
    target = _Target()
    target.blobs = {low.digest, middle.digest, *DIFF_IDS}
    _restored(world, backup, target)
    assert [digest for _, digest, _ in target.manifest()] == [low.digest, middle.digest, top.digest]
    assert blob_path(_blobs(backup).manifest.digest) in target.members()
    assert [blob_path(each.digest) in target.members() for each in (low, middle, top)] == [False, False, True]


def test_the_images_id_is_known_before_it_is_sent(world: World) -> None:
    """Containerd stores take the manifest's digest; so the configuration is proven, and not its values alone."""
    backup = world.backup(1).backup
    target = _Target(takes="none")
    target.blobs = {DIFF_IDS[0]}
    _restored(world, backup, target)
    held = {DIFF_IDS[0]: LayerName(digest=DIFF_IDS[0], size_bytes=len(LOW), compression=Compression.NONE)}
    (named,) = json.loads(target.members()["index.json"])["manifests"]
    assert loaded_manifest_of(world.repository, backup, sending=Sending(held=held)) == named["digest"]


@pytest.mark.parametrize("broken", ["not whole", "another"])
def test_a_target_that_does_not_say_then_that_it_has_all_gets_all_of_it(world: World, broken: str) -> None:
    """It takes an image without a blob where it has what that unpacks to, and cannot save it afterwards."""

    class Broken(_Target):
        """Does not say so of what was sent first."""

        def image_manifests(self, image: ImageInspect) -> tuple[ImageManifest, ...]:
            """Say it of another image, or of none."""
            (found,) = super().image_manifests(image)
            return (replace(found, whole=False) if broken == "not whole" else replace(found, digest=sha256_of(b"?")),)

    backup = world.backup(1).backup
    target = Broken()
    target.blobs = {DIFF_IDS[0]}
    _restored(world, backup, target)
    assert len(target.streams) == 2
    blobs = _blobs(backup)
    names = DIFF_IDS if world.recipients else [each.digest for each in blobs.layers]
    if not world.recipients:  # all of it, and still as it is stored
        assert [digest for _, digest, _ in target.manifest(1)] == list(names)
    (note,) = (each for each in world.progress.notes if "does not take it so" in each)
    assert note.startswith("target does not take it so; sending all: it does not say that it has all")
    assert [each.reference for each in target.list_images()] == [TAG, "other:1"]


def test_a_target_without_the_layer_unpacked_gets_all_of_it(world: World) -> None:
    """As when the blob went between the answer and the load."""
    backup = world.backup(1).backup
    target = _Target(has=0)
    target.blobs = {DIFF_IDS[0]}
    _restored(world, backup, target)
    assert len(target.streams) == 2


class _Named(_Target):
    """A target on which a tag stands for the restored image by another ID."""

    change: Mapping[str, object] = {}

    def inspect_image(self, reference: str) -> ImageInspect:
        """Show the tag's image so."""
        image = super().inspect_image(reference)
        return replace(image, id=sha256_of(b"mixed"), **self.change) if reference == TAG else image  # type: ignore[arg-type]


def test_a_tag_that_stands_for_the_same_image_by_other_blobs_is_taken_without_leave(world: World) -> None:
    """Its ID depends on what the target had when it was restored there."""
    backup = world.backup(1).backup
    target = _Named()
    _restored(world, backup, target)
    assert world.restore(backup, RestoreRequest(tags=(TAG,)), host=target).kept == {}


@pytest.mark.parametrize("change", [{"created": "2020-01-01T00:00:00Z"}, {"architecture": "arm64"}])
def test_a_tag_that_stands_for_an_image_of_equal_files_is_not(world: World, change: Mapping[str, object]) -> None:
    """It was made another time, or for another platform."""
    backup = world.backup(1).backup
    target = _Named()
    _restored(world, backup, target)
    target.change = change
    with pytest.raises(ConflictError):
        world.restore(backup, RestoreRequest(tags=(TAG,)), host=target)


def test_on_a_classic_store_another_id_is_another_image(world: World) -> None:
    """There it is the configuration's digest."""
    backup = world.backup(1).backup
    target = _Named(engine=memory_engine("target"))
    _restored(world, backup, target)
    with pytest.raises(ConflictError):
        world.restore(backup, RestoreRequest(tags=(TAG,)), host=target)


def test_an_id_that_is_not_that_of_the_sent_manifest_proves_no_configuration(world: World) -> None:
    """Then its values are compared, and the reader is told."""

    class Other(_Target):
        """Names what it loads by an ID of its own."""

        def inspect_image(self, reference: str) -> ImageInspect:
            """Show another ID."""
            image = super().inspect_image(reference)
            return replace(image, id=sha256_of(b"own")) if reference.startswith("dockerbackup-restored") else image

        def image_manifests(self, image: ImageInspect) -> tuple[ImageManifest, ...]:
            """Say that all is there."""
            return (ImageManifest(digest=image.id, kind="platform", platform="", whole=True),)

        def tag_image(self, image_id: str, *, reference: str) -> None:
            """Tag the one that was loaded."""
            del image_id
            super().tag_image(super().inspect_image("other:1").id, reference=reference)

    backup = world.backup(1).backup
    target = Other()
    target.blobs = {DIFF_IDS[0]}
    done = world.restore(backup, RestoreRequest(tags=(TAG,)), host=target)
    assert done.notes == ("the containerd store gave it an ID of its own; layers and configuration values are equal",)


@pytest.mark.parametrize("error", [DockerBackupError("no"), TransientError("gone")])
def test_an_engine_that_does_not_answer_gets_all_of_it(world: World, error: DockerBackupError) -> None:
    """And the reader is told."""
    backup = world.backup(1).backup
    target = _Target()
    target.asking = error
    _restored(world, backup, target)
    assert f"target did not say which layers it has, sending all: {error}" in world.progress.notes


def test_an_engine_that_does_not_tell_is_not_asked_and_no_hint_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as 26."""
    world = _world()
    backup = world.backup(1).backup
    target = _Target(engine=replace(CONTAINERD, api_version="1.45"))
    monkeypatch.setattr(thin, "hints_of", None)
    _restored(world, backup, target)
    assert target.asked == []
    assert len(target.streams) == 1


def test_all_layers_are_sent_when_that_is_asked_for(world: World) -> None:
    """No question then."""
    backup = world.backup(1).backup
    target = _Target(takes="none")
    target.blobs = set(DIFF_IDS)
    _restored(world, backup, target, all_layers=True)
    assert target.asked == []
    assert all(each in target.streams[0] for each in LAYERS)


def test_all_layers_are_sent_to_a_classic_store_too() -> None:
    """Which would be given the top alone otherwise."""
    world = _world()
    backup = world.backup(1).backup
    target = _Target(engine=memory_engine("target"), takes="none", has=2)
    _restored(world, backup, target, all_layers=True)
    assert all(each in target.streams[0] for each in LAYERS)
    target.remove_image(TAG)
    _restored(world, backup, target)
    assert [each in target.streams[1] for each in LAYERS] == [False, False, True]


def test_a_blob_that_would_be_two_layers_is_neither(world: World) -> None:
    """One of two hints is wrong, and nobody knows which."""
    backup = world.backup(1).backup
    for at in (0, 1):
        _hint(world, CONTAINERD.engine_id, digest=sha256_of(b"one"), at=at, compression=Compression.GZIP)
    target = _Target()
    target.blobs = {sha256_of(b"one")}
    _restored(world, backup, target)
    assert sha256_of(b"one") not in target.asked[0]


def test_a_hint_of_an_unknown_compression_is_passed_over(world: World) -> None:
    """As earlier releases wrote it: a manifest must say how a layer is compressed."""
    backup = world.backup(1).backup
    _hint(world, CONTAINERD.engine_id, digest=sha256_of(b"old"), compression=None)
    target = _Target()
    _restored(world, backup, target)
    assert sha256_of(b"old") not in target.asked[0]


def test_an_image_of_small_layers_is_sent_without_a_question() -> None:
    """Asking takes longer."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    target = _Target(has=0)
    assert world.restore(backup, RestoreRequest(tags=(TAG,)), host=target).identical
    assert target.asked == []


def _many(sizes: Iterable[int]) -> World:
    layers = [tar_of([Entry(str(at), random.Random(at).randbytes(size))]) for at, size in enumerate(sizes)]  # noqa: S311
    host = MemoryDockerHost(HOST)
    host.add_archive(tar_of(legacy_archive(layers, config=image_config(layers), tags=[IMAGE.name])))
    return World(layout="layers", host=host)


def test_of_many_layers_only_the_largest_are_asked_about() -> None:
    """Each name takes time."""
    world = _many([600_000] * 8 + [700_000] * 32)
    backup = world.backup(1).backup
    target = _Target(has=0)
    world.restore(backup, RestoreRequest(tags=(TAG,)), host=target)
    assert target.asked[0].keys() >= set(backup.whole().diff_ids[8:])
    assert target.asked[0].keys().isdisjoint(backup.whole().diff_ids[:8])


@pytest.mark.parametrize(("sizes", "asked"), [([600_000] * 6, 0), ([600_000] * 8, 16), ([400_000] * 20, 0)])
def test_a_question_must_be_worth_it(sizes: list[int], asked: int) -> None:
    """By what need not be sent, in all and layer by layer."""
    world = _many(sizes)
    target = _Target(has=0)
    world.restore(world.backup(1).backup, RestoreRequest(tags=(TAG,)), host=target)
    assert sum(map(len, target.asked)) == asked


def test_no_more_than_a_few_names_of_a_layer_are_taken_from_hints() -> None:
    """Whoever writes into the repository could make any number of them."""
    world = _world()
    backup = world.backup(1).backup
    for number in range(50):
        _hint(world, CONTAINERD.engine_id, digest=sha256_of(b"%d" % number), compression=Compression.GZIP)
    target = _Target()
    _restored(world, backup, target)
    assert len(target.asked[0]) == 4 + 4


@pytest.mark.parametrize("size_bytes", [0, -5])
def test_a_hint_of_no_size_is_passed_over(size_bytes: int) -> None:
    """A manifest with such a size is none."""
    world = _world()
    backup = world.backup(1).backup
    hint = EngineHint(
        engine_id=CONTAINERD.engine_id,
        diff_id=DIFF_IDS[0],
        digest=sha256_of(b"hint"),
        size_bytes=size_bytes,
        compression=Compression.GZIP,
    )
    world.storage.create(hint_path(hint), hint.to_bytes())
    target = _Target()
    _restored(world, backup, target)
    assert hint.digest not in target.asked[0]


def test_two_sizes_of_one_blob_are_none() -> None:
    """Source and target are said to call the layer by one digest, and one of them is wrong."""
    world = _world()
    backup = world.backup(1).backup
    _hint(world, CONTAINERD.engine_id, digest=sha256_of(b"one"), compression=Compression.GZIP)
    source = world.host.engine().engine_id
    _hint(world, source, digest=sha256_of(b"one"), compression=Compression.GZIP, size_bytes=4712)
    target = _Target()
    _restored(world, backup, target)
    assert sha256_of(b"one") not in target.asked[0]


def test_the_progress_counts_only_what_is_sent(world: World) -> None:
    """Not what is left out."""
    backup = world.backup(1).backup
    target = _Target(takes="none")
    target.blobs = set(DIFF_IDS[:2])
    world.progress.totals.clear()
    _restored(world, backup, target)
    assert world.progress.totals == [len(TOP)]
