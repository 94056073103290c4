# SPDX-License-Identifier: Apache-2.0
"""Save an image into a folder of its own host: begin a job there, and commit the record once it is done.

The two halves may run in different processes. The job goes on by itself between them, and ends itself at its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from airflow_provider_dockerbackup.core import confirm
from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.attempt import Attempt, new_attempt, reap, winner_of
from airflow_provider_dockerbackup.core.capture import BackupOutcome, Telling
from airflow_provider_dockerbackup.core.document import canonical_json
from airflow_provider_dockerbackup.core.model import ImageInspect
from airflow_provider_dockerbackup.core.onhost.image import record_on_host
from airflow_provider_dockerbackup.core.onhost.leftovers import Leftovers
from airflow_provider_dockerbackup.core.onhost.place import JobPlace, parse_location, scope_of
from airflow_provider_dockerbackup.core.onhost.ports import HostArchives, JobState, SavedOnHost, SaveJob
from airflow_provider_dockerbackup.core.onhost.reap import reap_jobs
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, Progress
from airflow_provider_dockerbackup.core.record import ArchiveFile, HostPlace
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.save import SaveRequest
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    TransientError,
)

# What compressing leaves of an image at the most, as a rule; a job that finds the disk full fails and cleans up.
_COMPRESSED_SHARE = 3
_SPARE_BYTES = 16 * 1024 * 1024
_SHORTEST_POLL_SECONDS = 0.2
_LONGEST_POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A save whose job runs on the host.

    :param image_id: what it saves.
    :param audit_head: digest of the event that told of its start; None when there is none.
    """

    place: JobPlace
    image_id: str
    began_at: datetime
    compression: Compression
    audit_head: str | None


def check_on_host(request: SaveRequest, repository: Repository) -> None:
    """Refuse what an archive on its host cannot be.

    :raises ConfigurationError: names the value.
    """
    request.check(repository)
    if repository.document.layout != "archive":
        raise ConfigurationError(
            "archive_location: layout 'layers' shares its bytes between hosts; use a repository of layout 'archive'"
        )
    if repository.document.recipients:
        raise ConfigurationError(
            "archive_location: the repository is encrypted, and nothing encrypts on the host; use another repository"
        )
    if request.tuning.bandwidth_limit is not None:
        raise ConfigurationError("bandwidth_limit: with archive_location no archive comes from the host; leave it out")


def begin_save(
    request: SaveRequest,
    location: str,
    *,
    image: ImageInspect,
    deadline_seconds: int,
    host: DockerHost,
    archives: HostArchives,
    repository: Repository,
    progress: Progress,
) -> Begun | BackupOutcome:
    """Start the job that saves an image on its host, or return the backup that stands already.

    What earlier tries of the same work left on the host is ended and removed first.

    :param location: ``host:/path``.
    :param image: what the request's reference stands for now.
    :param deadline_seconds: after this long the job ends itself.
    :raises ConfigurationError: when location, repository or host cannot be used for that.
    :raises TransientError: when there is too little space, or the link failed; nothing was left there.
    """
    folder = parse_location(location)
    check_on_host(request, repository)
    trail = repository.trail(request.actor)
    telling = Telling(trail, key=request.key, access=host.access, progress=progress)
    if (standing := winner_of(repository, request.key)) is not None:
        return BackupOutcome(status="already", backup=standing, audit_head=trail.head)
    reap(repository, request.key.source)
    reap_jobs(folder, request.key, archives=archives, repository=repository, progress=progress)
    if not request.force:
        same = confirm.unchanged(repository, request.key, image, actor=request.actor, retention=request.retention)
        if same is not None:
            telling.tell("backup.confirmed", outcome="success", backup_id=same.backup_id, image_id=image.id)
            return BackupOutcome(status="unchanged", backup=same, audit_head=trail.head)
    job = _job(request, folder, image=image, deadline_seconds=deadline_seconds, repository=repository)
    began_at = repository.clock.now()
    telling.started()
    with telling.of_rest(), _ended_unless_begun(job.place, archives, progress):
        archives.start(job)
    return Begun(
        place=job.place,
        image_id=job.image_id,
        began_at=began_at,
        compression=job.compression,
        audit_head=trail.head,
    )


