# SPDX-License-Identifier: Apache-2.0
"""Commit what a job on a host made, whatever it captured, or give it up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import NoReturn

from airflow_provider_dockerbackup.core.attempt import Attempt, winner_of
from airflow_provider_dockerbackup.core.capture import BackupOutcome, Telling
from airflow_provider_dockerbackup.core.document import canonical_json
from airflow_provider_dockerbackup.core.export import ExportRequest
from airflow_provider_dockerbackup.core.onhost.begun import Begun, abandon, await_job, require_own
from airflow_provider_dockerbackup.core.onhost.leftovers import Leftovers
from airflow_provider_dockerbackup.core.onhost.place import JobPlace, stem_of
from airflow_provider_dockerbackup.core.onhost.ports import HostArchives, JobState, WrittenOnHost
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, Progress
from airflow_provider_dockerbackup.core.record import ArchiveFile, BackupRecord, HostPlace
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.save import SaveRequest
from airflow_provider_dockerbackup.core.temporary import discarded_on_failure, unless_taken_away
from airflow_provider_dockerbackup.exceptions import DockerBackupError, IntegrityError, TransientError

Recorder = Callable[[ArchiveFile, Attempt], BackupRecord]
"""Returns the record of an archive that a try has published; raises when it is not what was asked for."""


def waited_for(
    found: Begun | BackupOutcome,
    *,
    begun: Callable[[Begun], None] | None,
    finish: Callable[[Begun, JobState], BackupOutcome],
    host: DockerHost,
    archives: HostArchives,
    clock: Clock,
    progress: Progress,
) -> BackupOutcome:
    """Return the backup of a capture that was begun, once its job is over; or the one that stands already.

    :param begun: is told of the job, and may raise, for instance to let others wait for it; then it goes on.
    :param finish: commits what the job made.
    """
    if isinstance(found, BackupOutcome):
        return found
    if begun is not None:
        begun(found)
    return finish(found, await_job(found, host=host, archives=archives, clock=clock, progress=progress))


def finish(
    request: SaveRequest | ExportRequest,
    begun: Begun,
    state: JobState | None,
    *,
    results: Callable[[], tuple[WrittenOnHost, Recorder]],
    host: DockerHost,
    archives: HostArchives,
    repository: Repository,
    progress: Progress,
) -> BackupOutcome:
    """Commit what a job made, and leave nothing of the job on the host.

    :param state: what became of the job; None asks the host.
    :param results: reads what the job says of its archive.
    :raises TransientError: when the job failed in a way that may pass, was killed, or is gone; nothing was committed.
    :raises IntegrityError: when what it made is not what was asked for; nothing was committed.
    """
    with discarded_on_failure(host, begun.temporary, progress):
        require_own(begun, request.key, archives=archives, repository=repository, progress=progress)
        trail = repository.trail(request.actor, after=begun.audit_head)
        telling = Telling(trail, key=request.key, access=host.access, progress=progress, asked=begun.asked)
        with telling.of_rest(), Leftovers(begun.place, archives, progress) as leftovers:
            if (standing := winner_of(repository, request.key)) is not None:
                return BackupOutcome(status="already", backup=standing, audit_head=trail.head)
            with unless_taken_away(host, begun.temporary) if begun.temporary is not None else nullcontext():
                _require_success(state or archives.state(begun.place), archives=archives, host=host.name)
            written, record_of = results()
            name = f"{stem_of(request.key.source)}-{begun.place.attempt}.tar{begun.compression.suffix}"
            # Published first: the claim in it keeps another process with the same job away from this try's files.
            with (
                Attempt(repository, request.key, progress=progress, name=begun.place.attempt) as attempt,
                leftovers.published(name, attempt),
            ):
                archive = _archive(begun, written, attempt, name=name)
                record = record_of(archive, attempt)
                attempt.before_record(lambda: _require_published(archives, begun.place, archive, host=host.name))
                backup = attempt.commit(record)
                backup.whole()  # one that cannot be read may be ours
        return telling.committed(backup, attempt=begun.place.attempt)


def give_up(
    request: SaveRequest | ExportRequest,
    begun: Begun,
    problem: DockerBackupError,
    *,
    archives: HostArchives,
    repository: Repository,
    progress: Progress,
) -> NoReturn:
    """End a job that is not waited for any more, tell the trail that the backup failed, and raise why.

    :param problem: why; its class says whether another try, which begins a whole job anew, can do better.
    :raises DockerBackupError: ``problem``, always.
    """
    require_own(begun, request.key, archives=archives, repository=repository, progress=progress)
    trail = repository.trail(request.actor, after=begun.audit_head)
    # The host may be out of reach, so how it was reached is not told again.
    telling = Telling(trail, key=request.key, access={}, progress=progress, asked=begun.asked)
    with telling.of_rest():
        abandon(begun.place, archives=archives, progress=progress)
        raise problem


def _archive(begun: Begun, written: WrittenOnHost, attempt: Attempt, *, name: str) -> ArchiveFile:
    """Return what the record says of the archive, its document written."""
    source = attempt.key.source
    about = {
        "schema_version": "1.0",
        "host": source.host,
        "path": begun.place.final_path(name),
        "stored_sha256": written.stored_sha256,
        "stored_size_bytes": written.stored_size_bytes,
    }
    document = attempt.document(stem_of(source), canonical_json(about))
    return ArchiveFile(
        name=name,
        compression=begun.compression,
        size_bytes=written.size_bytes,
        stored_size_bytes=written.stored_size_bytes,
        stored_sha256=written.stored_sha256,
        content_digest=written.sha256,
        on_host=HostPlace(folder=begun.place.folder, document=document),
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
