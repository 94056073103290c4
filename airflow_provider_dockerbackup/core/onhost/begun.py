# SPDX-License-Identifier: Apache-2.0
"""A job that was begun on a host: what is known of it, who waits for it, and who ends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import BackupKey, new_attempt
from airflow_provider_dockerbackup.core.capture import Tuning
from airflow_provider_dockerbackup.core.export import ExportRequest
from airflow_provider_dockerbackup.core.onhost.place import JobPlace, parse_location, scope_of
from airflow_provider_dockerbackup.core.onhost.ports import HostArchives, HostJob, JobState
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, Progress
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.retention.policy import check_own_policy
from airflow_provider_dockerbackup.core.save import SaveRequest
from airflow_provider_dockerbackup.core.temporary import discarded_on_failure, is_temporary_of
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, DockerBackupError

# What compressing leaves of an archive at the most, as a rule; a job that finds the disk full fails and cleans up.
_COMPRESSED_SHARE = 3
_SPARE_BYTES = 16 * 1024 * 1024
_SHORTEST_POLL_SECONDS = 0.2
_LONGEST_POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A capture whose job runs on the host.

    :param subject: the image or container that it captures.
    :param temporary: the image that a snapshot made for it; None for none.
    :param audit_head: digest of the event that told of its start; None when there is none.
    :param asked: how it is taken, as that event tells it.
    :param retention: the source's own retention policy when it began, empty for none; None when nobody looked.
    """

    place: JobPlace
    subject: str
    temporary: str | None
    began_at: datetime
    compression: Compression
    audit_head: str | None
    asked: Mapping[str, Any]
    retention: str | None

    @classmethod
    def of(
        cls, job: HostJob, request: SaveRequest | ExportRequest, *, began_at: datetime, audit_head: str | None
    ) -> Self:
        """Return what is known of a job that has begun."""
        return cls(
            place=job.place,
            subject=job.subject,
            temporary=job.temporary,
            began_at=began_at,
            compression=job.compression,
            audit_head=audit_head,
            asked=request.asked,
            retention=request.retention,
        )

    def __post_init__(self) -> None:
        """Refuse an image that is not this try's own, which is deleted when the try fails, and a policy that is none.

        :raises ConfigurationError: names it.
        """
        check_own_policy(self.retention)
        if self.temporary is not None and not is_temporary_of(self.temporary, self.place.attempt):
            raise ConfigurationError(f"{self.temporary!a} is no temporary image of try {self.place.attempt}")


def check_on_host(location: str, tuning: Tuning, *, layout: str, encrypted: bool) -> str:
    """Return the folder that ``host:/path`` names; refuse what an archive there cannot be.

    :param layout: of the repository, or of the one that is to be made.
    :param encrypted: whether that is encrypted.
    :raises ConfigurationError: names the value.
    """
    folder = parse_location(location)
    if layout != "archive":
        raise ConfigurationError(
            "archive_location: layout 'layers' shares its bytes between hosts; use a repository of layout 'archive'"
        )
    if encrypted:
        raise ConfigurationError(
            "archive_location: the repository is encrypted, and nothing encrypts on the host; use another repository"
        )
    if tuning.bandwidth_limit is not None:
        raise ConfigurationError("bandwidth_limit: with archive_location no archive comes from the host; leave it out")
    return folder


def new_job(
    request: SaveRequest | ExportRequest,
    folder: str,
    *,
    subject: str,
    size_bytes: int,
    deadline_seconds: int,
    repository: Repository,
) -> HostJob:
    """Return the job of a new try.

    :param subject: the image or container, by ID.
    :param size_bytes: of the uncompressed archive, about.
    """
    source, compression = request.key.source, request.compression or repository.document.compression
    scope = scope_of(repository, source)
    share = 1 if compression is Compression.NONE else _COMPRESSED_SHARE
    return HostJob(
        place=JobPlace.of(folder, scope=scope, backup_id=request.key.backup_id, attempt=new_attempt()),
        kind=source.kind,
        subject=subject,
        compression=compression,
        level=request.tuning.level,
        needed_bytes=size_bytes // share + _SPARE_BYTES,
        deadline_seconds=deadline_seconds,
    )


@contextmanager
def ended_unless_begun(place: JobPlace, archives: HostArchives, progress: Progress) -> Iterator[None]:
    """End a job of which nobody can tell whether it began; one of that name that was there before is not ours."""
    try:
        yield
    except ConflictError:
        raise
    except BaseException:
        abandon(place, archives=archives, progress=progress)
        raise


def await_job(begun: Begun, *, host: DockerHost, archives: HostArchives, clock: Clock, progress: Progress) -> JobState:
    """Return what became of a job, once it is over; it is ended when nobody waits any more."""
    with discarded_on_failure(host, begun.temporary, progress):
        try:
            return _awaited(begun, archives=archives, clock=clock, progress=progress)
        except BaseException:
            abandon(begun.place, archives=archives, progress=progress)
            raise


def _awaited(begun: Begun, *, archives: HostArchives, clock: Clock, progress: Progress) -> JobState:
    progress.start(f"capture of {begun.subject} on the host", None)
    pause, written, waiting = _SHORTEST_POLL_SECONDS, 0, False
    try:
        while not (state := archives.state(begun.place)).is_over:
            if state.phase == "waiting" and not waiting:
                waiting = True
                progress.note("waiting for other captures on the host to end")
            progress.advance(max(0, state.written_bytes - written))
            written = max(written, state.written_bytes)
            clock.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
        return state
    finally:
        progress.finish()


def abandon(place: JobPlace, *, archives: HostArchives, progress: Progress) -> None:
    """End a job and remove what it left, unless somebody is committing that.

    A host that cannot be reached is told, and the next run does it.
    """
    try:
        archives.clear(place, unclaimed=True)
    except DockerBackupError as err:
        progress.note(f"the job {place.name} stays on the host for the next run to remove: {err}")


def require_own(
    begun: Begun, key: BackupKey, *, archives: HostArchives, repository: Repository, progress: Progress
) -> None:
    """Refuse a job that is not of this work, and end it: the task's fields were rendered otherwise when it began.

    :raises ConfigurationError: says so.
    """
    expected = JobPlace.of(
        begun.place.folder,
        scope=scope_of(repository, key.source),
        backup_id=key.backup_id,
        attempt=begun.place.attempt,
    )
    if expected != begun.place:
        abandon(begun.place, archives=archives, progress=progress)
        raise ConfigurationError(
            "the task's fields have other values than when its job began; use values that stay the same within a run"
        )
