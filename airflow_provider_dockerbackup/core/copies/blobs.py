# SPDX-License-Identifier: Apache-2.0
"""Copy a backup between two repositories of layout ``layers``: layer by layer, and only those that are missing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from airflow_provider_dockerbackup.core.archive.compression import Compression, inflater
from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.copies.passage import Passage
from airflow_provider_dockerbackup.core.layers import reading
from airflow_provider_dockerbackup.core.layers.backup import blob_set
from airflow_provider_dockerbackup.core.layers.store import LayerStore
from airflow_provider_dockerbackup.core.reading import decryption_of
from airflow_provider_dockerbackup.core.record import BlobSet, LayerBlob
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import BadBlobError

Bring = Callable[[LayerBlob, str], LayerBlob]


class BlobCopy:
    """Brings the blobs of one backup.

    :param source: where it is.
    :param store: the target's blobs, for this try.
    :param attempt: the try in the target.
    :param passage: what each piece that is read passes.
    """

    def __init__(
        self, source: Repository, backup: Backup, *, store: LayerStore, attempt: Attempt, passage: Passage
    ) -> None:
        self._source = source
        self._backup = backup
        self._record = backup.whole()
        self._where = f"{source.storage.url}/{backup.path}"
        self._blobs = reading.blobs_of(self._record, self._where)
        self._store = store
        self._attempt = attempt
        self._passage = passage

    def as_stored(self) -> BlobSet:
        """Bring what is missing as it is stored; of a layer that the target holds in another blob, that one is used.

        :raises IntegrityError: when a blob is not what its name says, or does not hold the layer that the record says.
        :raises NotFoundError: when a blob is gone.
        """
        config = reading.image_config(self._source.storage, self._record, where=self._where)
        return self._with_layers(config, self._adopted)

    def encrypted_as_stored(self) -> BlobSet:
        """Bring exactly the backup's blobs, of which nothing is decrypted: its manifest names them and no others.

        :raises IntegrityError: when a blob is not what its name says.
        :raises NotFoundError: when a blob is gone.
        """
        layers = tuple(
            self._store.adopt(layer, diff_id=diff_id, chunks=partial(self._stored, layer))
            for diff_id, layer in self._layers()
        )
        for small in (self._blobs.config, self._blobs.manifest):
            self._store.put_stored(reading.blob_bytes(self._source.storage, small))
        return self._blobs.model_copy(
            update={"layers": layers, "documents": (), "new_bytes": self._store.new_bytes},
        )

    def made_anew(self) -> BlobSet:
        """Bring what is missing by way of its plain bytes, for a target with other recipients.

        :raises ConfigurationError: when it is encrypted and no private key of the source fits.
        :raises IntegrityError: when a blob is not what its name says, or does not hold the layer that the record says.
        :raises NotFoundError: when a blob is gone.
        """
        decrypt = decryption_of(self._source, self._backup)
        config = reading.image_config(self._source.storage, self._record, where=self._where, decrypt=decrypt)
        return self._with_layers(config, self._written)

    def _with_layers(self, config: bytes, bring: Bring) -> BlobSet:
        """Bring the layers that are not held, and store what belongs to the image that they make."""
        held = self._store.held(self._record.diff_ids)
        for diff_id, layer in self._layers():
            if diff_id not in held:
                held[diff_id] = bring(layer, diff_id)
        return blob_set(
            config,
            [held[diff_id] for diff_id in self._record.diff_ids],
            store=self._store,
            attempt=self._attempt,
            size_bytes=self._blobs.size_bytes,
            received_bytes=self._blobs.received_bytes,
        )

    def _layers(self) -> list[tuple[str, LayerBlob]]:
        return list(zip(self._record.diff_ids, self._blobs.layers, strict=True))

    def _adopted(self, layer: LayerBlob, diff_id: str) -> LayerBlob:
        @contextmanager
        def chunks() -> Iterator[Iterator[bytes]]:
            with self._stored(layer) as pieces:
                yield _holding(pieces, layer, diff_id)

        return self._store.adopt(layer, diff_id=diff_id, chunks=chunks)

    def _written(self, layer: LayerBlob, diff_id: str) -> LayerBlob:
        decrypt, found = decryption_of(self._source, self._backup), hashlib.sha256()
        with self._store.layer() as writer:
            with reading.layer_stream(self._source.storage, layer, decrypt=decrypt) as plain:
                for piece in self._passage.of(plain):
                    found.update(piece)
                    writer.write(piece)
            _require_layer(f"sha256:{found.hexdigest()}", layer, diff_id)
            return writer.publish(diff_id=diff_id)

    @contextmanager
    def _stored(self, layer: LayerBlob) -> Iterator[Iterator[bytes]]:
        with reading.stored_layer(self._source.storage, layer) as pieces:
            yield self._passage.of(pieces)


def _holding(pieces: Iterator[bytes], layer: LayerBlob, diff_id: str) -> Iterator[bytes]:
    """Pass a plain blob through; it ends only if it holds the layer: the target's map will say so to everybody."""
    found, size_bytes, stream = hashlib.sha256(), 0, inflater(Compression.ZSTD)
    for chunk in pieces:
        for piece in stream.feed(chunk):
            size_bytes += len(piece)
            if size_bytes > layer.size_bytes:
                raise BadBlobError(
                    f"blob {layer.digest} holds more than the {layer.size_bytes} bytes that the record says",
                    digest=layer.digest,
                )
            found.update(piece)
        yield chunk
    stream.finish()
    if size_bytes != layer.size_bytes:
        raise BadBlobError(
            f"blob {layer.digest} holds {size_bytes} bytes, the record says {layer.size_bytes}", digest=layer.digest
        )
    _require_layer(f"sha256:{found.hexdigest()}", layer, diff_id)


def _require_layer(found: str, layer: LayerBlob, diff_id: str) -> None:
    if found != diff_id:
        raise BadBlobError(f"blob {layer.digest} holds layer {found}, the record says {diff_id}", digest=layer.digest)