def _job(
    request: SaveRequest, folder: str, *, image: ImageInspect, deadline_seconds: int, repository: Repository
) -> SaveJob:
    """Return the job of a new try."""
    compression = request.compression or repository.document.compression
    return SaveJob(
        place=JobPlace.of(
            folder,
            scope=scope_of(repository, request.key.source),
            backup_id=request.key.backup_id,
            attempt=new_attempt(),
        ),
        image_id=image.id,
        compression=compression,
        level=request.tuning.level,
        needed_bytes=_needed_bytes(image, compression),
        deadline_seconds=deadline_seconds,
    )


@contextmanager
def _ended_unless_begun(place: JobPlace, archives: HostArchives, progress: Progress) -> Iterator[None]:
    """End a job of which nobody can tell whether it began; one of that name that was there before is not ours."""
    try:
        yield
    except ConflictError:
        raise
    except BaseException:
        abandon(place, archives=archives, progress=progress)
        raise


def _needed_bytes(image: ImageInspect, compression: Compression) -> int:
    share = 1 if compression is Compression.NONE else _COMPRESSED_SHARE
    return image.size_bytes // share + _SPARE_BYTES


def save_on_host(
    request: SaveRequest,
    location: str,
    *,
    image: ImageInspect,
    deadline_seconds: int,
    host: DockerHost,
    archives: HostArchives,
    repository: Repository,
    progress: Progress,
    begun: Callable[[Begun], None] | None = None,
) -> BackupOutcome:
    """Return the backup of an image whose archive stays on its host; waits for the job that makes it.

    :param image: what the request's reference stands for now.
    :param begun: is told of the job, and may raise, for instance to let others wait for it; then it goes on.
    :raises DockerBackupError: as :func:`begin_save` and :func:`finish_save` do; nothing of the job is left then.
    """
    found = begin_save(
        request,
        location,
        image=image,
        deadline_seconds=deadline_seconds,
        host=host,
        archives=archives,
        repository=repository,
        progress=progress,
    )
    if isinstance(found, BackupOutcome):
        return found
    if begun is not None:
        begun(found)
    state = None
    try:
        state = await_job(found, archives=archives, clock=repository.clock, progress=progress)
    finally:
        if state is None:
            abandon(found.place, archives=archives, progress=progress)
    return finish_save(request, found, state, host=host, archives=archives, repository=repository, progress=progress)


def await_job(begun: Begun, *, archives: HostArchives, clock: Clock, progress: Progress) -> JobState:
    """Return what became of a job, once it is over."""
    progress.start(f"docker save {begun.image_id} on the host", None)
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


def finish_save(
    request: SaveRequest,
    begun: Begun,
    state: JobState | None,
    *,
    host: DockerHost,
    archives: HostArchives,
    repository: Repository,
    progress: Progress,
) -> BackupOutcome:
    """Commit what a job made, and leave nothing of the job on the host.

    :param state: what became of the job; None asks the host.
    :raises TransientError: when the job failed in a way that may pass, was killed, or is gone; nothing was committed.
    :raises IntegrityError: when what it made is not the image that was asked for; nothing was committed.
    """
    _require_own(begun, request, archives=archives, repository=repository, progress=progress)
    trail = repository.trail(request.actor, after=begun.audit_head)
    telling = Telling(trail, key=request.key, access=host.access, progress=progress)
    with telling.of_rest(), Leftovers(begun.place, archives, progress) as leftovers:
        if (standing := winner_of(repository, request.key)) is not None:
            return BackupOutcome(status="already", backup=standing, audit_head=trail.head)
        _require_success(state or archives.state(begun.place), archives=archives, host=host.name)
        saved = archives.results(begun.place)
        name = f"image-{begun.place.attempt}.tar{begun.compression.suffix}"
        # Published first: the claim in it keeps another process with the same job away from this try's files.
        with (
            Attempt(repository, request.key, progress=progress, name=begun.place.attempt) as attempt,
            leftovers.published(name, attempt),
        ):
            archive = _archive(begun, saved, attempt, name=name)
            record = record_on_host(
                request, saved, archive, attempt=attempt, captured_at=begun.began_at, host=host, image_id=begun.image_id
            )
            attempt.before_record(lambda: _require_published(archives, begun.place, archive, host=host.name))
            backup = attempt.commit(record)
            backup.whole()  # one that cannot be read may be ours
    return telling.committed(backup, attempt=begun.place.attempt)


