# SPDX-License-Identifier: Apache-2.0
"""A test daemon reached through docker-py's low-level client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Self

import requests
from docker import APIClient
from docker.errors import APIError, DockerException, NotFound

from airflow_provider_dockerbackup.core.model import (
    Confinement,
    EngineInfo,
    ImageInspect,
    LoadedImage,
    RunningContainer,
)
from airflow_provider_dockerbackup.exceptions import (
    ConfigurationError,
    ConflictError,
    DockerBackupError,
    IntegrityError,
    NotFoundError,
    TransientError,
)
from airflow_provider_dockerbackup.transport import docker_output
from airflow_provider_dockerbackup.transport.docker_errors import docker_error
from airflow_provider_dockerbackup.transport.read_ahead import read_ahead
from airflow_provider_dockerbackup.transport.ssh_command import CommandResult

CHUNK_BYTES: Final = 1024 * 1024
_LOAD: Final = "docker load"
_EXEC_LOOK_SECONDS: Final = 0.1
_REPLY_SECONDS: Final = 3600  # a daemon that spools or unpacks a large image is silent for minutes


class SdkTestDaemon:
    """A Docker daemon that is not the source's, as a :class:`~airflow_provider_dockerbackup.core.ports.TestDaemon`.

    :param client: a low-level client of it, without a short timeout.
    :param disposable: whether the daemon was started, empty, for one verification.
    """

    __test__ = False  # not a test class

    def __init__(self, client: APIClient, *, disposable: bool = False) -> None:
        self._client: Any = client  # docker-py's stubs leave half of its methods untyped
        self._disposable = disposable
        self._name = str(client.base_url).replace("http+docker://localhost", "local Docker socket")

    @classmethod
    @contextmanager
    def connect(cls, base_url: str, *, disposable: bool = False) -> Iterator[Self]:
        """Connect to the daemon at ``base_url``, such as ``unix:///run/docker.sock`` or ``tcp://host:2375``.

        :raises ConfigurationError: when there is no such socket, or no right to it.
        :raises TransientError: when nothing answers there.
        """
        try:
            client = APIClient(base_url=base_url, timeout=_REPLY_SECONDS, version="auto")
        except (DockerException, requests.RequestException, OSError) as err:
            raise _unreachable(err, base_url) from err
        try:
            yield cls(client, disposable=disposable)
        finally:
            client.close()

    @property
    def disposable(self) -> bool:
        """Whether the daemon was started, empty, for one verification alone."""
        return self._disposable

    def engine(self) -> EngineInfo:
        """Return what the daemon says of itself."""
        with self._wrapping("docker info"):
            return docker_output.engine(version={"Server": self._client.version()}, info=self._client.info())

    def image_ids(self) -> frozenset[str]:
        """Return the IDs of all images it holds, intermediate ones included."""
        with self._wrapping("docker image ls"):
            return frozenset(str(each["Id"]) for each in self._client.images(all=True))

    def layer_diff_ids(self) -> frozenset[str]:
        """Return the diff_ids of all layers of all images it holds."""
        found: set[str] = set()
        for image_id in self.image_ids():
            with suppress(NotFoundError):  # removed meanwhile
                found.update(self.inspect_image(image_id).diff_ids)
        return frozenset(found)

    def load(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Load an archive from a stream; what ``chunks`` raises is passed on.

        :raises IntegrityError: when the engine refuses it, or reports that unpacking failed.
        :raises TransientError: when the daemon goes away or has no space left.
        """
        with read_ahead(chunks) as ahead:
            source = _Source(ahead)
            try:
                with self._wrapping(_LOAD, reading_archive=True):
                    items = list(self._client.load_image(iter(source), quiet=True))
            except DockerBackupError:
                if source.error is not None:
                    raise source.error from None
                raise
        if source.error is not None:
            raise source.error
        return self._loaded(items)

    def inspect_image(self, reference: str) -> ImageInspect:
        """Return one image.

        :raises NotFoundError: when there is none.
        """
        with self._wrapping(f"docker image inspect {reference}"):
            return docker_output.image(self._client.inspect_image(reference))

    @contextmanager
    def saved_image(self, reference: str) -> Iterator[Iterator[bytes]]:
        """Stream ``docker save`` of one image in pieces of about 1 MiB.

        :raises NotFoundError: when there is none, at the first piece.
        """
        with self._wrapping(f"docker save {reference}"):
            stream = self._client.get_image(reference)
        try:
            yield self._pieces(stream, reference)
        finally:
            stream.close()

    def create_container(self, image: str, *, name: str) -> str:
        """Create, not start, a container without network from an image and return its ID.

        :raises NotFoundError: when there is no such image; the API never pulls.
        """
        configuration = {
            "Image": image,
            "Cmd": ["/never-started"],  # an image without a command is refused otherwise
            "NetworkDisabled": True,
            "HostConfig": {"NetworkMode": "none"},
        }
        with self._wrapping(f"docker create {image}", reading_archive=True):
            return str(self._client.create_container_from_config(configuration, name=name)["Id"])

    def start_container(self, image: str, *, name: str, command: Sequence[str] = (), confinement: Confinement) -> str:
        """Create and start a container, confined, without network, and return its ID.

        :raises NotFoundError: when there is no such image; the API never pulls.
        :raises IntegrityError: when it cannot be started; it stays behind, under ``name``.
        """
        configuration = {
            "Image": image,
            **({"Cmd": list(command)} if command else {}),
            "NetworkDisabled": True,
            "HostConfig": _host_config(confinement),
        }
        with self._wrapping(f"docker create {image}", reading_archive=True, refused=IntegrityError):
            container_id = str(self._client.create_container_from_config(configuration, name=name)["Id"])
        with self._wrapping(f"docker start {image}", reading_archive=True, refused=IntegrityError):
            self._client.start(container_id)
        return container_id

    def running_container(self, container_id: str) -> RunningContainer:
        """Return what a started container does now.

        :raises NotFoundError: when there is none.
        """
        with self._wrapping(f"docker container inspect {container_id}"):
            state = self._client.inspect_container(container_id)["State"]
        health = str((state.get("Health") or {}).get("Status") or "none")
        return RunningContainer(
            running=bool(state["Running"]),
            exit_status=int(state["ExitCode"]),
            health=None if health == "none" else health,
            out_of_memory=bool(state.get("OOMKilled")),
        )

    def run_in_container(self, container_id: str, command: Sequence[str], *, timeout_seconds: float) -> int | None:
        """Return the exit status of a command in a running container; None when it did not end in time, or not run."""
        deadline = time.monotonic() + timeout_seconds
        try:
            with self._wrapping(f"docker exec {container_id}"):
                exec_id = self._client.exec_create(container_id, list(command), stdout=False, stderr=False)["Id"]
                self._client.exec_start(exec_id, detach=True)
                while True:
                    state = self._client.exec_inspect(exec_id)
                    if not state["Running"] and state["ExitCode"] is not None:
                        return int(state["ExitCode"])
                    if time.monotonic() > deadline:
                        return None
                    time.sleep(_EXEC_LOOK_SECONDS)
        except (ConflictError, NotFoundError):  # the container ended meanwhile
            return None

    def remove_container(self, container_id: str) -> None:
        """Remove one container with its anonymous volumes; one that is not there is no error."""
        with suppress(NotFoundError), self._wrapping(f"docker rm {container_id}"):
            self._client.remove_container(container_id, v=True, force=True)

    def remove_image(self, reference: str) -> None:
        """Remove one tag or ID; one that is not there is no error."""
        with suppress(NotFoundError), self._wrapping(f"docker rmi {reference}"):
            self._client.remove_image(reference)

    def _pieces(self, stream: Iterator[bytes], reference: str) -> Iterator[bytes]:
        """Yield what docker-py gives in pieces of 32 KiB in larger ones."""
        buffer = bytearray()
        while True:
            with self._wrapping(f"docker save {reference}"):
                piece = next(stream, None)
            if piece is None:
                break
            buffer += piece
            if len(buffer) >= CHUNK_BYTES:
                yield bytes(buffer)
                buffer.clear()
        if buffer:
            yield bytes(buffer)

    def _loaded(self, items: list[dict[str, Any]]) -> LoadedImage:
        """Read the daemon's messages: docker-py raises for none of them, and a failed unpacking is mere text."""
        for item in items:
            if item.get("errorDetail") or item.get("error"):
                told = (item.get("errorDetail") or {}).get("message") or item.get("error")
                raise self._refused(str(told))
        text = "".join(str(item.get("stream") or item.get("status") or "") for item in items)
        if "error unpacking" in text.lower():
            raise self._refused(text)
        loaded = docker_output.loaded(text.encode())
        if not loaded.names:
            raise self._refused(f"it names no image it loaded: {text[-500:]!r}")
        return loaded

    def _refused(self, told: str) -> DockerBackupError:
        error = _docker_error(told, doing=_LOAD, name=self._name, reading_archive=True)
        if "unexpected eof" in told.lower():  # the daemon did answer, so it is the archive that ended
            return IntegrityError(str(error))
        return error

    @contextmanager
    def _wrapping(
        self, doing: str, *, reading_archive: bool = False, refused: type[DockerBackupError] | None = None
    ) -> Iterator[None]:
        """Turn the client's errors into ours.

        :param refused: what it is when the daemon says no for a reason that nothing more is known of.
        """
        try:
            yield
        except NotFound as err:
            raise NotFoundError(f"{doing} on the test daemon ({self._name}): {err.explanation}") from err
        except APIError as err:
            told = str(err.explanation or err)
            error = _docker_error(told, doing=doing, name=self._name, reading_archive=reading_archive)
            if refused is not None and type(error) is DockerBackupError:
                raise refused(str(error)) from err
            raise error from err
        except (DockerException, requests.RequestException, OSError) as err:
            raise TransientError(
                f"{doing} on the test daemon ({self._name}): the daemon went away or does not answer "
                f"({type(err).__name__}); see its log, then try again"
            ) from err


