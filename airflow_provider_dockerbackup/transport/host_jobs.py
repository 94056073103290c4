# SPDX-License-Identifier: Apache-2.0
"""Command lines of jobs on a Docker host as pure functions of typed values, and what their answers mean."""

from __future__ import annotations

import re

from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.core.onhost.ports import FoundJob, HostJob, JobPhase, JobState
from airflow_provider_dockerbackup.exceptions import DockerBackupError
from airflow_provider_dockerbackup.transport.commands import DockerCommand, quoted_line
from airflow_provider_dockerbackup.transport.job_script import CLEAR, JOB, JOBS, PUBLISH, START, STATE

# Messages are parsed, so they must be in English; no advertisement of docker's after errors.
_ENVIRONMENT = ("env", "LC_ALL=C", "DOCKER_CLI_HINTS=false")
_STATE = re.compile(rb"(waiting|running|ended|killed|rebooted|vanished) (-|[0-9]{1,3}) ([0-9]{1,20})\n")
_JOB_LINE = re.compile(r"(\S+) (over|lives) (claimed|free) (-?[0-9]+)")
_RESULT = re.compile(rb"([0-9a-f]{64}) ([0-9]{1,20}) ([0-9a-f]{64}) ([0-9]{1,20})\n")
_PHASES: dict[bytes, JobPhase] = {
    b"waiting": "waiting",
    b"running": "running",
    b"ended": "ended",
    b"killed": "killed",
    b"rebooted": "rebooted",
    b"vanished": "vanished",
}


def start_line(docker: DockerCommand, job: HostJob, *, max_captures: int) -> str:
    """Return the line that begins a job and ends as soon as that runs; its input is the job's note."""
    options = (
        job.place.folder,
        job.place.name,
        str(-(-job.needed_bytes // 1024)),
        job.compression.value,
        JOB,
        job.kind.value,
        job.subject,
        job.temporary or "",
        job.compression.value,
        "" if job.level is None else str(job.level),
        str(job.deadline_seconds),
        str(max_captures),
    )
    return quoted_line((*_ENVIRONMENT, "sh", "-c", START, "dockerbackup", *options, *docker.docker))


def state_line(place: JobPlace) -> str:
    """Return the line that says what a job does; :func:`state_of` reads it."""
    return _script(STATE, place.folder, place.name)


def state_of(output: bytes) -> JobState:
    """Return what :func:`state_line` printed.

    :raises DockerBackupError: when it is something else.
    """
    line, newline, said = output.partition(b"\n")
    match = _STATE.fullmatch(line + newline)
    if match is None:
        raise DockerBackupError(f"the state of a job: expected PHASE STATUS BYTES, got {output[:80]!r}")
    status = None if match[2] == b"-" else int(match[2])
    return JobState(phase=_PHASES[match[1]], exit_status=status, written_bytes=int(match[3]), said=said)


def publish_line(place: JobPlace, *, archive: str) -> str:
    """Return the line that claims what a job made and gives it its final name."""
    return _script(PUBLISH, place.folder, place.name, place.final_path(archive))


def clear_line(place: JobPlace, *, unclaimed: bool = False) -> str:
    """Return the line that ends a job and removes its folder; it prints ``claimed`` when it left that alone."""
    return _script(CLEAR, place.folder, place.name, "unclaimed" if unclaimed else "")


def jobs_line(folder: str, *, scope: str) -> str:
    """Return the line that lists jobs; :func:`jobs_in` reads it."""
    return _script(JOBS, folder, scope)


def jobs_in(output: bytes, *, folder: str) -> tuple[FoundJob, ...]:
    """Return the jobs that :func:`jobs_line` printed; what only looks like one is left out."""
    found = []
    for line in output.decode("ascii", "replace").splitlines():
        match = _JOB_LINE.fullmatch(line)
        if match is None:
            continue
        try:
            place = JobPlace(folder=folder, name=match[1])
        except DockerBackupError:
            continue
        found.append(
            FoundJob(
                place=place, is_over=match[2] == "over", claimed=match[3] == "claimed", age_seconds=float(match[4])
            )
        )
    return tuple(found)


def result_of(output: bytes) -> tuple[str, int, str, int]:
    """Return digest and size of the tar, and of the file, that a job wrote down.

    :raises DockerBackupError: when it wrote something else.
    """
    match = _RESULT.fullmatch(output)
    if match is None:
        raise DockerBackupError(f"the result of a job: expected DIGEST BYTES DIGEST BYTES, got {output[:80]!r}")
    plain, packed = match[1].decode("ascii"), match[3].decode("ascii")
    return f"sha256:{plain}", int(match[2]), f"sha256:{packed}", int(match[4])


def read_line(path: str) -> str:
    """Return the line that prints a file."""
    return quoted_line((*_ENVIRONMENT, "cat", "--", path))


def size_line(path: str) -> str:
    """Return the line that prints a file's size in bytes."""
    return quoted_line((*_ENVIRONMENT, "stat", "-c", "%s", "--", path))


def delete_line(path: str) -> str:
    """Return the line that removes a file; one that is not there is no error."""
    return quoted_line((*_ENVIRONMENT, "rm", "-f", "--", path))


def _script(script: str, *words: str) -> str:
    return quoted_line((*_ENVIRONMENT, "sh", "-c", script, "dockerbackup", *words))
