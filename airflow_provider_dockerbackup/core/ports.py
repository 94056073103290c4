# SPDX-License-Identifier: Apache-2.0
"""The ports through which core meets the outside world, and what implementations MUST do.

Implementations live in ``transport``; each port has an in-memory twin in ``transport.memory`` and one contract suite
in ``tests/contract`` that every implementation passes. Whatever an implementation raises on purpose is a
:class:`~airflow_provider_dockerbackup.exceptions.DockerBackupError`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from airflow_provider_dockerbackup.core.container_options import ContainerOption
from airflow_provider_dockerbackup.core.model import (
    Confinement,
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
    RunningContainer,
)
from airflow_provider_dockerbackup.core.push import PushResult, PushTarget
from airflow_provider_dockerbackup.core.storage import ObjectWriter, StagedWriter, Storage

__all__ = [
    "Clock",
    "DockerHost",
    "FilteredStream",
    "ObjectWriter",
    "PausedStream",
    "Progress",
    "RemoteStream",
    "StagedWriter",
    "Storage",
    "TestDaemon",
]


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """Return the current time, aware UTC."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start, never going back; for measuring durations."""

    def sleep(self, seconds: float) -> None:
        """Return when this much of :meth:`monotonic` time has passed."""


class Progress(Protocol):
    """Where long work says how far it is."""

    def start(self, what: str, total_bytes: int | None) -> None:
        """Begin a new piece of work named ``what``; ``total_bytes`` is an estimate, or None when unknown."""

    def advance(self, done_bytes: int) -> None:
        """Add ``done_bytes``; cheap enough to be called for every chunk."""

    def note(self, message: str) -> None:
        """Tell one line that a reader should see; never a secret."""

    def finish(self) -> None:
        """End the piece of work that :meth:`start` began; also called when it failed."""


class RemoteStream(Protocol):
    """Standard output of one command on a Docker host, on a connection of its own."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the output in pieces of at most 1 MiB.

        MUST raise unless the output ended with an explicit end of file AND the command's exit status arrived AND it
        was 0: a cut link looks like a clean end of file otherwise.

        :raises TransientError: when the link is lost or stalls, or a deadline passes.
        :raises DockerBackupError: by what the command's standard error says.
        """

    def close(self) -> None:
        """End the command and its connection; safe to call at any time, any number of times."""


class FilteredStream(RemoteStream, Protocol):
    """A stream from which the host may leave members of the archive out."""

    @property
    def filtered_by(self) -> FilteredBy | None:
        """Return what left them out; ``none`` when the host has nothing that could, so that all of them came.

        None before the whole stream was read, and when there was nothing to leave out.
        """


class PausedStream(RemoteStream, Protocol):
    """A stream for which a container is paused."""

    @property
    def pause_seconds(self) -> float | None:
        """Return how long it was paused by us, as its host measured.

        None before the whole stream was read, and when we did not pause it: it did not run, or somebody else had
        paused it.
        """


