# SPDX-License-Identifier: Apache-2.0
"""Images for several platforms, and attestations: one platform is kept, and the record names all else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.cover import judge_image
from airflow_provider_dockerbackup.core.model import EngineInfo, ImageInspect, ImageManifest
from airflow_provider_dockerbackup.core.push import PushedManifest, PushResult, PushTarget
from airflow_provider_dockerbackup.core.record import BackupRecord, Image
from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.transport.memory import MemoryDockerHost, MemoryStream
from tests.core.archive.making import (
    blob,
    compact,
    descriptor,
    image_config,
    layer,
    oci_archive,
    oci_documents,
    sha256,
    tar_of,
)
from tests.core.world import HOST, IMAGE, World, assert_all_whole

LAYERS = [layer("bin/sh"), layer("app")]
ATTESTS = {"vnd.docker.reference.type": "attestation-manifest"}
OWN = compact(image_config(LAYERS))
FOREIGN = compact({**image_config(LAYERS), "architecture": "arm64"})
STATEMENT = b'{"_type":"https://in-toto.io/Statement/v0.1"}'


def manifest(config: bytes, layers: list[bytes]) -> bytes:
    """Return a manifest."""
    body: bytes = oci_documents(config, layers)["manifest"]
    return body


class IndexHost(MemoryDockerHost):
    """A host with a containerd store: its image is one of two platforms, arm64 first, and has an attestation.

    Both platforms have the same layers, as images of scripts do.

    :param partial: whether it has only its own platform, as after a pull.
    :param tells: whether its engine says what an index names; else it pushes all there is.
    """

    def __init__(self, *, partial: bool = False, tells: bool = True) -> None:
        super().__init__(HOST)
        self.add_archive(tar_of(oci_archive(LAYERS)))
        self.partial, self.tells = partial, tells
        self.manifests = {
            "linux/arm64": manifest(FOREIGN, LAYERS),
            "linux/amd64": manifest(OWN, LAYERS),
            "attestation": manifest(STATEMENT, []),
        }
        self.index = compact({"schemaVersion": 2, "manifests": [self._named(name) for name in self.manifests]})
        self.platforms_pushed: list[str | None] = []

    def _named(self, name: str) -> dict[str, Any]:
        parts = dict(zip(("os", "architecture"), name.split("/"), strict=False))
        extra: dict[str, Any] = {"annotations": ATTESTS, "platform": {"os": "unknown", "architecture": "unknown"}}
        return descriptor(self.manifests[name], **({"platform": parts} if "/" in name else extra))

    @property
    def there(self) -> list[bytes]:
        """The manifests that it has."""
        names = ["linux/amd64", "attestation"] if self.partial else list(self.manifests)
        return [self.manifests[name] for name in names]

    def engine(self) -> EngineInfo:
        """Return what the daemon says of itself."""
        return dataclasses.replace(super().engine(), store="containerd")

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return the image under the ID of its index."""
        name = IMAGE.name if reference.startswith("sha256:") else reference
        image = super().inspect_image(name)
        index = descriptor(self.index, "index")
        return dataclasses.replace(
            image, id=f"sha256:{sha256(self.index)}", document={**image.document, "Descriptor": index}
        )

    def save_image(self, image_id: str, **_: object) -> MemoryStream:
        """Stream the archive with all that it has."""
        documents = {"index.json": {"schemaVersion": 2, "manifests": [descriptor(self.index, "index")]}}
        parts = oci_archive(LAYERS, documents=documents)
        others = [self.index, *self.there, *([] if self.partial else [FOREIGN]), STATEMENT]
        names = {each.name for each in parts}
        return MemoryStream(tar_of([*(blob(each) for each in others if blob(each).name not in names), *parts]))

    def image_manifests(self, image: ImageInspect) -> tuple[ImageManifest, ...]:
        """Return what the index names."""
        return tuple(self._told()) if self.tells else ()

    def _told(self) -> Iterator[ImageManifest]:
        for name, body in self.manifests.items():
            yield ImageManifest(
                digest=f"sha256:{sha256(body)}",
                kind="platform" if "/" in name else "attestation",
                platform=name if "/" in name else "",
                whole=body in self.there,
            )

    def push_image(
        self, image_id: str, *, target: PushTarget, repository: str, attempt: str, platform: str | None = None
    ) -> PushResult:
        """Push one platform, or all that it has."""
        self.platforms_pushed.append(platform)
        pushed = self.there if platform is None else [self.manifests[platform]]
        for body in [*LAYERS, OWN, *([FOREIGN, STATEMENT] if platform is None else [])]:
            if target.blob_size(f"sha256:{sha256(body)}") is None:
                upload = target.upload()
                upload.write(body)
                upload.finish(f"sha256:{sha256(body)}")
        for body in pushed:
            target.manifest(f"sha256:{sha256(body)}", media_type="manifest", data=body)
        last = self.index if platform is None else pushed[0]
        target.manifest(attempt, media_type="top", data=last)
        top = PushedManifest(media_type="top", data=last)
        return PushResult(manifest=top, received_bytes=1, uploaded_blobs=1, uploaded_bytes=1)


