# SPDX-License-Identifier: Apache-2.0
"""Read a backup back: every byte against the record's digests, the end withheld until all of them are right.

Whoever loads from these streams can therefore never load a damaged archive whole: the last piece does not come.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Protocol

from airflow_provider_dockerbackup.core.archive.compression import decompressed
from airflow_provider_dockerbackup.core.archive.docker_archive import DockerArchiveScanner
from airflow_provider_dockerbackup.core.archive.layer_reader import limits_for
from airflow_provider_dockerbackup.core.archive.load_form import retagged
from airflow_provider_dockerbackup.core.archive.rootfs import RootfsScanner, one_layer_image
from airflow_provider_dockerbackup.core.archive_bytes import archive_chunks, archive_size, archive_where
from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.configuration import filesystem_comment, filesystem_config
from airflow_provider_dockerbackup.core.document import sha256_of
from airflow_provider_dockerbackup.core.encryption.identity import require_identity
from airflow_provider_dockerbackup.core.encryption.stream import Decryption, decrypted
from airflow_provider_dockerbackup.core.image_part import layers_in
from airflow_provider_dockerbackup.core.layers import reading as blobs
from airflow_provider_dockerbackup.core.model import JsonObject
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.record import ArchiveFile, BackupRecord, DocumentFile, Image, Layer
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import IntegrityError

# Of two pieces as storages give them the second may hold zeros only, the first then never does.
_WITHHELD_BYTES = 1024 * 1024 + 64 * 1024


class _Check(Protocol):
    def feed(self, chunk: bytes) -> None: ...

    def finish(self) -> None: ...


def require_readable(repository: Repository, backup: Backup) -> None:
    """Return only if a backup is not encrypted, or the repository has a private key that decrypts it.

    Whoever is about to touch something for a backup asks this first.

    :raises ConfigurationError: when the key is missing or another one, and says who can decrypt.
    :raises IntegrityError: when the record is unreadable.
    """
    record = backup.whole()
    if record.encryption != "none":
        where = f"backup {record.backup_id} of {record.source}"
        require_identity(repository.identities, record.recipients, where=where)


@contextmanager
def archive_stream(repository: Repository, backup: Backup) -> Iterator[Iterator[bytes]]:
    """Give the uncompressed tar of a backup, in pieces of at most 1 MiB.

    In layout ``archive`` it is the one that was captured; in layout ``layers`` an image is put together again,
    untagged, in the form of :mod:`~airflow_provider_dockerbackup.core.archive.hybrid`.

    :raises ConfigurationError: when it is encrypted and no private key of the repository fits.
    :raises IntegrityError: while reading, when a byte is not the recorded one; before the last piece at the latest.
    :raises NotFoundError: when the archive, or a blob, is gone.
    """
    require_readable(repository, backup)
    record = backup.whole()
    where = f"{repository.storage.url}/{backup.path}"
    if record.archive is not None:
        with _archive_file(repository, backup, record.archive) as tar:
            yield _until_proven(tar, _check_for(record, where + record.archive.name))
    elif record.image is not None:
        with _blob_stream(repository, backup, tags=()) as tar:
            yield tar
    else:
        layer, decrypt = blobs.only_layer(record, where), decryption_of(repository, backup)
        blobs.image_config(repository.storage, record, where=where, decrypt=decrypt)
        with blobs.layer_stream(repository.storage, layer, decrypt=decrypt) as tar:
            yield blobs.named(_until_proven(tar, _check_for(record, where)), layer)


@contextmanager
def stored_archive(repository: Repository, backup: Backup) -> Iterator[Iterator[bytes]]:
    """Give the one file of a backup of layout ``archive`` as it is stored, compressed and encrypted as it is.

    No private key is needed: the digest in the record is that of these bytes. An archive that is neither compressed nor
    encrypted is its own tar, and is compared as that.

    :raises IntegrityError: while reading, when a byte is not the recorded one.
    :raises NotFoundError: when the archive is gone.
    """
    archive = backup.whole().archive_file
    given = archive_stream if archive.stored_sha256 is None else _stored_file
    with given(repository, backup) as chunks:
        yield chunks


@contextmanager
def _archive_file(repository: Repository, backup: Backup, archive: ArchiveFile) -> Iterator[Iterator[bytes]]:
    """Give the tar in a backup's one file, compared with that file's own size and digest."""
    with _stored_file(repository, backup) as checked:
        decrypt = decryption_of(repository, backup)
        if decrypt is None:
            yield decompressed(checked, archive.compression)
            return
        with closing(decrypt(checked, archive_where(repository, backup))) as plain:
            yield decompressed(plain, archive.compression)


@contextmanager
def _stored_file(repository: Repository, backup: Backup) -> Iterator[Iterator[bytes]]:
    """Give a backup's one file, compared with its own size and, where the record has one, its digest."""
    archive, where = backup.whole().archive_file, archive_where(repository, backup)
    stored = archive_size(repository, backup)
    if stored != archive.stored_size_bytes:
        raise IntegrityError(f"{where} has {stored} bytes, the record says {archive.stored_size_bytes}")
    with archive_chunks(repository, backup) as raw:
        yield _stored_digest_checked(raw, archive, where)


