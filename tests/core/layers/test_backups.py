# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.compression import Compression, decompressed
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.layers.damage import set_aside
from airflow_provider_dockerbackup.core.layers.documents import LayerMap, map_path
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.reading import archive_stream
from airflow_provider_dockerbackup.core.record import BlobSet
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.restore import RestoreRequest
from airflow_provider_dockerbackup.exceptions import BadBlobError, ConfigurationError, IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStorage
from tests.core.faults import FaultyStorage, Plan
from tests.core.world import CONTAINER, FILESYSTEM, IMAGE, World, app_archive, assert_all_whole, paths, spoil


def _world() -> World:
    return World(layout="layers")


def _blobs(backup: Backup) -> BlobSet:
    found = backup.whole().blobs
    assert found is not None
    return found


def _changed(world: World) -> None:
    """Let the image of the source have another upper layer."""
    world.host.add_archive(app_archive("two"))


def test_a_layer_that_two_images_share_is_stored_once() -> None:
    """The second backup adds its own layer, its configuration and its manifest, and nothing else."""
    world = _world()
    first = _blobs(world.backup(1, capture="save").backup)
    before = paths(world.storage, prefix="blobs")
    _changed(world)
    second = _blobs(world.backup(2, capture="save").backup)
    assert first.layers[0] == second.layers[0]
    added = paths(world.storage, prefix="blobs") - before
    assert added == {blob_path(each) for each in second.sizes if each not in first.sizes}
    assert second.new_bytes == sum(size for digest, size in second.sizes.items() if digest not in first.sizes)
    assert_all_whole(world.repository)


def test_every_blob_has_its_own_digest_for_a_name_and_layers_are_zstd() -> None:
    """Whoever knows OCI image layouts can check them without this package."""
    world = _world()
    blobs = _blobs(world.backup(1).backup)
    for digest, size_bytes in blobs.sizes.items():
        data = world.storage.read(blob_path(digest))
        assert (sha256_of(data), len(data)) == (digest, size_bytes)
    for layer in blobs.layers:
        plain = b"".join(decompressed([world.storage.read(blob_path(layer.digest))], Compression.ZSTD))
        assert (sha256_of(plain), len(plain)) == (layer.diff_id, layer.size_bytes)
    manifest = json.loads(world.storage.read(blob_path(blobs.manifest.digest)))
    assert [each["mediaType"] for each in manifest["layers"]] == ["application/vnd.oci.image.layer.v1.tar+zstd"] * 2