class DockerHost(Protocol):
    """One Docker host. Arguments are validated values of ``core.reference``; nothing else reaches a shell."""

    @property
    def name(self) -> str:
        """Name under which the host's backups are kept."""

    @property
    def access(self) -> dict[str, str]:
        """How it was reached, for records and events: user, address, host key fingerprint; no secret."""

    def expect_stream(self) -> None:
        """Be told that a stream to or from the host follows soon, so that it can begin at once.

        MUST return without waiting, and raise nothing: what goes wrong is told by the stream.
        """

    def capture_slot(self, tell: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold one of the host's places for captures; wait while others have them all.

        MUST let go of it when the link is lost, without anybody of ours left to ask.

        :param tell: is told one line when it has to wait.
        :raises TransientError: when none gets free in time.
        """

    def engine(self) -> EngineInfo:
        """Return what the daemon says of itself."""

    def list_images(self, *, labels: Sequence[str] = ()) -> tuple[ImageSummary, ...]:
        """Return the images that carry all ``labels`` (``key`` or ``key=value``), one item a tag."""

    def list_containers(self, *, labels: Sequence[str] = ()) -> tuple[ContainerSummary, ...]:
        """Return the containers, in any state, that carry all ``labels``."""

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return the image that ``reference`` (name or ID) stands for now.

        :raises NotFoundError: when there is none.
        """

    def layer_chains(self) -> frozenset[tuple[str, ...]]:
        """Return the diff_ids of each image's layers, lowest first: what a load need not bring again."""

    def image_history(self, reference: str) -> tuple[HistoryLine, ...]:
        """Return its history, oldest first."""

    def inspect_container(self, name: str) -> ContainerInspect:
        """Return the container of that name or ID.

        :raises NotFoundError: when there is none.
        """

    def save_image(self, image_id: str, *, without: Collection[str] = ()) -> FilteredStream:
        """Stream ``docker save`` of one image, by ID, so that a moving tag cannot change what is saved.

        :param without: names of layers' members that are left out of the archive, on the host, if it has what that
            takes. One that is not in the archive is no error. The rest MUST be the same tar without them, plain or
            compressed with gzip or zstd, and a save that failed MUST raise as it does without a filter.
        :raises IncompleteError: while the stream is read, when the archive could not be filtered.
        :raises ConfigurationError: when a name is no name of a layer's member.
        """

    def image_manifests(self, image: ImageInspect) -> tuple[ImageManifest, ...]:
        """Return the manifests that an image's index names, or its only one, as the engine has them.

        None where engine or client cannot tell.
        """

    def held_blobs(self, sizes: Mapping[str, int], *, engine: EngineInfo) -> frozenset[str]:
        """Return the digests of those blobs that a containerd store says it holds.

        They were there when it was asked; nothing keeps them there. None where engine or client cannot tell. MUST leave
        nothing on the host.

        :param sizes: size of each blob in bytes, by its digest.
        :param engine: what :meth:`engine` returned.
        """

    def push_image(
        self, image_id: str, *, target: PushTarget, repository: str, attempt: str, platform: str | None = None
    ) -> PushResult:
        """Let the engine push one image, by ID, to ``target``.

        MUST return only when the engine said that the push succeeded and the image's manifest was taken. MUST leave no
        name of ours on the image, and take away those that killed pushes left; MUST NOT delete an image by that.
        When it raises, the target may have got any part of the image; no method of it is called any more.

        :param repository: name under which the engine remembers what it sent; the same for the same repository.
        :param attempt: the attempt's name; the manifest is put under it.
        :param platform: ``os/architecture[/variant]`` of the one manifest to push of an image that has an index; None
            for all of them.
        :raises PushUnavailableError: when this host cannot push, whatever the image, or has only a part of the image.
        :raises DockerBackupError: what ``target`` raised.
        """

    def export_container(self, container: str) -> RemoteStream:
        """Stream ``docker export`` of a container as it is."""

    def export_temporary(self, container: str, *, image: str) -> RemoteStream:
        """Stream ``docker export`` of a temporary container, and remove it and its ``image`` when the stream ends.

        MUST remove both also when the link is cut, without anybody of ours left to ask.
        """

    def export_paused(self, container: str, *, limit_seconds: int) -> PausedStream:
        """Stream ``docker export`` of a container that is paused for the whole stream.

        MUST leave it running again in every case: when the stream ends, when the link is cut, and at the latest
        ``limit_seconds`` after the pause even when nobody of ours is left to ask.
        """

    def commit_container(
        self,
        container: str,
        *,
        reference: str,
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> str:
        """Run ``docker commit`` and return the new image's ID."""

    def commit_paused(
        self,
        container: str,
        *,
        reference: str,
        message: str = "",
        author: str = "",
        changes: Sequence[str] = (),
        limit_seconds: int,
    ) -> PausedCommit:
        """Run ``docker commit`` of a container that is paused meanwhile, if it was running.

        MUST leave it running again in every case: when the commit ends, when the link is cut, and at the latest
        ``limit_seconds`` after the pause even when nobody of ours is left to ask. MUST NOT wake a container that
        somebody else had paused. When it fails, an image MAY be left, or come later, under ``reference``.

        :raises TransientError: when it was unpaused before the commit ended, or is restarting.
        """

    def exec_container(
        self,
        container: str,
        command: Sequence[str],
        *,
        what: str,
        timeout_seconds: float,
        told: Callable[[str], None],
    ) -> None:
        """Run a command in a running container, without a shell, and wait for it.

        :param what: its name in messages; the command itself may hold secrets and is never shown.
        :param told: is told the end of what it printed on standard error when it failed. Errors MUST NOT hold that, for
            it may be secret, and they go into audit events and records.
        :raises TransientError: when it ended with another exit status than 0, or not in time. A command that did not
            end in time MAY go on in the container.
        :raises ConfigurationError: when the container has no such program.
        :raises ConflictError: when it does not run.
        :raises NotFoundError: when there is no such container.
        """

    def create_container(self, image: str, *, name: str) -> str:
        """Create, not start, a container without network from ``image`` and return its ID; never pulls."""

    def create_from_options(self, image: str, *, name: str, options: Sequence[ContainerOption]) -> str:
        """Create, not start, a container that runs what ``image`` says, and return its ID; never pulls.

        MUST make it whole or not at all, and MUST NOT show the values of secret options in errors.

        :raises ConflictError: when the name is taken.
        """

    def start_container(self, name: str) -> None:
        """Start a container; one that runs is no error.

        :raises NotFoundError: when there is none.
        """

    def stop_container(self, name: str, *, timeout_seconds: int) -> None:
        """Stop a container, by force after ``timeout_seconds``; one that does not run is no error.

        :raises NotFoundError: when there is none.
        """

    def rename_container(self, name: str, *, to: str) -> None:
        """Give a container, by name or ID, another name; it may run.

        :raises ConflictError: when the name is taken, also by itself.
        :raises NotFoundError: when there is none.
        """

    def list_networks(self) -> tuple[str, ...]:
        """Return the names of the host's networks, sorted."""

    def remove_container(self, name: str) -> None:
        """Remove a container that is not running, with its anonymous volumes; one that is not there is no error."""

    def remove_container_keeping_volumes(self, container_id: str) -> None:
        """Remove a container that is not running and leave all of its volumes; one that is not there is no error.

        MUST NOT stop or kill it.

        :raises ConflictError: when it runs, or is paused.
        """

    def remove_image(self, reference: str) -> None:
        """Remove one tag, or by ID an image with at most one tag; one that is not there is no error.

        MUST NOT use force.

        :raises ConflictError: when a container uses it, or an ID has several tags.
        """

    def tag_image(self, image_id: str, *, reference: str) -> None:
        """Point the tag ``reference`` to ``image_id``."""

    def packing(self, engine: EngineInfo) -> Packing:
        """Return how an archive for :meth:`load_image` may be compressed with zstd.

        ``frames``: all of it, as a series of frames; ``blobs``: that, or each layer in it; ``none``: not at all.

        :param engine: what :meth:`engine` returned.
        """

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Stream ``chunks`` into ``docker load``: a docker-archive, compressed only as :meth:`packing` allows.

        When ``chunks`` raises, the load MUST be aborted and the exception passed on.

        :raises IntegrityError: when the engine refuses the archive, or reports that unpacking failed.
        """

    def import_filesystem(self, chunks: Iterable[bytes], *, reference: str, changes: Sequence[str] = ()) -> str:
        """Stream ``chunks`` into ``docker import`` and return the new image's ID."""

    def now(self) -> datetime:
        """Return the host's own time, aware UTC."""


class TestDaemon(Protocol):
    """A Docker daemon that is not the source's, where backups are loaded to prove that they restore."""

    def engine(self) -> EngineInfo:
        """Return what the daemon says of itself."""

    @property
    def disposable(self) -> bool:
        """Whether the daemon was started, empty, for this verification alone."""

    def image_ids(self) -> frozenset[str]:
        """Return the IDs of all images it holds, intermediate ones included."""

    def layer_diff_ids(self) -> frozenset[str]:
        """Return the diff_ids of all layers of all images it holds: a load does not read these again."""

    def load(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Load an archive from a stream.

        :raises IntegrityError: when the engine refuses it, or reports that unpacking failed.
        """

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return one image.

        :raises NotFoundError: when there is none.
        """

    def saved_image(self, reference: str) -> AbstractContextManager[Iterator[bytes]]:
        """Stream ``docker save`` of one image out of the daemon."""

    def create_container(self, image: str, *, name: str) -> str:
        """Create, not start, a container without network from an image and return its ID; forces unpacking."""

    def start_container(self, image: str, *, name: str, command: Sequence[str] = (), confinement: Confinement) -> str:
        """Create and start a container, confined, without network, and return its ID; never pulls.

        :param command: instead of the image's own; empty for that.
        :raises NotFoundError: when there is no such image.
        :raises IntegrityError: when the image cannot be started: no command, no such program, another architecture.
            The container MAY be left behind, under ``name``.
        """

    def running_container(self, container_id: str) -> RunningContainer:
        """Return what a started container does now.

        :raises NotFoundError: when there is none.
        """

    def run_in_container(self, container_id: str, command: Sequence[str], *, timeout_seconds: float) -> int | None:
        """Return the exit status of a command run in a running container, without a shell.

        None when it did not end in time, or could not run because the container ended. Its output is not kept.
        """

    def remove_container(self, container_id: str) -> None:
        """Remove one container; one that is not there is no error."""

    def remove_image(self, reference: str) -> None:
        """Remove one tag or ID; one that is not there is no error."""