def give_up_save(
    request: SaveRequest,
    begun: Begun,
    problem: str,
    *,
    archives: HostArchives,
    repository: Repository,
    progress: Progress,
) -> NoReturn:
    """End a job that is not waited for any more, and tell the trail that the backup failed.

    :param problem: why.
    :raises TransientError: always.
    """
    _require_own(begun, request, archives=archives, repository=repository, progress=progress)
    trail = repository.trail(request.actor, after=begun.audit_head)
    # The host may be out of reach, so how it was reached is not told again.
    telling = Telling(trail, key=request.key, access={}, progress=progress)
    with telling.of_rest():
        abandon(begun.place, archives=archives, progress=progress)
        raise TransientError(f"{problem}; nothing was committed, try again")


def abandon(place: JobPlace, *, archives: HostArchives, progress: Progress) -> None:
    """End a job and remove what it left, unless somebody is committing that.

    A host that cannot be reached is told, and the next run does it.
    """
    try:
        archives.clear(place, unclaimed=True)
    except DockerBackupError as err:
        progress.note(f"the job {place.name} stays on the host for the next run to remove: {err}")


def _require_own(
    begun: Begun, request: SaveRequest, *, archives: HostArchives, repository: Repository, progress: Progress
) -> None:
    """Refuse a job that is not of this work, and end it: the task's fields were rendered otherwise when it began.

    :raises ConfigurationError: says so.
    """
    expected = JobPlace.of(
        begun.place.folder,
        scope=scope_of(repository, request.key.source),
        backup_id=request.key.backup_id,
        attempt=begun.place.attempt,
    )
    if expected != begun.place:
        abandon(begun.place, archives=archives, progress=progress)
        raise ConfigurationError(
            "the task's fields have other values than when its job began; use values that stay the same within a run"
        )


def _archive(begun: Begun, saved: SavedOnHost, attempt: Attempt, *, name: str) -> ArchiveFile:
    """Return what the record says of the archive, its document written."""
    about = {
        "schema_version": "1.0",
        "host": attempt.key.source.host,
        "path": begun.place.final_path(name),
        "stored_sha256": saved.stored_sha256,
        "stored_size_bytes": saved.stored_size_bytes,
    }
    return ArchiveFile(
        name=name,
        compression=begun.compression,
        size_bytes=saved.size_bytes,
        stored_size_bytes=saved.stored_size_bytes,
        stored_sha256=saved.stored_sha256,
        content_digest=saved.sha256,
        on_host=HostPlace(folder=begun.place.folder, document=attempt.document("image", canonical_json(about))),
    )


def _require_published(archives: HostArchives, place: JobPlace, archive: ArchiveFile, *, host: str) -> None:
    path = place.final_path(archive.name)
    found = archives.size(path)
    if found != archive.stored_size_bytes:
        raise IntegrityError(
            f"{host}:{path} has {found} bytes and not the {archive.stored_size_bytes} that were written; nothing was "
            "committed. Is something else writing in that folder?"
        )


def _require_success(state: JobState, *, archives: HostArchives, host: str) -> None:
    """Return only for a job that did all of its work.

    :raises DockerBackupError: by what it said.
    """
    if state.phase == "ended" and state.exit_status == 0:
        return
    if state.phase == "ended":
        raise archives.failure(state)
    reasons = {
        "killed": "its processes were killed",
        "rebooted": "the host was started anew meanwhile",
        "vanished": "its folder is gone; was the task cleared, or started a second time?",
    }
    reason = reasons.get(state.phase, "it was not done in time")
    raise TransientError(f"the job on {host} did not finish: {reason}; nothing was committed, try again")
