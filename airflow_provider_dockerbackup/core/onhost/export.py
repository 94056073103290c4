# SPDX-License-Identifier: Apache-2.0
"""Export a container into a folder of its own host: begin a job there, and commit the record once it is done.

All that needs somebody who watches is done before the job begins: commands in the container, its pause, its commit. The
job exports what then stands still, a snapshot or a container at rest, or what runs on if that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from airflow_provider_dockerbackup.core.attempt import Attempt, reap, winner_of
from airflow_provider_dockerbackup.core.capture import BackupOutcome, Telling
from airflow_provider_dockerbackup.core.consistency import (
    Taken,
    begin_capture,
    require_same_rest,
    tell_pause,
)
from airflow_provider_dockerbackup.core.document import Part
from airflow_provider_dockerbackup.core.export import (
    ExportRequest,
    asked_of,
    container_document_of,
    export_record,
    image_of,
)
from airflow_provider_dockerbackup.core.model import ContainerInspect, ImageInspect
from airflow_provider_dockerbackup.core.onhost.begun import (
    Begun,
    check_on_host,
    ended_unless_begun,
    new_job,
)
from airflow_provider_dockerbackup.core.onhost.finish import Recorder, finish, waited_for
from airflow_provider_dockerbackup.core.onhost.ports import (
    ExportedOnHost,
    HostArchives,
    HostJob,
    JobState,
    WrittenOnHost,
)
from airflow_provider_dockerbackup.core.onhost.reap import reap_jobs
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, Progress
from airflow_provider_dockerbackup.core.quiesce import QuiesceCommands, quiesced, require_running
from airflow_provider_dockerbackup.core.record import ArchiveFile, BackupRecord, Filesystem
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.temporary import discarded_on_failure, remove_temporary
from airflow_provider_dockerbackup.exceptions import ConfigurationError, IntegrityError


class Beginning(Part):
    """What the second half of an export must know of the first; it lies in the job's folder, for it may hold secrets.

    :param container: the container's inspect document when its capture began.
    :param image: that of its image; None where that is gone.
    :param taken: how it is taken.
    """

    container: dict[str, Any]
    image: dict[str, Any] | None
    taken: Taken


def check_unwatched(consistency: str, commands: QuiesceCommands) -> None:
    """Refuse what nobody would be there to end.

    :raises ConfigurationError: names the value.
    """
    if consistency == "pause":
        raise ConfigurationError(
            "consistency: with archive_location 'pause' would keep the container paused for as long as its host "
            "exports and compresses, with nobody there; use 'snapshot', which pauses it for a commit alone"
        )
    if commands and consistency != "snapshot":
        raise ConfigurationError(
            "pre_command, post_command: with archive_location nobody is there when the export ends; use consistency "
            "'snapshot', where they run around the commit"
        )


def begin_export(
    request: ExportRequest,
    location: str,
    *,
    container: ContainerInspect,
    deadline_seconds: int,
    host: DockerHost,
    archives: HostArchives,
    repository: Repository,
    progress: Progress,
) -> Begun | BackupOutcome:
    """Take a snapshot if need be and start the job that exports on the host, or return the backup that stands already.

    What earlier tries of the same work left on the host is ended and removed first.

    :param location: ``host:/path``.
    :param container: as the host shows it now.
    :param deadline_seconds: after this long the job ends itself.
    :raises ConfigurationError: when location, repository, host or consistency cannot be used for that.
    :raises ConflictError: when there are commands and the container does not run; nothing was touched.
    :raises TransientError: when there is too little space, or the link failed; nothing was left there.
    """
    request.check(repository)
    document = repository.document
    folder = check_on_host(location, request.tuning, layout=document.layout, encrypted=bool(document.recipients))
    check_unwatched(request.consistency, request.commands)
    trail = repository.trail(request.actor)
    telling = Telling(trail, key=request.key, access=host.access, progress=progress, asked=request.asked)
    if (standing := winner_of(repository, request.key)) is not None:
        return BackupOutcome(status="already", backup=standing, audit_head=trail.head)
    require_running(request.commands, host=host, container=container.name, status=container.status)
    reap(repository, request.key.source)
    reap_jobs(folder, request.key, archives=archives, repository=repository, progress=progress)
    remove_temporary(host, work=request.key.idempotency_key[:16], progress=progress)
    image = image_of(container, host)
    job = new_job(
        request,
        folder,
        subject=container.id,
        size_bytes=image.size_bytes if image is not None else 0,
        deadline_seconds=deadline_seconds,
        repository=repository,
    )
    began_at = repository.clock.now()
    telling.started()
    clock = repository.clock
    with (
        telling.of_rest(),
        _captured(request, job, container=container, image=image, host=host, clock=clock, progress=progress) as ready,
        ended_unless_begun(job.place, archives, progress),
    ):
        archives.start(ready)
    return Begun.of(ready, request, began_at=began_at, audit_head=trail.head)


@contextmanager
def _captured(
    request: ExportRequest,
    job: HostJob,
    *,
    container: ContainerInspect,
    image: ImageInspect | None,
    host: DockerHost,
    clock: Clock,
    progress: Progress,
) -> Iterator[HostJob]:
    """Give the job of what stands still now; the body begins it, else nothing of a snapshot stays."""
    # The job may wait for its turn until its deadline, and so must what it is to export.
    asked = replace(asked_of(request), deadline_seconds=2 * job.deadline_seconds)
    with quiesced(
        request.commands, host=host, container=container.name, status=container.status, clock=clock, progress=progress
    ) as rest:
        capturing = begin_capture(
            asked, host, container, attempt=job.place.attempt, clock=clock, progress=progress, rest=rest
        )
        with discarded_on_failure(host, capturing.temporary, progress):
            rest.end()
            tell_pause(capturing, container, progress)
            beginning = Beginning(
                container=dict(container.document),
                image=dict(image.document) if image is not None else None,
                taken=capturing.taken(rest),
            )
            yield replace(
                job,
                subject=capturing.subject,
                temporary=capturing.temporary,
                note=beginning.model_dump_json().encode(),
            )


def export_on_host(
    request: ExportRequest,
    location: str,
    *,
    container: ContainerInspect,
    deadline_seconds: int,
    host: DockerHost,
    archives: HostArchives,
    repository: Repository,
    progress: Progress,
    begun: Callable[[Begun], None] | None = None,
) -> BackupOutcome:
    """Return the backup of a container whose archive stays on its host; waits for the job that makes it.

    :param container: as the host shows it now.
    :param begun: is told of the job, and may raise, for instance to let others wait for it; then it goes on.
    :raises DockerBackupError: as :func:`begin_export` and :func:`finish_export` do; nothing of the job is left then.
    """
    found = begin_export(
        request,
        location,
        container=container,
        deadline_seconds=deadline_seconds,
        host=host,
        archives=archives,
        repository=repository,
        progress=progress,
    )
    finish_it = partial(finish_export, request, host=host, archives=archives, repository=repository, progress=progress)
    return waited_for(
        found,
        begun=begun,
        finish=finish_it,
        host=host,
        archives=archives,
        clock=repository.clock,
        progress=progress,
    )


def finish_export(
    request: ExportRequest,
    begun: Begun,
    state: JobState | None,
    *,
    host: DockerHost,
    archives: HostArchives,
    repository: Repository,
    progress: Progress,
) -> BackupOutcome:
    """Commit a container that a job exported, and leave nothing of the job on the host.

    :param request: the same work; its commands were run, and its policy is taken, as they were when the job began.
    :param state: what became of the job; None asks the host.
    :raises DockerBackupError: as :func:`~airflow_provider_dockerbackup.core.onhost.finish.finish` does; also when the
        container was started, or woken, by somebody while it was exported.
    """

    def results() -> tuple[WrittenOnHost, Recorder]:
        exported = archives.exported(begun.place)
        beginning = _beginning(exported)
        container = ContainerInspect.of(beginning.container)
        if begun.temporary is None and beginning.taken.capture != "crash":
            _require_same_rest(container, exported, host=host.name)

        def record_of(archive: ArchiveFile, attempt: Attempt) -> BackupRecord:
            return export_record(
                replace(request, retention=begun.retention),
                attempt=attempt.name,
                captured_at=begun.began_at,
                repository=repository,
                access=host.access,
                engine=host.engine(),
                container=container,
                taken=beginning.taken,
                filesystem=Filesystem(diff_id=exported.sha256),
                rootfs=None,
                place=archive,
                document=attempt.document("container", container_document_of(container, beginning.image)),
            )

        return exported, record_of

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


def _require_same_rest(container: ContainerInspect, exported: ExportedOnHost, *, host: str) -> None:
    if exported.after is None:
        raise IntegrityError(
            f"the job on {host} does not say whether container {container.name} stood still; look there"
        )
    require_same_rest(container, exported.after, host=host)


def _beginning(exported: ExportedOnHost) -> Beginning:
    try:
        return Beginning.model_validate_json(exported.note)
    except ValidationError as err:
        # Its values may be secrets.
        where = ", ".join(".".join(map(str, each["loc"])) for each in err.errors(include_input=False))
        raise IntegrityError(f"the job's folder says of the container what cannot be read ({where})") from None
