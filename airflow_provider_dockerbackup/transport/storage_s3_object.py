# SPDX-License-Identifier: Apache-2.0
"""Requests about one S3 object, through s3fs; errors come out as this package's."""

from __future__ import annotations

import time
from typing import Any, Final
from uuid import uuid4

from airflow_provider_dockerbackup.exceptions import ConflictError, IntegrityError, NotFoundError, TransientError
from airflow_provider_dockerbackup.transport.storage_errors import (
    is_concurrent_write,
    is_precondition_failure,
    object_error,
)

_CONFLICT_TRIES: Final = 5
_CONFLICT_PAUSE_SECONDS: Final = 0.2
_WRITER_KEY: Final = "dockerbackup-writer"  # metadata: tells our own object from another's after an unclear answer
_SUMS: Final = frozenset({"CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"})


class S3Object:
    """One key of a bucket.

    :param where: the object's URL, for messages.
    """

    def __init__(self, fs: Any, bucket: str, key: str, where: str) -> None:
        self._fs = fs
        self._at = {"Bucket": bucket, "Key": key}
        self._token = uuid4().hex
        self.where = where

    def put(self, data: bytes) -> None:
        """Write the whole object, on the condition that there is none."""
        self._create("put_object", Body=data, Metadata={_WRITER_KEY: self._token})

    def begin(self) -> str:
        """Begin a multipart upload and return its ID."""
        return str(self._call("create_multipart_upload", "write", Metadata={_WRITER_KEY: self._token})["UploadId"])

    def part(self, upload_id: str, number: int, data: bytes) -> dict[str, Any]:
        """Send one part and return its entry for :meth:`complete`."""
        try:
            sent = self._call("upload_part", "write", UploadId=upload_id, PartNumber=number, Body=data)
        except NotFoundError as err:
            raise self._lost() from err
        return _part_entry(number, sent)

    def copy_part(self, upload_id: str, number: int, source: S3Object, start: int, end: int) -> dict[str, Any]:
        """Take the bytes of ``source`` from ``start`` up to ``end`` for a part, and return its entry."""
        try:
            sent = self._call(
                "upload_part_copy",
                "copy to",
                UploadId=upload_id,
                PartNumber=number,
                CopySource=source._at,
                CopySourceRange=f"bytes={start}-{end - 1}",
            )
        except NotFoundError as err:
            if source.exists():
                raise self._lost() from err
            raise NotFoundError(f"{source.where} is not there") from err
        return _part_entry(number, sent["CopyPartResult"])

    def complete(self, upload_id: str, parts: list[dict[str, Any]]) -> None:
        """Complete a multipart upload, on the condition that there is no object."""
        self._create("complete_multipart_upload", UploadId=upload_id, MultipartUpload={"Parts": parts})

    def abort(self, upload_id: str) -> None:
        """Abort a multipart upload; one that is gone is no error."""
        try:
            self._call("abort_multipart_upload", "abort the upload of", UploadId=upload_id)
        except NotFoundError:
            return

    def head(self) -> dict[str, Any]:
        """Return the object's metadata."""
        return self._call("head_object", "read")

    def size_bytes(self) -> int:
        """Return the object's size."""
        return int(self.head()["ContentLength"])

    def exists(self) -> bool:
        """Tell whether the object is there."""
        try:
            self.head()
        except NotFoundError:
            return False
        return True

    def delete(self) -> None:
        """Remove the object; one that is not there is no error."""
        try:
            self._call("delete_object", "delete")
        except NotFoundError:
            return

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` up to ``end``."""
        try:
            data: bytes = self._fs.cat_file(f"{self._at['Bucket']}/{self._at['Key']}", start=start, end=end)
        except Exception as err:
            raise object_error(err, doing="read", where=self.where) from err
        if len(data) != end - start:
            raise IntegrityError(f"{self.where}: {len(data)} bytes came where {end - start} were asked for")
        return data

    def is_own(self) -> bool:
        """Tell whether the object that is there now was written by this very writer."""
        try:
            head = self.head()
        except NotFoundError:
            return False
        return bool(head.get("Metadata", {}).get(_WRITER_KEY) == self._token)

    def _create(self, method: str, **arguments: Any) -> None:
        """Send a request that gives the object its name; look twice when the answer is not clear.

        A request that s3fs sends again after a lost answer is refused because of its own first try.
        """
        for attempt in range(_CONFLICT_TRIES):
            try:
                self._fs.call_s3(method, **self._at, **arguments, IfNoneMatch="*")
                return
            except Exception as err:
                if is_concurrent_write(err) and method == "put_object" and attempt + 1 < _CONFLICT_TRIES:
                    time.sleep(_CONFLICT_PAUSE_SECONDS * 2**attempt)
                    continue
                if (is_precondition_failure(err) or isinstance(err, FileNotFoundError)) and self.is_own():
                    return
                if isinstance(err, FileNotFoundError) and method != "put_object":
                    raise self._lost() from err
                if is_concurrent_write(err) and self.exists():
                    raise ConflictError(f"{self.where} exists already; it was not changed") from err
                raise object_error(err, doing="write", where=self.where) from err

    def _lost(self) -> TransientError:
        return TransientError(
            f"{self.where}: the store no longer knows the multipart upload; a lifecycle rule or a clean-up aborted it. "
            "Try again"
        )

    def _call(self, method: str, doing: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._fs.call_s3(method, **self._at, **arguments)
        except Exception as err:
            raise object_error(err, doing=doing, where=self.where) from err
        return answer


def _part_entry(number: int, sent: dict[str, Any]) -> dict[str, Any]:
    checksums = {name: value for name, value in sent.items() if name.startswith("Checksum") and name[8:] in _SUMS}
    return {"PartNumber": number, "ETag": sent["ETag"], **checksums}
