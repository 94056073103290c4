# SPDX-License-Identifier: Apache-2.0
"""In-memory twin of a Docker host; public through :mod:`.memory`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from airflow_provider_dockerbackup.core.archive.compression import Compression, decompressed
from airflow_provider_dockerbackup.core.container_options import ContainerOption
from airflow_provider_dockerbackup.core.model import (
    ContainerInspect,
    ContainerSummary,
    EngineInfo,
    FilteredBy,
    HistoryLine,
    ImageInspect,
    ImageManifest,
    ImageSummary,
    LoadedImage,
    Packing,
    PausedCommit,
)
from airflow_provider_dockerbackup.core.ports import Clock
from airflow_provider_dockerbackup.core.push import PushResult, PushTarget, check_names
from airflow_provider_dockerbackup.exceptions import (
    ConflictError,
    NotFoundError,
    PushUnavailableError,
    TransientError,
)
from airflow_provider_dockerbackup.transport import docker_output, memory_push
from airflow_provider_dockerbackup.transport.clock import SystemClock
from airflow_provider_dockerbackup.transport.memory_containers import MemoryContainer, MemoryContainers, carries
from airflow_provider_dockerbackup.transport.memory_images import (
    MemoryImages,
    MemoryStream,
    image_of_filesystem,
    memory_engine,
    without_members,
)
from airflow_provider_dockerbackup.transport.save_filter import name_list

# How long any pause takes here.
_PAUSE_SECONDS = 0.01


class MemoryDockerHost:
    """A Docker host that holds what it is given.

    Images come as docker-archives, by :meth:`load_image` or :meth:`add_archive`; ``docker save`` of one gives back the
    very archive it came in. Containers come with their inspect document and filesystem, by :meth:`add_container`.

    :param name: name under which the host's backups are kept.
    :param engine: what the daemon says of itself.
    :param clock: the host's clock.
    """

    def __init__(self, name: str = "memory", *, engine: EngineInfo | None = None, clock: Clock | None = None) -> None:
        self._name = name
        self._engine = engine or memory_engine(name)
        self._clock = clock or SystemClock()
        self._images = MemoryImages()
        self._containers = MemoryContainers(host=name, clock=self._clock)
        self.executed: list[tuple[str, tuple[str, ...], int]] = []  # what, command, and how many tags there were then
        self.exec_failures: set[str] = set()
        self.push_forbidden = False
        self.pushed: dict[str, dict[str, str]] = {}  # by repository: digests of compressed layers by diff_id
        self.filters_by: FilteredBy = "sh"
        self.takes: Packing = "frames"
        self.blobs: set[str] = set()  # digests of what a containerd store holds

    @property
    def name(self) -> str:
        """Name under which the host's backups are kept."""
        return self._name

    @property
    def access(self) -> dict[str, str]:
        """How it was reached."""
        return {"user": "nobody", "address": f"memory:{self._name}", "host_key": "SHA256:none"}

    def expect_stream(self) -> None:
        """Do nothing: nothing here takes time."""

    @contextmanager
    def capture_slot(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Hold a place for a capture: there is always one."""
        del tell
        yield

    def engine(self) -> EngineInfo:
        """Return what the daemon says of itself."""
        return self._engine

    def now(self) -> datetime:
        """Return the host's own time, aware UTC."""
        return self._clock.now()

    def add_archive(self, archive: bytes) -> LoadedImage:
        """Put the images of a docker-archive on the host.

        :raises IntegrityError: when it is not a whole docker-archive.
        """
        return self._images.load([archive])

    def add_container(
        self,
        name: str,
        *,
        image: str,
        filesystem: bytes | None,
        status: str = "running",
        config: Mapping[str, Any] | None = None,
    ) -> str:
        """Put a container on the host and return its ID.

        :param image: the image it was created from, by reference or ID.
        :param filesystem: what ``docker export`` of it yields, a tar; None when no test asks for it.
        :param status: as in :class:`~airflow_provider_dockerbackup.core.model.ContainerInspect`.
        :param config: keys of its ``.Config`` that differ from the image's.
        :raises NotFoundError: when there is no such image.
        :raises ConflictError: when the name is taken.
        """
        return self._containers.add(
            name,
            image=self._images.find(image),
            reference=image,
            filesystem=filesystem,
            status=status,
            config=config or {},
        )

    def container(self, name: str) -> MemoryContainer:
        """Return a container, by name or ID, to be looked at and changed.

        :raises NotFoundError: when there is none.
        """
        return self._containers.find(name)

    def list_images(self, *, labels: Sequence[str] = ()) -> tuple[ImageSummary, ...]:
        """Return the images that carry all ``labels``, one item a tag."""
        found = []
        for tag, image_id in sorted(self._images.tags.items()):
            image = self._images.inspect(image_id)
            if carries(image.config, labels):
                found.append(
                    ImageSummary(
                        reference=tag,
                        id=image_id,
                        created=image.created,
                        size_bytes=image.size_bytes,
                        labels=dict(image.config.get("Labels") or {}),
                    )
                )
        return tuple(found)

    def list_containers(self, *, labels: Sequence[str] = ()) -> tuple[ContainerSummary, ...]:
        """Return the containers, in any state, that carry all ``labels``."""
        return docker_output.container_summaries(self._containers.carrying(labels))

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return the image that ``reference`` stands for now.

        :raises NotFoundError: when there is none.
        """
        return self._images.inspect(reference)

    def layer_chains(self) -> frozenset[tuple[str, ...]]:
        """Return the diff_ids of each image's layers."""
        return frozenset(self._images.inspect(image_id).diff_ids for image_id in self._images.by_id)

    def image_history(self, reference: str) -> tuple[HistoryLine, ...]:
        """Return its history, oldest first."""
        return self._images.find(reference).history

    def inspect_container(self, name: str) -> ContainerInspect:
        """Return the container of that name or ID.

        :raises NotFoundError: when there is none.
        """
        return ContainerInspect.of(self._containers.find(name).document)

    def save_image(self, image_id: str, *, without: Collection[str] = ()) -> MemoryStream:
        """Stream the archive the image came in, without the members named.

        :raises NotFoundError: when there is no such image.
        """
        archive = self._images.find(image_id).archive
        if not name_list(without):
            return MemoryStream(archive)
        kept = archive if self.filters_by == "none" else without_members(archive, without)
        return MemoryStream(kept, filtered_by=self.filters_by)

    def image_manifests(self, image: ImageInspect) -> tuple[ImageManifest, ...]:
        """Return nothing, as a classic store has none; else one, whole, that is called as the image."""
        self._images.find(image.id)
        if self._engine.store == "graphdriver":
            return ()
        return (ImageManifest(digest=image.id, kind="platform", platform="", whole=True),)

    def held_blobs(self, sizes: Mapping[str, int], *, engine: EngineInfo) -> frozenset[str]:
        """Return those that the twin was told to have in ``blobs``; a classic store has none."""
        return frozenset(sizes) & self.blobs if engine.tells_manifests else frozenset()

    def push_image(
        self, image_id: str, *, target: PushTarget, repository: str, attempt: str, platform: str | None = None
    ) -> PushResult:
        """Push an image as a classic engine does; it remembers for each repository what it sent.

        :param platform: passed over, for there is only one.

        :raises PushUnavailableError: when :attr:`push_forbidden` says so.
        :raises NotFoundError: when there is no such image.
        """
        del platform
        check_names(image_id, repository=repository, attempt=attempt)
        if self.push_forbidden:
            raise PushUnavailableError(f"sshd on {self._name} forwards no port to us; back up by save instead")
        image = self._images.find(image_id)
        return memory_push.push(
            self._images.plain_layers(image),
            image.config_bytes,
            target=target,
            attempt=attempt,
            remembered=self.pushed.setdefault(repository, {}),
        )

    def export_container(self, container: str) -> MemoryStream:
        """Stream a container's filesystem."""
        return MemoryStream(self._containers.filesystem(container))

    def export_temporary(self, container: str, *, image: str) -> MemoryStream:
        """Stream a temporary container's filesystem, and remove it and its ``image`` at the end."""

        def clean_up() -> None:
            self.remove_container(container)
            self.remove_image(image)

        return MemoryStream(self._containers.filesystem(container), at_end=clean_up)

    def export_paused(self, container: str, *, limit_seconds: int) -> MemoryStream:  # noqa: ARG002 - as in the port
        """Stream a running container's filesystem while it is paused, another's as it is.

        :raises TransientError: when it is restarting.
        """
        if self._status_to_pause(container) != "running":
            return MemoryStream(self._containers.filesystem(container))
        state = self._containers.find(container).state
        state["Status"] = "paused"
        stream = MemoryStream(self._containers.filesystem(container), at_end=lambda: state.update(Status="running"))
        stream.pause_seconds = _PAUSE_SECONDS
        return stream

    def commit_container(
        self,
        container: str,
        *,
        reference: str,
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),  # noqa: ARG002 - as in the port
        pause: bool = True,  # noqa: ARG002 - as in the port
    ) -> str:
        """Make a one-layer image of a container's filesystem and configuration and tag it; ``changes`` are ignored."""
        image = image_of_filesystem(
            self._containers.filesystem(container),
            config=self._containers.find(container).document["Config"],
            comment=message,
            author=author,
            now=self.now(),
        )
        self._images.by_id[image.id] = image
        self._images.tags[reference] = image.id
        return image.id

    def commit_paused(
        self,
        container: str,
        *,
        reference: str,
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),
        limit_seconds: int,  # noqa: ARG002 - as in the port
    ) -> PausedCommit:
        """Do the same as :meth:`commit_container`, as if a running container were paused meanwhile.

        :raises TransientError: when it is restarting.
        """
        status = self._status_to_pause(container)
        made = self.commit_container(container, reference=reference, message=message, author=author, changes=changes)
        return PausedCommit(image_id=made, pause_seconds=_PAUSE_SECONDS if status == "running" else None)

    def exec_container(
        self,
        container: str,
        command: Sequence[str],
        *,
        what: str,
        timeout_seconds: float,  # noqa: ARG002 - as in the port
        told: Callable[[str], None],
    ) -> None:
        """Remember the command, and fail when the twin was told so in ``exec_failures``; it then prints its own name.

        :raises TransientError: when the first word is in ``exec_failures``.
        :raises ConflictError: when the container does not run.
        """
        status = self._containers.find(container).status
        if status != "running":
            raise ConflictError(f"container {container} on {self._name} is {status}")
        self.executed.append((what, tuple(command), len(self._images.tags)))
        if command[0] in self.exec_failures:
            told(f"{command[0]}: failed")
            raise TransientError(f"{what} in container {container} ended with exit status 1")

    def create_container(self, image: str, *, name: str) -> str:
        """Create, not start, a container from ``image`` and return its ID."""
        return self.add_container(name, image=image, filesystem=self._images.find(image).filesystem, status="created")

    def create_from_options(self, image: str, *, name: str, options: Sequence[ContainerOption]) -> str:
        """Create, not start, a container from ``image`` and return its ID; of the options only labels are looked at.

        :raises ConflictError: when the name is taken.
        """
        found = self._images.find(image)
        given = dict(option.value.partition("=")[::2] for option in options if option.name == "label")
        labels = {**(found.config.get("Labels") or {}), **given}
        return self.add_container(
            name, image=image, filesystem=found.filesystem, status="created", config={"Labels": labels}
        )

    def start_container(self, name: str) -> None:
        """Start a container; one that runs is no error."""
        self._containers.start(name)

    def stop_container(self, name: str, *, timeout_seconds: int) -> None:  # noqa: ARG002 - as in the port
        """Stop a container; one that does not run is no error."""
        self._containers.stop(name)

    def rename_container(self, name: str, *, to: str) -> None:
        """Give a container, by name or ID, another name.

        :raises ConflictError: when the name is taken, also by itself.
        """
        self._containers.rename(name, to=to)

    def list_networks(self) -> tuple[str, ...]:
        """Return the names of the networks that every engine has."""
        return ("bridge", "host", "none")

    def remove_container(self, name: str) -> None:
        """Remove a container that is not running; one that is not there is no error.

        :raises ConflictError: when it runs.
        """
        self._containers.remove(name)

    def remove_container_keeping_volumes(self, container_id: str) -> None:
        """Remove a container that is not running; one that is not there is no error. A twin keeps no volumes.

        :raises ConflictError: when it runs.
        """
        self.remove_container(container_id)

    def remove_image(self, reference: str) -> None:
        """Remove one tag, or by ID an image with at most one tag; one that is not there is no error.

        :raises ConflictError: when a container uses it, or an ID has several tags.
        """
        with suppress(NotFoundError):
            image_id = self._images.find(reference).id
            users = self._containers.users_of(image_id)
            if users and len(self._images.tags_of(image_id)) <= 1:
                raise ConflictError(f"unable to remove {reference} on {self._name}: container {users[0]} uses it")
        self._images.remove(reference)

    def tag_image(self, image_id: str, *, reference: str) -> None:
        """Point the tag ``reference`` to ``image_id``.

        :raises NotFoundError: when there is no such image.
        """
        self._images.tags[reference] = self._images.find(image_id).id

    def packing(self, engine: EngineInfo) -> Packing:  # noqa: ARG002 - as in the port
        """Return how it takes archives."""
        return self.takes

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Load a docker-archive; what ``chunks`` raises is passed on.

        :raises IntegrityError: when it is not a whole docker-archive.
        """
        archive = b"".join(chunks)
        if self.takes != "none" and Compression.of(archive) is Compression.ZSTD:
            archive = b"".join(decompressed([archive], Compression.ZSTD))
        return self._images.load([archive])

    def import_filesystem(
        self,
        chunks: Iterable[bytes],
        *,
        reference: str,
        changes: Sequence[str] = (),  # noqa: ARG002 - as in the port
    ) -> str:
        """Make a one-layer image without configuration of a filesystem and return its ID; ``changes`` are ignored."""
        image = image_of_filesystem(b"".join(chunks), config={}, comment="", author="", now=self.now())
        self._images.by_id[image.id] = image
        self._images.tags[reference] = image.id
        return image.id

    def _status_to_pause(self, container: str) -> str:
        status = self._containers.find(container).status
        if status == "restarting":
            raise TransientError(f"container {container} on {self._name} is restarting, and so cannot be paused")
        return status
