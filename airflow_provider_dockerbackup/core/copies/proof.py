# SPDX-License-Identifier: Apache-2.0
"""Read back what a copy wrote, as it is stored: each file and each new blob against its digest in the record."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from airflow_provider_dockerbackup.core.catalog import Backup
from airflow_provider_dockerbackup.core.places import blob_path
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.core.reading import stored_archive, stored_document
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import BadBlobError


def read_back(target: Repository, written: Backup, *, new: Collection[str], progress: Progress) -> int:
    """Return how many bytes were read, once all that was written is proven; no private key is needed.

    :param written: the backup, whose record need not be there yet.
    :param new: digests of the blobs that were stored for it. Others are not read: they did not travel.
    :raises IntegrityError: when a byte is not the recorded one.
    :raises NotFoundError: when something is gone.
    """
    record, read = written.whole(), 0
    documents = list(record.blobs.documents) if record.blobs is not None else []
    if record.container is not None:
        documents.append(record.container.configuration_file)
    for file in documents:
        read += len(stored_document(target, written, file))
    if record.archive is not None:
        with stored_archive(target, written) as chunks:
            for chunk in chunks:
                read += len(chunk)
                progress.advance(len(chunk))
    for digest in sorted(record.blob_sizes.keys() & set(new)):
        read += _read_blob(target, digest, progress)
    return read


def _read_blob(target: Repository, digest: str, progress: Progress) -> int:
    found, read = hashlib.sha256(), 0
    with target.storage.chunks(blob_path(digest)) as chunks:
        for chunk in chunks:
            found.update(chunk)
            read += len(chunk)
            progress.advance(len(chunk))
    if f"sha256:{found.hexdigest()}" != digest:
        where = f"{target.storage.url}/{blob_path(digest)}"
        raise BadBlobError(f"{where} was just written, and its sha256 is {found.hexdigest()}", digest=digest)
    return read
