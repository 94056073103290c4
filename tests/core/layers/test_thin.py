# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.model import ImageInspect, ImageSummary, LoadedImage
from airflow_provider_dockerbackup.core.places import RECORD_FILE, blob_path
from airflow_provider_dockerbackup.core.restore import RESTORED, RestoreRequest
from airflow_provider_dockerbackup.core.target_layers import base_on, known_layers
from airflow_provider_dockerbackup.exceptions import IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost
from airflow_provider_dockerbackup.transport.memory_images import memory_engine
from tests.core.world import World, app_archive, spoil


class _Target(MemoryDockerHost):
    """A target that tells what it was asked about."""

    def __init__(self, *chains: tuple[str, ...]) -> None:
        super().__init__("target")
        self._chains = chains

    def layer_chains(self) -> frozenset[tuple[str, ...]]:
        """Return the chains it was given."""
        return frozenset(self._chains)


def _backup(world: World) -> Backup:
    return world.backup(1).backup


def _record(*diff_ids: str) -> object:
    record = World(layout="layers").backup(1).backup.whole()
    assert record.image is not None
    return record.model_copy(update={"image": record.image.model_copy(update={"diff_ids": diff_ids})})


@pytest.mark.parametrize(
    ("chains", "known"),
    [
        ([], ""),
        (["a"], "a"),
        (["ab"], "ab"),
        (["abcd"], "abc"),
        (["ax", "abx"], "ab"),
        (["b", "xabc"], ""),
    ],
)
def test_the_layers_with_which_some_image_begins_as_well_are_not_sent(chains: list[str], known: str) -> None:
    """The longest common beginning, and nothing above it."""
    record = _record(*"abc")
    assert known_layers(record, _Target(*(tuple(each) for each in chains))) == frozenset(known)  # type: ignore[arg-type]


def test_a_layer_that_comes_once_more_above_what_is_known_is_sent() -> None:
    """It is one file in the archive."""
    assert known_layers(_record(*"aba"), _Target(("a", "b"))) == frozenset("b")  # type: ignore[arg-type]


def test_layout_archive_is_sent_as_it_is() -> None:
    """Its file is one piece."""
    record = World().backup(1).backup.whole()
    assert known_layers(record, _Target(record.diff_ids)) == frozenset()


def test_a_restore_to_a_host_that_has_the_lower_layer_sends_the_rest() -> None:
    """And the image is the recorded one."""
    world = World(layout="layers")
    backup = _backup(world)
    target = MemoryDockerHost("target")
    target.add_archive(app_archive("two"))
    outcome = world.restore(backup, RestoreRequest(tags=("back:1",)), host=target)
    assert outcome.identical
    assert target.inspect_image("back:1").diff_ids == backup.whole().diff_ids
    assert "target has 1 of 2 layers; they are not sent" in world.progress.notes


def test_a_target_that_refuses_what_is_left_out_gets_all_of_it() -> None:
    """Such as one whose image went meanwhile."""
    world = World(layout="layers")
    backup = _backup(world)
    target = _Target(backup.whole().diff_ids)
    assert world.restore(backup, RestoreRequest(tags=("back:1",)), host=target).identical
    assert any(note.startswith("target does not take it so; sending all") for note in world.progress.notes)
    with pytest.raises(IntegrityError):
        target.load_image([b"no archive"])


class _Containerd(MemoryDockerHost):
    """A target with a containerd store: it calls images by their manifests, and is given blobs."""

    def __init__(self) -> None:
        super().__init__("target", engine=replace(memory_engine("target"), store="containerd"))
        self.takes = "blobs"
        self.members: list[set[str]] = []
        self._manifests: dict[str, str] = {}

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Load an archive, and note what it has."""
        archive = b"".join(chunks)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            self.members.append(set(tar.getnames()))
            index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
        loaded = super().load_image([archive])
        self._manifests[super().inspect_image(loaded.names[0]).id] = index["manifests"][0]["digest"]
        return loaded

    def list_images(self, *, labels: Sequence[str] = ()) -> tuple[ImageSummary, ...]:
        """Return the images by their manifests."""
        return tuple(replace(each, id=self._manifests[each.id]) for each in super().list_images(labels=labels))

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return an image by its manifest."""
        image = super().inspect_image(self._of(reference))
        return replace(image, id=self._manifests[image.id])

    def tag_image(self, image_id: str, *, reference: str) -> None:
        """Point a tag to an image."""
        super().tag_image(self._of(image_id), reference=reference)

    def _of(self, reference: str) -> str:
        return next((id_ for id_, manifest in self._manifests.items() if manifest == reference), reference)