@contextmanager
def _blob_stream(
    repository: Repository, backup: Backup, *, tags: Sequence[str], sending: blobs.Sending = blobs.WHOLE
) -> Iterator[Iterator[bytes]]:
    """Give an image that is put together from its blobs."""
    where = f"{repository.storage.url}/{backup.path}"
    decrypt = decryption_of(repository, backup)
    stream = blobs.image_stream(
        repository.storage, backup.whole(), tags=tags, where=where, sending=sending, decrypt=decrypt
    )
    with closing(stream):
        yield stream


def decryption_of(repository: Repository, backup: Backup) -> Decryption | None:
    """Return what decrypts a backup's files and blobs; None when they are plain.

    It raises :class:`~airflow_provider_dockerbackup.exceptions.ConfigurationError` when no private key fits.
    """
    record = backup.whole()
    if record.encryption == "none":
        return None
    return lambda chunks, where: decrypted(
        chunks, identities=repository.identities, recipients=record.recipients, where=where
    )


def require_bytes(repository: Repository, backup: Backup) -> None:
    """Return only if all that a backup's bytes lie in is there with its recorded size; nothing is read.

    :raises NotFoundError: when something is missing.
    :raises IntegrityError: when something has another size.
    """
    record = backup.whole()
    sizes = {backup.path + name: size_bytes for name, size_bytes in record.files.items()}
    sizes |= {blob_path(digest): size_bytes for digest, size_bytes in record.blob_sizes.items()}
    for path, size_bytes in sizes.items():
        found = repository.storage.stat(path).size_bytes
        _same("size", found, size_bytes, f"{repository.storage.url}/{path}")
    if record.path_on_host is not None:
        found, recorded = archive_size(repository, backup), record.archive_file.stored_size_bytes
        _same("size", found, recorded, archive_where(repository, backup))


def _stored_digest_checked(raw: Iterator[bytes], archive: ArchiveFile, where: str) -> Iterator[bytes]:
    """Pass a file through and compare its sha256 at the end, where the record has one."""
    if archive.stored_sha256 is None:
        yield from raw
        return
    digest = hashlib.sha256()
    for chunk in raw:
        digest.update(chunk)
        yield chunk
    if f"sha256:{digest.hexdigest()}" != archive.stored_sha256:
        raise IntegrityError(f"{where}: sha256 is {digest.hexdigest()}, the record says {archive.stored_sha256}")


def _until_proven(tar: Iterator[bytes], check: _Check) -> Iterator[bytes]:
    """Pass a stream through ``check``, some pieces behind, so that its end leaves only after the check passed.

    More than the last piece: that may be nothing but the zeros after a tar's end, which many a reader does not need.
    """
    held: deque[bytes] = deque()
    held_bytes = 0
    for chunk in tar:
        check.feed(chunk)
        held.append(chunk)
        held_bytes += len(chunk)
        while held_bytes - len(held[0]) >= _WITHHELD_BYTES:
            held_bytes -= len(held[0])
            yield held.popleft()
    check.finish()
    yield from held


