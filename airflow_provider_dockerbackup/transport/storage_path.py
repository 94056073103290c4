# SPDX-License-Identifier: Apache-2.0
"""Paths of objects in a storage: relative, ``/``-separated, the same for every kind of storage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_dockerbackup.exceptions import ConfigurationError

_LONGEST_PART_BYTES: Final = 255  # NAME_MAX of every Linux file system


def object_parts(path: str) -> tuple[str, ...]:
    """Return the parts of an object's path.

    :raises ConfigurationError: when it is absolute, has empty parts, ``.`` or ``..``, a NUL, or a part over 255 bytes.
    """
    parts = tuple(path.split("/"))
    if any(part in {"", ".", ".."} for part in parts) or "\0" in path:
        raise ConfigurationError(
            f"object path {path!r} leaves the repository; give one without '/' in front and without '..'"
        )
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError as err:
        raise ConfigurationError(f"object path {path!r} is not Unicode text") from err
    if longest > _LONGEST_PART_BYTES:
        raise ConfigurationError(f"object path {path!r} has a part of {longest} bytes, more than {_LONGEST_PART_BYTES}")
    return parts


def prefix_parts(prefix: str) -> tuple[str, ...]:
    """Return the parts of a folder's path; none for ``""``, the root. A closing ``/`` is accepted.

    :raises ConfigurationError: as :func:`object_parts`.
    """
    trimmed = prefix.removesuffix("/")
    return object_parts(trimmed) if trimmed else ()


def object_name(name: str) -> str:
    """Return ``name`` when it can be an object's name in a folder.

    :raises ConfigurationError: when it is a path of several parts, or none at all.
    """
    if len(object_parts(name)) != 1:
        raise ConfigurationError(f"object name {name!r} is a path; give the last part alone")
    return name


def joined(parts: Iterable[str]) -> str:
    """Return the path of ``parts``."""
    return "/".join(parts)


def without_credentials(url: str) -> str:
    """Return ``url`` without user, password, query and fragment."""
    split = urlsplit(url)
    if not split.scheme or not split.netloc:
        return url
    return urlunsplit((split.scheme, split.netloc.rpartition("@")[2], split.path, "", ""))
