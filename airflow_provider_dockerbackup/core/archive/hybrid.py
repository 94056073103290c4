# SPDX-License-Identifier: Apache-2.0
"""An image as the one archive that every engine from 20.10 on loads: an OCI layout with ``manifest.json`` beside it.

Layers are uncompressed and named by their diff_ids. ``index.json``, ``manifest.json`` and the end of the tar come last,
and only if every layer was the announced one: without them no engine loads anything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from airflow_provider_dockerbackup.core.archive.compression import Compression, inflater, zstd_frame
from airflow_provider_dockerbackup.core.archive.contents import BLOBS
from airflow_provider_dockerbackup.core.archive.load_form import compact_json, name_annotations, tag_references
from airflow_provider_dockerbackup.core.archive.tar_header import ZERO_BLOCK, file_header, padding, whole_file
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.exceptions import BadBlobError, ConfigurationError, IntegrityError

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLayer:
    """One uncompressed layer.

    :param diff_id: ``sha256:<hex>`` of it.
    :param chunks: gives its bytes, each time anew.
    :param blob: digest of the blob that they are read from, for who must know when they are wrong; else empty.
    :param frames: gives the same as whole zstd frames, compared with the blob's name when drawn to its end; None where
        there are none.
    """

    diff_id: str
    size_bytes: int
    chunks: Callable[[], AbstractContextManager[Iterable[bytes]]]
    blob: str = ""
    frames: Callable[[], AbstractContextManager[Iterable[bytes]]] | None = None


def descriptor(media_type: str, digest: str, size_bytes: int, **extra: Any) -> dict[str, Any]:
    """Return an OCI descriptor (OCI image specification v1.1)."""
    return {"mediaType": media_type, "digest": digest, "size": size_bytes, **extra}


def image_manifest(config: bytes, layers: Sequence[dict[str, Any]]) -> bytes:
    """Return the OCI manifest of an image; the same arguments always give the same bytes.

    :param config: its configuration.
    :param layers: descriptors of its layers, lowest first.
    """
    return compact_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, sha256_of(config), len(config)),
            "layers": list(layers),
        }
    )


def image_index(manifest: bytes, *, tags: Sequence[str]) -> bytes:
    """Return the ``index.json`` that names one manifest, once for each of ``tags``."""
    named = [{"annotations": name_annotations(tag)} for tag in tag_references(tags)] or [{}]
    manifests = [descriptor(MANIFEST_TYPE, sha256_of(manifest), len(manifest), **extra) for extra in named]
    return compact_json({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests})


def oci_layout() -> bytes:
    """Return the file that marks a folder as an OCI image layout."""
    return compact_json({"imageLayoutVersion": "1.0.0"})


def plain_manifest(config: bytes, layers: Iterable[tuple[str, int]]) -> bytes:
    """Return the manifest that the archive names the image by; containerd stores take its digest for ``.Id``.

    :param layers: diff_id and size of each uncompressed layer, lowest first.
    """
    return image_manifest(config, [descriptor(LAYER_TYPE, diff_id, size) for diff_id, size in layers])


def image_archive(
    *,
    config: bytes,
    layers: Sequence[PlainLayer],
    tags: Sequence[str],
    without: Collection[str] = (),
    packed: bool = False,
) -> Generator[bytes, None, None]:
    """Yield the archive of an image; it depends on the arguments alone.

    :param config: the image's configuration.
    :param layers: its layers, lowest first; one that comes twice is written once.
    :param tags: ``name:tag`` each; none leaves the image untagged.
    :param without: diff_ids of layers that are named and left out, for a daemon that has them.
    :param packed: as a series of zstd frames (RFC 8878), which decompress to the same archive.
    :raises ConfigurationError: when a tag or a digest is not one.
    :raises BadBlobError: when a layer has another size or digest.
    """
    for layer in layers:
        check_digest(layer.diff_id)
    head, tail = _frame(config, [(layer.diff_id, layer.size_bytes) for layer in layers], tags)
    bodies = {layer.diff_id: layer for layer in layers if layer.diff_id not in without}
    return _streamed(head, list(bodies.values()), tail, packed=packed)


def archive_size(config: bytes, layers: Sequence[tuple[str, int]]) -> int:
    """Return how long :func:`image_archive` is without tags.

    :param layers: diff_id and size of each layer.
    """
    head, tail = _frame(config, layers, ())
    bodies = dict(layers)
    framing = (len(file_header(BLOBS + diff_id[7:], size)) + len(padding(size)) for diff_id, size in bodies.items())
    return len(head) + len(tail) + sum(bodies.values()) + sum(framing)


def check_digest(diff_id: str) -> None:
    """Return only if ``diff_id`` is a digest.

    :raises ConfigurationError: when it is not ``sha256:`` and 64 hex digits.
    """
    if _DIGEST.fullmatch(diff_id) is None:
        raise ConfigurationError(f"diff_id {diff_id!r:.100}: expected sha256:<64 hex digits>")


def _frame(config: bytes, layers: Sequence[tuple[str, int]], tags: Sequence[str]) -> tuple[bytes, bytes]:
    """Return what comes before the layers, and what comes after them."""
    manifest = plain_manifest(config, layers)
    references = tag_references(tags)
    entry = {
        "Config": BLOBS + sha256_of(config)[7:],
        "RepoTags": [str(tag) for tag in references] or None,
        "Layers": [BLOBS + diff_id[7:] for diff_id, _ in layers],
    }
    tail = whole_file("oci-layout", oci_layout()) + whole_file("index.json", image_index(manifest, tags=tags))
    tail += whole_file("manifest.json", compact_json([entry])) + 2 * ZERO_BLOCK
    return _blob(config) + _blob(manifest), tail


def _streamed(head: bytes, layers: Sequence[PlainLayer], tail: bytes, *, packed: bool) -> Generator[bytes, None, None]:
    form = zstd_frame if packed else bytes
    yield form(head)
    for layer in layers:
        # A size of 8 GiB and more needs a header of several blocks.
        yield form(file_header(BLOBS + layer.diff_id[7:], layer.size_bytes))
        yield from _frames(layer) if packed else _plain(layer)
        if end := padding(layer.size_bytes):
            yield form(end)
    yield form(tail)


def _plain(layer: PlainLayer) -> Iterator[bytes]:
    proof = _Proof(layer)
    with layer.chunks() as chunks:
        for chunk in chunks:
            proof.take(chunk)
            yield chunk
    proof.finish()


def _frames(layer: PlainLayer) -> Iterator[bytes]:
    """Pass on a layer as it is stored, if it is; what it decompresses to is compared beside that."""
    if layer.frames is None:
        yield from map(zstd_frame, _plain(layer))
        return
    stream, proof = inflater(Compression.ZSTD), _Proof(layer)
    with layer.frames() as frames:
        try:
            for chunk in frames:
                for piece in stream.feed(chunk):
                    proof.take(piece)
                yield chunk
            stream.finish()
        except BadBlobError:
            raise
        except IntegrityError as err:
            raise _wrong(layer, f"layer {layer.diff_id}: {err}") from err
    proof.finish()


class _Proof:
    """Compares a layer with the length in its tar header before it is sent on, and with its digest at its end.

    What follows a layer is read as further members, and with them another image could take over any tag.
    """

    def __init__(self, layer: PlainLayer) -> None:
        self._layer = layer
        self._digest = hashlib.sha256()
        self._seen = 0

    def take(self, piece: bytes) -> None:
        self._seen += len(piece)
        if self._seen > self._layer.size_bytes:
            said = f"layer {self._layer.diff_id} is longer than its recorded {self._layer.size_bytes} bytes"
            raise _wrong(self._layer, said)
        self._digest.update(piece)

    def finish(self) -> None:
        if self._seen != self._layer.size_bytes:
            said = f"layer {self._layer.diff_id} has {self._seen} bytes, the record says {self._layer.size_bytes}"
            raise _wrong(self._layer, said)
        if (found := f"sha256:{self._digest.hexdigest()}") != self._layer.diff_id:
            raise _wrong(self._layer, f"a layer has {found}, the record says {self._layer.diff_id}")


def _wrong(layer: PlainLayer, said: str) -> BadBlobError:
    return BadBlobError(f"{said}; it was read from blob {layer.blob}" if layer.blob else said, digest=layer.blob)


def _blob(body: bytes) -> bytes:
    return whole_file(BLOBS + sha256_of(body)[7:], body)