def _check_for(record: BackupRecord, where: str) -> _Check:
    return _ImageCheck(record, where) if record.image is not None else _FilesystemCheck(record, where)


class _ImageCheck:
    """Compares an image's archive with its record."""

    def __init__(self, record: BackupRecord, where: str) -> None:
        self._record = record
        self._where = where
        plain_bytes = sum(layer.size_bytes for layer in record.image.layers) if record.image is not None else 0
        # Where nobody scanned it, the digest of the whole tar is all there is.
        self._plain = hashlib.sha256() if record.path_on_host is not None else None
        self._scanner = DockerArchiveScanner(
            max_total_bytes=record.size_bytes, decompress_limits=limits_for(plain_bytes)
        )

    def feed(self, chunk: bytes) -> None:
        self._scanner.feed(chunk)
        if self._plain is not None:
            self._plain.update(chunk)

    def finish(self) -> None:
        archive, image = self._scanner.finish(), self._record.image
        if image is None:
            raise IntegrityError(f"{self._where}: the record describes no image")
        _same("configuration digest", archive.image.config_digest, image.config_digest, self._where)
        _same("diff_ids", archive.image.diff_ids, image.diff_ids, self._where)
        content = archive.content_digest if self._plain is None else f"sha256:{self._plain.hexdigest()}"
        _same("content digest", content, self._record.content_digest, self._where)


class _FilesystemCheck:
    """Compares a container's exported filesystem with its record."""

    def __init__(self, record: BackupRecord, where: str) -> None:
        self._record = record
        self._where = where
        self._scanner = RootfsScanner(max_total_bytes=record.size_bytes)

    def feed(self, chunk: bytes) -> None:
        self._scanner.feed(chunk)

    def finish(self) -> None:
        found, filesystem = self._scanner.finish(), self._record.filesystem
        if filesystem is None:
            raise IntegrityError(f"{self._where}: the record describes no filesystem")
        _same("diff_id", found.diff_id, filesystem.diff_id, self._where)
        if filesystem.tree_digest is not None:
            _same("tree digest", found.tree_digest, filesystem.tree_digest, self._where)


def _same(what: str, found: object, recorded: object, where: str) -> None:
    if found != recorded:
        raise IntegrityError(f"{where}: the {what} is {found}, the record says {recorded}")


def layers_of(repository: Repository, backup: Backup, image: Image) -> tuple[Layer, ...]:
    """Return an image's layers as they stand in its archive, lowest first.

    One that lies on its host was recorded unread; then all of it is read now.

    :raises IntegrityError: when the archive is not the recorded one.
    """
    if image.layers or not image.diff_ids:
        return image.layers
    scanner = DockerArchiveScanner(decompress_limits=limits_for(backup.whole().size_bytes))
    with archive_stream(repository, backup) as tar:
        for chunk in tar:
            scanner.feed(chunk)
    return layers_in(scanner.finish().image)


def container_document(repository: Repository, backup: Backup) -> JsonObject:
    """Return ``container-<attempt>.json`` of a container's backup, compared with its recorded digest; secret-bearing.

    :raises ConfigurationError: when it is encrypted and no private key of the repository fits.
    :raises IntegrityError: when it is not what was recorded.
    """
    document: JsonObject = json.loads(container_bytes(repository, backup))
    return document


def container_bytes(repository: Repository, backup: Backup) -> bytes:
    """Return the bytes of :func:`container_document`, as they were captured.

    :raises IntegrityError: when they are not what was recorded.
    """
    container = backup.whole().container
    if container is None:
        raise IntegrityError(f"backup {backup.backup_id} of {backup.source} is not one of a container")
    data, decrypt = stored_document(repository, backup, container.configuration_file), decryption_of(repository, backup)
    if decrypt is None:
        return data
    where = f"{repository.storage.url}/{backup.path}{container.configuration_file.name}"
    return b"".join(decrypt([data], where))


