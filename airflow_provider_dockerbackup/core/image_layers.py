# SPDX-License-Identifier: Apache-2.0
"""The layers of an archived image, as its record names them."""

from __future__ import annotations

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.image import ArchivedImage
from airflow_provider_dockerbackup.core.record import Layer


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
