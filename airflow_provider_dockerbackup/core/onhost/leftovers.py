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
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError


class Leftovers:
    """A context in which a job's end is committed; what must not stay on the host is removed at its end.

    The job's folder tells the next run of what may be left, so it stays as long as something may be.
    """

    def __init__(self, place: JobPlace, archives: HostArchives, progress: Progress) -> None:
        self._place = place
        self._archives = archives
        self._progress = progress
        self._stays = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the job's folder; what hinders that is told, never raised."""
        if self._stays:
            return
        try:
            self._archives.clear(self._place)
        except DockerBackupError as err:
            self._progress.note(f"the folder {self._place.name} stays on the host for the next run to remove: {err}")

    @contextmanager
    def published(self, archive: str, attempt: Attempt) -> Iterator[None]:
        """Publish the archive, and take it back unless the body leaves a record of it."""
        try:
            self._archives.publish(self._place, archive=archive)
        except ConflictError:
            self._stays = True  # somebody else is committing, or removing, this very job
            raise
        except DockerBackupError:
            self.withdraw(archive)
            raise
        try:
            yield
        except BaseException:
            if attempt.undecided:
                self._stays = True
                self._progress.note(f"whether a record names {archive} is not known; it stays on the host")
            else:
                self.withdraw(archive)
            raise

    def withdraw(self, archive: str) -> None:
        """Take the archive back, for no record names it."""
        path = self._place.final_path(archive)
        try:
            self._archives.delete(path)
        except DockerBackupError as err:
            self._stays = True
            self._progress.note(f"{path} stays on the host for the next run to remove: {err}")
