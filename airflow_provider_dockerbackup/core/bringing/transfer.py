# SPDX-License-Identifier: Apache-2.0
"""Bring one backup's bytes into another form, as a stream: no temporary files, the same memory for any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive.docker_archive import DockerArchive, DockerArchiveScanner
from airflow_provider_dockerbackup.core.archive.rootfs import RootfsScanner
from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.image_part import layers_in
from airflow_provider_dockerbackup.core.layers.backup import (
    blob_set,
    image_blobs,
    known_ids,
    layer_store,
    layers_read_back,
)
from airflow_provider_dockerbackup.core.layers.collector import LayerCollector
from airflow_provider_dockerbackup.core.layers.fetch import Fetched, hints_in
from airflow_provider_dockerbackup.core.layers.store import LayerStore
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.reading import archive_stream, restored_config, whole_stream
from airflow_provider_dockerbackup.core.record import ArchiveFile, BlobSet, Filesystem, Image, LayerBlob
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.exceptions import IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where a backup's bytes are in the target, not recorded yet.

    :param image: what the record says of an image in the new layout; None for a container.
    :param filesystem: what it says of a container's; None for an image.
    :param new: digests of the blobs that were stored for it; the others were there.
    """

    archive: ArchiveFile | None = None
    blobs: BlobSet | None = None
    image: Image | None = None
    filesystem: Filesystem | None = None
    new: frozenset[str] = frozenset()


class Transfer:
    """Brings one backup's bytes from the source to the target.

    :param source: where it is.
    :param backup: it.
    :param attempt: the try in the target that owns what is written.
    :param tuning: how bytes are moved.
    :param compression: of a new archive, None for the target's own.
    :param throttle: limits how fast the source is read.
    :param progress: advances with each piece that is read.
    """

    def __init__(
        self,
        source: Repository,
        backup: Backup,
        *,
        attempt: Attempt,
        tuning: Tuning,
        compression: Compression | None,
        throttle: Throttle,
        progress: Progress,
    ) -> None:
        self._source = source
        self._backup = backup
        self._record = backup.whole()
        self._attempt = attempt
        self._tuning = tuning
        self._compression = compression
        self._throttle = throttle
        self._progress = progress
        self._filesystem = self._record.filesystem

    @contextmanager
    def placed(self) -> Iterator[Placed]:
        """Write the bytes, and keep what was written until the end; the record must be created before that.

        :raises IntegrityError: when a byte of the backup is not the recorded one.
        :raises NotFoundError: when bytes of the backup are gone.
        :raises TransientError: when a storage failed.
        """
        if self._attempt.repository.document.layout == "layers":
            with layer_store(self._attempt, tuning=self._tuning, progress=self._progress) as store:
                yield self._into_layers(store)
        else:
            yield self._into_archive()

    def _into_layers(self, store: LayerStore) -> Placed:
        if self._record.image is None:
            blobs_of_one = self._filesystem_blobs(store)
            return Placed(blobs=blobs_of_one, filesystem=self._filesystem, new=store.new)
        wanted = frozenset(self._record.diff_ids)
        held = store.held(wanted)
        with LayerCollector(store, wanted=wanted - held.keys()) as collector:
            scanner = DockerArchiveScanner(layers=collector)
            for chunk in self._chunks():
                scanner.feed(chunk)
            archive = self._finished(scanner)
            blobs = {**held, **collector.stored}
        fetched = Fetched(
            image=archive.image,
            layers=tuple(blobs[diff_id] for diff_id in self._record.diff_ids),
            received_bytes=self._record.size_bytes,
            capture="save",
            hints=hints_in(archive.image, engine_id=self._record.engine.engine_id),
        )
        for hint in fetched.hints:
            store.remember(hint)
        image = self._record.image.model_copy(
            update={
                "layers": layers_read_back(fetched),
                "others": tuple(each.model_copy(update={"kept": False}) for each in self._record.image.others),
                "known_ids": tuple(sorted({*self._record.image.known_ids, *known_ids(fetched)})),
            }
        )
        blobs_placed = image_blobs(fetched, store=store, attempt=self._attempt)
        return Placed(blobs=blobs_placed, image=image, new=store.new)

    def _filesystem_blobs(self, store: LayerStore) -> BlobSet:
        (diff_id,) = self._record.diff_ids
        return blob_set(
            restored_config(self._source, self._backup),
            [self._filesystem_layer(store, diff_id)],
            store=store,
            attempt=self._attempt,
            size_bytes=self._record.size_bytes,
            received_bytes=self._record.size_bytes,
        )

    def _filesystem_layer(self, store: LayerStore, diff_id: str) -> LayerBlob:
        """Store an exported filesystem; one that is held is read all the same, to be compared with its record."""
        if held := store.held([diff_id]):
            for _ in self._scanned():
                pass
            return held[diff_id]
        with store.layer() as writer:
            for chunk in self._scanned():
                writer.write(chunk)
            return writer.publish(diff_id=diff_id)

    def _into_archive(self) -> Placed:
        stem = "rootfs" if self._record.image is None else "image"
        compression = self._compression or self._attempt.repository.document.compression
        sink = self._attempt.archive(stem, compression=compression, level=self._tuning.level)
        if self._record.image is None:
            for chunk in self._scanned():
                sink.write(chunk)
            placed = sink.publish(content_digest=self._record.diff_ids[0])
            return Placed(archive=placed, filesystem=self._filesystem)
        scanner = DockerArchiveScanner()
        for chunk in self._chunks():
            scanner.feed(chunk)
            sink.write(chunk)
        archive = self._finished(scanner)
        image = self._record.image.model_copy(
            update={
                "layers": layers_in(archive.image),
                "known_ids": tuple(sorted({*self._record.image.known_ids, *archive.image.image_ids})),
            }
        )
        return Placed(archive=sink.publish(content_digest=archive.content_digest), image=image)

    def _scanned(self) -> Iterator[bytes]:
        """Yield an exported filesystem; at its end what a record of one that nobody had scanned lacks is known."""
        known = self._filesystem
        if known is None or known.tree_digest is not None:
            yield from self._chunks()
            return
        scanner = RootfsScanner(max_total_bytes=self._record.size_bytes)
        for chunk in self._chunks():
            scanner.feed(chunk)
            yield chunk
        found = scanner.finish()
        self._filesystem = known.model_copy(update={"tree_digest": found.tree_digest, "members": found.members})

    def _chunks(self) -> Iterator[bytes]:
        """Yield the archive's bytes; it ends only if all of them were the recorded ones."""
        with archive_stream(self._source, self._backup) as chunks:
            for chunk in chunks:
                yield chunk
                self._progress.advance(len(chunk))
                self._throttle.passed(len(chunk))

    def _finished(self, scanner: DockerArchiveScanner) -> DockerArchive:
        """Return what came, if it is the image that the record describes."""
        archive, image = scanner.finish(), self._record.image
        if image is None or (archive.image.config_digest, archive.image.diff_ids) != (
            image.config_digest,
            image.diff_ids,
        ):
            raise IntegrityError(
                f"backup {self._record.backup_id} of {self._record.source} holds image {archive.image.config_digest}, "
                "its record says another"
            )
        return archive


def read_back(repository: Repository, backup: Backup, *, progress: Progress) -> int:
    """Return how many bytes a backup has, once all that its record names was read and compared with it.

    :param backup: whose record need not be there yet.
    :raises IntegrityError: when a byte is not the recorded one.
    :raises NotFoundError: when something is gone.
    """
    read = 0
    with whole_stream(repository, backup) as chunks:
        for chunk in chunks:
            read += len(chunk)
            progress.advance(len(chunk))
    return read
