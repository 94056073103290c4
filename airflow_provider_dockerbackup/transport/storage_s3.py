# SPDX-License-Identifier: Apache-2.0
"""A repository's storage on S3, or on a store that speaks its protocol, through s3fs.

Objects get their names by conditional requests (``If-None-Match: *`` on PutObject and CompleteMultipartUpload), so an
existing one is never replaced. Requests go through ``S3FileSystem.call_s3``: its files would commit what was written
when they are garbage-collected, its listings are cached, and its part size is fixed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from airflow_provider_dockerbackup.core.model import ObjectInfo
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError, NotFoundError
from airflow_provider_dockerbackup.transport.storage_errors import object_error
from airflow_provider_dockerbackup.transport.storage_path import joined, object_parts, prefix_parts
from airflow_provider_dockerbackup.transport.storage_s3_object import S3Object
from airflow_provider_dockerbackup.transport.storage_s3_staged import STAGED, STAGING, S3StagedWriter, copy_object
from airflow_provider_dockerbackup.transport.storage_s3_writer import BLOCK_BYTES, S3Writer

CHUNK_BYTES: Final = 1024 * 1024
_BLOCKS_AHEAD: Final = 2


class S3Storage:
    """Objects under a key prefix of one bucket.

    :param fs: an ``s3fs.S3FileSystem``.
    :param root: ``bucket`` or ``bucket/prefix``.
    :param url: how messages and records name it, without credentials.
    """

    def __init__(self, fs: Any, root: str, *, url: str) -> None:
        self._fs = fs
        bucket, _, prefix = root.strip("/").partition("/")
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._url = url.rstrip("/")
        self._fixed_parts = bool(getattr(fs, "fixed_upload_size", False))

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return self._url

    @property
    def atomic_create(self) -> bool:
        """Whether of several callers that create one path at once exactly one succeeds."""
        return True

    def create(self, path: str, data: bytes) -> None:
        """Write a small document by one conditional PutObject.

        :raises ConflictError: when ``path`` exists.
        :raises TransientError: when the store does not answer, or keeps reporting concurrent writers.
        :raises ConfigurationError: when bucket, credentials or rights are wrong.
        """
        self.bucket_object(_own_name(path)).put(data)

    def writer(self, path: str) -> S3Writer:
        """Begin a large object; nothing is sent before a whole part has been written."""
        return S3Writer(self.bucket_object(_own_name(path)), path, fixed_parts=self._fixed_parts)

    def staged(self, folder: str) -> S3StagedWriter:
        """Begin an object of the folder ``folder`` whose name is known only at its end; up to 8 MiB wait in memory."""
        object_parts(folder)
        return S3StagedWriter(self.bucket_object, folder, fixed_parts=self._fixed_parts)

    def read(self, path: str, *, max_bytes: int = 64 * 1024 * 1024) -> bytes:
        """Return a document of at most ``max_bytes``.

        :raises NotFoundError: when there is none.
        :raises IntegrityError: when it is larger, or ends early.
        """
        size = self.stat(path).size_bytes
        if size > max_bytes:
            raise IntegrityError(f"{self._where(path)} has {size} bytes, more than the {max_bytes} a document may have")
        return self.bucket_object(path).read(0, size) if size else b""

    @contextmanager
    def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
        """Stream an object in pieces of 1 MiB, reading 16 MiB ahead.

        :raises NotFoundError: when there is none.
        """
        size = self.stat(path).size_bytes
        pool = ThreadPoolExecutor(max_workers=_BLOCKS_AHEAD, thread_name_prefix="dockerbackup-read")
        try:
            yield self._pieces(self.bucket_object(path), size, pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def stat(self, path: str) -> ObjectInfo:
        """Return size and time of an object.

        :raises NotFoundError: when there is none.
        """
        head = self.bucket_object(path).head()
        return ObjectInfo(path=path, size_bytes=int(head["ContentLength"]), modified=_utc(head["LastModified"]))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object below the folder ``prefix``, page by page; nothing is cached."""
        below = self._below(prefix)
        for page in self._pages("list_objects_v2", {"ContinuationToken": "NextContinuationToken"}, Prefix=below):
            for item in page.get("Contents", ()):
                path = self._path(item["Key"])
                # Consoles make empty objects that stand for folders.
                if path and not path.endswith("/") and not STAGED.fullmatch(path):
                    yield ObjectInfo(path=path, size_bytes=int(item["Size"]), modified=_utc(item["LastModified"]))

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""
        self.bucket_object(path).delete()

    def move(self, path: str, *, to: str) -> None:
        """Copy an object within the store to another path, then delete it; it gets a new time.

        :raises ConflictError: when ``to`` exists.
        :raises NotFoundError: when there is no object ``path``.
        """
        source = self.bucket_object(path)
        copy_object(source, self.bucket_object(_own_name(to)))
        source.delete()

    def reap(self, prefix: str, *, older_than_seconds: float) -> tuple[str, ...]:
        """Abort multipart uploads below ``prefix`` that saw no part for ``older_than_seconds`` by the store's clock.

        Below ``staging`` objects of that age are removed as well: their writers died before they gave them their names.
        """
        staged = self._reap_staged(older_than_seconds) if prefix_parts(prefix) in {(), (STAGING,)} else ()
        markers = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        aborted: list[str] = []
        for page in self._pages("list_multipart_uploads", markers, Prefix=self._below(prefix)):
            now = _server_time(page)
            for upload in page.get("Uploads", ()):
                path = self._path(upload["Key"])
                if now is None or not path or (now - _utc(upload["Initiated"])).total_seconds() <= older_than_seconds:
                    continue
                if (now - self._last_part(upload)).total_seconds() > older_than_seconds:
                    S3Object(self._fs, self._bucket, upload["Key"], self._where(path)).abort(upload["UploadId"])
                    aborted.append(path)
        return (*aborted, *staged)

    def _reap_staged(self, older_than_seconds: float) -> tuple[str, ...]:
        removed: list[str] = []
        for page in self._pages(
            "list_objects_v2", {"ContinuationToken": "NextContinuationToken"}, Prefix=self._below(STAGING)
        ):
            now = _server_time(page)
            for item in page.get("Contents", ()):
                path = self._path(item["Key"])
                if now is None or not STAGED.fullmatch(path):
                    continue
                if (now - _utc(item["LastModified"])).total_seconds() > older_than_seconds:
                    self.delete(path)
                    removed.append(path)
        return tuple(removed)

    def is_abandoned(self, path: str, *, older_than_seconds: float) -> bool:
        """Tell whether the object ``path`` is older than ``older_than_seconds`` by the store's clock.

        :raises NotFoundError: when there is no such object.
        """
        head = self.bucket_object(path).head()
        now = _server_time(head)
        return now is not None and (now - _utc(head["LastModified"])).total_seconds() > older_than_seconds

    def bucket_object(self, path: str) -> S3Object:
        """Return the object that ``path`` names, whether it exists or not."""
        key = joined((*self._root_parts(), *object_parts(path)))
        return S3Object(self._fs, self._bucket, key, self._where(path))

    def _root_parts(self) -> tuple[str, ...]:
        return (self._prefix,) if self._prefix else ()

    def _below(self, prefix: str) -> str:
        return "".join(f"{part}/" for part in (*self._root_parts(), *prefix_parts(prefix)))

    def _path(self, key: str) -> str:
        return key.removeprefix(f"{self._prefix}/") if self._prefix else key

    def _where(self, path: str) -> str:
        return f"{self._url}/{path}" if path else self._url

    def _pages(self, method: str, markers: dict[str, str], **arguments: Any) -> Iterator[dict[str, Any]]:
        """Yield all pages of a listing; ``markers`` maps request fields to the response fields that continue it."""
        following: dict[str, Any] = {}
        while True:
            try:
                page = self._fs.call_s3(method, Bucket=self._bucket, **arguments, **following)
            except Exception as err:
                raise object_error(err, doing="list", where=self._where("")) from err
            yield page
            if not page.get("IsTruncated"):
                return
            following = {ask: page[told] for ask, told in markers.items() if page.get(told)}

    def _last_part(self, upload: dict[str, Any]) -> datetime:
        """Return when the newest part of an upload came; when it began, if none did."""
        newest = _utc(upload["Initiated"])
        try:
            for page in self._pages(
                "list_parts",
                {"PartNumberMarker": "NextPartNumberMarker"},
                Key=upload["Key"],
                UploadId=upload["UploadId"],
            ):
                newest = max([newest, *(_utc(part["LastModified"]) for part in page.get("Parts", ()))])
        except NotFoundError:
            return newest  # completed or aborted meanwhile
        return newest

    def _pieces(self, source: S3Object, size: int, pool: ThreadPoolExecutor) -> Iterator[bytes]:
        starts = iter(range(0, size, BLOCK_BYTES))
        pending: deque[Future[bytes]] = deque()
        while True:
            while len(pending) < _BLOCKS_AHEAD and (start := next(starts, None)) is not None:
                pending.append(pool.submit(source.read, start, min(start + BLOCK_BYTES, size)))
            if not pending:
                return
            block = pending.popleft().result()
            for at in range(0, len(block), CHUNK_BYTES):
                yield block[at : at + CHUNK_BYTES]


def _own_name(path: str) -> str:
    """Return ``path`` unless it has the form of an object without a name of its own."""
    if STAGED.fullmatch(path):
        raise ConfigurationError(f"object path {path!r} has the form of an unfinished object; choose another name")
    return path


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _server_time(answer: dict[str, Any]) -> datetime | None:
    """Return the time at which the store gave an answer, by its own clock; None when it does not say."""
    told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return _utc(parsedate_to_datetime(told)) if told else None
    except ValueError:
        return None
