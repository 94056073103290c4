# SPDX-License-Identifier: Apache-2.0
"""Docker hosts, test daemons and streams that fail where a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

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
from airflow_provider_dockerbackup.core.ports import DockerHost, RemoteStream, TestDaemon
from airflow_provider_dockerbackup.core.push import BlobUpload, PushedManifest, PushResult, PushTarget
from tests.core.faults import Plan

Cutter = Callable[[Iterator[bytes]], Iterator[bytes]]


def whole(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Change nothing."""
    return chunks


def in_pieces(size_bytes: int) -> Cutter:
    """Give the same bytes in small pieces."""

    def cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            for at in range(0, len(chunk), size_bytes):
                yield chunk[at : at + size_bytes]

    return cut


def lost_after(size_bytes: int, error: BaseException) -> Cutter:
    """Give so many bytes, then raise."""

    def cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield b"".join(chunks)[:size_bytes]
        raise error

    return cut


def ended_after(size_bytes: int) -> Cutter:
    """Give so many bytes, then a clean end."""
    return lambda chunks: iter([b"".join(chunks)[:size_bytes]])


def flipped_at(position: int) -> Cutter:
    """Flip one bit."""

    def cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
        data = bytearray(b"".join(chunks))
        data[position] ^= 1
        yield bytes(data)

    return cut


class FaultyStream:
    """A remote stream whose bytes pass a cutter, each of them a call of the plan."""

    def __init__(self, inner: RemoteStream, cutter: Cutter, plan: Plan) -> None:
        self._inner = inner
        self._cutter = cutter
        self._plan = plan
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the output."""
        for chunk in self._cutter(iter(self._inner)):
            self._plan.call("piece of the stream", lambda: None)
            yield chunk

    def close(self) -> None:
        """End it; the host's own watch does so when our process is dead."""
        self.closed = True
        self._inner.close()

    @property
    def pause_seconds(self) -> float | None:
        """How long the container was paused."""
        found: float | None = getattr(self._inner, "pause_seconds", None)
        return found

    @property
    def filtered_by(self) -> FilteredBy | None:
        """What members were left out by."""
        found: FilteredBy | None = getattr(self._inner, "filtered_by", None)
        return found


class FaultyUpload:
    """One blob of a push whose bytes pass a cutter, each piece a call of the plan."""

    def __init__(self, inner: BlobUpload, cutter: Cutter, plan: Plan) -> None:
        self._inner = inner
        self._cutter = cutter
        self._plan = plan
        self._pieces: list[bytes] = []

    def write(self, data: bytes | memoryview) -> None:
        """Keep a piece until the end, for a cutter sees all of them."""
        self._plan.call("piece of a blob", lambda: self._pieces.append(bytes(data)))

    def finish(self, digest: str) -> None:
        """Write what the cutter leaves and keep it."""
        for piece in self._cutter(iter(self._pieces)):
            self._inner.write(piece)
        self._plan.call("end of a blob", lambda: self._inner.finish(digest))

    def abort(self) -> None:
        """End it; nobody does when our process is dead."""
        if not self._plan.dead:
            self._inner.abort()


class FaultyPushTarget:
    """What an engine pushes to, behind a plan."""

    def __init__(self, inner: PushTarget, plan: Plan, cutter: Cutter = whole) -> None:
        self._inner = inner
        self._plan = plan
        self._cutter = cutter

    def blob_size(self, digest: str) -> int | None:
        """Ask for a blob."""
        return self._plan.call("blob_size", lambda: self._inner.blob_size(digest))

    def upload(self) -> FaultyUpload:
        """Begin a blob."""
        return self._plan.call("upload", lambda: FaultyUpload(self._inner.upload(), self._cutter, self._plan))

    def manifest(self, reference: str, *, media_type: str, data: bytes) -> None:
        """Put a manifest."""
        self._plan.call("manifest", lambda: self._inner.manifest(reference, media_type=media_type, data=data))

    def manifest_of(self, reference: str) -> PushedManifest | None:
        """Ask for a manifest."""
        return self._plan.call("manifest_of", lambda: self._inner.manifest_of(reference))