def world_of(**options: bool) -> World:
    """Return a repository of layout layers and such a host."""
    return World(layout="layers", host=IndexHost(**options))


def image_of(record: BackupRecord) -> Image:
    """Return the record's image."""
    assert record.image is not None
    return record.image


# An engine that does not tell pushes no part of an index either.
@pytest.mark.parametrize(("partial", "tells"), [(False, True), (True, True), (False, False)])
def test_push_and_save_record_the_same_of_what_stands_beside_the_image(partial: bool, tells: bool) -> None:
    """Platform, identity, IDs, notes and fidelity do not depend on how the bytes came."""
    pushed = world_of(partial=partial, tells=tells).backup(1, capture="push").backup.whole()
    saved = world_of(partial=partial, tells=tells).backup(1, capture="save").backup.whole()
    assert (pushed.capture, saved.capture) == ("push", "save")
    assert image_of(pushed) == image_of(saved)
    assert (pushed.notes, pushed.fidelity) == (saved.notes, saved.fidelity)
    assert image_of(pushed).config_digest == f"sha256:{sha256(OWN)}"
    assert [(each.platform, each.whole, each.kept) for each in image_of(pushed).others] == [
        ("linux/arm64", not partial, False),
        ("", True, False),
    ]


def test_only_the_hosts_platform_is_pushed_where_the_engine_says_what_there_is() -> None:
    """The layers of another one never cross the wire."""
    world = world_of()
    world.backup(1, capture="push")
    assert isinstance(world.host, IndexHost)
    assert world.host.platforms_pushed == ["linux/amd64"]


def test_the_record_names_what_is_not_in_the_backup_and_why() -> None:
    """Left out by the layout, or not there to begin with."""
    both, partial = (world_of(partial=each).backup(1).backup.whole() for each in (False, True))
    for record, reason in ((both, "layout 'archive' would keep it"), (partial, "its host did not have all of it")):
        (note,) = [each for each in record.notes if "linux/arm64" in each]
        assert reason in note
        lost = {(each.subject, each.name) for each in record.fidelity.items if each.outcome == "lost"}
        assert ("platforms", "linux/arm64") in lost
        assert any(subject == "attestations" for subject, _ in lost)
        assert ("platforms", "linux/amd64", "kept") in {
            (each.subject, each.name, each.outcome) for each in record.fidelity.items
        }


def test_layout_archive_keeps_what_the_host_had() -> None:
    """Only what the host lacked is noted."""
    for partial, notes in ((False, 0), (True, 1)):
        world = World(host=IndexHost(partial=partial))
        record = world.backup(1).backup.whole()
        assert len(record.notes) == notes
        assert [each.kept for each in image_of(record).others] == [not partial, True]
        assert_all_whole(world.repository)


def test_a_backup_without_the_other_platform_does_not_cover_an_image_that_has_it() -> None:
    """Removing the image would lose what is in no backup; by its own platform alone it is covered."""
    kept, left = World(host=IndexHost()), world_of()
    image = left.host.inspect_image(IMAGE.name)
    assert judge_image(kept.backup(1).backup.whole(), image) == ""
    record = left.backup(1).backup.whole()
    assert "does not hold linux/arm64" in str(judge_image(record, image))
    alone = dataclasses.replace(image, id=f"sha256:{sha256(OWN)}")
    assert judge_image(record, alone) == ""
    assert judge_image(world_of(partial=True).backup(1).backup.whole(), image) is not None


class Single(IndexHost):
    """An engine that says that the image's ID is that of a manifest, and would be asked in vain."""

    def inspect_image(self, reference: str) -> ImageInspect:
        """Name a manifest."""
        image = super().inspect_image(reference)
        return dataclasses.replace(image, document={**image.document, "Descriptor": descriptor(self.index)})

    def image_manifests(self, image: ImageInspect) -> tuple[ImageManifest, ...]:
        """Fail: it takes a command of the client's."""
        raise AssertionError(image.id)


def test_an_image_without_an_index_is_not_asked_about() -> None:
    """Most have none."""
    world = World(layout="layers", host=Single())
    world.backup(1, capture="push")
    assert isinstance(world.host, Single)
    assert world.host.platforms_pushed == [None]


class Liar(IndexHost):
    """An engine that pushes another manifest than those that it names."""

    def image_manifests(self, image: ImageInspect) -> tuple[ImageManifest, ...]:
        """Name others."""
        return tuple(
            dataclasses.replace(each, digest=f"sha256:{'0' * 64}") if each.platform == "linux/amd64" else each
            for each in super().image_manifests(image)
        )


def test_a_manifest_that_the_index_does_not_name_is_not_taken_for_the_image() -> None:
    """What was pushed must be the image by its ID, or one of the manifests that the engine says it has."""
    with pytest.raises(IntegrityError, match=r"not .* that was asked for"):
        World(layout="layers", host=Liar()).backup(1, capture="push")
