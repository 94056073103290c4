# SPDX-License-Identifier: Apache-2.0
"""An object being written to S3 by multipart upload."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from airflow_provider_dockerbackup.transport.storage_s3_object import S3Object

_log = logging.getLogger(__name__)

BLOCK_BYTES: Final = 8 * 1024 * 1024


class S3Writer:
    """One object being written by multipart upload; made by :meth:`S3Storage.writer`.

    Parts are sent in the background. They start at 8 MiB and double every 1,250, so that 10,000 of them reach 2.4 TiB;
    at most 24 MiB, or one part, are under way at once: the writer needs 32 MiB of memory up to 10 GiB, 128 MiB up to
    146 GiB. Stores that want parts of one size (s3fs ``fixed_upload_size``) get 16 MiB, enough for 156 GiB.
    """

    def __init__(self, target: S3Object, path: str, *, fixed_parts: bool) -> None:
        self._target = target
        self._path = path
        self._fixed = fixed_parts
        self._buffer = bytearray()
        self._upload_id = ""
        self._parts: list[Future[dict[str, Any]]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._state: str = "open"

    @property
    def path(self) -> str:
        """Path of the object, relative to the storage's root."""
        return self._path

    def write(self, data: bytes | memoryview) -> None:
        """Append ``data``.

        :raises TransientError: when the store is full or does not answer.
        """
        self._require_open()
        left = memoryview(data).cast("B")
        while left:
            room = self._part_bytes() - len(self._buffer)
            self._buffer += left[:room]
            left = left[room:]
            if len(self._buffer) >= self._part_bytes():
                self._send_part()

    def commit(self) -> None:
        """Complete the upload, on the condition that the path does not exist.

        :raises ConflictError: when the path exists.
        :raises TransientError: when the store does not answer, or reports a concurrent writer.
        """
        self._require_open()
        if not self._parts:
            self._state = "committing"
            self._target.put(bytes(self._buffer))
        else:
            if self._buffer:
                self._send_part()
            parts = [part.result() for part in self._parts]
            self._state = "committing"
            self._target.complete(self._upload_id, parts)
        self._state = "committed"
        self._buffer = bytearray()

    def close(self) -> None:
        """Release everything; abort the upload unless it was committed."""
        state, self._state = self._state, "closed"
        if state == "closed":
            return
        self._buffer = bytearray()
        try:
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
        finally:
            if state != "committed":
                self._discard(unclear=state == "committing")

    def _require_open(self) -> None:
        if self._state != "open":
            raise ValueError(f"the writer of {self._path} was committed or closed before")

    def _part_bytes(self) -> int:
        return 2 * BLOCK_BYTES if self._fixed else BLOCK_BYTES << (len(self._parts) // 1250)

    def _send_part(self) -> None:
        if self._pool is None:
            self._upload_id = self._target.begin()
            self._pool = ThreadPoolExecutor(max_workers=3, thread_name_prefix="dockerbackup-write")
        at_once = max(1, 3 * BLOCK_BYTES // self._part_bytes())
        if len(self._parts) >= at_once:
            self._parts[-at_once].result()
        data, self._buffer = bytes(self._buffer), bytearray()
        self._parts.append(self._pool.submit(self._target.part, self._upload_id, len(self._parts) + 1, data))

    def _discard(self, *, unclear: bool) -> None:
        try:
            if self._upload_id:
                self._target.abort(self._upload_id)
            if unclear and self._target.is_own():
                self._target.delete()
        except Exception as err:  # noqa: BLE001 - a failing clean-up must not hide the first error; reap() comes later
            _log.warning("cannot clean up %s, a later run will: %s", self._target.where, err)