def _host_config(confinement: Confinement) -> dict[str, Any]:
    return {
        "NetworkMode": "none",
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": confinement.read_only,
        "Tmpfs": {"/tmp": "", "/run": ""} if confinement.read_only else {},  # noqa: S108 - in the container
        "Memory": confinement.memory_bytes,
        "MemorySwap": confinement.memory_bytes,
        "PidsLimit": confinement.pids,
        "NanoCpus": confinement.nano_cpus,
        "LogConfig": {"Type": "none"},
    }


class _Source:
    """The stream given to the client: keeps the exception that ended it, which HTTP libraries would dress up."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                if chunk:  # an empty one would end the request's body
                    yield chunk
        except GeneratorExit:
            raise
        except BaseException as err:
            self.error = err
            raise


def _docker_error(told: str, *, doing: str, name: str, reading_archive: bool) -> DockerBackupError:
    failed = CommandResult(exit_status=1, stderr=told.encode())
    error = docker_error(failed, what=doing, host=f"the test daemon ({name})", reading_archive=reading_archive)
    if doing == _LOAD and type(error) is DockerBackupError:
        return IntegrityError(str(error))
    return error


def _unreachable(err: BaseException, base_url: str) -> DockerBackupError:
    said = f"the test daemon at {base_url} cannot be reached"
    told = str(err)
    if "FileNotFoundError" in told or isinstance(err, FileNotFoundError):
        return ConfigurationError(f"{said}: no such socket; correct test_daemon=…, or start that daemon")
    if "PermissionError" in told or isinstance(err, PermissionError):
        return ConfigurationError(f"{said}: permission denied; add the worker's user to the socket's group")
    if "Connection" in told or "imeout" in told or isinstance(err, requests.RequestException):
        return TransientError(f"{said}: nothing answers; see whether the daemon runs, then try again")
    return ConfigurationError(f"{said}: {type(err).__name__}; give a URL such as unix:///run/docker.sock")
