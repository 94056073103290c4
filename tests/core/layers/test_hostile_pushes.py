# SPDX-License-Identifier: Apache-2.0
"""An engine that pushes what it should not: it is refused by name, soon, and nothing of it is taken for the image."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_dockerbackup.core.archive.contents import DOCUMENTS_BYTES
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.gc.pins import Pins
from airflow_provider_dockerbackup.core.layers.documents import EngineHint
from airflow_provider_dockerbackup.core.layers.store import LayerStore
from airflow_provider_dockerbackup.core.layers.target import LayerTarget
from airflow_provider_dockerbackup.core.model import ImageInspect
from airflow_provider_dockerbackup.core.push import PushedManifest
from airflow_provider_dockerbackup.core.record import LayerBlob
from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.transport.memory import FixedClock, MemoryDockerHost
from tests.core.archive.making import layer
from tests.core.world import IMAGE, Notes, World, app_archive

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYERS = [layer("bin/sh", "etc/passwd"), layer("app/one")]


def _image() -> tuple[ImageInspect, bytes]:
    host = MemoryDockerHost("hostile")
    host.add_archive(app_archive("one"))
    image = host.inspect_image(IMAGE.name)
    config = json.dumps({**image.config, "rootfs": {"type": "layers", "diff_ids": list(image.diff_ids)}}).encode()
    return replace(image, id=sha256_of(config)), config


@contextmanager
def _target(image: ImageInspect, *, hints: tuple[EngineHint, ...] = ()) -> Iterator[LayerTarget]:
    """Where the image is pushed to; layers that hints are of count as held."""
    world = World(layout="layers")
    held = {
        hint.diff_id: LayerBlob(diff_id=hint.diff_id, digest=hint.digest, size_bytes=1, stored_size_bytes=1)
        for hint in hints
    }
    with Pins(world.repository, attempt="fedcba987654", clock=FixedClock(), progress=Notes()) as pins:
        yield LayerTarget(
            LayerStore(world.repository, pins=pins, progress=Notes()),
            engine_id="hostile",
            image=image,
            held=held,
            hints=hints,
            throttle=Throttle(FixedClock(), None),
            progress=Notes(),
        )


def _send(target: LayerTarget, data: bytes) -> dict[str, Any]:
    upload = target.upload()
    try:
        upload.write(data)
        upload.finish(sha256_of(data))
    finally:
        upload.abort()
    return {"digest": sha256_of(data), "size": len(data)}


def _put(target: LayerTarget, value: dict[str, Any], media_type: str = INDEX, *, last: bool = False) -> PushedManifest:
    pushed = PushedManifest(media_type=media_type, data=json.dumps(value).encode())
    target.manifest("attempt" if last else pushed.digest, media_type=media_type, data=pushed.data)
    return pushed


def _named(pushed: PushedManifest) -> dict[str, Any]:
    return {"digest": pushed.digest, "size": len(pushed.data), "mediaType": pushed.media_type}


def _manifest(target: LayerTarget, config: bytes, **changes: Any) -> PushedManifest:
    layers = [_send(target, gzip.compress(each, mtime=0)) for each in LAYERS]
    return _put(target, {"config": _send(target, config), "layers": layers, **changes}, MANIFEST)


def test_indexes_that_name_each_other_again_and_again_are_walked_once() -> None:
    """A hundred thousand million ways lead through four indexes of six hundred entries each."""
    image, config = _image()
    with _target(image) as target:
        below = _put(target, {"config": _send(target, config), "layers": []}, MANIFEST)
        for _ in range(4):
            below = _put(target, {"manifests": [_named(below)] * 600})
        with pytest.raises(IntegrityError, match="does not lead to an image"):
            target.pushed_image(below)


def test_indexes_nested_without_end_beside_the_image_are_refused() -> None:
    """Also behind an image that was found before them."""
    image, config = _image()
    with _target(image) as target:
        deep = _put(target, {"manifests": []})
        for _ in range(2000):
            deep = _put(target, {"manifests": [_named(deep)]})
        top = _put(target, {"manifests": [_named(_manifest(target, config)), _named(deep)]}, last=True)
        with pytest.raises(IntegrityError, match="nested deeper"):
            target.pushed_image(top)


def test_manifests_without_end_are_refused_before_they_fill_the_memory() -> None:
    """They count like all other documents."""
    image, _ = _image()
    with _target(image) as target:
        for number in range(DOCUMENTS_BYTES // 4_100_000):
            _put(target, {"manifests": [], "annotations": {str(number): "x" * 4_000_000}})
        with pytest.raises(IntegrityError, match="bytes of JSON documents"):
            _put(target, {"manifests": [], "annotations": {"last": "x" * 4_100_000}})


def test_a_manifest_put_under_its_digest_and_under_the_tag_counts_once() -> None:
    """As engines do with the image's own."""
    image, config = _image()
    with _target(image) as target:
        manifest = _manifest(target, config)
        for _ in range(DOCUMENTS_BYTES // len(manifest.data) // 100 + 1):
            target.manifest("attempt", media_type=MANIFEST, data=manifest.data)


def test_a_held_layer_that_is_named_with_another_size_is_refused() -> None:
    """Its size was proven when it came."""
    image, config = _image()
    sent = gzip.compress(LAYERS[0], mtime=0)
    hint = EngineHint(engine_id="hostile", diff_id=image.diff_ids[0], digest=sha256_of(sent), size_bytes=len(sent))
    with _target(image, hints=(hint,)) as target:
        layers = [{"digest": hint.digest, "size": hint.size_bytes + 1}, _send(target, gzip.compress(LAYERS[1]))]
        with pytest.raises(IntegrityError, match=r"says that .* bytes, it has"):
            _put(target, {"config": _send(target, config), "layers": layers}, MANIFEST)


@pytest.mark.parametrize("change", ["another layer", "one more", "none", "turned round"])
def test_a_configuration_with_other_diff_ids_is_not_the_image(change: str) -> None:
    """Neither is a manifest whose layers are not those of its configuration."""
    image, config = _image()
    document = json.loads(config)
    ids = document["rootfs"]["diff_ids"]
    document["rootfs"]["diff_ids"] = {
        "another layer": [ids[0], sha256_of(b"another")],
        "one more": [*ids, ids[0]],
        "none": [],
        "turned round": ids[::-1],
    }[change]
    with _target(image) as target:
        pushed = _manifest(target, json.dumps(document).encode())
        with pytest.raises(IntegrityError, match="does not lead to an image"):
            target.pushed_image(pushed)
        pushed = _put(target, {**json.loads(pushed.data), "config": _send(target, config), "layers": []}, MANIFEST)
        with pytest.raises(IntegrityError, match="does not lead to an image"):
            target.pushed_image(pushed)


def test_as_many_zeros_may_come_as_the_engine_says_that_the_image_holds() -> None:
    """A layer of one file of zeros shrinks a thousandfold: no bomb, when its size was announced."""
    image, _ = _image()
    for size_bytes, allowed in ((1000, 1 << 30), (10 << 30, 20 << 30)):
        with _target(replace(image, size_bytes=size_bytes)) as target:
            assert target.limits.free_bytes == allowed