def _grown(world: World) -> tuple[Backup, Backup]:
    """Return backups of an image before and after its upper layer changed."""
    earlier = world.backup(1).backup
    world.host.add_archive(app_archive("two"))
    return earlier, world.backup(2).backup


def _blob(backup: Backup, layer: int) -> str:
    blobs = backup.whole().blobs
    assert blobs is not None
    return blob_path(blobs.layers[layer].digest)


def test_a_containerd_store_that_was_given_an_earlier_backup_gets_the_other_blobs() -> None:
    """The image that holds the rest has a name of ours meanwhile, and no longer."""
    world, target = World(layout="layers"), _Containerd()
    earlier, later = _grown(world)
    world.restore(earlier, RestoreRequest(tags=("back:1",)), host=target)
    target.tag_image(target.inspect_image("back:1").id, reference=f"{RESTORED}:{later.backup_id}-0123abcd")
    outcome = world.restore(later, RestoreRequest(tags=("back:2",)), host=target)
    assert outcome.identical
    assert target.members[0] >= {_blob(earlier, 0), _blob(earlier, 1)}
    assert _blob(later, 1) in target.members[1]
    assert _blob(later, 0) not in target.members[1]
    assert "target has 1 of 2 layers; they are not sent" in world.progress.notes
    # That of a killed try went as well.
    assert {each.reference for each in target.list_images()} == {"back:1", "back:2"}


def test_all_blobs_are_sent_when_the_image_that_holds_some_is_gone_when_it_is_to_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the question and that somebody removed it."""
    world, target = World(layout="layers"), _Containerd()
    earlier, later = _grown(world)
    world.restore(earlier, RestoreRequest(tags=("back:1",)), host=target)
    tag_image = target.tag_image

    def gone(image_id: str, *, reference: str) -> None:
        if len(target.members) == 1:
            raise NotFoundError("No such image")
        tag_image(image_id, reference=reference)

    monkeypatch.setattr(target, "tag_image", gone)
    assert world.restore(later, RestoreRequest(tags=("back:2",)), host=target).identical
    assert target.members[1] >= {_blob(later, 0), _blob(later, 1)}
    assert any("cannot be kept on target, so its layers are sent" in note for note in world.progress.notes)


def test_a_manifest_that_does_not_name_its_records_blobs_leaves_nothing_out() -> None:
    """Whoever writes in a repository could else have an image made without some of its layers."""
    world, target = World(layout="layers"), _Containerd()
    earlier, later = _grown(world)
    world.restore(earlier, RestoreRequest(tags=("back:1",)), host=target)
    assert base_on(target, world.repository, later) is not None
    record, other = earlier.whole(), later.whole().blobs
    assert record.blobs is not None
    assert other is not None
    wrong = record.model_copy(update={"blobs": record.blobs.model_copy(update={"layers": other.layers})})
    spoil(world.storage, earlier.path + RECORD_FILE, data=wrong.to_bytes())
    assert base_on(target, world.repository, later) is None


def test_an_image_that_nobody_restored_leaves_nothing_out() -> None:
    """Its blobs are others."""
    world, target = World(layout="layers"), _Containerd()
    earlier, later = _grown(world)
    assert base_on(target, world.repository, later) is None
    world.restore(earlier, RestoreRequest(tags=("back:1",)), host=target)
    target.remove_image("back:1")
    assert base_on(target, world.repository, later) is None
