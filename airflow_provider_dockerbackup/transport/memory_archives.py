# SPDX-License-Identifier: Apache-2.0
"""In-memory twin of the archives on a Docker host and of the jobs that make them; public through :mod:`.memory`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from airflow_provider_dockerbackup.core.archive.compression import Compression, compressor
from airflow_provider_dockerbackup.core.model import SourceKind
from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.core.onhost.ports import (
    ExportedOnHost,
    FileOnHost,
    FoundJob,
    HostJob,
    JobState,
    SavedOnHost,
    WrittenOnHost,
)
from airflow_provider_dockerbackup.core.ports import Clock, DockerHost
from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, NotFoundError, TransientError


@dataclass(slots=True, kw_only=True)
class _Job:
    job: HostJob
    state: JobState
    began: float
    archive: bytes = b""
    result: SavedOnHost | ExportedOnHost | None = None
    claimed: bool = False


class MemoryHostArchives:
    """Archives of a twin of a Docker host; a job is done as soon as it is begun, or once :meth:`work` is called.

    :param host: whose images are saved and containers exported.
    :param clock: the host's clock.
    :param at_once: whether jobs are done when they begin; else they run until :meth:`work`.
    """

    def __init__(self, host: DockerHost, *, clock: Clock, at_once: bool = True) -> None:
        self._host = host
        self._clock = clock
        self._at_once = at_once
        self._jobs: dict[JobPlace, _Job] = {}
        self.files: dict[str, bytes] = {}
        self.problems: dict[str, str] = {}
        self.free_bytes: int | None = None
        self.unreachable = False
        self.before: Callable[[str], None] = _nothing

    def size(self, path: str) -> int:
        """Return the size of an archive in bytes."""
        self._asked("size")
        return len(self._file(path))

    def sizes(self, paths: Sequence[str]) -> Mapping[str, FileOnHost]:
        """Return what the host says of many archives; :attr:`problems` of those of which it cannot."""
        self._asked("sizes")
        return {
            path: FileOnHost(
                size_bytes=len(self.files[path]) if path in self.files and path not in self.problems else None,
                problem=self.problems.get(path, ""),
            )
            for path in paths
        }

    @contextmanager
    def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
        """Stream an archive."""
        self._asked("chunks")
        yield iter([self._file(path)])

    def delete(self, path: str) -> None:
        """Remove an archive."""
        self._asked("delete")
        self.files.pop(path, None)

    def start(self, job: HostJob) -> None:
        """Begin a job."""
        self._asked("start")
        if job.place in self._jobs:
            raise ConflictError(f"there is a job {job.place.name} already")
        if self.free_bytes is not None and self.free_bytes < job.needed_bytes:
            raise TransientError(f"no space left: {self.free_bytes} free, {job.needed_bytes} needed")
        self._jobs[job.place] = _Job(job=job, state=JobState(phase="running"), began=self._clock.monotonic())
        if self._at_once:
            self.work()

    def work(self) -> None:
        """Let every job that runs come to its end."""
        for job in self._jobs.values():
            if job.state.phase == "running":
                self._do(job)

    def claim(self, place: JobPlace) -> None:
        """Let somebody claim a job and die."""
        self._jobs[place].claimed = True

    def set_state(self, place: JobPlace, state: JobState) -> None:
        """Let something become of a job."""
        self._jobs[place].state = state

    def state(self, place: JobPlace) -> JobState:
        """Return what a job does now."""
        self._asked("state")
        job = self._jobs.get(place)
        return job.state if job is not None else JobState(phase="vanished")

    def failure(self, state: JobState) -> DockerBackupError:
        """Return the error that the end of a job is."""
        return TransientError(f"the job failed with exit status {state.exit_status}")

    def saved(self, place: JobPlace) -> SavedOnHost:
        """Return what a job says that saved an image."""
        self._asked("saved")
        result = self._job(place).result
        if not isinstance(result, SavedOnHost):
            raise NotFoundError(f"job {place.name} has no result")
        return result

    def exported(self, place: JobPlace) -> ExportedOnHost:
        """Return what a job says that exported a container."""
        self._asked("exported")
        result = self._job(place).result
        if not isinstance(result, ExportedOnHost):
            raise NotFoundError(f"job {place.name} has no result")
        return result

    def publish(self, place: JobPlace, *, archive: str) -> None:
        """Claim what a job made and give it its final name."""
        self._asked("publish")
        job, path = self._job(place), place.final_path(archive)
        if job.claimed or path in self.files:
            raise ConflictError(f"somebody else claimed {place.name}, or {path} exists")
        job.claimed = True
        self.files[path] = job.archive

    def clear(self, place: JobPlace, *, unclaimed: bool = False) -> bool:
        """End a job and forget it."""
        self._asked("clear")
        job = self._jobs.get(place)
        if job is not None and job.claimed and unclaimed:
            return False
        self._jobs.pop(place, None)
        if job is not None and not job.state.is_over:
            self._remove_temporary(job.job)
        return True

    def jobs(self, folder: str, *, scope: str) -> tuple[FoundJob, ...]:
        """Return the jobs in a folder."""
        self._asked("jobs")
        return tuple(
            FoundJob(
                place=place,
                is_over=job.state.is_over,
                claimed=job.claimed,
                age_seconds=self._clock.monotonic() - job.began,
            )
            for place, job in self._jobs.items()
            if place.folder == folder and place.name.startswith(scope)
        )

    def _do(self, job: _Job) -> None:
        tar = self._captured(job.job)
        self._remove_temporary(job.job)
        packed = tar
        if job.job.compression is not Compression.NONE:
            packer = compressor(job.job.compression, level=job.job.level)
            packed = packer.compress(tar) + packer.flush()
        job.archive = packed
        written = WrittenOnHost(
            size_bytes=len(tar), sha256=_digest(tar), stored_size_bytes=len(packed), stored_sha256=_digest(packed)
        )
        job.result = self._result(job.job, tar, asdict(written))
        job.state = JobState(phase="ended", exit_status=0, written_bytes=len(packed))

    def _captured(self, job: HostJob) -> bytes:
        if job.kind is SourceKind.IMAGE:
            return b"".join(self._host.save_image(job.subject))
        return b"".join(self._host.export_container(job.subject))

    def _result(self, job: HostJob, tar: bytes, written: dict[str, Any]) -> SavedOnHost | ExportedOnHost:
        if job.kind is SourceKind.CONTAINER:
            after = None if job.temporary is not None else self._host.inspect_container(job.subject)
            return ExportedOnHost(**written, note=job.note, after=after)
        manifest = _member(tar, "manifest.json")
        return SavedOnHost(
            **written,
            image=self._host.inspect_image(job.subject),
            manifest=manifest,
            config=_member(tar, json.loads(manifest)[0]["Config"]),
        )

    def _remove_temporary(self, job: HostJob) -> None:
        if job.temporary is not None:
            self._host.remove_container(job.subject)
            self._host.remove_image(job.temporary)

    def change_result(self, place: JobPlace, **changes: object) -> None:
        """Let a job say something else than it found."""
        job = self._job(place)
        if job.result is not None:
            job.result = replace(job.result, **changes)  # type: ignore[arg-type]

    def _asked(self, what: str) -> None:
        if self.unreachable:
            raise TransientError(f"{self._host.name} cannot be reached")
        self.before(what)

    def _job(self, place: JobPlace) -> _Job:
        if place not in self._jobs:
            raise NotFoundError(f"no job {place.name}")
        return self._jobs[place]

    def _file(self, path: str) -> bytes:
        if path not in self.files:
            raise NotFoundError(f"{path}: No such file")
        return self.files[path]


def _member(tar: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        body = archive.extractfile(name)
        return body.read() if body is not None else b""


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _nothing(what: str) -> None:
    del what
