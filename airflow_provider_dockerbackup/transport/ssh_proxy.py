# SPDX-License-Identifier: Apache-2.0
"""A ``ProxyCommand`` as the way to a host: its end is the end of the link."""

from __future__ import annotations

import os
import select
import subprocess
from contextlib import suppress

import paramiko

_PATIENCE_SECONDS = 1.0


class ProxyProcess(paramiko.ProxyCommand):
    """Paramiko's, but for three things.

    When the process has ended, so has the link. Paramiko's reads on and on then, with a whole processor, and takes the
    connection for alive until something else runs out of time. A read returns what is there, and does not wait for as
    much as was asked for. And who closes it waits for the process, so that none is left behind.
    """

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
        """End the process, and wait until it is gone; one that is gone already is fine."""
        for end in (self.process.terminate, self.process.kill):
            end()
            # Never without a limit: a signal handler may have interrupted who waits.
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_PATIENCE_SECONDS)
                return
