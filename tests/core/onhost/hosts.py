# SPDX-License-Identifier: Apache-2.0
"""A world whose archives are made and kept on their host, with faults at every call to storage and host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.archive_bytes import only_host
from airflow_provider_dockerbackup.core.capture import BackupOutcome
from airflow_provider_dockerbackup.core.export import ExportRequest
from airflow_provider_dockerbackup.core.model import Consistency, SourceKind
from airflow_provider_dockerbackup.core.onhost.begun import Begun
from airflow_provider_dockerbackup.core.onhost.export import begin_export, export_on_host, finish_export
from airflow_provider_dockerbackup.core.onhost.finish import give_up
from airflow_provider_dockerbackup.core.onhost.place import JobPlace
from airflow_provider_dockerbackup.core.onhost.ports import (
    ExportedOnHost,
    FileOnHost,
    FoundJob,
    HostArchives,
    HostFilesFactory,
    HostJob,
    JobState,
    SavedOnHost,
)
from airflow_provider_dockerbackup.core.onhost.save import begin_save, finish_save, save_on_host
from airflow_provider_dockerbackup.core.ports import DockerHost
from airflow_provider_dockerbackup.core.record import Source
from airflow_provider_dockerbackup.core.repository import Repository
from airflow_provider_dockerbackup.core.save import SaveRequest
from airflow_provider_dockerbackup.exceptions import DockerBackupError, TransientError
from airflow_provider_dockerbackup.transport.memory import MemoryHostArchives, MemoryStorage
from tests.core.faults import FaultyStorage, Plan
from tests.core.faulty_docker import FaultyHost
from tests.core.world import CONTAINER, HOST, IMAGE, TickingClock, World

FOLDER = "/var/backups/docker"
SCOPE = ".dockerbackup-"


class FaultyArchives:
    """Archives on a host behind a plan."""

    def __init__(self, inner: HostArchives, plan: Plan) -> None:
        self._inner = inner
        self._plan = plan

    def size(self, path: str) -> int:
        """Return a size."""
        return self._plan.call("size", lambda: self._inner.size(path))

    def sizes(self, paths: Sequence[str]) -> Mapping[str, FileOnHost]:
        """Return sizes."""
        return self._plan.call("sizes", lambda: self._inner.sizes(paths))

    def chunks(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """Stream an archive."""
        return self._plan.call("chunks", lambda: self._inner.chunks(path))

    def delete(self, path: str) -> None:
        """Remove an archive."""
        self._plan.call("delete on host", lambda: self._inner.delete(path))

    def start(self, job: HostJob) -> None:
        """Begin a job."""
        self._plan.call("start", lambda: self._inner.start(job))

    def state(self, place: JobPlace) -> JobState:
        """Return what it does."""
        return self._plan.call("state", lambda: self._inner.state(place))

    def failure(self, state: JobState) -> DockerBackupError:
        """Return what it failed of."""
        return self._inner.failure(state)

    def saved(self, place: JobPlace) -> SavedOnHost:
        """Return what it saved."""
        return self._plan.call("saved", lambda: self._inner.saved(place))

    def exported(self, place: JobPlace) -> ExportedOnHost:
        """Return what it exported."""
        return self._plan.call("exported", lambda: self._inner.exported(place))

    def publish(self, place: JobPlace, *, archive: str) -> None:
        """Publish that."""
        self._plan.call("publish", lambda: self._inner.publish(place, archive=archive))

    def clear(self, place: JobPlace, *, unclaimed: bool = False) -> bool:
        """Clear it away."""
        return self._plan.call("clear", lambda: self._inner.clear(place, unclaimed=unclaimed))

    def jobs(self, folder: str, *, scope: str) -> tuple[FoundJob, ...]:
        """List jobs."""
        return self._plan.call("jobs", lambda: self._inner.jobs(folder, scope=scope))


class HostWorld(World):
    """A world whose host keeps archives; the host's clock is that of everybody."""

    def __post_init__(self) -> None:
        """Make the host's archives too."""
        super().__post_init__()
        self.archives = MemoryHostArchives(self.host, clock=self.clock)
        self.folder = FOLDER

    def on(self, storage: object) -> Repository:
        """Return the repository, which reaches the host."""
        repository = super().on(storage)  # type: ignore[arg-type]
        repository.host_files = self.files
        return repository

    @property
    def location(self) -> str:
        """Where the host keeps archives from now on."""
        return f"host:{self.folder}"

    @property
    def files(self) -> HostFilesFactory:
        """What reaches the host."""
        return only_host(HOST, self.archives)

    def save(
        self,
        run: int,
        *,
        plan: Plan | None = None,
        compression: Compression | None = None,
        force: bool = True,
        retention: str | None = None,
        archives: HostArchives | None = None,
        source: Source = IMAGE,
    ) -> BackupOutcome:
        """Save the image on the host in one run, behind a plan of faults if there is one."""
        found, repository = self._behind(plan, archives or self.archives)
        return save_on_host(
            SaveRequest(key=self.key(run, source), compression=compression, force=force, retention=retention),
            self.location,
            image=self.host.inspect_image(source.name),
            deadline_seconds=3600,
            host=self.host,
            archives=found,
            repository=repository,
            progress=self.progress,
        )

    def export(
        self,
        run: int,
        *,
        plan: Plan | None = None,
        compression: Compression | None = None,
        consistency: Consistency = "snapshot",
    ) -> BackupOutcome:
        """Export the container on the host in one run, behind a plan of faults if there is one."""
        archives, repository = self._behind(plan, self.archives)
        host: DockerHost = self.host if plan is None else FaultyHost(self.host, plan)
        return export_on_host(
            ExportRequest(key=self.key(run, CONTAINER), compression=compression, consistency=consistency),
            self.location,
            container=self.host.inspect_container(CONTAINER.name),
            deadline_seconds=3600,
            host=host,
            archives=archives,
            repository=repository,
            progress=self.progress,
        )

    def keep_on_host(
        self, run: int, source: Source, *, plan: Plan | None = None, compression: Compression | None = None
    ) -> BackupOutcome:
        """Save or export the source on the host in one run, behind a plan of faults if there is one."""
        keep = self.save if source.kind is SourceKind.IMAGE else self.export
        return keep(run, plan=plan, compression=compression)

    def left_on_host(self) -> set[str]:
        """Return the archives on the host that no record names, and the jobs."""
        named = {backup.whole().path_on_host for backup in self.repository.catalog.backups()}
        return {path for path in self.archives.files if path not in named} | {
            job.place.name for folder in (FOLDER, self.folder) for job in self.archives.jobs(folder, scope=SCOPE)
        }

    def left_in_docker(self) -> set[str]:
        """Return the images and containers of the host that nobody but we made."""
        names = {each.reference for each in self.host.list_images()}
        return (names | {each.name for each in self.host.list_containers()}) - {IMAGE.name, CONTAINER.name}

    def _behind(self, plan: Plan | None, archives: HostArchives) -> tuple[HostArchives, Repository]:
        """Return the host's archives and the repository, both behind a plan of faults if there is one."""
        if plan is None:
            return archives, self.repository
        faulty = FaultyArchives(archives, plan)
        repository = super().on(FaultyStorage(self.storage, plan))
        repository.host_files = only_host(HOST, faulty)
        return faulty, repository


