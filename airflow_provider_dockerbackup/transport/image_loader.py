# SPDX-License-Identifier: Apache-2.0
"""Streams into ``docker load`` and ``docker import`` on a Docker host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain

from airflow_provider_dockerbackup.core.archive.compression import Compression
from airflow_provider_dockerbackup.core.model import EngineInfo, LoadedImage, Packing
from airflow_provider_dockerbackup.exceptions import IntegrityError
from airflow_provider_dockerbackup.transport import commands, docker_output
from airflow_provider_dockerbackup.transport.commands import DockerCommand
from airflow_provider_dockerbackup.transport.docker_errors import docker_error, one_line
from airflow_provider_dockerbackup.transport.load_script import PROBED
from airflow_provider_dockerbackup.transport.read_ahead import read_ahead
from airflow_provider_dockerbackup.transport.ssh import CommandResult, SshSession

_UNPACKING_FAILED = "Error unpacking"
# Engines before it take gzip, bzip2 and xz around an archive or a layer, but not zstd; tried with 20.10, 26 and 28.
_FIRST_ENGINE_WITH_ZSTD = 26


class ImageLoader:
    """Sends archives to one Docker host.

    :param session: where commands run.
    :param name: name of the host, for messages.
    :param command: how the Docker client is called there.
    """

    def __init__(self, session: SshSession, *, name: str, command: DockerCommand) -> None:
        self._session = session
        self._name = name
        self._docker = command

    def packing(self, engine: EngineInfo) -> Packing:
        """Return how :meth:`load` takes archives: the engine decompresses layers, or the host's zstd frames."""
        major = engine.version.partition(".")[0]
        if major.isdecimal() and int(major) >= _FIRST_ENGINE_WITH_ZSTD:
            return "blobs"
        return "frames" if self._host_unpacks else "none"

    @cached_property
    def _host_unpacks(self) -> bool:
        probed = self._session.run(commands.probe_zstd(), what="docker load, whether the host has zstd for it")
        return probed.exit_status == 0 and probed.stdout == PROBED.encode()

    def load(self, chunks: Iterable[bytes]) -> LoadedImage:
        """Stream ``chunks`` into ``docker load``, zstd frames through the host's zstd if it has one.

        :raises IntegrityError: when the engine refuses the archive, or says that it could not unpack it.
        :raises TransientError: when an archive is cut, which looks like a daemon that went away.
        """
        what = "docker load"
        source = iter(chunks)
        first = next(source, b"")
        unpack = Compression.of(first) is Compression.ZSTD and self._host_unpacks
        line = commands.load_zstd(self._docker) if unpack else commands.load(self._docker)
        result = self._send(line, chain([first], source), what=what)
        loaded = docker_output.loaded(result.stdout, result.stderr)
        failed = next((line for line in loaded.output if _UNPACKING_FAILED in line), None)
        if failed is not None:
            raise IntegrityError(
                f"{what} on {self._name} ended with exit code 0 but failed: {one_line(failed.encode())}; "
                "remove what it loaded, verify the backup, and restore another one"
            )
        if not loaded.names:
            raise IntegrityError(f"{what} on {self._name} loaded nothing: the archive names no image")
        return loaded

    def import_filesystem(self, chunks: Iterable[bytes], *, reference: str, changes: Sequence[str] = ()) -> bytes:
        """Stream ``chunks`` into ``docker import`` and return what it printed.

        When that fails, the containerd store keeps an image under ``reference`` of which no container can be made.

        :raises IntegrityError: when the engine refuses the archive.
        """
        line = commands.import_filesystem(self._docker, reference=reference, changes=changes)
        return self._send(line, chunks, what=f"docker import {reference}", secrets=changes).stdout

    def _send(self, line: str, chunks: Iterable[bytes], *, what: str, secrets: Sequence[str] = ()) -> CommandResult:
        # Reading, decompressing and hashing in one thread, encrypting and sending in another.
        with read_ahead(chunks) as ahead:
            result = self._session.stream_in(line, ahead, what=what, spoil=_spoil)
        if result.exit_status != 0:
            raise docker_error(result, what=what, host=self._name, reading_archive=True, secrets=secrets)
        if not result.input_taken:
            raise IntegrityError(
                f"{what} on {self._name} ended before it had read the whole archive; verify the backup"
            )
        return result


def _spoil(sent_bytes: int) -> bytes:
    """Return bytes that make a tar invalid wherever it was broken off, and a series of zstd frames likewise.

    Docker takes a tar that merely ends, between two members, for a whole one. What follows a member must be a header,
    which this is not; and the length is chosen so that the tar ends inside a block, should this become the rest of a
    member. Only a tar that had already come to its end marks stays what it was. No zstd frame begins with these bytes.
    """
    return b"\xff" * (1024 + 256 - sent_bytes % 512)
