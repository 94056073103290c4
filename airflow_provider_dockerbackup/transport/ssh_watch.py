# SPDX-License-Identifier: Apache-2.0
"""Limits of time on work that blocks inside paramiko."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTimeouts:
    """How long to wait for what, in seconds.

    :param command_seconds: for a short command as a whole, and for the start of any command.
    :param first_byte_seconds: for the daemon while it works in silence: before the first byte of a stream (``docker
        save`` writes the whole image to its disk first), while layers are left out of one, and after the last byte of
        an archive that is loaded.
    :param stall_seconds: for the next bytes in the middle of a stream, in either direction.
    :param deadline_seconds: for a stream as a whole.
    """

    command_seconds: float = 60.0
    first_byte_seconds: float = 1800.0
    stall_seconds: float = 120.0
    deadline_seconds: float = 6 * 3600.0

    def __post_init__(self) -> None:
        """Refuse limits that nothing could keep.

        :raises ValueError: when one is not positive.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"{field.name}: expected seconds > 0, got {value!r}")


class Watch:
    """A thread that ends work which outlasts its limit.

    Not all that blocks in paramiko takes a timeout (starting a command, writing to a dead link), and a keepalive does
    not notice a peer that is gone. Closing the transport wakes all of it.

    :param abort: called once, from the thread, when a limit has passed.
    :param deadline_seconds: limit for everything together, from now on.
    :param setting: name of the setting that holds the deadline, for the message.
    """

    def __init__(self, abort: Callable[[], None], *, deadline_seconds: float, setting: str) -> None:
        self._abort = abort
        reason = f"was not done after {deadline_seconds:g} s ({setting})"
        self._deadline = (time.monotonic() + deadline_seconds, reason)
        self._limit = self._deadline
        self._stopped = threading.Event()
        self._reason: str | None = None
        self._thread = threading.Thread(target=self._run, name="dockerbackup-watch", daemon=True)
        self._thread.start()

    @property
    def reason(self) -> str | None:
        """Which limit passed, as the end of a sentence; None while none has."""
        return self._reason

    @contextmanager
    def limit(self, seconds: float, *, waiting_for: str, setting: str) -> Iterator[None]:
        """Limit the time that the body may take.

        :param waiting_for: end of the sentence "no … for N s".
        :param setting: name of the setting that changes it.
        """
        outer = self._limit
        self._limit = min((time.monotonic() + seconds, f"{waiting_for} for {seconds:g} s ({setting})"), self._deadline)
        try:
            yield
        finally:
            self._limit = outer

    def stop(self) -> None:
        """End the watch; safe to call at any time, any number of times."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            expires, reason = self._limit
            if time.monotonic() >= expires:
                self._reason = reason
                self._abort()
                return
