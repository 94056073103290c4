# SPDX-License-Identifier: Apache-2.0
"""The ports to archives on a Docker host, and what implementations MUST do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.model import ContainerInspect, ImageInspect, SourceKind
from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.exceptions import DockerBackupError

JobPhase = Literal["waiting", "running", "ended", "killed", "rebooted", "vanished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostJob:
    """What a job on the host does: save or export, hash, compress, hash again, write.

    :param subject: the image or container, by ID; by name a temporary container.
    :param level: compression level, None for the program's own.
    :param needed_bytes: how much must be free before it begins.
    :param deadline_seconds: after this long it ends itself, whoever is left to ask.
    :param temporary: the image that a temporary container is of; both go when the job ends.
    :param note: kept in the job's folder, for whoever commits; it may hold secrets.
    """

    place: JobPlace
    kind: SourceKind
    subject: str
    compression: Compression
    level: int | None
    needed_bytes: int
    deadline_seconds: int
    temporary: str | None = None
    note: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What a job does now.

    :param phase: ``waiting`` for a place among the host's captures, ``running``, ``ended`` by itself, ``killed`` or
        ``rebooted`` when its process is gone without a word, ``vanished`` when its folder is.
    :param exit_status: when it ended.
    :param written_bytes: of the archive, so far.
    :param said: the end of what it said, when it ended with another status than 0.
    """

    phase: JobPhase
    exit_status: int | None = None
    written_bytes: int = 0
    said: bytes = b""

    @property
    def is_over(self) -> bool:
        """Whether it does nothing any more."""
        return self.phase not in {"waiting", "running"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenOnHost:
    """What a job that succeeded says of its archive.

    :param size_bytes: of the uncompressed tar; ``sha256`` its digest, ``sha256:<hex>``.
    :param stored_size_bytes: of the file; ``stored_sha256`` its digest.
    """

    size_bytes: int
    sha256: str
    stored_size_bytes: int
    stored_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedOnHost(WrittenOnHost):
    """What it says of a container's filesystem.

    :param note: what was given to the job.
    :param after: the container once it was exported; None of a temporary one.
    """

    note: bytes
    after: ContainerInspect | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedOnHost(WrittenOnHost):
    """What it says of an image.

    :param image: as the engine showed it when the job began.
    :param manifest: ``manifest.json`` read back from the file; ``config`` the image configuration that it names.
    """

    image: ImageInspect
    manifest: bytes
    config: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """A job's folder that is on the host.

    :param is_over: whether no process of it is left.
    :param claimed: whether somebody commits, or removes, what it made.
    :param age_seconds: since it was last changed, by the host's own clock.
    """

    place: JobPlace
    is_over: bool
    claimed: bool
    age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOnHost:
    """What a host says of a file.

    :param size_bytes: None when it is not there, or nobody can say.
    :param problem: why nobody can say; empty when the host has said.
    """

    size_bytes: int | None = None
    problem: str = ""


class HostFiles(Protocol):
    """Published archives on one Docker host. Paths are absolute."""

    def size(self, path: str) -> int:
        """Return the size of an archive in bytes.

        :raises NotFoundError: when there is none.
        """

    def sizes(self, paths: Sequence[str]) -> Mapping[str, FileOnHost]:
        """Return what the host says of many archives.

        MUST answer for each of them, ask the host once, and read none.

        :raises DockerBackupError: when the host cannot be asked.
        """

    def chunks(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """Stream an archive.

        MUST raise unless all of it came.

        :raises NotFoundError: when there is none.
        """

    def delete(self, path: str) -> None:
        """Remove an archive; one that is not there is no error."""


class HostArchives(HostFiles, Protocol):
    """Archives of one Docker host, and the jobs that make them there. Every method is fit to be called again."""

    def start(self, job: HostJob) -> None:
        """Begin a job and return as soon as it runs; it goes on whatever becomes of us.

        MUST refuse before it begins when the folder cannot be written to, has too little space, or a program that the
        job needs is missing. MUST make folder and files readable by the SSH user alone.

        :raises ConflictError: when there is a job of that name.
        :raises TransientError: when there is too little space.
        :raises ConfigurationError: when the folder or a program is not there to be used.
        """

    def state(self, place: JobPlace) -> JobState:
        """Return what a job does now."""

    def failure(self, state: JobState) -> DockerBackupError:
        """Return the error that the end of a job is which ended with another status than 0."""

    def saved(self, place: JobPlace) -> SavedOnHost:
        """Return what a job says that saved an image and ended with status 0.

        :raises NotFoundError: when its folder is gone.
        :raises IntegrityError: when what it says cannot be read.
        """

    def exported(self, place: JobPlace) -> ExportedOnHost:
        """Return what a job says that exported a container and ended with status 0.

        :raises NotFoundError: when its folder is gone.
        :raises IntegrityError: when what it says cannot be read.
        """

    def publish(self, place: JobPlace, *, archive: str) -> None:
        """Claim what a job made and give it its final name; durable on return.

        MUST NOT replace a file, and MUST succeed for one of those who claim and clear a job at once.

        :raises ConflictError: when somebody else claimed it, or the name is taken.
        :raises NotFoundError: when the job's folder is gone.
        """

    def clear(self, place: JobPlace, *, unclaimed: bool = False) -> bool:
        """End a job, if it runs, and remove its folder; what was published stays. One that is not there is no error.

        MUST NOT touch any process but the job's own.

        :param unclaimed: only if nobody has claimed it.
        :return: False when it was claimed, and so left alone.
        """

    def jobs(self, folder: str, *, scope: str) -> tuple[FoundJob, ...]:
        """Return the jobs in a folder whose names begin with ``scope``; none when there is no such folder."""


HostFilesFactory = Callable[[str], AbstractContextManager[HostFiles]]
"""Gives the archives on the Docker host of a name; raises ConfigurationError when nobody said how to reach it."""
