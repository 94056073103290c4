# SPDX-License-Identifier: Apache-2.0
"""Make backups in layout ``layers``: fetch what is new, then manifest, OCI documents and record, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.contents import BLOBS
from airflow_provider_dockerbackup.core.archive.hybrid import archive_size
from airflow_provider_dockerbackup.core.archive.oci_layout import (
    image_index,
    oci_layout,
    plain_manifest,
    stored_manifest,
)
from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.gc.pins import Pins
from airflow_provider_dockerbackup.core.layers.choice import CaptureChoice, Outlook, Way, choose
from airflow_provider_dockerbackup.core.layers.fetch import Fetched, Fetching, fetch_by_push, fetch_by_save
from airflow_provider_dockerbackup.core.layers.hints import hints_of
from airflow_provider_dockerbackup.core.layers.store import LayerStore
from airflow_provider_dockerbackup.core.model import EngineInfo, ImageInspect
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import BlobSet, DocumentFile, Layer, LayerBlob
from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.exceptions import DockerBackupError


@contextmanager
def layer_store(attempt: Attempt, *, tuning: Tuning, progress: Progress) -> Iterator[LayerStore]:
    """Give the repository's blobs to one try; what it relies on is kept until this ends.

    The try must commit its record before that.
    """
    repository = attempt.repository
    with Pins(repository, attempt=attempt.name, clock=repository.clock, progress=progress) as pins:
        attempt.before_record(pins.require_fresh)
        yield LayerStore(repository, pins=pins, progress=progress, level=tuning.level, threads=tuning.threads)


def fetch_image(
    image: ImageInspect,
    *,
    host: DockerHost,
    engine: EngineInfo,
    store: LayerStore,
    attempt: Attempt,
    capture: CaptureChoice,
    tuning: Tuning,
    progress: Progress,
) -> Fetched:
    """Fetch what is not held of an image, and return all of it.

    :param capture: ``push``, ``save``, or ``auto`` for what is expected to be faster and works.
    :raises PushUnavailableError: when the host cannot push and nothing else was allowed.
    :raises IntegrityError: when what came is not exactly the image.
    :raises TransientError: when the link, the daemon or the storage failed.
    """
    held = store.held(image.diff_ids)
    fetching = Fetching(
        host=host,
        engine=engine,
        image=image,
        store=store,
        held=held,
        hints=tuple(hints_of(attempt.repository, engine.engine_id, held)),
        throttle=Throttle(attempt.repository.clock, tuning.bandwidth_limit),
        progress=progress,
    )
    way = _way(fetching, capture, attempt=attempt)
    fetched = _fetched(fetching, way, capture, attempt=attempt)
    for hint in fetched.hints:
        store.remember(hint)
    return fetched


def _way(fetching: Fetching, capture: CaptureChoice, *, attempt: Attempt) -> Way:
    if capture != "auto":
        return capture
    known = {hint.diff_id for hint in fetching.hints}
    known_bytes = sum(each.size_bytes for diff_id, each in fetching.held.items() if diff_id in known)
    way, why = choose(
        Outlook(
            store=fetching.engine.store,
            missing_bytes=max(0, fetching.image.size_bytes - fetching.held_bytes) if fetching.missing else 0,
            known_bytes=known_bytes,
            unknown_bytes=fetching.held_bytes - known_bytes,
            earlier=sum(1 for _ in attempt.repository.catalog.each(source=attempt.key.source)),
        )
    )
    fetching.progress.note(
        f"{len(fetching.held)} of {len(set(fetching.image.diff_ids))} layers are held; fetching by {way}: {why}"
    )
    return way


def _fetched(fetching: Fetching, way: Way, capture: CaptureChoice, *, attempt: Attempt) -> Fetched:
    if way == "save":
        return fetch_by_save(fetching)
    try:
        return fetch_by_push(fetching, repository=attempt.repository.document.repository_id, attempt=attempt.name)
    except DockerBackupError as err:
        # Whatever it was: a save proves each byte by itself.
        if capture == "push":
            raise
        fetching.progress.note(f"the push failed, saving instead: {err}")
        # What a push stored before it failed is held now, and need not come again.
        held = fetching.store.held(fetching.image.diff_ids)
        return fetch_by_save(replace(fetching, held=held))


def blob_set(
    config: bytes,
    layers: Sequence[LayerBlob],
    *,
    store: LayerStore,
    attempt: Attempt,
    size_bytes: int,
    received_bytes: int,
) -> BlobSet:
    """Store what belongs to an image whose layers are there, and return what the record says of its bytes."""
    config_blob = store.put(config)
    manifest = stored_manifest(config, [(each.digest, each.stored_size_bytes) for each in layers])
    manifest_blob = store.put(manifest)
    return BlobSet(
        manifest=manifest_blob,
        config=config_blob,
        layers=tuple(layers),
        documents=_oci_documents(manifest, attempt),
        size_bytes=size_bytes,
        received_bytes=received_bytes,
        new_bytes=store.new_bytes,
    )


def _oci_documents(manifest: bytes, attempt: Attempt) -> tuple[DocumentFile, ...]:
    """Write what makes the record's folder an OCI image layout; nothing where its blobs are encrypted."""
    if attempt.repository.encryption != "none":
        return ()
    folder = f"oci-{attempt.name}"
    return (
        attempt.file(f"{folder}/oci-layout", oci_layout()),
        attempt.file(f"{folder}/index.json", image_index(manifest, tags=())),
    )


def image_blobs(fetched: Fetched, *, store: LayerStore, attempt: Attempt) -> BlobSet:
    """Return what the record says of a fetched image's bytes."""
    config = fetched.image.config
    return blob_set(
        config,
        fetched.layers,
        store=store,
        attempt=attempt,
        size_bytes=archive_size(config, _sizes(fetched)),
        received_bytes=fetched.received_bytes,
    )


def known_ids(fetched: Fetched) -> frozenset[str]:
    """Return every digest under which an engine may show the image: as it came, or as it is loaded again."""
    loaded = sha256_of(plain_manifest(fetched.image.config, _sizes(fetched)))
    return frozenset({*fetched.image.image_ids, loaded})


def layers_read_back(fetched: Fetched) -> tuple[Layer, ...]:
    """Return the layers as members of the archive that an image is read back as."""
    return tuple(
        Layer(
            diff_id=diff_id,
            member=BLOBS + diff_id.removeprefix("sha256:"),
            size_bytes=size_bytes,
            stored_size_bytes=size_bytes,
            compression=Compression.NONE,
        )
        for diff_id, size_bytes in _sizes(fetched)
    )


def _sizes(fetched: Fetched) -> list[tuple[str, int]]:
    """Return diff_id and size of each uncompressed layer."""
    return [(diff_id, each.size_bytes) for diff_id, each in zip(fetched.image.diff_ids, fetched.layers, strict=True)]
