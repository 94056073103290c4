# SPDX-License-Identifier: Apache-2.0
"""What a record says of an image: what the engine announced of it, its history without secrets, its layers."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.image import ArchivedImage, HistoryEntry
from airflow_provider_dockerbackup.core.configuration import step_without_values
from airflow_provider_dockerbackup.core.model import ImageInspect
from airflow_provider_dockerbackup.core.record import History, Image, Layer, OtherManifest


def image_part(
    inspected: ImageInspect,
    *,
    config_digest: str,
    known_ids: Iterable[str],
    diff_ids: tuple[str, ...],
    history: Iterable[HistoryEntry],
    layers: tuple[Layer, ...] = (),
    others: tuple[OtherManifest, ...] = (),
) -> Image:
    """Return what a record says of an image.

    :param inspected: what the engine said before the capture.
    :param config_digest: of the configuration that was captured.
    :param known_ids: every ID by which an engine may call it.
    :param diff_ids: of the layers that were captured.
    :param history: of the configuration that was captured, oldest step first.
    :param layers: where each layer's bytes lie; none where nobody has read the archive.
    :param others: manifests for other platforms, and attestations.
    """
    return Image(
        id=inspected.id,
        config_digest=config_digest,
        known_ids=tuple(sorted(known_ids)),
        diff_ids=diff_ids,
        repo_tags=inspected.repo_tags,
        repo_digests=inspected.repo_digests,
        created=inspected.created,
        os=inspected.os,
        architecture=inspected.architecture,
        variant=inspected.variant,
        layers=layers,
        history=tuple(_step(each) for each in history),
        others=others,
    )


def layers_in(archived: ArchivedImage) -> tuple[Layer, ...]:
    """Return the layers of an archived image as its record names them: by the members that hold them."""
    return tuple(
        Layer(
            diff_id=layer.diff_id,
            member=layer.member,
            size_bytes=layer.size_bytes,
            stored_size_bytes=layer.stored_size_bytes,
            compression=Compression(layer.compression),
        )
        for layer in archived.layers
    )


def _step(entry: HistoryEntry) -> History:
    return History(
        created=entry.created or "",
        created_by=step_without_values(entry.created_by),
        author=entry.author,
        comment=entry.comment,
        empty_layer=entry.empty_layer,
    )
