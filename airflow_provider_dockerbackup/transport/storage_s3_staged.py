# SPDX-License-Identifier: Apache-2.0
"""Objects on S3 whose name is known only at their end, and copies within the store.

What is larger than one part goes to ``staging/<random>`` first, and from there, within the store, to its name. Copies
are multipart: only ``CompleteMultipartUpload`` takes ``If-None-Match`` wherever conditional writes work at all, and one
request copies at most 5 GiB.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import uuid4

from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError
from airflow_provider_dockerbackup.transport.storage_path import object_name
from airflow_provider_dockerbackup.transport.storage_s3_object import S3Object
from airflow_provider_dockerbackup.transport.storage_s3_writer import BLOCK_BYTES, S3Writer

_log = logging.getLogger(__name__)

STAGING: Final = "staging"
STAGED: Final = re.compile(rf"{STAGING}/[0-9a-f]{{32}}")
_COPY_BYTES: Final = 64 * 1024 * 1024
_MOST_PARTS: Final = 10_000
_COPIES_AT_ONCE: Final = 4


class S3StagedWriter:
    """One object being written that gets its name at its end; made by ``S3Storage.staged``.

    Needs the memory of an :class:`S3Writer`. Up to 8 MiB are sent in one request, under the final name.

    :param object_at: gives the object that a path names.
    :param folder: path of the folder it will be in.
    :param fixed_parts: as of :class:`S3Writer`.
    """

    def __init__(self, object_at: Callable[[str], S3Object], folder: str, *, fixed_parts: bool) -> None:
        self._object_at = object_at
        self._folder = folder
        self._staging = f"{STAGING}/{uuid4().hex}"
        self._fixed = fixed_parts
        self._small = bytearray()
        self._large: S3Writer | None = None
        self._open = True

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        :raises TransientError: when the store is full or does not answer.
        """
        self._require_open()
        if self._large is None:
            self._small += data
            if len(self._small) <= BLOCK_BYTES:
                return
            self._large = S3Writer(self._object_at(self._staging), self._staging, fixed_parts=self._fixed)
            data, self._small = memoryview(self._small), bytearray()
        self._large.write(data)

    def commit(self, name: str) -> None:
        """Make the object visible as ``name`` in its folder, on the condition that it does not exist.

        :raises ConflictError: when it exists.
        :raises TransientError: when the store does not answer, or reports a concurrent writer.
        """
        self._require_open()
        target = self._object_at(f"{self._folder}/{object_name(name)}")
        if self._large is None:
            target.put(bytes(self._small))
        else:
            _require_free(target)
            self._large.commit()
            copy_object(self._object_at(self._staging), target)
        self._open = False

    def close(self) -> None:
        """Release everything; an object that has its name stays: others may count on it already."""
        self._open = False
        self._small = bytearray()
        large, self._large = self._large, None
        if large is None:
            return
        large.close()
        try:
            self._object_at(self._staging).delete()
        except DockerBackupError as err:
            _log.warning("cannot clean up %s, a later run will: %s", self._staging, err)

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError(f"the writer of {self._folder}/? was committed or closed before")


def copy_object(source: S3Object, target: S3Object) -> None:
    """Copy an object within the store, on the condition that there is no ``target``.

    :raises ConflictError: when there is one; it was not changed.
    :raises NotFoundError: when there is no ``source``.
    """
    size = source.size_bytes()
    if size <= BLOCK_BYTES:
        target.put(source.read(0, size) if size else b"")
        return
    _require_free(target)
    upload_id = target.begin()
    try:
        target.complete(upload_id, _copied(source, target, upload_id, size))
    except BaseException:
        _abort(target, upload_id)
        raise


def _copied(source: S3Object, target: S3Object, upload_id: str, size: int) -> list[dict[str, Any]]:
    step = max(_COPY_BYTES, -(-size // _MOST_PARTS))
    pool = ThreadPoolExecutor(max_workers=_COPIES_AT_ONCE, thread_name_prefix="dockerbackup-copy")
    try:
        parts = [
            pool.submit(target.copy_part, upload_id, number, source, start, min(start + step, size))
            for number, start in enumerate(range(0, size, step), start=1)
        ]
        return [part.result() for part in parts]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _abort(target: S3Object, upload_id: str) -> None:
    try:
        target.abort(upload_id)
    except DockerBackupError as err:
        _log.warning("cannot clean up the upload of %s, a later run will: %s", target.where, err)


def _require_free(target: S3Object) -> None:
    """Refuse early what the store would refuse at the end."""
    if target.exists():
        raise ConflictError(f"{target.where} exists already; it was not changed")
