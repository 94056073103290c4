# SPDX-License-Identifier: Apache-2.0
"""Fetch what is new of an image: by a ``docker save`` from which the host leaves out what is held, or by a push."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from airflow_provider_dockerbackup.core.archive.docker_archive import (
    ArchivedImage,
    DockerArchiveScanner,
    require_image,
)
from airflow_provider_dockerbackup.core.archive.layer_reader import limits_for
from airflow_provider_dockerbackup.core.archive.member_names import member_names
from airflow_provider_dockerbackup.core.capture import pour
from airflow_provider_dockerbackup.core.layers.arrival import Arrival
from airflow_provider_dockerbackup.core.layers.collector import LayerCollector
from airflow_provider_dockerbackup.core.layers.documents import EngineHint
from airflow_provider_dockerbackup.core.layers.store import LayerStore
from airflow_provider_dockerbackup.core.layers.target import LayerTarget
from airflow_provider_dockerbackup.core.model import EngineInfo, FilteredBy, ImageInspect, ImageManifest
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import LayerBlob
from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.exceptions import IncompleteError, IntegrityError

_FILTERED: dict[FilteredBy, str] = {
    "sh": "layers that are held were left out of docker save on the host",
    "none": "layers that are held came all the same: the host lacks dd or od as POSIX has them (GNU's, busybox's)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """An image of which every layer is in the repository now.

    :param layers: lowest first.
    :param received_bytes: what the host sent.
    :param hints: by which digests the engine calls its layers, as far as they were not known.
    """

    image: ArchivedImage
    layers: tuple[LayerBlob, ...]
    received_bytes: int
    capture: Literal["save", "push"]
    hints: tuple[EngineHint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """What both ways need.

    :param held: blobs of the image's layers that are there.
    :param hints: by which digests the engine is known to call those layers.
    """

    host: DockerHost
    engine: EngineInfo
    image: ImageInspect
    store: LayerStore
    held: Mapping[str, LayerBlob]
    hints: tuple[EngineHint, ...]
    throttle: Throttle
    progress: Progress

    @property
    def missing(self) -> frozenset[str]:
        """The diff_ids of the layers that are not there."""
        return frozenset(self.image.diff_ids) - self.held.keys()

    @property
    def held_bytes(self) -> int:
        """Size of the layers that are there, uncompressed."""
        return sum(each.size_bytes for each in self.held.values())


def fetch_by_save(fetching: Fetching) -> Fetched:
    """Fetch by ``docker save``; where the guess was wrong what this engine calls its layers, once more without one.

    :raises IntegrityError: when the stream is not exactly the announced image.
    :raises TransientError: when the link, the daemon or the storage failed.
    """
    digests: dict[str, frozenset[str]] = {}
    for hint in fetching.hints:
        digests[hint.diff_id] = digests.get(hint.diff_id, frozenset()) | {hint.digest}
    names = member_names(fetching.image, engine=fetching.engine, held=fetching.held.keys(), hints=digests)
    try:
        return _save(fetching, names)
    except IntegrityError as err:
        # Most likely the guess was wrong; should the archive itself be bad, the whole one is refused likewise.
        if not names:
            raise
        fetching.progress.note(
            f"without the layers that are held the image did not come whole, saving all of it: {err}"
        )
        return _save(fetching, {})


def _save(fetching: Fetching, names: Mapping[str, str]) -> Fetched:
    image = fetching.image
    stream = fetching.host.save_image(image.id, without=tuple(names))
    with LayerCollector(fetching.store, wanted=fetching.missing, known=names.keys()) as collector:
        limits = limits_for(image.size_bytes)
        scanner = DockerArchiveScanner(decompress_limits=limits, layers=collector, held=names)
        arrival = Arrival(scanner.feed, limits)
        pour(
            stream,
            arrival.feed,
            None,
            progress=fetching.progress,
            throttle=fetching.throttle,
            what=f"docker save {image.id}",
            estimate_bytes=max(0, image.size_bytes - sum(fetching.held[each].size_bytes for each in names.values())),
        )
        if stream.filtered_by is not None:
            fetching.progress.note(_FILTERED[stream.filtered_by])
        arrival.finish()
        archive = scanner.finish()
        require_image(archive, image_id=image.id, diff_ids=image.diff_ids)
        layers = _all_layers(image, {**fetching.held, **collector.stored})
    return Fetched(
        image=archive.image,
        layers=layers,
        received_bytes=arrival.received_bytes,
        capture="save",
        hints=hints_in(archive.image, engine_id=fetching.engine.engine_id),
    )


def fetch_by_push(fetching: Fetching, *, repository: str, attempt: str) -> Fetched:
    """Fetch by ``docker push`` to ourselves; if what this engine was known to call its layers does not fit, once more.

    :param repository: name under which the engine pushes; always the same, for engines remember what they pushed by it.
    :param attempt: random name of the try.
    :raises PushUnavailableError: when the host cannot push to us; nothing was changed there.
    :raises IntegrityError: when what was pushed is not exactly the announced image.
    :raises TransientError: when the link, the daemon or the storage failed.
    """
    try:
        return _push(fetching, repository=repository, attempt=attempt)
    except IntegrityError as err:
        if not fetching.hints:
            raise
        fetching.progress.note(f"what the engine was known to call its layers may be wrong, pushing all: {err}")
    fetched = _push(replace(fetching, hints=()), repository=repository, attempt=attempt)
    for hint in fetching.hints:
        if hint not in fetched.hints:
            fetching.store.forget(hint)
    return fetched


def _push(fetching: Fetching, *, repository: str, attempt: str) -> Fetched:
    manifests = fetching.host.image_manifests(fetching.image) if fetching.image.has_index else ()
    target = LayerTarget(
        fetching.store,
        engine_id=fetching.engine.engine_id,
        image=fetching.image,
        held=fetching.held,
        hints=fetching.hints,
        manifests=manifests,
        throttle=fetching.throttle,
        progress=fetching.progress,
    )
    fetching.progress.start(f"docker push {fetching.image.id}", None)
    try:
        pushed = fetching.host.push_image(
            fetching.image.id,
            target=target,
            repository=repository,
            attempt=attempt,
            platform=_platform(fetching.image, manifests),
        )
    finally:
        fetching.progress.finish()
    image = target.pushed_image(pushed.manifest)
    return Fetched(
        image=image,
        layers=_all_layers(fetching.image, {**fetching.held, **target.stored}),
        received_bytes=pushed.received_bytes,
        capture="push",
        hints=target.learned,
    )


def _platform(image: ImageInspect, manifests: Sequence[ImageManifest]) -> str | None:
    """Return the platform to push of an image for several, so that no other is sent; None to push all there is.

    An engine that has not all of them can push a single one only.
    """
    there = [each.platform for each in manifests if each.kind == "platform" and each.whole]
    wanted = f"{image.os}/{image.architecture}"
    exact = f"{wanted}/{image.variant}" if image.variant else wanted
    near = (each for each in there if f"{each}/".startswith(f"{wanted}/"))
    return exact if exact in there else next(near, None)


def _all_layers(image: ImageInspect, blobs: Mapping[str, LayerBlob]) -> tuple[LayerBlob, ...]:
    missing = [diff_id for diff_id in image.diff_ids if diff_id not in blobs]
    if missing:
        raise IncompleteError(f"layers {', '.join(missing)} of image {image.id} neither came nor are held")
    return tuple(blobs[diff_id] for diff_id in image.diff_ids)


def hints_in(image: ArchivedImage, *, engine_id: str) -> tuple[EngineHint, ...]:
    """Return by which digests the engine calls the layers that came; one that it stores plain needs no hint."""
    return tuple(
        EngineHint(
            engine_id=engine_id,
            diff_id=layer.diff_id,
            digest=layer.digest,
            size_bytes=layer.stored_size_bytes,
            compression=layer.compression,
        )
        for layer in image.layers
        if not layer.held and layer.digest != layer.diff_id
    )
