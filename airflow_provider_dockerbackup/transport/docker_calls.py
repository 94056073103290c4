# SPDX-License-Identifier: Apache-2.0
"""Calls of a host's Docker client: a command that fails, or prints what cannot be read, raises what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from airflow_provider_dockerbackup.exceptions import ConflictError, DockerBackupError, NotFoundError
from airflow_provider_dockerbackup.transport import commands, docker_output
from airflow_provider_dockerbackup.transport.docker_errors import docker_error
from airflow_provider_dockerbackup.transport.ssh import CommandResult, SshRemoteStream, SshSession

_T = TypeVar("_T")


class DockerCalls:
    """Runs command lines on one host.

    ``what`` names a command in messages; values in ``secrets`` are kept out of them.

    :param session: where commands run.
    :param name: the host's name, for messages.
    """

    def __init__(self, session: SshSession, *, name: str) -> None:
        self._session = session
        self._name = name

    def run(self, line: str, *, what: str, seconds: float | None = None, secrets: Sequence[str] = ()) -> CommandResult:
        """Run a command and return what it printed.

        :param seconds: how long it may take; None for the session's own limit.
        :raises DockerBackupError: by what its standard error says.
        """
        result = self._session.run(line, what=what, timeout_seconds=seconds)
        if result.exit_status != 0:
            raise docker_error(result, what=what, host=self._name, secrets=secrets)
        return result

    def work(self, line: str, *, what: str, secrets: Sequence[str] = ()) -> CommandResult:
        """Run a command that may work as long as a stream may take to begin."""
        return self.run(line, what=what, seconds=self._session.timeouts.first_byte_seconds, secrets=secrets)

    def make(self, line: str, *, what: str, secrets: Sequence[str] = ()) -> str:
        """Run a command that makes an image or a container and return its ID."""
        result = self.work(line, what=what, secrets=secrets)
        return self.read(what, lambda: docker_output.last_id(result.stdout))

    def remove(self, line: str, *, what: str) -> None:
        """Run a command that removes something; what is not there is no error."""
        try:
            self.run(line, what=what)
        except NotFoundError:
            return

    def stream(self, line: str, *, what: str, pauses: bool = False) -> SshRemoteStream:
        """Run a command and return its output as a stream.

        :param pauses: whether it may be silent for long.
        """

        def explain(result: CommandResult) -> DockerBackupError:
            return docker_error(result, what=what, host=self._name)

        return self._session.stream_out(line, explain=explain, what=what, pauses=pauses)

    def inspect_one(self, line: str, *, what: str) -> dict[str, Any]:
        """Return the only document that an inspect command prints.

        :raises ConflictError: when it prints another number of them.
        """
        result = self.run(line, what=what)
        documents = self.read(what, lambda: docker_output.json_array(result.stdout))
        if len(documents) != 1:
            raise ConflictError(f"{what} on {self._name} found {len(documents)} objects; use a full name or ID")
        return documents[0]

    def inspect_all(self, names: Sequence[str], builder: Callable[[Sequence[str]], str]) -> list[dict[str, Any]]:
        """Inspect what was listed, in as few commands as fit; what vanished since is left out.

        :param builder: makes the command line for some of the names.
        """
        found: list[dict[str, Any]] = []
        for start in range(0, len(names), commands.IDS_PER_COMMAND):
            batch = names[start : start + commands.IDS_PER_COMMAND]
            what = f"docker inspect of {len(batch)} objects"
            result = self._session.run(builder(batch), what=what)
            if result.exit_status != 0:
                error = docker_error(result, what=what, host=self._name)
                if not isinstance(error, NotFoundError):
                    raise error
            found += self.read(what, partial(docker_output.json_array, result.stdout))
        return found

    def read(self, what: str, parse: Callable[[], _T]) -> _T:
        """Return what ``parse`` makes of a command's output; its error says which command, on which host."""
        try:
            return parse()
        except DockerBackupError as err:
            raise type(err)(f"{what} on {self._name}: {err}") from err
