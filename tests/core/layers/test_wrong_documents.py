# SPDX-License-Identifier: Apache-2.0
"""Layer maps and hints that say what is not so: never wrong data, and the next backup puts it right."""

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.layers.choice import Way
from airflow_provider_dockerbackup.core.layers.documents import HINTS_FOLDER, EngineHint, LayerMap, hint_path, map_path
from airflow_provider_dockerbackup.core.places import RECORD_FILE, blob_path
from airflow_provider_dockerbackup.core.ports import ObjectWriter, Storage
from airflow_provider_dockerbackup.core.reading import archive_stream
from airflow_provider_dockerbackup.core.record import BlobSet, LayerBlob
from airflow_provider_dockerbackup.exceptions import IntegrityError, TransientError
from tests.core.encryption.keys import age_pair
from tests.core.faults import FaultyStorage, Plan
from tests.core.world import CONTAINER, FILESYSTEM, World, app_archive, assert_all_whole, paths, spoil

WAYS = pytest.mark.parametrize("capture", ["push", "save"])


def _blobs(backup: Backup) -> BlobSet:
    found = backup.whole().blobs
    assert found is not None
    return found


def _hints(world: World) -> list[EngineHint]:
    return [
        EngineHint.from_bytes(world.storage.read(path), where=path)
        for path in sorted(paths(world.storage, prefix=HINTS_FOLDER))
    ]


def _replace(world: World, hint: EngineHint, **changes: object) -> None:
    """Let a hint say something else, under the name that goes with it."""
    world.storage.delete(hint_path(hint))
    changed = hint.model_copy(update=changes)
    world.storage.create(hint_path(changed), changed.to_bytes())


@pytest.mark.parametrize("wrong", ["size", "swapped"])
@pytest.mark.parametrize("capture", ["auto", "push", "save"])
def test_a_hint_that_is_wrong_costs_time_and_nothing_else(wrong: str, capture: Way) -> None:
    """The image comes once more without the hints, and the one that was wrong is not asked again."""
    world = World(layout="layers")
    world.backup(1, capture="push")
    first, second = _hints(world)
    if wrong == "size":
        _replace(world, first, size_bytes=first.size_bytes + 1)
    else:
        _replace(world, first, digest=second.digest, size_bytes=second.size_bytes)
        _replace(world, second, digest=first.digest, size_bytes=first.size_bytes)
    for run in (2, 3):
        assert world.backup(run, capture=capture).status == "committed"
    for backup in assert_all_whole(world.repository):
        assert world.verify(backup).proves_restore
    if capture == "push":
        assert _blobs(world.backup(4, capture=capture).backup).received_bytes < 2000


def _wrong_map(world: World, layer: LayerBlob, **changes: object) -> None:
    path = map_path(layer.diff_id)
    found = LayerMap.from_bytes(world.storage.read(path), where=path)
    spoil(world.storage, path, data=found.model_copy(update=changes).to_bytes())


@pytest.mark.parametrize("wrong", ["another layer's blob", "size"])
@WAYS
def test_a_map_that_is_wrong_is_found_by_a_verification_and_healed_by_the_next_backup(wrong: str, capture: Way) -> None:
    """A blob as good as its name may be another layer's: the map that says so goes when somebody read it."""
    world = World(layout="layers")
    lower, upper = _blobs(world.backup(1, capture=capture).backup).layers
    if wrong == "size":
        _wrong_map(world, lower, size_bytes=lower.size_bytes + 512)
    else:
        changes = upper.model_dump(include={"digest", "size_bytes", "stored_size_bytes"})
        _wrong_map(world, lower, **changes)
    world.host.add_archive(app_archive("two"))
    bad = world.backup(2, capture=capture).backup
    assert world.verify(bad, "digests").verification == "failed"
    good = world.backup(3, capture=capture, force=False).backup
    assert world.verify(good).proves_restore


def test_a_map_that_is_wrong_for_an_exported_filesystem_is_healed_as_well() -> None:
    """The one layer of a container's backup is read by another check."""
    world = World(layout="layers")
    lower = _blobs(world.backup(1).backup).layers[0]
    only = _blobs(world.backup(1, CONTAINER).backup).layers[0]
    _wrong_map(world, only, **lower.model_dump(include={"digest", "size_bytes", "stored_size_bytes"}))
    bad = world.backup(2, CONTAINER).backup
    assert world.verify(bad, "digests").verification == "failed"
    with archive_stream(world.repository, world.backup(3, CONTAINER).backup) as tar:
        assert b"".join(tar) == FILESYSTEM


def test_a_record_of_an_encrypted_backup_that_names_other_layers_than_its_configuration_is_refused() -> None:
    """Its blobs do not say which layers they hold, so that nothing but the configuration can tell."""
    pairs = age_pair(), age_pair()
    world = World(layout="layers", recipients=tuple(each.recipient for each in pairs), identities=pairs[0].identities)
    backup = world.backup(1).backup
    record = backup.whole()
    assert record.image is not None
    image = record.image.model_copy(update={"diff_ids": record.image.diff_ids[::-1]})
    spoil(world.storage, backup.path + RECORD_FILE, data=record.model_copy(update={"image": image}).to_bytes())
    with (
        pytest.raises(IntegrityError, match="names other diff_ids than the record"),
        archive_stream(world.repository, world.again(backup)) as tar,
    ):
        b"".join(tar)


class Repairing(FaultyStorage):
    """A storage on which another try puts a damaged blob right, just before it would be put aside."""

    def __init__(self, inner: Storage, path: str, content: bytes) -> None:
        super().__init__(inner, Plan())
        self._other = inner
        self._path = path
        self._content = content

    def move(self, path: str, *, to: str) -> None:
        """Let the other be faster."""
        if path == self._path and self._other.read(path) != self._content:
            spoil(self._other, path, data=self._content)
        super().move(path, to=to)


def test_a_blob_that_another_try_put_right_meanwhile_is_not_put_aside() -> None:
    """A verification that read the damaged one comes late: the good one is back where it was."""
    world = World(layout="layers")
    backup = world.backup(1).backup
    path = blob_path(_blobs(backup).layers[0].digest)
    content = world.storage.read(path)
    spoil(world.storage, path)
    repository = world.on(Repairing(world.storage, path, content))
    assert world.verify(backup, "digests", repository=repository).verification == "failed"
    assert world.storage.read(path) == content
    assert paths(world.storage, prefix="quarantine") == set()
    assert world.verify(backup).proves_restore


class PuttingAside(FaultyStorage):
    """A storage on which a verification takes a blob away while a try is about to create its record.

    :param path: of the blob.
    """

    def __init__(self, inner: Storage, path: str, *, before: str) -> None:
        super().__init__(inner, Plan())
        self._other = inner
        self._path = path
        self._before = before

    def writer(self, path: str) -> ObjectWriter:
        """Be faster than the writer."""
        if path.endswith(self._before):
            self._other.move(self._path, to="quarantine/blob")
        return super().writer(path)


def test_a_blob_that_goes_before_the_record_makes_the_next_try_fetch_it_again() -> None:
    """No record names it, and Airflow tries again: trying is of use."""
    world = World(layout="layers")
    path = blob_path(_blobs(world.backup(1).backup).layers[0].digest)
    repository = world.on(PuttingAside(world.storage, path, before="index.json"))
    with pytest.raises(TransientError, match=r"put aside as damaged.*fetched anew"):
        world.backup(2, repository=repository)
    assert len(world.repository.catalog.backups()) == 1
    assert world.backup(2).status == "committed"
    assert len(assert_all_whole(world.repository)) == 2
