# SPDX-License-Identifier: Apache-2.0
"""In-memory twins of storage, Docker host, test daemon and clock, for tests of code that uses this package.

They keep the promises of :mod:`airflow_provider_dockerbackup.core.ports`: create-only objects, all-or-nothing writers,
a daemon that refuses a damaged archive. Nothing of them outlives the process.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from airflow_provider_dockerbackup.core.model import (
    Confinement,
    EngineInfo,
    ImageInspect,
    LoadedImage,
    RunningContainer,
)
from airflow_provider_dockerbackup.exceptions import ConflictError, NotFoundError
from airflow_provider_dockerbackup.transport.memory_archives import MemoryHostArchives
from airflow_provider_dockerbackup.transport.memory_docker import MemoryDockerHost
from airflow_provider_dockerbackup.transport.memory_images import MemoryImages, MemoryStream, memory_engine
from airflow_provider_dockerbackup.transport.memory_push import MemoryBlobUpload, MemoryPushTarget
from airflow_provider_dockerbackup.transport.memory_storage import MemoryStagedWriter, MemoryStorage, MemoryWriter

__all__ = [
    "FixedClock",
    "MemoryBlobUpload",
    "MemoryDockerHost",
    "MemoryHostArchives",
    "MemoryPushTarget",
    "MemoryStagedWriter",
    "MemoryStorage",
    "MemoryStream",
    "MemoryTestDaemon",
    "MemoryWriter",
]

_T = TypeVar("_T")


class FixedClock:
    """A clock that stands still until it is told to move.

    :param now: the time it shows first, aware.
    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = now.astimezone(UTC)
        self._elapsed = 0.0

    def now(self) -> datetime:
        """Return the time it shows, aware UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds it was moved so far."""
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Move it forward by this many seconds."""
        self.advance(timedelta(seconds=seconds))

    def advance(self, duration: timedelta) -> None:
        """Move it forward.

        :raises ValueError: when ``duration`` is negative: a monotonic clock never goes back.
        """
        if duration < timedelta(0):
            raise ValueError(f"duration: expected one >= 0, got {duration}")
        self._now += duration
        self._elapsed += duration.total_seconds()


class MemoryTestDaemon:
    """A test daemon that reads archives as Docker does: each layer against its diff_id, known layers not at all.

    :param engine: what the daemon says of itself.
    :param disposable: whether it counts as started, empty, for one verification alone.
    :param lives: what :meth:`running_container` shows of each container that is started, one after the other, the last
        again and again; for each start the next of these, then the last again.
    :param exec_statuses: what commands in containers exit with, one after the other, the last again and again.
    """

    __test__ = False  # not a test class

    def __init__(
        self,
        *,
        engine: EngineInfo | None = None,
        disposable: bool = True,
        lives: Sequence[Sequence[RunningContainer]] = ((RunningContainer(running=True, exit_status=0),),),
        exec_statuses: Sequence[int | None] = (0,),
    ) -> None:
        self._engine = engine or memory_engine(f"test-{secrets.token_hex(4)}")
        self._disposable = disposable
        self._images = MemoryImages()
        self._containers: dict[str, tuple[str, str]] = {}
        self._lives = [list(life) for life in lives]
        self._life: dict[str, list[RunningContainer]] = {}
        self._exec_statuses = list(exec_statuses)
        self.started: list[Confinement] = []

    @property
    def disposable(self) -> bool:
        """Whether the daemon was started, empty, for one verification alone."""
        return self._disposable

    def engine(self) -> EngineInfo:
        """Return what the daemon says of itself."""
        return self._engine

    def image_ids(self) -> frozenset[str]:
        """Return the IDs of all images it holds."""
        return frozenset(self._images.by_id)

    def layer_diff_ids(self) -> frozenset[str]:
        """Return the diff_ids of all layers of all images it holds."""
        return self._images.diff_ids()

    def load(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Load a docker-archive; what ``chunks`` raises is passed on.

        :raises IntegrityError: when it is not a whole docker-archive, or a layer is not what its diff_id says.
        """
        return self._images.load(chunks)

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return one image.

        :raises NotFoundError: when there is none.
        """
        return self._images.inspect(reference)

    @contextmanager
    def saved_image(self, reference: str) -> Iterator[Iterator[bytes]]:
        """Stream the archive the image came in."""
        yield iter(MemoryStream(self._images.find(reference).archive))

    def create_container(self, image: str, *, name: str) -> str:
        """Create a container from an image and return its ID.

        :raises NotFoundError: when there is no such image.
        :raises ConflictError: when the name is taken.
        """
        if any(name == taken for taken, _ in self._containers.values()):
            raise ConflictError(f"the name {name} is already in use by a container")
        container_id = secrets.token_hex(32)
        self._containers[container_id] = (name, self._images.find(image).id)
        return container_id

    def start_container(
        self,
        image: str,
        *,
        name: str,
        command: Sequence[str] = (),  # noqa: ARG002 - as in the port
        confinement: Confinement,
    ) -> str:
        """Create a container that lives as the twin was told, and return its ID.

        :raises NotFoundError: when there is no such image.
        :raises ConflictError: when the name is taken.
        """
        container_id = self.create_container(image, name=name)
        self._life[container_id] = list(self._lives[0])
        if len(self._lives) > 1:
            del self._lives[0]
        self.started.append(confinement)
        return container_id

    def running_container(self, container_id: str) -> RunningContainer:
        """Return the next moment of its life.

        :raises NotFoundError: when there is no such container, or it was not started.
        """
        if container_id not in self._containers or container_id not in self._life:
            raise NotFoundError(f"no such running container: {container_id}")
        return _next(self._life[container_id])

    def run_in_container(
        self,
        container_id: str,
        command: Sequence[str],  # noqa: ARG002 - as in the port
        *,
        timeout_seconds: float,  # noqa: ARG002 - as in the port
    ) -> int | None:
        """Return the next exit status the twin was told; None when there is no such container."""
        return _next(self._exec_statuses) if container_id in self._containers else None

    def remove_container(self, container_id: str) -> None:
        """Remove one container by ID or name; one that is not there is no error."""
        for each, (name, _) in tuple(self._containers.items()):
            if container_id in {each, name}:
                del self._containers[each]

    def remove_image(self, reference: str) -> None:
        """Remove one tag or ID; one that is not there is no error.

        :raises ConflictError: when a container was created from it.
        """
        try:
            image_id = self._images.find(reference).id
        except NotFoundError:
            return
        if len(self._images.tags_of(image_id)) < 2 and any(used == image_id for _, used in self._containers.values()):
            raise ConflictError(f"image {reference} is being used by a container")
        self._images.remove(reference)


def _next(items: list[_T]) -> _T:
    """Return the first of ``items`` and take it away, unless it is the last."""
    return items.pop(0) if len(items) > 1 else items[0]
