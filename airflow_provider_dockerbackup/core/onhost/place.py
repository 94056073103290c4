# SPDX-License-Identifier: Apache-2.0
"""Where an archive lies on its Docker host, and what the job that makes it is called there."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from airflow_provider_dockerbackup.core.host_path import archive_path_on_host, check_host_folder
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.places import BACKUP_ID, source_path
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.exceptions import ConfigurationError

_PREFIX = "host:"
_JOB = re.compile(rf"\.dockerbackup-[0-9a-f]{{16}}-(?P<backup_id>{BACKUP_ID.pattern})-(?P<attempt>[0-9a-f]{{12}})")


def parse_location(text: str) -> str:
    """Return the folder that ``host:/path`` names.

    :raises ConfigurationError: when it is none: not absolute, ``/`` itself, with ``..`` or control characters.
    """
    folder = text.removeprefix(_PREFIX) if text.startswith(_PREFIX) else ""
    try:
        return check_host_folder(folder.rstrip("/") or "/")
    except ValueError as err:
        raise ConfigurationError(
            f"archive_location: expected host:/PATH, an absolute path on the Docker host, got {text!a} ({err})"
        ) from err


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlace:
    """The folder in which one try makes its archive on the host; nobody else may read it.

    :param folder: absolute path of the folder in which archives are kept; the job's own is in it.
    :param name: of the job's own folder, hidden; it tells the work and the try.
    """

    folder: str
    name: str

    @classmethod
    def of(cls, folder: str, *, scope: str, backup_id: str, attempt: str) -> JobPlace:
        """Return the place of one try.

        :param scope: see :func:`scope_of`.
        """
        return cls(folder=folder, name=f"{scope}{backup_id}-{attempt}")

    def __post_init__(self) -> None:
        """Refuse what is no place of a job: its folder is deleted with all that is in it.

        :raises ConfigurationError: names the value.
        """
        try:
            check_host_folder(self.folder)
        except ValueError as err:
            raise ConfigurationError(f"job folder {self.folder!a}: {err}") from err
        if _JOB.fullmatch(self.name) is None:
            raise ConfigurationError(f"job name {self.name!a} is none of this package's")

    @property
    def backup_id(self) -> str:
        """Id of the backup that it makes."""
        return self._part("backup_id")

    @property
    def attempt(self) -> str:
        """Name of the try."""
        return self._part("attempt")

    def _part(self, name: str) -> str:
        match = _JOB.fullmatch(self.name)
        return match[name] if match else ""

    def final_path(self, archive: str) -> str:
        """Return where the archive ``archive`` is published."""
        return archive_path_on_host(self.folder, self.backup_id, archive)


def stem_of(source: Source) -> str:
    """Return how the names of a source's archives begin."""
    return "image" if source.kind is SourceKind.IMAGE else "rootfs"


def scope_of(repository: Repository, source: Source) -> str:
    """Return the beginning of the names of all jobs of a source, of this repository and no other."""
    identity = f"{repository.document.repository_id}\n{source_path(source)}".encode()
    return f".dockerbackup-{hashlib.sha256(identity).hexdigest()[:16]}-"
