# SPDX-License-Identifier: Apache-2.0
"""Layers in frames, as a repository would give them; what the frames hold may be another thing."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

from airflow_provider_dockerbackup.core.archive.hybrid import PlainLayer
from airflow_provider_dockerbackup.core.document import sha256_of


def framed_layer(body: bytes, frames: bytes, *, given: Iterable[bytes] = ()) -> PlainLayer:
    """Return a layer.

    :param body: what it is said to be.
    :param frames: its blob, as its name and size say.
    :param given: what is read from the blob, if that is not ``frames``.
    """
    pieces = list(given) or [frames]
    return PlainLayer(
        diff_id=sha256_of(body),
        size_bytes=len(body),
        chunks=lambda: nullcontext([body]),
        blob=sha256_of(frames),
        frames=lambda: nullcontext(pieces),
        stored_size_bytes=len(frames),
    )
