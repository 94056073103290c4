# SPDX-License-Identifier: Apache-2.0
"""What must not stay on the host once a job's end is committed, or is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from airflow_provider_dockerbackup.core.attempt import Attempt
from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.core.onhost.ports import HostArchives
from airflow_provider_dockerbackup.core.ports import Progress
from airflow_provider_dockerbackup.exceptions import DockerBackupError


class Leftovers:
    """A context in which a job's end is committed; what must not stay on the host is removed at its end.

    The job's folder tells the next run of what may be left, so it stays as long as something may be. What somebody has
    claimed is left alone unless that was us: an archive that another process commits is not ours to take back.
    """

    def __init__(self, place: JobPlace, archives: HostArchives, progress: Progress) -> None:
        self._place = place
        self._archives = archives
        self._progress = progress
        self._claimed = False
        self._stays = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the job's folder; what hinders that is told, never raised."""
        if self._stays:
            return
        try:
            gone = self._archives.clear(self._place, unclaimed=not self._claimed)
        except DockerBackupError as err:
            self._progress.note(f"the folder {self._place.name} stays on the host for the next run to remove: {err}")
            return
        if not gone:
            self._progress.note(f"the folder {self._place.name} stays on the host: somebody claimed it, perhaps we")

    @contextmanager
    def published(self, archive: str, attempt: Attempt) -> Iterator[None]:
        """Publish the archive, and take it back unless the body leaves a record of it."""
        # When this fails, nobody knows whether it was done, and by whom: another process may have the same job.
        self._archives.publish(self._place, archive=archive)
        self._claimed = self._stays = True
        try:
            yield
        except BaseException:
            if attempt.may_stand:
                self._progress.note(f"a record may name {archive}; it stays on the host")
            else:
                self._withdraw(archive)
            raise
        if attempt.may_stand:
            self._stays = False
        else:
            self._withdraw(archive)

    def _withdraw(self, archive: str) -> None:
        """Take the archive back, for no record names it; until it is gone the folder stays."""
        path = self._place.final_path(archive)
        try:
            self._archives.delete(path)
        except DockerBackupError as err:
            self._progress.note(f"{path} stays on the host for the next run to remove: {err}")
            return
        self._stays = False
