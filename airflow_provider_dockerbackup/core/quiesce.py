# SPDX-License-Identifier: Apache-2.0
"""Bring an application to rest around a capture: a command in its container before, and one after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_provider_dockerbackup.core.ports import Clock, DockerHost, Progress
from airflow_provider_dockerbackup.exceptions import ConfigurationError, ConflictError, DockerBackupError


@dataclass(frozen=True, slots=True, kw_only=True)
class QuiesceCommands:
    """Commands that run in the container that is captured, as one word a string, without a shell.

    :param before: such as a database's flush; when it fails, nothing is captured.
    :param after: runs once the capture no longer needs rest, whatever came of it; empty for none.
    :param timeout_seconds: how long each of them may take.
    """

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    timeout_seconds: float = 60.0

    @classmethod
    def of(
        cls, before: Sequence[str] | None, after: Sequence[str] | None, *, timeout_seconds: float
    ) -> QuiesceCommands:
        """Return commands as a DAG's author writes them.

        :raises ConfigurationError: when one is no list of words, or the timeout is not above 0.
        """
        if not timeout_seconds > 0:
            raise ConfigurationError(f"command_timeout_seconds: expected a number above 0, got {timeout_seconds!r}")
        return cls(
            before=_words("pre_command", before), after=_words("post_command", after), timeout_seconds=timeout_seconds
        )

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.before or self.after)


class Quiesced:
    """An application between its two commands.

    :param before_seconds: how long the first command took; None when there was none.
    """

    def __init__(self, commands: QuiesceCommands, *, host: DockerHost, container: str, progress: Progress) -> None:
        self.before_seconds: float | None = None
        self.problems: list[str] = []
        self._commands = commands
        self._host = host
        self._container = container
        self._progress = progress
        self._ended = not commands.after

    def begin(self, clock: Clock) -> None:
        """Run the first command.

        :raises TransientError: when it failed, or did not end in time.
        """
        if self._commands.before:
            began = clock.monotonic()
            self._run(self._commands.before, "pre_command")
            self.before_seconds = round(clock.monotonic() - began, 3)

    def end(self) -> None:
        """Run the second command, once; when it fails, that is told and noted, but the capture stands."""
        if self._ended:
            return
        self._ended = True
        try:
            self._run(self._commands.after, "post_command")
        except DockerBackupError as err:
            self.problems.append(str(err))
            self._progress.note(f"WARNING: {err}")

    def _run(self, command: Sequence[str], what: str) -> None:
        self._host.exec_container(
            self._container,
            command,
            what=what,
            timeout_seconds=self._commands.timeout_seconds,
            told=lambda said: self._progress.note(f"{what} printed on standard error: {said}"),
        )


def require_running(commands: QuiesceCommands, *, host: DockerHost, container: str, status: str) -> None:
    """Refuse commands for a container that does not run.

    :param status: what the container does, as in :class:`~airflow_provider_dockerbackup.core.model.ContainerInspect`.
    :raises ConflictError: when there are commands and it does not run.
    """
    if commands and status != "running":
        raise ConflictError(
            f"container {container} on {host.name} is {status}, so pre_command and post_command cannot run in it; "
            "start it, or leave them out"
        )


@contextmanager
def quiesced(
    commands: QuiesceCommands,
    *,
    host: DockerHost,
    container: str,
    status: str,
    clock: Clock,
    progress: Progress,
) -> Iterator[Quiesced]:
    """Keep the application at rest for the body, or until that calls :meth:`Quiesced.end`.

    The second command also runs when the first one or the body failed.

    :param status: what the container does, as in :class:`~airflow_provider_dockerbackup.core.model.ContainerInspect`.
    :raises ConflictError: when there are commands and the container does not run.
    :raises TransientError: when the first command failed; the body did not run.
    """
    require_running(commands, host=host, container=container, status=status)
    rest = Quiesced(commands, host=host, container=container, progress=progress)
    try:
        rest.begin(clock)
        yield rest
    finally:
        rest.end()


def _words(name: str, command: Sequence[str] | None) -> tuple[str, ...]:
    if command is None:
        return ()
    if isinstance(command, str) or not all(isinstance(word, str) for word in command):
        raise ConfigurationError(
            f'{name}: expected a list of words, such as ["sh", "-c", "sync"]; it runs without a shell of its own'
        )
    if command and not command[0]:
        raise ConfigurationError(f"{name}: its first word, the program, is empty")
    return tuple(command)
