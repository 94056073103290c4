# SPDX-License-Identifier: Apache-2.0
"""Save an image into a folder of its own host: begin a job there, and commit the record once it is done.

The two halves may run in different processes. The job goes on by itself between them, and ends itself at its deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from airflow_provider_dockerbackup.core import confirm
from airflow_provider_dockerbackup.core.attempt import Attempt, reap, winner_of
from airflow_provider_dockerbackup.core.capture import BackupOutcome, Telling
from airflow_provider_dockerbackup.core.model import ImageInspect
from airflow_provider_dockerbackup.core.onhost.begun import (
    Begun,
    check_on_host,
    ended_unless_begun,
    new_job,
)
from airflow_provider_dockerbackup.core.onhost.finish import Recorder, finish, waited_for
from airflow_provider_dockerbackup.core.onhost.image import record_on_host
from airflow_provider_dockerbackup.core.onhost.ports import HostArchives, JobState, WrittenOnHost
from airflow_provider_dockerbackup.core.onhost.reap import reap_jobs
from airflow_provider_dockerbackup.core.ports import DockerHost, Progress
from airflow_provider_dockerbackup.core.record import ArchiveFile, BackupRecord
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.save import SaveRequest


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
    request.check(repository)
    document = repository.document
    folder = check_on_host(location, request.tuning, layout=document.layout, encrypted=bool(document.recipients))
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
    job = new_job(
        request,
        folder,
        subject=image.id,
        size_bytes=image.size_bytes,
        deadline_seconds=deadline_seconds,
        repository=repository,
    )
    began_at = repository.clock.now()
    telling.started()
    with telling.of_rest(), ended_unless_begun(job.place, archives, progress):
        archives.start(job)
    return Begun.of(job, request, began_at=began_at, audit_head=trail.head)


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
    finish_it = partial(finish_save, request, host=host, archives=archives, repository=repository, progress=progress)
    return waited_for(
        found,
        begun=begun,
        finish=finish_it,
        host=host,
        archives=archives,
        clock=repository.clock,
        progress=progress,
    )


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
    """Commit an image that a job saved, and leave nothing of the job on the host.

    :param request: the same work; its policy is taken as it was when the job began.
    :param state: what became of the job; None asks the host.
    :raises DockerBackupError: as :func:`~airflow_provider_dockerbackup.core.onhost.finish.finish` does.
    """

    def results() -> tuple[WrittenOnHost, Recorder]:
        saved = archives.saved(begun.place)

        def record_of(archive: ArchiveFile, attempt: Attempt) -> BackupRecord:
            return record_on_host(
                replace(request, retention=begun.retention),
                saved,
                archive,
                attempt=attempt,
                captured_at=begun.began_at,
                host=host,
                image_id=begun.subject,
            )

        return saved, record_of

    return finish(
        request,
        begun,
        state,
        results=results,
        host=host,
        archives=archives,
        repository=repository,
        progress=progress,
    )
