# SPDX-License-Identifier: Apache-2.0
"""Where things are in a repository: the folders of sources and backups, the names of their files, the blobs."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, unquote

from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.exceptions import IntegrityError

RECORD_FILE = "backup.json"
BLOBS_FOLDER = "blobs/sha256"
BACKUP_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{16}")
ATTEMPT_FILE = re.compile(
    r"(?:image|rootfs|container)-(?P<file>[0-9a-f]{12})\.(?:tar|tar\.gz|tar\.zst|json)(?:\.age)?"
    r"|oci-(?P<folder>[0-9a-f]{12})/(?:oci-layout|index\.json)"
)
OUR_FILE = re.compile(
    rf"{ATTEMPT_FILE.pattern}|backup\.json|(?:verification|confirmed|hold|release|quarantined|deleted)-[^/]*\.json"
)

_AN_ID = "00000000T000000Z-0000000000000000"
_HASH_BEGINS = _AN_ID.index("-")


def id_beginning(text: str) -> str:
    """Return the beginning of a backup's id as ids are written, from one in any case; empty when none begins so.

    Fewer characters than the four of a year are none: they occur in names of hosts and images as well.
    """
    beginning = text[:_HASH_BEGINS].upper() + text[_HASH_BEGINS:].lower()
    rest = _AN_ID[len(beginning) :]
    return beginning if len(beginning) >= 4 and BACKUP_ID.fullmatch(beginning + rest) else ""


def blob_path(digest: str) -> str:
    """Return the path of the blob of a digest, ``sha256:<hex>``."""
    return f"{BLOBS_FOLDER}/{digest.removeprefix('sha256:')}"


def host_path(host: str) -> str:
    """Return the folder of a host's backups, without a trailing ``/``; the name is percent-encoded."""
    return f"backups/{_name(host)}"


def source_path(source: Source) -> str:
    """Return the folder of a source's backups, without a trailing ``/``; names are percent-encoded."""
    return f"{host_path(source.host)}/{source.kind.value}-{_name(source.name)}"


def backup_path(source: Source, backup_id: str) -> str:
    """Return the folder of one backup, with a trailing ``/``."""
    return f"{source_path(source)}/{backup_id}/"


def source_from_path(path: str) -> Source:
    """Return the source whose backups are in ``path``.

    :raises IntegrityError: when the path is not one of a source.
    """
    parts = path.split("/")
    source = _source_of(parts[1], parts[2])
    if source is None:
        raise IntegrityError(f"{path} is not a folder of backups; expected backups/HOST/image-… or container-…")
    return source


def place_of(path: str) -> tuple[str, str] | None:
    """Return the backup's folder in which ``path`` lies, and its name there; None when it lies in none."""
    parts = path.split("/", 4)
    if len(parts) < 5 or not BACKUP_ID.fullmatch(parts[3]) or _source_of(parts[1], parts[2]) is None:
        return None
    if "/" in parts[4] and not ATTEMPT_FILE.fullmatch(parts[4]):
        return None
    return "/".join(parts[:4]) + "/", parts[4]


@lru_cache(maxsize=16384)
def _source_of(host: str, folder: str) -> Source | None:
    kind, _, name = folder.partition("-")
    if kind not in {each.value for each in SourceKind} or not name:
        return None
    source = Source(host=unquote(host), kind=SourceKind(kind), name=unquote(name))
    return source if source_path(source) == f"backups/{host}/{folder}" else None


def takes_aside(name: str) -> bool:
    """Tell whether a document of this name takes its backup out of the catalog."""
    return name.startswith(("deleted-", "quarantined-"))


def id_in(path: str) -> str:
    """Return the ID of the backup whose folder ``path`` is, or lies in."""
    return path.split("/")[3]


def _name(text: str) -> str:
    """Return ``text`` as one path component; a leading dot is encoded, so it is never ``.`` or ``..``."""
    encoded = quote(text, safe="")
    return encoded if not encoded.startswith(".") else "%2E" + encoded[1:]