def test_a_backups_folder_is_an_oci_image_layout() -> None:
    """index.json names the manifest in the blobs that the whole repository shares."""
    world = _world()
    for source in (IMAGE, CONTAINER):
        backup = world.backup(1, source).backup
        folder = f"{backup.path}oci-{backup.whole().attempt}/"
        assert json.loads(world.storage.read(f"{folder}oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        named = json.loads(world.storage.read(f"{folder}index.json"))["manifests"]
        assert [(each["digest"], each["size"]) for each in named] == [
            (_blobs(backup).manifest.digest, _blobs(backup).manifest.size_bytes)
        ]


def test_an_export_is_one_blob_and_the_same_filesystem_is_kept_once() -> None:
    """Two containers with equal files share it, whatever their configurations."""
    world = _world()
    first = world.backup(1, CONTAINER).backup
    second = world.backup(2, CONTAINER).backup
    assert _blobs(first).layers == _blobs(second).layers
    assert len(_blobs(first).layers) == 1
    assert _blobs(second).new_bytes < _blobs(first).new_bytes
    with archive_stream(world.repository, second) as tar:
        assert b"".join(tar) == FILESYSTEM


@pytest.mark.parametrize("source", [IMAGE, CONTAINER], ids=["image", "container"])
def test_a_backup_is_verified_and_restored_from_its_blobs(source: object) -> None:
    """Levels digests and load pass, and another host gets exactly it."""
    world = _world()
    chosen = IMAGE if source is IMAGE else CONTAINER
    backup = world.backup(1, chosen).backup
    assert world.verify(backup, "digests").verification == "passed"
    assert world.verify(backup).proves_restore
    target = MemoryDockerHost("target")
    outcome = world.restore(backup, RestoreRequest(tags=("back:1",)), host=target)
    assert outcome.identical
    assert target.inspect_image("back:1").diff_ids == backup.whole().diff_ids


def test_an_unchanged_image_is_confirmed_unless_a_blob_of_it_is_gone() -> None:
    """Only what is whole is confirmed; what is not is fetched again, and then is whole for both."""
    world = _world()
    first = world.backup(1).backup
    assert world.backup(2, force=False).status == "unchanged"
    world.storage.delete(blob_path(_blobs(first).layers[1].digest))
    assert not world.again(first).complete
    outcome = world.backup(3, force=False)
    assert outcome.status == "committed"
    assert outcome.backup.complete
    assert world.again(first).complete
    assert_all_whole(world.repository)


def test_a_blob_of_another_size_is_put_aside_and_fetched_again() -> None:
    """One bad blob must not become everybody's."""
    world = _world()
    first = world.backup(1).backup
    layer = _blobs(first).layers[0]
    spoil(world.storage, blob_path(layer.digest), data=b"short")
    assert _blobs(world.backup(2).backup).layers[0] == layer
    assert [path for path in paths(world.storage, prefix="quarantine") if layer.digest[7:] in path]
    assert any("was damaged; it was moved to" in note for note in world.progress.notes)
    assert_all_whole(world.repository)


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_a_flipped_bit_of_any_blob_is_found_and_named(which: str) -> None:
    """Reading says which blob is bad, and never ends as if all were well."""
    world = _world()
    backup = world.backup(1).backup
    blobs = _blobs(backup)
    digest = {
        "layer": blobs.layers[1].digest,
        "config": blobs.config.digest,
        "manifest": blobs.manifest.digest,
    }[which]
    spoil(world.storage, blob_path(digest))
    with pytest.raises(BadBlobError, match=digest[7:]) as found, archive_stream(world.repository, backup) as tar:
        for _ in tar:
            pass
    assert found.value.digest == digest
    verification = world.verify(backup, "digests")
    assert (verification.verification, digest[7:] in verification.problem) == ("failed", True)


def test_a_map_that_names_a_blob_that_is_not_there_counts_for_nothing() -> None:
    """It is replaced, and the layer is stored."""
    world = _world()
    diff_id = world.host.inspect_image(IMAGE.name).diff_ids[0]
    stale = LayerMap(
        diff_id=diff_id, digest=f"sha256:{'0' * 64}", size_bytes=1, stored_size_bytes=1, created_at=world.clock.now()
    )
    world.storage.create(map_path(diff_id), stale.to_bytes())
    layer = _blobs(world.backup(1).backup).layers[0]
    where = map_path(diff_id)
    assert LayerMap.from_bytes(world.storage.read(where), where=where).blob == layer
    assert_all_whole(world.repository)


def test_a_map_that_cannot_be_read_is_told_and_replaced() -> None:
    """A damaged map costs a transfer, never a backup."""
    world = _world()
    diff_id = world.host.inspect_image(IMAGE.name).diff_ids[0]
    world.storage.create(map_path(diff_id), b"{")
    world.backup(1)
    assert any("is not a readable LayerMap" in note for note in world.progress.notes)
    assert_all_whole(world.repository)


def test_pins_are_gone_when_a_backup_is_made_or_failed() -> None:
    """Nothing keeps blobs from garbage collection but records."""
    world = _world()
    world.backup(1)
    with pytest.raises(NotFoundError):
        world.backup(2, IMAGE.model_copy(update={"name": "absent:1"}))
    assert paths(world.storage, prefix="pins") == set()


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
def test_another_compression_than_zstd_is_refused_before_anything_is_written(compression: Compression) -> None:
    """For a new repository and for a backup."""
    with pytest.raises(ConfigurationError, match="stores zstd"):
        Repository.open_or_create(MemoryStorage(), clock=World().clock, layout="layers", compression=compression)
    world = _world()
    before = paths(world.storage, prefix="")
    for source in (IMAGE, CONTAINER):
        with pytest.raises(ConfigurationError, match="stores zstd"):
            world.backup(1, source, compression=compression)
    assert paths(world.storage, prefix="") == before


def test_capture_by_push_is_refused_in_layout_archive() -> None:
    """It would be ignored otherwise."""
    with pytest.raises(ConfigurationError, match="layout 'layers'"):
        World().backup(1, capture="push")


def test_a_record_names_either_an_archive_or_blobs() -> None:
    """Neither, or both, is unreadable."""
    record = _world().backup(1).backup.whole()
    for wrong in ({"blobs": None}, {"archive": World().backup(1).backup.whole().archive}):
        data = record.model_copy(update=wrong).to_bytes()
        with pytest.raises(IntegrityError, match="expected either 'archive' or 'blobs'"):
            type(record).from_bytes(data, where="there")


def test_what_was_captured_into_an_archive_is_the_image_that_blobs_give() -> None:
    """Configuration, history and layers are the same in both layouts."""
    kept, shared = World().backup(1).backup.whole().image, _world().backup(1).backup.whole().image
    assert kept is not None
    assert shared is not None
    assert (kept.config_digest, kept.diff_ids, kept.history) == (shared.config_digest, shared.diff_ids, shared.history)


def test_a_verification_puts_a_damaged_blob_aside_and_the_next_backup_heals_all_that_share_it() -> None:
    """With an intent before it; both backups are incomplete until the layer is stored again."""
    world = _world()
    first = world.backup(1, capture="save").backup
    _changed(world)
    second = world.backup(2, capture="save").backup
    shared = _blobs(first).layers[0].digest
    spoil(world.storage, blob_path(shared))
    assert world.verify(first).verification == "failed"
    moved = [path for path in paths(world.storage, prefix="quarantine") if shared[7:] in path]
    assert len(moved) == 1
    assert not world.again(first).complete
    assert not world.again(second).complete
    events = [event for event in _events(world) if event["type"] == "blob.quarantined"]
    assert [event["outcome"] for event in events] == ["intent", "success"]
    assert all(event["object"]["digest"] == shared for event in events)
    assert world.backup(3, force=False, capture="save").status == "committed"
    assert world.again(first).complete
    assert world.verify(second).proves_restore
    assert_all_whole(world.repository)


def test_a_blob_that_only_seemed_damaged_stays() -> None:
    """A layer map or record that lies about a sound blob does not cost the others that blob."""
    world = _world()
    backup = world.backup(1).backup
    progress = world.progress
    digest = _blobs(backup).layers[0].digest
    assert set_aside(world.repository, digest, trail=world.repository.trail({}), progress=progress) is None
    assert paths(world.storage, prefix="quarantine") == set()
    assert [event for event in _events(world) if event["type"] == "blob.quarantined"] == []


def test_a_blob_that_was_repaired_while_it_was_put_aside_stays() -> None:
    """A backup stored the layer anew between the look at the damaged one and its move."""
    world = _world()
    backup = world.backup(1).backup
    path = blob_path(_blobs(backup).layers[0].digest)
    good = world.storage.read(path)
    spoil(world.storage, path)

    class Repaired(FaultyStorage):
        def move(self, where: str, *, to: str) -> None:
            if where == path:
                spoil(world.storage, path, data=good)
            super().move(where, to=to)

    repository = world.on(Repaired(world.storage, Plan()))
    digest = _blobs(backup).layers[0].digest
    assert set_aside(repository, digest, trail=repository.trail({}), progress=world.progress) is None
    assert paths(world.storage, prefix="quarantine") == set()
    assert world.again(backup).complete
    outcomes = [event["outcome"] for event in _events(world) if event["type"] == "blob.quarantined"]
    assert outcomes == ["intent", "failure"]


def _events(world: World) -> list[dict[str, Any]]:
    """Return the audit events, oldest first."""
    events = [json.loads(world.storage.read(path)) for path in paths(world.storage, prefix="audit")]
    return sorted(events, key=lambda event: str(event["time"]))
