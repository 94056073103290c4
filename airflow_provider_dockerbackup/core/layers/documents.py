# SPDX-License-Identifier: Apache-2.0
"""The documents that tell where a layer is, and by which names engines know it.

``layers/sha256/<hex of the diff_id>.json`` is the layer map: the one blob that holds a layer. It is create-only, so of
two writers that store a new layer at once the first decides. ``layers/engines/…`` are hints: an engine names a layer by
the digest of its own compressed form, and only who knows that can tell the engine that the layer is here already. A
wrong hint costs time, never data.

In an encrypted repository no diff_id stands here, but what ``Repository.layer_name`` makes of it.
"""

from __future__ import annotations

import hashlib

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.document import Document, UtcTime
from airflow_provider_dockerbackup.core.record import LayerBlob

MAPS_FOLDER = "layers/sha256"
HINTS_FOLDER = "layers/engines"


class LayerMap(Document):
    """``layers/sha256/<diff_id>.json``: the blob that holds a layer.

    :param digest: of the blob.
    :param size_bytes: size of the uncompressed layer.
    :param stored_size_bytes: size of the blob.
    """

    diff_id: str
    digest: str
    size_bytes: int
    stored_size_bytes: int
    created_at: UtcTime

    @property
    def blob(self) -> LayerBlob:
        """The blob as records name it."""
        return LayerBlob(
            diff_id=self.diff_id,
            digest=self.digest,
            size_bytes=self.size_bytes,
            stored_size_bytes=self.stored_size_bytes,
        )


class EngineHint(Document):
    """``layers/engines/<engine>/<diff_id>/<digest>.json``: an engine knows a layer by this digest.

    :param digest: of the layer as that engine compresses it.
    :param size_bytes: size of that.
    :param compression: how that is compressed; None in what earlier releases wrote.
    """

    engine_id: str
    diff_id: str
    digest: str
    size_bytes: int
    compression: Compression | None = None


def map_path(diff_id: str) -> str:
    """Return the path of a layer's map."""
    return f"{MAPS_FOLDER}/{_hex(diff_id)}.json"


def hints_folder(engine_id: str, diff_id: str) -> str:
    """Return the folder of what an engine calls a layer."""
    engine = hashlib.sha256(engine_id.encode()).hexdigest()[:16]
    return f"{HINTS_FOLDER}/{engine}/{_hex(diff_id)}"


def hint_path(hint: EngineHint) -> str:
    """Return the path of a hint."""
    return f"{hints_folder(hint.engine_id, hint.diff_id)}/{_hex(hint.digest)}.json"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