class FaultyHost:
    """A Docker host behind a plan.

    :param cutter: what the streams out of it go through.
    :param meanwhile: called with the name of each call before it is done: the world moves on.
    """

    def __init__(
        self,
        inner: DockerHost,
        plan: Plan | None = None,
        *,
        cutter: Cutter = whole,
        meanwhile: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._inner = inner
        self._plan = plan or Plan()
        self._cutter = cutter
        self._meanwhile = meanwhile
        self.streams: list[FaultyStream] = []

    def _at(self, name: str) -> None:
        self._meanwhile(name)

    def _stream(self, name: str, begin: Callable[[], RemoteStream]) -> FaultyStream:
        self._at(name)
        begun: list[RemoteStream] = []
        try:
            self._plan.call(name, lambda: begun.append(begin()))
        except BaseException:
            for each in begun:
                each.close()  # nobody got hold of it: the host sees the link end, and its watch does what is due
            raise
        stream = FaultyStream(begun[0], self._cutter, self._plan)
        self.streams.append(stream)
        return stream

    @property
    def name(self) -> str:
        """Name of the host."""
        return self._inner.name

    @property
    def access(self) -> dict[str, str]:
        """How it was reached."""
        return self._inner.access

    def expect_stream(self) -> None:
        """Pass it on; no fault of it is told."""
        self._inner.expect_stream()

    def engine(self) -> EngineInfo:
        """Return what the daemon says of itself."""
        return self._plan.call("engine", self._inner.engine)

    def list_images(self, *, labels: Sequence[str] = ()) -> tuple[ImageSummary, ...]:
        """Return the images."""
        return self._plan.call("list_images", lambda: self._inner.list_images(labels=labels))

    def list_containers(self, *, labels: Sequence[str] = ()) -> tuple[ContainerSummary, ...]:
        """Return the containers."""
        return self._plan.call("list_containers", lambda: self._inner.list_containers(labels=labels))

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return an image."""
        self._at("inspect_image")
        return self._plan.call("inspect_image", lambda: self._inner.inspect_image(reference))

    def capture_slot(self, tell: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold a place for a capture."""
        return self._plan.call("capture_slot", lambda: self._inner.capture_slot(tell))

    def layer_chains(self) -> frozenset[tuple[str, ...]]:
        """Return the layers of each image."""
        return self._plan.call("layer_chains", self._inner.layer_chains)

    def image_history(self, reference: str) -> tuple[HistoryLine, ...]:
        """Return an image's history."""
        return self._plan.call("image_history", lambda: self._inner.image_history(reference))

    def inspect_container(self, name: str) -> ContainerInspect:
        """Return a container."""
        self._at("inspect_container")
        return self._plan.call("inspect_container", lambda: self._inner.inspect_container(name))

    def save_image(self, image_id: str, *, without: Collection[str] = ()) -> FaultyStream:
        """Stream an image."""
        return self._stream("save_image", lambda: self._inner.save_image(image_id, without=without))

    def image_manifests(self, image: ImageInspect) -> tuple[ImageManifest, ...]:
        """What an image's index names."""
        self._at("image_manifests")
        return self._plan.call("image_manifests", lambda: self._inner.image_manifests(image))

    def held_blobs(self, sizes: Mapping[str, int], *, engine: EngineInfo) -> frozenset[str]:
        """Which blobs it holds."""
        self._at("held_blobs")
        return self._plan.call("held_blobs", lambda: self._inner.held_blobs(sizes, engine=engine))

    def push_image(
        self, image_id: str, *, target: PushTarget, repository: str, attempt: str, platform: str | None = None
    ) -> PushResult:
        """Push an image; each call of the target is a call of the plan, too."""
        self._at("push_image")
        faulty = FaultyPushTarget(target, self._plan, self._cutter)
        return self._plan.call(
            "push_image",
            lambda: self._inner.push_image(
                image_id, target=faulty, repository=repository, attempt=attempt, platform=platform
            ),
        )

    def export_container(self, container: str) -> RemoteStream:
        """Stream a container."""
        return self._stream("export_container", lambda: self._inner.export_container(container))

    def export_temporary(self, container: str, *, image: str) -> RemoteStream:
        """Stream a temporary container."""
        return self._stream("export_temporary", lambda: self._inner.export_temporary(container, image=image))

    def export_paused(self, container: str, *, limit_seconds: int) -> FaultyStream:
        """Stream a paused container."""
        return self._stream("export_paused", lambda: self._inner.export_paused(container, limit_seconds=limit_seconds))

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
        """Commit a container."""
        return self._plan.call(
            "commit_container",
            lambda: self._inner.commit_container(
                container, reference=reference, message=message, author=author, changes=changes, pause=pause
            ),
        )

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
        """Commit a paused container."""
        return self._plan.call(
            "commit_paused",
            lambda: self._inner.commit_paused(
                container,
                reference=reference,
                message=message,
                author=author,
                changes=changes,
                limit_seconds=limit_seconds,
            ),
        )

    def exec_container(
        self,
        container: str,
        command: Sequence[str],
        *,
        what: str,
        timeout_seconds: float,
        told: Callable[[str], None],
    ) -> None:
        """Run a command."""
        self._plan.call(
            "exec_container",
            lambda: self._inner.exec_container(
                container, command, what=what, timeout_seconds=timeout_seconds, told=told
            ),
        )

    def create_container(self, image: str, *, name: str) -> str:
        """Create a container."""
        self._at("create_container")
        return self._plan.call("create_container", lambda: self._inner.create_container(image, name=name))

    def create_from_options(self, image: str, *, name: str, options: Sequence[ContainerOption]) -> str:
        """Create a container."""
        self._at("create_from_options")
        return self._plan.call(
            "create_from_options", lambda: self._inner.create_from_options(image, name=name, options=options)
        )

    def start_container(self, name: str) -> None:
        """Start a container."""
        self._at("start_container")
        self._plan.call("start_container", lambda: self._inner.start_container(name))

    def stop_container(self, name: str, *, timeout_seconds: int) -> None:
        """Stop a container."""
        self._at("stop_container")
        self._plan.call("stop_container", lambda: self._inner.stop_container(name, timeout_seconds=timeout_seconds))

    def rename_container(self, name: str, *, to: str) -> None:
        """Rename a container."""
        self._at("rename_container")
        self._plan.call("rename_container", lambda: self._inner.rename_container(name, to=to))

    def list_networks(self) -> tuple[str, ...]:
        """Return the names of networks."""
        return self._plan.call("list_networks", self._inner.list_networks)

    def remove_container(self, name: str) -> None:
        """Remove a container."""
        self._at("remove_container")
        self._plan.call("remove_container", lambda: self._inner.remove_container(name))

    def remove_container_keeping_volumes(self, container_id: str) -> None:
        """Remove a container, not its volumes."""
        self._at("remove_container_keeping_volumes")
        self._plan.call(
            "remove_container_keeping_volumes", lambda: self._inner.remove_container_keeping_volumes(container_id)
        )

    def remove_image(self, reference: str) -> None:
        """Remove a tag."""
        self._at("remove_image")
        self._plan.call("remove_image", lambda: self._inner.remove_image(reference))

    def tag_image(self, image_id: str, *, reference: str) -> None:
        """Point a tag to an image."""
        self._plan.call("tag_image", lambda: self._inner.tag_image(image_id, reference=reference))

    def packing(self, engine: EngineInfo) -> Packing:
        """Return how it takes archives."""
        return self._plan.call("packing", lambda: self._inner.packing(engine))

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Load an archive."""
        return self._plan.call("load_image", lambda: self._inner.load_image(chunks))

    def import_filesystem(self, chunks: Iterable[bytes], *, reference: str, changes: Sequence[str] = ()) -> str:
        """Import a filesystem."""
        return self._plan.call(
            "import_filesystem",
            lambda: self._inner.import_filesystem(chunks, reference=reference, changes=changes),
        )

    def now(self) -> datetime:
        """Return the host's time."""
        return self._plan.call("now", self._inner.now)


class FaultyDaemon:
    """A test daemon behind a plan."""

    def __init__(self, inner: TestDaemon, plan: Plan) -> None:
        self._inner = inner
        self._plan = plan

    @property
    def disposable(self) -> bool:
        """Whether it was started for one verification."""
        return self._inner.disposable

    def engine(self) -> EngineInfo:
        """Return what the daemon says of itself."""
        return self._plan.call("engine", self._inner.engine)

    def image_ids(self) -> frozenset[str]:
        """Return the IDs of its images."""
        return self._plan.call("image_ids", self._inner.image_ids)

    def layer_diff_ids(self) -> frozenset[str]:
        """Return the diff_ids of its layers."""
        return self._plan.call("layer_diff_ids", self._inner.layer_diff_ids)

    def load(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Load an archive."""
        return self._plan.call("load", lambda: self._inner.load(chunks))

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return an image."""
        return self._plan.call("inspect_image", lambda: self._inner.inspect_image(reference))

    @contextmanager
    def saved_image(self, reference: str) -> Iterator[Iterator[bytes]]:
        """Stream an image."""
        with self._inner.saved_image(reference) as stream:
            yield self._plan.call("saved_image", lambda: stream)

    def create_container(self, image: str, *, name: str) -> str:
        """Create a container."""
        return self._plan.call("create_container", lambda: self._inner.create_container(image, name=name))

    def start_container(self, image: str, *, name: str, command: Sequence[str] = (), confinement: Confinement) -> str:
        """Start a container."""
        return self._plan.call(
            "start_container",
            lambda: self._inner.start_container(image, name=name, command=command, confinement=confinement),
        )

    def running_container(self, container_id: str) -> RunningContainer:
        """Return what a container does."""
        return self._plan.call("running_container", lambda: self._inner.running_container(container_id))

    def run_in_container(self, container_id: str, command: Sequence[str], *, timeout_seconds: float) -> int | None:
        """Run a command in a container."""
        return self._plan.call(
            "run_in_container",
            lambda: self._inner.run_in_container(container_id, command, timeout_seconds=timeout_seconds),
        )

    def remove_container(self, container_id: str) -> None:
        """Remove a container."""
        self._plan.call("remove_container", lambda: self._inner.remove_container(container_id))

    def remove_image(self, reference: str) -> None:
        """Remove a tag."""
        self._plan.call("remove_image", lambda: self._inner.remove_image(reference))
