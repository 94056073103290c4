# SPDX-License-Identifier: Apache-2.0
"""Progress as sparse lines in a task's log: bytes, rate, percent and time left."""

from __future__ import annotations

from typing import Any, Protocol

from airflow_provider_dockerbackup.core.ports import Clock
from airflow_provider_dockerbackup.core.sizes import size_text

_FIRST_LINE_AFTER_SECONDS = 5.0
_SLOWEST_PACE_SECONDS = 60.0


class Log(Protocol):
    """The part of a logger that is used here."""

    def info(self, event: Any, *args: Any, **kw: Any) -> Any:
        """Log one line."""


class LogProgress:
    """Writes a line after 5 s, then at doubling intervals up to one a minute.

    :param log: the task's logger.
    :param clock: measures the time.
    """

    def __init__(self, log: Log, *, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._what = ""
        self._total: int | None = None
        self._done = 0
        self._began = 0.0
        self._next = 0.0
        self._pace = 0.0

    def start(self, what: str, total_bytes: int | None) -> None:
        """Begin a new piece of work."""
        self._what, self._total, self._done = what, total_bytes, 0
        self._began = self._clock.monotonic()
        self._pace = _FIRST_LINE_AFTER_SECONDS
        self._next = self._began + self._pace
        self._log.info("%s: begins%s", what, f", about {size_text(total_bytes)}" if total_bytes else "")

    def advance(self, done_bytes: int) -> None:
        """Add to what is done, and write a line when it is time for one."""
        self._done += done_bytes
        now = self._clock.monotonic()
        if now >= self._next:
            self._log.info("%s: %s", self._what, progress_text(self._done, self._total, now - self._began))
            self._pace = min(self._pace * 2, _SLOWEST_PACE_SECONDS)
            self._next = now + self._pace

    def note(self, message: str) -> None:
        """Write one line."""
        self._log.info("%s", message)

    def finish(self) -> None:
        """Write the last line."""
        seconds = self._clock.monotonic() - self._began
        rate = f", {size_text(self._done / seconds)}/s" if seconds > 0 and self._done else ""
        self._log.info("%s: ended after %.1f s with %s%s", self._what, seconds, size_text(self._done), rate)


def progress_text(done_bytes: int, total_bytes: int | None, seconds: float) -> str:
    """Return ``412 MB of about 1.0 GB (41 %), 98 MB/s, about 6 s left``; what is not known is left out."""
    rate = done_bytes / seconds if seconds > 0 else 0.0
    text = size_text(done_bytes)
    if total_bytes:
        # The total is the engine's estimate; what comes may be a little more.
        text += f" of about {size_text(total_bytes)} ({min(99, 100 * done_bytes // total_bytes)} %)"
    if rate:
        text += f", {size_text(rate)}/s"
    if total_bytes and rate and done_bytes < total_bytes:
        text += f", about {(total_bytes - done_bytes) / rate:.0f} s left"
    return text
