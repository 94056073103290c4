# SPDX-License-Identifier: Apache-2.0
"""Read blobs back: each compared with its name and size, each layer with its diff_id."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from airflow_provider_dockerbackup.core.archive.compression import Compression, decompressed
from airflow_provider_dockerbackup.core.archive.hybrid import PlainLayer, image_archive
from airflow_provider_dockerbackup.core.archive.wire import ImageConfig, OciManifest, parse, strict_json
from airflow_provider_dockerbackup.core.catalog import blob_path
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.record import BackupRecord, Blob, BlobSet, LayerBlob
from airflow_provider_dockerbackup.exceptions import BadBlobError, IntegrityError


def blob_bytes(storage: Storage, blob: Blob) -> bytes:
    """Return a small blob: a configuration or a manifest.

    :raises BadBlobError: when it has another size or digest.
    :raises NotFoundError: when it is gone.
    """
    data = storage.read(blob_path(blob.digest))
    if len(data) != blob.size_bytes or sha256_of(data) != blob.digest:
        raise BadBlobError(
            f"{storage.url}/{blob_path(blob.digest)} has {len(data)} bytes with {sha256_of(data)}, the record says "
            f"{blob.size_bytes} bytes with the digest in its name",
            digest=blob.digest,
        )
    return data


@contextmanager
def layer_stream(storage: Storage, layer: LayerBlob) -> Iterator[Iterator[bytes]]:
    """Give a layer uncompressed, in pieces of at most 1 MiB.

    Its diff_id is not compared: who reads does that.

    :raises BadBlobError: while reading, when the blob is not what its name says, or does not decompress.
    :raises NotFoundError: when it is gone.
    """
    path = blob_path(layer.digest)
    size = storage.stat(path).size_bytes
    if size != layer.stored_size_bytes:
        raise BadBlobError(
            f"{storage.url}/{path} has {size} bytes, the record says {layer.stored_size_bytes}", digest=layer.digest
        )
    with storage.chunks(path) as raw:
        yield _named(decompressed(_checked(raw, layer, f"{storage.url}/{path}"), Compression.ZSTD), layer)


def _checked(raw: Iterator[bytes], layer: LayerBlob, where: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in raw:
        digest.update(chunk)
        yield chunk
    if f"sha256:{digest.hexdigest()}" != layer.digest:
        raise IntegrityError(f"{where}: its sha256 is {digest.hexdigest()}, not its name")


def _named(chunks: Iterator[bytes], layer: LayerBlob) -> Iterator[bytes]:
    """Pass a layer through; what is wrong with it is told with the blob's digest, so that it can be put aside."""
    try:
        yield from chunks
    except IntegrityError as err:
        raise BadBlobError(f"layer {layer.diff_id} in blob {layer.digest}: {err}", digest=layer.digest) from err


def image_stream(
    storage: Storage, record: BackupRecord, *, tags: Sequence[str], where: str, without: Collection[str] = ()
) -> Iterator[bytes]:
    """Yield an image as ``docker load`` takes it, put together from its blobs.

    :param tags: ``name:tag`` each.
    :param where: the backup, for messages.
    :param without: diff_ids of layers that are left out, for a daemon that has them.
    :raises IntegrityError: when manifest, configuration and record do not name the same layers; while it is drawn,
        when a layer is damaged.
    """
    if record.blobs is None:
        raise IntegrityError(f"{where}: the record names no blobs")
    config = _config(storage, record.blobs, where)
    layers = [
        PlainLayer(
            diff_id=layer.diff_id,
            size_bytes=layer.size_bytes,
            chunks=partial(layer_stream, storage, layer),
        )
        for layer in record.blobs.layers
    ]
    return image_archive(config=config, layers=layers, tags=tags, without=without)


def only_layer(record: BackupRecord, where: str) -> LayerBlob:
    """Return the one layer of a container's backup.

    :raises IntegrityError: when the record does not name exactly one.
    """
    layers = record.blobs.layers if record.blobs is not None else ()
    if len(layers) != 1 or record.diff_ids != (layers[0].diff_id,):
        raise IntegrityError(f"{where}: the record of a container must name one layer, it names {len(layers)}")
    return layers[0]


def _config(storage: Storage, blobs: BlobSet, where: str) -> bytes:
    """Return the configuration, once manifest, configuration and record are found to name the same layers."""
    name = f"{where}: blob {blobs.manifest.digest}"
    manifest = parse(OciManifest, strict_json(blob_bytes(storage, blobs.manifest), where=name), where=name)
    if manifest.config.digest != blobs.config.digest:
        raise IntegrityError(f"{name} names configuration {manifest.config.digest}, the record {blobs.config.digest}")
    if [each.digest for each in manifest.layers or ()] != [each.digest for each in blobs.layers]:
        raise IntegrityError(f"{name} names other blobs for the layers than the record")
    config = blob_bytes(storage, blobs.config)
    name = f"{where}: blob {blobs.config.digest}"
    parsed = parse(ImageConfig, strict_json(config, where=name), where=name)
    if list(parsed.rootfs.diff_ids or ()) != [each.diff_id for each in blobs.layers]:
        raise IntegrityError(f"{name} names other diff_ids than the record")
    return config
