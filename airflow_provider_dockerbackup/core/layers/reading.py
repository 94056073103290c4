# SPDX-License-Identifier: Apache-2.0
"""Read blobs back: each compared with its name and size, each layer with its diff_id."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

from airflow_provider_dockerbackup.core.archive.compression import Compression, decompressed
from airflow_provider_dockerbackup.core.archive.hybrid import (
    PlainLayer,
    image_archive,
    layer_names,
    stored_archive,
)
from airflow_provider_dockerbackup.core.archive.oci_layout import LayerName, image_manifest, stored_manifest
from airflow_provider_dockerbackup.core.archive.wire import ImageConfig, OciManifest, parse, strict_json
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.encryption.stream import Decryption
from airflow_provider_dockerbackup.core.model import Packing
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import Storage
from airflow_provider_dockerbackup.core.record import BackupRecord, Blob, BlobSet, LayerBlob
from airflow_provider_dockerbackup.exceptions import BadBlobError, IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What of an image in blobs is sent to a daemon, and how.

    :param without: diff_ids of layers that are left out, for a daemon that has them.
    :param held: by diff_id, the blobs by which a daemon has layers; these are left out, too, and called so.
    :param packing: whether layers go as they are stored, compressed, and how; of an encrypted repository, whose blobs
        have names of their own, they go as frames where blobs are asked for.
    :param prove: whether each packed layer is compared with its diff_id here, too; False for a daemon that compares
        every layer that it keeps. Each blob is compared with its name in any case.
    """

    without: frozenset[str] = frozenset()
    held: Mapping[str, LayerName] = field(default_factory=dict)
    packing: Packing = "none"
    prove: bool = True

    @property
    def left_out(self) -> frozenset[str]:
        """The diff_ids of the layers that are not sent."""
        return self.without | self.held.keys()

    def size_bytes(self, record: BackupRecord) -> int:
        """Return how many bytes of a backup that is, about."""
        if record.blobs is None:
            return record.size_bytes
        layers = dict(zip(record.diff_ids, record.blobs.layers, strict=True))
        sent = [layer for diff_id, layer in layers.items() if diff_id not in self.left_out]
        return sum(each.size_bytes if self.packing == "none" else each.stored_size_bytes for each in sent)


WHOLE = Sending()
"""All of it, plain."""


