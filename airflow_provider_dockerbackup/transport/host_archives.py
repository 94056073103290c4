# SPDX-License-Identifier: Apache-2.0
"""Archives on a Docker host, and the jobs that make them there, through SSH."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict

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
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport import archive_sizes, docker_output, host_jobs
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_errors import docker_error, one_line
from airflow_provider_dockerbackup.transport.slots import DEFAULT_PLACES
from airflow_provider_dockerbackup.transport.ssh import CommandResult, SshSession

_JOB = "the job on the host"
_EXISTS = 73
_NO_FOLDER = 77
# Of a disk that is slow, for each file of many; and what a host may say of each besides its path.
_LOOK_SECONDS = 0.05
_SAID_BYTES = 1024


class SshHostArchives:
    """A :class:`~airflow_provider_dockerbackup.core.onhost.ports.HostArchives` over SSH.

    :param session: where commands run.
    :param name: the host's name.
    :param command: how the Docker client is called there.
    :param max_captures: how many captures the host does at once for its SSH user.
    """

    def __init__(
        self,
        session: SshSession,
        *,
        name: str,
        command: DockerCommand | None = None,
        max_captures: int = DEFAULT_PLACES,
    ) -> None:
        self._session = session
        self._name = name
        self._docker = command or DockerCommand()
        self._max_captures = max_captures

    def size(self, path: str) -> int:
        """Return the size of an archive in bytes.

        :raises NotFoundError: when there is none.
        """
        output = self._run(host_jobs.size_line(path), what=f"looking for {path}").stdout.strip()
        if not output.isdigit():
            raise DockerBackupError(f"looking for {path} on {self._name}: expected a number, got {output[:80]!r}")
        return int(output)

    def sizes(self, paths: Sequence[str]) -> Mapping[str, FileOnHost]:
        """Return what the host says of many archives, by one command."""
        given, what = archive_sizes.sizes_input(paths), "looking for archives"
        result = self._session.run(
            archive_sizes.sizes_line(),
            what=what,
            stdin=given,
            timeout_seconds=self._session.timeouts.command_seconds + _LOOK_SECONDS * len(paths),
            max_output_bytes=3 * len(given) + _SAID_BYTES * (len(paths) + 1),
        )
        if result.exit_status != 0:
            raise self._file_error(result, what)
        return archive_sizes.sizes_in(result.stdout, paths=paths)

    @contextmanager
    def chunks(self, path: str) -> Iterator[Iterator[bytes]]:
        """Stream an archive, on a connection of its own.

        :raises NotFoundError: when there is none.
        """
        what = f"reading {path}"

        def explain(result: CommandResult) -> DockerBackupError:
            return self._file_error(result, what)

        stream = self._session.stream_out(host_jobs.read_line(path), explain=explain, what=what)
        try:
            yield iter(stream)
        finally:
            stream.close()

    def delete(self, path: str) -> None:
        """Remove an archive; one that is not there is no error."""
        self._run(host_jobs.delete_line(path), what=f"removing {path}")

    def start(self, job: HostJob) -> None:
        """Begin a job and return as soon as it runs."""
        line = host_jobs.start_line(self._docker, job, max_captures=self._max_captures)
        result = self._session.run(line, what=_JOB, stdin=job.note)
        if result.exit_status == 0:
            return
        if result.exit_status == _EXISTS:
            raise ConflictError(f"{_JOB} {self._name}: there is a job {job.place.name} already")
        if result.exit_status == _NO_FOLDER and b"o space left" not in result.stderr:
            raise ConfigurationError(
                f"{_JOB} {self._name}: {one_line(result.stderr)}; give the SSH user a folder that it can write to"
            )
        raise self._job_error(result)

    def state(self, place: JobPlace) -> JobState:
        """Return what a job does now."""
        return host_jobs.state_of(self._run(host_jobs.state_line(place), what="looking at a job").stdout)

    def failure(self, state: JobState) -> DockerBackupError:
        """Return the error that the end of a job is."""
        return self._job_error(CommandResult(exit_status=state.exit_status or 0, stderr=state.said))

    def saved(self, place: JobPlace) -> SavedOnHost:
        """Return what a job says that saved an image and ended with status 0.

        :raises NotFoundError: when its folder is gone.
        :raises IntegrityError: when what it says cannot be read.
        """
        written = asdict(self._written(place))
        image, manifest, config = (self._file(place, name) for name in ("image.json", "manifest.json", "config.json"))
        with self._readable():
            inspected = docker_output.only_image(image)
        return SavedOnHost(**written, image=inspected, manifest=manifest, config=config)

    def exported(self, place: JobPlace) -> ExportedOnHost:
        """Return what a job says that exported a container and ended with status 0.

        :raises NotFoundError: when its folder is gone.
        :raises IntegrityError: when what it says cannot be read.
        """
        written, note = asdict(self._written(place)), self._file(place, "note")
        try:
            after = self._file(place, "after.json")
        except NotFoundError:
            return ExportedOnHost(**written, note=note, after=None)
        with self._readable():
            container = docker_output.only_container(after)
        return ExportedOnHost(**written, note=note, after=container)

    def _written(self, place: JobPlace) -> WrittenOnHost:
        result = self._file(place, "result")
        with self._readable():
            sha256, size_bytes, stored_sha256, stored_size_bytes = host_jobs.result_of(result)
        return WrittenOnHost(
            size_bytes=size_bytes,
            sha256=sha256,
            stored_size_bytes=stored_size_bytes,
            stored_sha256=stored_sha256,
        )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except DockerBackupError as err:
            raise IntegrityError(f"{_JOB} {self._name} says what cannot be read: {err}") from err

    def _file(self, place: JobPlace, name: str) -> bytes:
        return self._run(host_jobs.read_line(f"{place.folder}/{place.name}/{name}"), what=f"reading {name}").stdout

    def publish(self, place: JobPlace, *, archive: str) -> None:
        """Claim what a job made and give it its final name; durable on return."""
        line = host_jobs.publish_line(place, archive=archive)
        limit = self._session.timeouts.first_byte_seconds  # sync takes as long as the disk needs
        result = self._session.run(line, what="publishing an archive", timeout_seconds=limit)
        if result.exit_status == _EXISTS:
            raise ConflictError(f"publishing {archive} on {self._name}: {one_line(result.stderr)}")
        if result.exit_status != 0:
            raise self._file_error(result, f"publishing {archive}")

    def clear(self, place: JobPlace, *, unclaimed: bool = False) -> bool:
        """End a job, if it runs, and remove its folder."""
        result = self._run(host_jobs.clear_line(place, unclaimed=unclaimed), what=f"ending job {place.name}")
        return b"claimed" not in result.stdout

    def jobs(self, folder: str, *, scope: str) -> tuple[FoundJob, ...]:
        """Return the jobs in a folder whose names begin with ``scope``."""
        result = self._run(host_jobs.jobs_line(folder, scope=scope), what=f"listing jobs in {folder}")
        return host_jobs.jobs_in(result.stdout, folder=folder)

    def _run(self, line: str, *, what: str) -> CommandResult:
        result = self._session.run(line, what=what)
        if result.exit_status != 0:
            raise self._file_error(result, what)
        return result

    def _job_error(self, result: CommandResult) -> DockerBackupError:
        return docker_error(result, what=_JOB, host=self._name)

    def _file_error(self, result: CommandResult, what: str) -> DockerBackupError:
        said = one_line(result.stderr) or f"exit status {result.exit_status}"
        # Before what the command says there may be more: sshd tells of a home that is missing with "No such file".
        last = result.stderr.rstrip().rpartition(b"\n")[2]
        if b"No such file" in last or b"Not a directory" in last:
            return NotFoundError(f"{what} on {self._name}: {said}; was it removed by hand?")
        if b"Permission denied" in last or b"Operation not permitted" in last:
            return ConfigurationError(f"{what} on {self._name}: {said}; give the SSH user the right to do so")
        return TransientError(f"{what} on {self._name}: {said}; try again")
