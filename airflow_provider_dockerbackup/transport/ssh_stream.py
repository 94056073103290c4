# SPDX-License-Identifier: Apache-2.0
"""Standard output of a remote command as a stream that ends only when it is whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from airflow_provider_dockerbackup.exceptions import DockerBackupError, TransientError
from airflow_provider_dockerbackup.transport.ssh_command import CommandResult, RunningCommand

Explain = Callable[[CommandResult], DockerBackupError]


class SshRemoteStream:
    """A :class:`~airflow_provider_dockerbackup.core.ports.RemoteStream` on an SSH connection of its own.

    Connection and command start with the first piece that is asked for.

    :param start: connects and starts the command.
    :param explain: turns a result with an exit status other than 0 into an error.
    :param what: what the command does, for messages.
    """

    def __init__(self, start: Callable[[], RunningCommand], *, explain: Explain, what: str) -> None:
        self._start = start
        self._explain = explain
        self._what = what
        self._lock = threading.Lock()
        self._command: RunningCommand | None = None
        self._state = "new"
        self.stderr = b""  # its end, once the command succeeded

    def __iter__(self) -> Iterator[bytes]:
        """Yield the output in pieces of at most 1 MiB; can be done once.

        :raises TransientError: when the link is lost or a limit passes; says how many bytes came.
        :raises DockerBackupError: what ``explain`` returns, when the exit status is not 0.
        :raises ValueError: when it was iterated before.
        """
        with self._lock:
            if self._state == "started":
                raise ValueError("a remote stream can be read once; start another")
            if self._state == "closed":
                raise TransientError(f"{self._what}: the stream was closed before it was read")
            self._state = "started"
        return self._pieces()

    def close(self) -> None:
        """End the command and its connection; safe to call at any time, any number of times.

        The command is sent TERM where sshd allows it, and finds its output closed in any case.
        """
        with self._lock:
            self._state = "closed"
            command, self._command = self._command, None
        if command is not None:
            command.signal("TERM")
            command.abort()

    def _pieces(self) -> Iterator[bytes]:
        try:
            command = self._opened()
            while data := command.read():
                yield data
            status = command.finish()
            if status != 0:
                raise self._explain(CommandResult(exit_status=status, stderr=command.stderr()))
            self.stderr = command.stderr()
        finally:
            self.close()

    def _opened(self) -> RunningCommand:
        command = self._start()
        with self._lock:
            if self._state != "closed":
                self._command = command
                return command
        command.abort()
        raise TransientError(f"{self._what}: the stream was closed before it was read")