def blob_bytes(storage: Storage, blob: Blob, *, decrypt: Decryption | None = None) -> bytes:
    """Return a small blob: a configuration or a manifest.

    :param decrypt: for the blobs of an encrypted repository.
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
    return data if decrypt is None else b"".join(decrypt([data], f"{storage.url}/{blob_path(blob.digest)}"))


@contextmanager
def layer_stream(storage: Storage, layer: LayerBlob, *, decrypt: Decryption | None = None) -> Iterator[Iterator[bytes]]:
    """Give a layer uncompressed, in pieces of at most 1 MiB.

    Its diff_id is not compared: who reads does that.

    :param decrypt: for the blobs of an encrypted repository.
    :raises BadBlobError: while reading, when the blob is not what its name says, or does not decompress.
    :raises NotFoundError: when it is gone.
    """
    with layer_frames(storage, layer, decrypt=decrypt) as frames:
        yield named(decompressed(frames, Compression.ZSTD), layer)


@contextmanager
def layer_frames(storage: Storage, layer: LayerBlob, *, decrypt: Decryption | None = None) -> Iterator[Iterator[bytes]]:
    """Give a layer as the zstd frames that it is stored in, decrypted; the blob is compared with its name at the end.

    :param decrypt: for the blobs of an encrypted repository.
    :raises BadBlobError: while reading, when the blob is not what its name says.
    :raises NotFoundError: when it is gone.
    """
    with stored_layer(storage, layer) as checked:
        if decrypt is None:
            yield named(checked, layer)
            return
        with closing(decrypt(checked, f"{storage.url}/{blob_path(layer.digest)}")) as plain:
            yield named(plain, layer)


@contextmanager
def stored_layer(storage: Storage, layer: LayerBlob) -> Iterator[Iterator[bytes]]:
    """Give a layer's blob as it is stored, compared with its name at its end.

    :raises BadBlobError: when it has another size.
    :raises IntegrityError: while reading, when it is not what its name says.
    :raises NotFoundError: when it is gone.
    """
    path = blob_path(layer.digest)
    size = storage.stat(path).size_bytes
    if size != layer.stored_size_bytes:
        raise BadBlobError(
            f"{storage.url}/{path} has {size} bytes, the record says {layer.stored_size_bytes}", digest=layer.digest
        )
    with storage.chunks(path) as raw:
        yield _checked(raw, layer, f"{storage.url}/{path}")


def _checked(raw: Iterator[bytes], layer: LayerBlob, where: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for chunk in raw:
        digest.update(chunk)
        yield chunk
    if f"sha256:{digest.hexdigest()}" != layer.digest:
        raise IntegrityError(f"{where}: its sha256 is {digest.hexdigest()}, not its name")


def named(chunks: Iterator[bytes], layer: LayerBlob) -> Iterator[bytes]:
    """Pass a layer through; what is wrong with it is told with the blob's digest, so that it can be put right.

    :raises BadBlobError: in place of any other ``IntegrityError``.
    """
    try:
        yield from chunks
    except BadBlobError:
        raise
    except IntegrityError as err:
        raise BadBlobError(f"layer {layer.diff_id} in blob {layer.digest}: {err}", digest=layer.digest) from err


def image_stream(
    storage: Storage,
    record: BackupRecord,
    *,
    tags: Sequence[str],
    where: str,
    sending: Sending = WHOLE,
    decrypt: Decryption | None = None,
) -> Generator[bytes, None, None]:
    """Yield an image as ``docker load`` takes it, put together from its blobs.

    :param tags: ``name:tag`` each.
    :param where: the backup, for messages.
    :param sending: what of it, and how.
    :param decrypt: for the blobs of an encrypted repository.
    :raises IntegrityError: when manifest, configuration and record do not name the same layers; while it is drawn,
        when a layer is damaged.
    """
    config, blobs = image_config(storage, record, where=where, decrypt=decrypt), blobs_of(record, where)
    layers = _plain_layers(storage, record, blobs, decrypt=decrypt)
    without, held, prove = sending.without, sending.held, sending.prove
    if _by_blobs(record, sending):
        named = stored_manifest(config, [(each.digest, each.stored_size_bytes) for each in blobs.layers])
        if sha256_of(named) != blobs.manifest.digest:
            # It would stand in the target's store, with whatever else it says.
            raise IntegrityError(f"{where}: blob {blobs.manifest.digest} is not the manifest of the record's blobs")
        return stored_archive(config=config, layers=layers, tags=tags, without=without, held=held, prove=prove)
    packed = sending.packing != "none"
    return image_archive(
        config=config, layers=layers, tags=tags, without=without, held=held, packed=packed, prove=prove
    )


def manifest_digest(
    storage: Storage, record: BackupRecord, *, where: str, sending: Sending, decrypt: Decryption | None = None
) -> str:
    """Return the digest of the manifest in what :func:`image_stream` gives: the ID of the image in containerd stores.

    :raises IntegrityError: when manifest, configuration and record do not name the same layers.
    """
    config, blobs = image_config(storage, record, where=where, decrypt=decrypt), blobs_of(record, where)
    layers = _plain_layers(storage, record, blobs, decrypt=decrypt)
    return sha256_of(image_manifest(config, layer_names(layers, stored=_by_blobs(record, sending), held=sending.held)))


def _by_blobs(record: BackupRecord, sending: Sending) -> bool:
    """Tell whether an archive calls layers by their blobs; those of an encrypted repository are no layers."""
    return sending.packing == "blobs" and record.encryption == "none"


def _plain_layers(
    storage: Storage, record: BackupRecord, blobs: BlobSet, *, decrypt: Decryption | None
) -> list[PlainLayer]:
    return [
        PlainLayer(
            diff_id=diff_id,
            size_bytes=layer.size_bytes,
            chunks=partial(layer_stream, storage, layer, decrypt=decrypt),
            blob=layer.digest,
            frames=partial(layer_frames, storage, layer, decrypt=decrypt),
            stored_size_bytes=layer.stored_size_bytes,
        )
        for diff_id, layer in zip(record.diff_ids, blobs.layers, strict=True)
    ]


def only_layer(record: BackupRecord, where: str) -> LayerBlob:
    """Return the one layer of a container's backup.

    :raises IntegrityError: when the record does not name exactly one.
    """
    layers = blobs_of(record, where).layers
    if len(layers) != 1 or not _names(record, layers):
        raise IntegrityError(f"{where}: the record of a container must name one layer, it names {len(layers)}")
    return layers[0]


def _names(record: BackupRecord, layers: Sequence[LayerBlob]) -> bool:
    """Tell whether a record's blobs are those of its layers, as far as they say; what is read is compared anyway."""
    if record.encryption != "none":
        return len(layers) == len(record.diff_ids)
    return tuple(each.diff_id for each in layers) == record.diff_ids


def blobs_of(record: BackupRecord, where: str) -> BlobSet:
    """Return the blobs that a record names.

    :raises IntegrityError: when it names none.
    """
    if record.blobs is None:
        raise IntegrityError(f"{where}: the record names no blobs")
    return record.blobs


def image_config(storage: Storage, record: BackupRecord, *, where: str, decrypt: Decryption | None = None) -> bytes:
    """Return the configuration of the image in a backup's blobs, once manifest, it and record name the same layers.

    :param where: the backup, for messages.
    :param decrypt: for the blobs of an encrypted repository.
    :raises IntegrityError: when they do not, or one is damaged.
    """
    blobs = blobs_of(record, where)
    name = f"{where}: blob {blobs.manifest.digest}"
    data = blob_bytes(storage, blobs.manifest, decrypt=decrypt)
    manifest = parse(OciManifest, strict_json(data, where=name), where=name)
    config = blob_bytes(storage, blobs.config, decrypt=decrypt)
    if manifest.config.digest != sha256_of(config):
        raise IntegrityError(f"{name} names configuration {manifest.config.digest}, the record {sha256_of(config)}")
    if [each.digest for each in manifest.layers or ()] != [each.digest for each in blobs.layers]:
        raise IntegrityError(f"{name} names other blobs for the layers than the record")
    name = f"{where}: blob {blobs.config.digest}"
    parsed = parse(ImageConfig, strict_json(config, where=name), where=name)
    if tuple(parsed.rootfs.diff_ids or ()) != record.diff_ids or not _names(record, blobs.layers):
        raise IntegrityError(f"{name} names other diff_ids than the record")
    return config