def stored_document(repository: Repository, backup: Backup, file: DocumentFile) -> bytes:
    """Return a small file in a backup's folder as it is stored, compared with its recorded digest.

    :raises IntegrityError: when it is not what was recorded.
    """
    data = repository.storage.read(backup.path + file.name)
    _same("sha256", sha256_of(data), file.sha256, f"{repository.storage.url}/{backup.path}{file.name}")
    return data


@contextmanager
def whole_stream(repository: Repository, backup: Backup) -> Iterator[Iterator[bytes]]:
    """Give something of which every byte of a backup is read and compared once it is read to its end.

    That is its archive, and before it the files beside the record.

    :raises IntegrityError: when a byte is not the recorded one; before the last piece at the latest.
    :raises NotFoundError: when something is gone.
    """
    record = backup.whole()
    if record.container is not None:
        container_bytes(repository, backup)
    for file in record.blobs.documents if record.blobs is not None else ():
        stored_document(repository, backup, file)
    with archive_stream(repository, backup) as chunks:
        yield chunks


def restored_config(repository: Repository, backup: Backup) -> bytes:
    """Return the image configuration with which a container's filesystem is restored: always the same bytes."""
    record = backup.whole()
    if record.filesystem is None:
        raise IntegrityError(f"backup {backup.backup_id} of {backup.source} holds no filesystem")
    return filesystem_config(
        container_document(repository, backup),
        engine=record.engine,
        created=record.captured_at,
        diff_id=record.filesystem.diff_id,
        comment=filesystem_comment(record.source.name, record.backup_id),
    )


@contextmanager
def load_stream(
    repository: Repository, backup: Backup, *, tags: Sequence[str], sending: blobs.Sending = blobs.WHOLE
) -> Iterator[Iterator[bytes]]:
    """Give a backup as ``docker load`` takes it, under ``tags`` and no others.

    An image comes as it was saved; a container's filesystem as an image of one layer with its configuration.

    :param tags: ``name:tag`` each; none leaves the image untagged.
    :param sending: what of it, and how; layout ``archive`` always gives all of it, plain.
    """
    record = backup.whole()
    if record.blobs is not None:
        with _blob_stream(repository, backup, tags=tags, sending=sending) as image:
            yield image
        return
    with archive_stream(repository, backup) as tar:
        if record.image is not None:
            yield retagged(tar, tags=tags)
            return
        yield one_layer_image(
            config=restored_config(repository, backup),
            layer_chunks=tar,
            layer_size_bytes=record.size_bytes,
            diff_id=record.diff_ids[0],
            tags=tags,
        )


def loaded_manifest_of(repository: Repository, backup: Backup, *, sending: blobs.Sending) -> str:
    """Return the digest of the manifest by which :func:`load_stream` names an image of layout ``layers``."""
    where = f"{repository.storage.url}/{backup.path}"
    return blobs.manifest_digest(
        repository.storage,
        backup.whole(),
        where=where,
        sending=sending,
        decrypt=decryption_of(repository, backup),
    )


def told(chunks: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    """Yield ``chunks`` as they are, and tell how far it is."""
    for chunk in chunks:
        progress.advance(len(chunk))
        yield chunk


def config_digest_of(repository: Repository, backup: Backup) -> str:
    """Return the digest of the configuration that the restored image has."""
    record = backup.whole()
    if record.image is not None:
        return record.image.config_digest
    if record.blobs is None:
        return sha256_of(restored_config(repository, backup))
    decrypt = decryption_of(repository, backup)
    if decrypt is None:
        return record.blobs.config.digest
    where = f"{repository.storage.url}/{backup.path}"
    return sha256_of(blobs.image_config(repository.storage, record, where=where, decrypt=decrypt))
