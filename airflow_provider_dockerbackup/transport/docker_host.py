# SPDX-License-Identifier: Apache-2.0
"""A Docker host, reached by its own command line client through SSH."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from airflow_provider_dockerbackup.core.archive.blob_question import blob_question
from airflow_provider_dockerbackup.core.archive.member_names import archive_forms
from airflow_provider_dockerbackup.core.container_options import ContainerOption
from airflow_provider_dockerbackup.core.model import (
    ContainerInspect,
    ContainerSummary,
    EngineInfo,
    HistoryLine,
    ImageInspect,
    ImageManifest,
    ImageSummary,
    LoadedImage,
    Packing,
    PausedCommit,
)
from airflow_provider_dockerbackup.core.push import PushResult, PushTarget
from airflow_provider_dockerbackup.transport import commands, docker_output
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_calls import DockerCalls
from airflow_provider_dockerbackup.transport.docker_errors import docker_error, exec_error, exec_said
from airflow_provider_dockerbackup.transport.host_archives import SshHostArchives
from airflow_provider_dockerbackup.transport.image_loader import ImageLoader
from airflow_provider_dockerbackup.transport.slots import DEFAULT_PLACES, capture_slot
from airflow_provider_dockerbackup.transport.ssh import SshRemoteStream, SshSession
from airflow_provider_dockerbackup.transport.told_streams import SshFilteredStream, SshPausedStream


class SshDockerHost:
    """A :class:`~airflow_provider_dockerbackup.core.ports.DockerHost` over SSH.

    Errors say what failed, on which host, the exit code, the end of standard error and what to do next.

    :param session: where commands run.
    :param name: name under which the host's backups are kept.
    :param command: how the Docker client is called there.
    :param max_captures: how many captures the host does at once for its SSH user.
    :param access: facts on how it is reached, besides user, address, host key fingerprint and cipher, which the
        session knows; no secret.
    """

    def __init__(
        self,
        session: SshSession,
        *,
        name: str,
        command: DockerCommand | None = None,
        max_captures: int = DEFAULT_PLACES,
        access: Mapping[str, str] | None = None,
    ) -> None:
        self._session = session
        self._name = name
        self._docker = command or DockerCommand()
        self._calls = DockerCalls(session, name=name)
        self._loader = ImageLoader(session, name=name, command=self._docker)
        self._max_captures = max_captures
        self._access = dict(access or {})

    @property
    def name(self) -> str:
        """Name under which the host's backups are kept."""
        return self._name

    @property
    def access(self) -> dict[str, str]:
        """How it was reached; connects when it never was.

        :raises DockerBackupError: when that fails.
        """
        return {**self._session.peer(), **self._access}

    @property
    def archives(self) -> SshHostArchives:
        """Archives that lie on this host, and the jobs that make them."""
        return SshHostArchives(self._session, name=self._name, command=self._docker, max_captures=self._max_captures)

    def test(self) -> str:
        """Return one line about the daemon, such as ``Docker Engine 20.10.24 (graphdriver/overlay2) on web-1``.

        :raises DockerBackupError: when SSH or Docker do not work; says what to do.
        """
        engine = self.engine()
        return f"Docker Engine {engine.version} ({engine.store}/{engine.storage_driver}) on {self._name}"

    def expect_stream(self) -> None:
        """Begin to connect for the stream that follows."""
        self._session.expect_stream()

    def capture_slot(self, tell: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold one of the host's places for captures; wait while others have them all."""
        return capture_slot(self._session, places=self._max_captures, tell=tell)

    def engine(self) -> EngineInfo:
        """Return what the daemon says of itself."""
        # First the connection, so that a login that is refused is tried once and not three times.
        self._session.connect()
        # All at once: each takes the start of a program and its round trips.
        with ThreadPoolExecutor(max_workers=3) as pool:
            versions = pool.submit(self._calls.run, commands.version(self._docker), what="docker version")
            infos = pool.submit(self._calls.run, commands.info(self._docker), what="docker info")
            # Not every `date` knows the option; then names that depend on the time zone are just not foreseen.
            dates = pool.submit(self._session.run, commands.epoch(), what="date")
            version, info, date = versions.result(), infos.result(), dates.result()
        engine = self._calls.read(
            "docker info",
            lambda: docker_output.engine(
                version=docker_output.json_object(version.stdout), info=docker_output.json_object(info.stdout)
            ),
        )
        if "legacy" not in archive_forms(engine):
            return engine
        return replace(engine, epoch=docker_output.epoch(date.stdout))

    def list_images(self, *, labels: Sequence[str] = ()) -> tuple[ImageSummary, ...]:
        """Return the images that carry all ``labels``, one item a tag."""
        return docker_output.image_summaries(self._images(labels))

    def list_containers(self, *, labels: Sequence[str] = ()) -> tuple[ContainerSummary, ...]:
        """Return the containers, in any state, that carry all ``labels``."""
        listed = self._calls.run(commands.list_container_ids(self._docker, labels=labels), what="docker container ls")
        names = docker_output.ids(listed.stdout)
        documents = self._calls.inspect_all(names, partial(commands.inspect_containers, self._docker))
        return docker_output.container_summaries(documents)

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return the image that ``reference`` stands for now; a container of that name does not count.

        :raises NotFoundError: when there is none.
        """
        what = f"docker image inspect {reference}"
        return docker_output.image(
            self._calls.inspect_one(commands.inspect_images(self._docker, [reference]), what=what)
        )

    def layer_chains(self) -> frozenset[tuple[str, ...]]:
        """Return the diff_ids of each image's layers, lowest first."""
        return frozenset(docker_output.image(each).diff_ids for each in self._images())

    def image_history(self, reference: str) -> tuple[HistoryLine, ...]:
        """Return its history, oldest first, as far as the client tells: authors are in the archive only.

        :raises NotFoundError: when there is no such image.
        """
        image = self.inspect_image(reference)
        what = f"docker image history {reference}"
        result = self._calls.run(commands.history(self._docker, reference), what=what)
        lines = self._calls.read(what, lambda: docker_output.json_lines(result.stdout))
        return docker_output.history(lines, layers=len(image.diff_ids))

    def inspect_container(self, name: str) -> ContainerInspect:
        """Return the container of that name or ID.

        :raises NotFoundError: when there is none.
        """
        what = f"docker container inspect {name}"
        return ContainerInspect.of(
            self._calls.inspect_one(commands.inspect_containers(self._docker, [name]), what=what)
        )

    def save_image(self, image_id: str, *, without: Collection[str] = ()) -> SshFilteredStream:
        """Stream ``docker save`` of one image, without the members named where the host has what that takes.

        :raises IncompleteError: while it is read, when the archive could not be filtered.
        """
        line = commands.save(self._docker, image_id)
        if without:
            line = commands.save_filtered(self._docker, image_id, without=without)
        # Nothing comes while a layer is left out, which may be large.
        return SshFilteredStream(self._calls.stream(line, what=f"docker save {image_id}", pauses=bool(without)))

    def image_manifests(self, image: ImageInspect) -> tuple[ImageManifest, ...]:
        """Return the manifests that an image's index names, or its only one, as engines from 28 on tell.

        No command of the client's shows it, so the engine's API is asked through the client. What that does not answer
        is no error: then nothing is known.
        """
        what = f"the manifests of {image.id}"
        result = self._session.run(commands.image_manifests(self._docker, image.id), what=what)
        return docker_output.image_manifests(result.stdout)

    def held_blobs(self, sizes: Mapping[str, int], *, engine: EngineInfo) -> frozenset[str]:
        """Return the digests of those blobs that a containerd store says it holds, as engines from 28 on tell.

        An image that names them is loaded for that, without a tag, and removed at once.

        :param sizes: size of each blob in bytes, by its digest.
        :param engine: what :meth:`engine` returned.
        """
        if not engine.tells_manifests:
            return frozenset()
        question, what = blob_question(sizes), "docker load of a question"
        line = commands.manifests_of_loaded(self._docker, question.image_id)
        result = self._session.run(line, what=what, stdin=question.archive)
        if result.exit_status != 0:
            raise docker_error(result, what=what, host=self._name)
        return question.held(docker_output.image_manifests(result.stdout))

    def push_image(
        self, image_id: str, *, target: PushTarget, repository: str, attempt: str, platform: str | None = None
    ) -> PushResult:
        """Let the engine push one image, by ID, to ``target``, and leave nothing of that on the host.

        :raises PushUnavailableError: when sshd, the client or the engine there do not allow it.
        """
        # A registry and its server: most tasks find their image unchanged, and need neither.
        from airflow_provider_dockerbackup.transport.push import push_image

        return push_image(
            self._session,
            self._docker,
            host=self._name,
            image_id=image_id,
            target=target,
            repository=repository,
            attempt=attempt,
            platform=platform,
        )

    def export_container(self, container: str) -> SshRemoteStream:
        """Stream ``docker export`` of a container as it is."""
        return self._calls.stream(commands.export(self._docker, container), what=f"docker export {container}")

    def export_temporary(self, container: str, *, image: str) -> SshRemoteStream:
        """Stream ``docker export`` of a temporary container; the host removes it and its ``image`` at the end.

        It does so also when the stream ends because the connection did.
        """
        line = commands.export_temporary(self._docker, container, image=image)
        return self._calls.stream(line, what=f"docker export {container}")

    def export_paused(self, container: str, *, limit_seconds: int) -> SshPausedStream:
        """Stream ``docker export`` of a container that is paused for the whole stream, if it was running.

        It runs again when the stream ended or its connection did, at the latest ``limit_seconds`` after the pause (and
        for a minute the host tries again, should its daemon be away just then). A container that was paused before
        stays paused. When the limit ended the pause before the export ended, the stream fails.
        """
        line = commands.export_paused(self._docker, container, limit_seconds=limit_seconds)
        return SshPausedStream(self._calls.stream(line, what=f"docker export {container}"))

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
        line = commands.commit(
            self._docker,
            container,
            reference=reference,
            message=message,
            author=author,
            changes=changes,
            pause=pause,
        )
        return self._calls.make(line, what=f"docker commit {container} {reference}", secrets=changes)

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

        It runs again when the commit ended or its connection did, at the latest ``limit_seconds`` after the pause. A
        container that was paused before stays paused.

        :raises TransientError: when it was unpaused before the commit ended, or is restarting.
        """
        line = commands.commit_paused(
            self._docker,
            container,
            reference=reference,
            message=message,
            author=author,
            changes=changes,
            limit_seconds=limit_seconds,
        )
        what = f"docker commit {container} {reference}"
        result = self._calls.work(line, what=what, secrets=changes)
        image_id = self._calls.read(what, lambda: docker_output.last_id(result.stdout))
        return PausedCommit(image_id=image_id, pause_seconds=docker_output.pause_seconds(result.stderr))

    def exec_container(
        self,
        container: str,
        command: Sequence[str],
        *,
        what: str,
        timeout_seconds: float,
        told: Callable[[str], None],
    ) -> None:
        """Run a command in a running container, without a shell, and wait for it; its output is not kept.

        :param told: is told the end of what it printed on standard error when it failed; the error holds none of that.
        :raises TransientError: when it failed or did not end in time; in the latter case it goes on in the container.
        :raises ConfigurationError: when the container has no such program.
        """
        line = commands.run_in_container(self._docker, container, command)
        doing = f"{what} in container {container}"
        result = self._session.run(line, what=doing, timeout_seconds=timeout_seconds)
        if result.exit_status != 0:
            if said := exec_said(result, secrets=command):
                told(said)
            raise exec_error(result, what=doing, host=self._name)

    def create_container(self, image: str, *, name: str) -> str:
        """Create, not start, a container without network from ``image`` and return its ID; never pulls.

        Its command is ``/bin/true``, whatever the image says. The containerd store unpacks the image first.

        :raises ConflictError: when the name is taken.
        """
        line = commands.create(self._docker, image, name=name)
        return self._calls.make(line, what=f"docker create {name} from {image}")

    def create_from_options(self, image: str, *, name: str, options: Sequence[ContainerOption]) -> str:
        """Create, not start, a container that runs what ``image`` says, and return its ID; never pulls.

        :raises ConflictError: when the name is taken.
        """
        line = commands.create_from_options(self._docker, image, name=name, options=options)
        hidden = [option.value for option in options if option.secret]
        return self._calls.make(line, what=f"docker create {name} from {image}", secrets=hidden)

    def start_container(self, name: str) -> None:
        """Start a container; one that runs is no error."""
        self._calls.work(commands.start(self._docker, name), what=f"docker start {name}")

    def stop_container(self, name: str, *, timeout_seconds: int) -> None:
        """Stop a container, by force after ``timeout_seconds``; one that does not run is no error."""
        line = commands.stop(self._docker, name, timeout_seconds=timeout_seconds)
        self._calls.run(line, what=f"docker stop {name}", seconds=timeout_seconds + 60.0)

    def rename_container(self, name: str, *, to: str) -> None:
        """Give a container, by name or ID, another name.

        :raises ConflictError: when the name is taken, also by itself.
        """
        self._calls.run(commands.rename(self._docker, name, to=to), what=f"docker rename {name} {to}")

    def list_networks(self) -> tuple[str, ...]:
        """Return the names of the host's networks, sorted."""
        result = self._calls.run(commands.list_networks(self._docker), what="docker network ls")
        return tuple(sorted(result.stdout.decode("utf-8", "replace").split()))

    def remove_container(self, name: str) -> None:
        """Remove a container that is not running, with its anonymous volumes; one that is not there is no error.

        :raises ConflictError: when it runs.
        """
        self._calls.remove(commands.remove_container(self._docker, name), what=f"docker rm {name}")

    def remove_container_keeping_volumes(self, container_id: str) -> None:
        """Remove a container that is not running and leave its volumes, anonymous ones too; gone is no error.

        :raises ConflictError: when it runs, or is paused.
        """
        line = commands.remove_container_keeping_volumes(self._docker, container_id)
        self._calls.remove(line, what=f"docker rm {container_id}")

    def remove_image(self, reference: str) -> None:
        """Remove one tag, or by ID an image with at most one tag; one that is not there is no error.

        :raises ConflictError: when a container uses it, or an ID has several tags.
        """
        self._calls.remove(commands.remove_image(self._docker, reference), what=f"docker rmi {reference}")

    def tag_image(self, image_id: str, *, reference: str) -> None:
        """Point the tag ``reference`` to ``image_id``."""
        self._calls.run(
            commands.tag(self._docker, image_id, reference=reference), what=f"docker tag {image_id} {reference}"
        )

    def packing(self, engine: EngineInfo) -> Packing:
        """Return how :meth:`load_image` takes archives: the engine decompresses layers, or the host's zstd frames.

        :param engine: what :meth:`engine` returned.
        """
        return self._loader.packing(engine)

    def load_image(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Stream ``chunks`` into ``docker load``; where they are zstd frames, through what decompresses them.

        An archive that is cut may also look like a daemon that went away: then it is a transient error.

        :raises IntegrityError: when the engine refuses the archive, or says that it could not unpack it.
        """
        return self._loader.load(chunks)

    def import_filesystem(self, chunks: Iterable[bytes], *, reference: str, changes: Sequence[str] = ()) -> str:
        """Stream ``chunks`` into ``docker import`` and return the new image's ID.

        When that fails, the containerd store keeps an image under ``reference`` of which no container can be made.

        :raises IntegrityError: when the engine refuses the archive.
        """
        printed = self._loader.import_filesystem(chunks, reference=reference, changes=changes)
        return self._calls.read(f"docker import {reference}", lambda: docker_output.last_id(printed))

    def now(self) -> datetime:
        """Return the host's own time, aware UTC, to the second."""
        result = self._calls.run(commands.date(), what="date")
        return self._calls.read("date", lambda: docker_output.moment(result.stdout))

    def close(self) -> None:
        """Close the control connection, and one that no stream took."""
        self._session.close()

    def _images(self, labels: Sequence[str] = ()) -> list[dict[str, Any]]:
        listed = self._calls.run(commands.list_image_ids(self._docker, labels=labels), what="docker image ls")
        names = docker_output.ids(listed.stdout)
        return self._calls.inspect_all(names, partial(commands.inspect_images, self._docker))
