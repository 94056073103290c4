# SPDX-License-Identifier: Apache-2.0
"""A ``ProxyCommand`` as the way to a host: the end of its output is the end of the link."""

from __future__ import annotations

import io
import logging
import os
import select
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import paramiko

from airflow_provider_dockerbackup.exceptions import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 0.5
_LINE_BYTES = 1000


class ProxyProcess(paramiko.ProxyCommand):
    """Paramiko's, but for what it does when something goes wrong.

    When the process has closed its output, the link has ended. Paramiko's reads on and on then, with a whole processor,
    and takes the connection for alive until something else runs out of time. A write says how much of it was taken,
    which is less when a signal came amid it. What the process says on standard error is logged; unread, it would stop
    the process after 64 KiB. And who closes it waits for it, so that none is left behind.

    :param command: a program and its arguments, as a shell splits them.
    :raises ConfigurationError: when there is no such program.
    """

    def __init__(self, command: str) -> None:
        try:
            super().__init__(command)
        except (OSError, ValueError, IndexError) as err:
            why = err.strerror if isinstance(err, OSError) else str(err)
            name = command.split(maxsplit=1)[0] if command.strip() else "it is empty"
            raise ConfigurationError(
                f"ProxyCommand cannot be run: {name}: {why}; correct it in the SSH configuration"
            ) from err
        self._closing = False
        self._writing = threading.Lock()
        threading.Thread(target=self._tell, name="dockerbackup-proxy", daemon=True).start()

    def send(self, content: Buffer) -> int:
        """Return how many bytes of ``content`` the process was given.

        :raises OSError: when it takes no more.
        """
        with self._writing:
            if self.process.stdin is None or self.process.stdin.closed:
                raise BrokenPipeError
            return os.write(self.process.stdin.fileno(), content)

    def recv(self, size: int) -> bytes:
        """Return at least one and at most ``size`` bytes, or nothing once the process has closed its output.

        :raises TimeoutError: when none came within what ``settimeout`` says.
        """
        if self.process.stdout is None:
            return b""
        output = self.process.stdout.fileno()
        waiting = select.poll()  # select() takes no descriptor beyond 1023
        waiting.register(output, select.POLLIN)
        if not waiting.poll(None if self.timeout is None else self.timeout * 1000):
            raise TimeoutError
        return os.read(output, size)

    def close(self) -> None:
        """End the process, and wait until it is gone; one that is gone already is fine.

        What it started itself learns of it by the end of its input.
        """
        self._closing = True
        for end in (self.process.terminate, self.process.kill):
            with suppress(PermissionError):  # it may have become another user's
                end()
            if self._writing.acquire(timeout=_PATIENCE_SECONDS):
                try:
                    if self.process.stdin is not None:
                        self.process.stdin.close()
                finally:
                    self._writing.release()
            # Never without a limit: a signal handler may have interrupted who waits.
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_PATIENCE_SECONDS)
                return

    def _tell(self) -> None:
        """Log what the process says, but not what it says of being ended."""
        if self.process.stderr is None:
            return
        with suppress(OSError, ValueError):
            said = io.BufferedReader(self.process.stderr)  # type: ignore[type-var]
            while line := said.readline(_LINE_BYTES):
                if not self._closing:
                    _log.warning("ProxyCommand: %s", line.decode("utf-8", "replace").rstrip())
