# SPDX-License-Identifier: Apache-2.0
"""Errors of file systems and object stores in the words of this package."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    NotFoundError,
    TransientError,
)

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MISSING: Final = frozenset({errno.ENOENT})
_MISPLACED: Final = frozenset({errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.EXDEV})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_PRECONDITION: Final = frozenset({"PreconditionFailed", "412"})
_CONCURRENT: Final = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
_NO_BUCKET: Final = "NoSuchBucket"
_STORE_FULL: Final = frozenset({"XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "507"})
_SLOW: Final = frozenset({"SlowDown", "RequestTimeout", "Throttling", "TooManyRequests", "RequestLimitExceeded"})
_CREDENTIALS: Final = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
)
_SETTINGS: Final = frozenset(
    {
        "ProfileNotFound",
        "InvalidRegionError",
        "NoRegionError",
        "ParamValidationError",
        "InvalidEndpointConfigurationError",
    }
)


def local_error(err: OSError, *, doing: str, where: str) -> DockerBackupError:
    """Return what a failed system call means to the reader.

    :param doing: the verb: ``read``, ``write``, ``commit``, ``list`` …
    :param where: full path that messages name.
    """
    if err.errno in _MISSING:
        return NotFoundError(f"{where} is not there")
    kind, advice = _meaning(err.errno or 0, doing)
    named = f" ({err.filename})" if err.errno == errno.ELOOP and isinstance(err.filename, str) else ""
    return kind(f"cannot {doing} {where}: {err.strerror or err}{named}; {advice}")


def _meaning(number: int, doing: str) -> tuple[type[DockerBackupError], str]:
    if number in _FULL:
        return TransientError, "the disk (or quota) is full: free space or rotate backups, then try again"
    if doing == "commit" and number in _NO_LINKS:
        return ConfigurationError, "the file system has no hard links, which give objects their names: use another one"
    if number in _DENIED:
        return ConfigurationError, "let the user that runs this write there, or choose another repository"
    if number in _MISPLACED:
        return ConfigurationError, "a repository holds plain files and folders, no symbolic links and no mounts"
    if number == errno.EIO:
        return TransientError, "look at the disk's health and the kernel's log, then try again"
    return TransientError, "try again"


def response_of(err: BaseException) -> Mapping[str, Any] | None:
    """Return the S3 response that an error was made of, or None."""
    for cause in _causes(err):
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):
            return response
    return None


def error_code(err: BaseException) -> str:
    """Return the S3 error code behind an error, such as ``NoSuchKey`` or ``404``; empty when there is none."""
    response = response_of(err) or {}
    return str(response.get("Error", {}).get("Code", ""))


def status_code(err: BaseException) -> int:
    """Return the HTTP status behind an error; 0 when there is none."""
    response = response_of(err) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_precondition_failure(err: BaseException) -> bool:
    """Tell whether a store refused a conditional write because the object exists."""
    return isinstance(err, FileExistsError) or error_code(err) in _PRECONDITION or status_code(err) in {304, 412}


def is_concurrent_write(err: BaseException) -> bool:
    """Tell whether a store refused a conditional write because another one is under way."""
    return error_code(err) in _CONCURRENT or status_code(err) == 409


def object_error(err: BaseException, *, doing: str, where: str) -> DockerBackupError:
    """Return what an error of an object store means to the reader; never with credentials in it.

    :param doing: the verb.
    :param where: URL, without credentials, that messages name.
    """
    code, status = error_code(err), status_code(err)
    if is_precondition_failure(err):
        return ConflictError(f"{where} exists already; it was not changed")
    if code != _NO_BUCKET and (isinstance(err, FileNotFoundError) or status == 404):
        return NotFoundError(f"{where} is not there")
    if code == _NO_BUCKET:
        bucket = where.split("://", 1)[-1].split("/", 1)[0]
        advice = f"there is no bucket {bucket!r}: create it, or correct the repository's URL"
        return ConfigurationError(f"cannot {doing} {where}: {_told(err)}; {advice}")
    kind, advice = _object_meaning(err, code, status)
    return kind(f"cannot {doing} {where}: {_told(err)}; {advice}")


def _object_meaning(err: BaseException, code: str, status: int) -> tuple[type[DockerBackupError], str]:
    if code in _STORE_FULL or (isinstance(err, OSError) and err.errno in _FULL):
        return TransientError, "the store (or quota) is full: free space or rotate backups, then try again"
    if code in _SLOW or status in {408, 409, 429} or status >= 500:
        return TransientError, "try again"
    if isinstance(err, PermissionError) or status in {401, 403} or _is_a(err, _CREDENTIALS):
        return ConfigurationError, "check the credentials, their rights to this path, and this machine's clock"
    if 300 <= status < 500 or _is_a(err, _SETTINGS):
        return ConfigurationError, "check the repository's URL, endpoint and region"
    return TransientError, "check that the endpoint answers, then try again"


def _causes(err: BaseException | None) -> Iterator[BaseException]:
    for _ in range(10):
        if err is None:
            return
        yield err
        err = err.__cause__ or err.__context__


def _is_a(err: BaseException, names: frozenset[str]) -> bool:
    return any(kind.__name__ in names for cause in _causes(err) for kind in type(cause).__mro__)


def _told(err: BaseException) -> str:
    """Return the store's own words if it answered, else the kind of error: a message may hold a URL with a secret."""
    response = response_of(err)
    if response is not None:
        told = response.get("Error", {})
        return f"{told.get('Code', '')} {told.get('Message', '')}".strip() or f"HTTP status {status_code(err)}"
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    return type(err).__name__
