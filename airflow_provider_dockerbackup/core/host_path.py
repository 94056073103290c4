# SPDX-License-Identifier: Apache-2.0
"""Paths on a Docker host where archives may lie; nothing else there is ever read or deleted."""

from __future__ import annotations

import posixpath
import re

_HOST_ARCHIVE = re.compile(r"(?:image|rootfs)-[0-9a-f]{12}\.tar(?:\.gz|\.zst)?")
_LONGEST_FOLDER = 1024


def check_host_folder(folder: str) -> str:
    """Return the path of a folder on a Docker host, if it can be one.

    :raises ValueError: when it is not absolute, not in its shortest form, ``/``, or has control characters.
    """
    if not folder.startswith("/") or folder.startswith("//") or posixpath.normpath(folder) != folder:
        raise ValueError("not an absolute path without '.', '..' and needless '/'")
    if folder == "/" or len(folder) > _LONGEST_FOLDER or not folder.isprintable():
        raise ValueError("not a folder of its own, too long, or with characters that cannot be printed")
    return folder


def archive_path_on_host(folder: str, backup_id: str, archive: str) -> str:
    """Return where an archive lies on its Docker host: ``<folder>/<backup id>-<archive>``.

    :raises ValueError: when the archive's name is none of this package's, or the id leads out of the folder; whoever
        deletes relies on it.
    """
    if _HOST_ARCHIVE.fullmatch(archive) is None or "/" in backup_id:
        raise ValueError(f"{backup_id!a}-{archive!a} is no name of an archive on a host")
    return f"{folder}/{backup_id}-{archive}"