def begun_save(world: HostWorld, run: int) -> tuple[SaveRequest, Begun]:
    """Begin a save whose job goes on."""
    request = SaveRequest(key=world.key(run), force=True)
    begun = begin_save(
        request,
        world.location,
        image=world.host.inspect_image(IMAGE.name),
        deadline_seconds=3600,
        host=world.host,
        archives=world.archives,
        repository=world.repository,
        progress=world.progress,
    )
    assert isinstance(begun, Begun)
    return request, begun


def begun_export(world: HostWorld, run: int, **changes: Any) -> tuple[ExportRequest, Begun]:
    """Begin an export whose job goes on."""
    request = ExportRequest(key=world.key(run, CONTAINER), **changes)
    begun = begin_export(
        request,
        world.location,
        container=world.host.inspect_container(CONTAINER.name),
        deadline_seconds=3600,
        host=world.host,
        archives=world.archives,
        repository=world.repository,
        progress=world.progress,
    )
    assert isinstance(begun, Begun)
    return request, begun


def begun_by(world: HostWorld, run: int, source: Source) -> tuple[SaveRequest | ExportRequest, Begun]:
    """Begin what keeps the source on its host, whose job goes on."""
    return begun_save(world, run) if source.kind is SourceKind.IMAGE else begun_export(world, run)


def finished(
    world: HostWorld,
    request: SaveRequest | ExportRequest,
    begun: Begun,
    state: JobState | None = None,
    *,
    archives: HostArchives | None = None,
    repository: Repository | None = None,
) -> str:
    """Finish it, as somebody sees the host and the repository, and return the status."""
    finish: Callable[..., BackupOutcome] = finish_save if isinstance(request, SaveRequest) else finish_export
    return finish(
        request,
        begun,
        state,
        host=world.host,
        archives=archives or world.archives,
        repository=repository or world.repository,
        progress=world.progress,
    ).status


def given_up(
    world: HostWorld, request: SaveRequest | ExportRequest, begun: Begun, problem: DockerBackupError | None = None
) -> None:
    """Give it up."""
    give_up(
        request,
        begun,
        problem or TransientError("too late"),
        archives=world.archives,
        repository=world.repository,
        progress=world.progress,
    )


@contextmanager
def nowhere(host: str) -> Iterator[HostArchives]:
    """Reach no host."""
    raise DockerBackupError(f"no way to {host}")
    yield


def a_world() -> HostWorld:
    """A world whose storage and workers have the same clock."""
    clock = TickingClock()
    return HostWorld(storage=MemoryStorage(clock=clock), clock=clock)
