# SPDX-License-Identifier: Apache-2.0
"""A limit on how fast bytes come in, so that a backup leaves room on the line for others."""

from __future__ import annotations

import threading

from airflow_provider_dockerbackup.core.ports import Clock
from airflow_provider_dockerbackup.exceptions import ConfigurationError

# Idle time gives no credit beyond this: after a pause the line is not taken by storm.
_BURST_SECONDS = 0.25
LEAST_BYTES_PER_SECOND = 64 * 1024


class Throttle:
    """Lets so many bytes a second pass, over all threads together.

    :param clock: waits.
    :param bytes_per_second: None for no limit.
    :raises ConfigurationError: when the limit is below 64 KiB/s, at which links count as stalled.
    """

    def __init__(self, clock: Clock, bytes_per_second: int | None) -> None:
        check_bandwidth(bytes_per_second)
        self._clock = clock
        self._rate = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = clock.monotonic()

    def passed(self, size_bytes: int) -> None:
        """Take note that bytes came, and wait until the next ones may."""
        if self._rate is None:
            return
        with self._lock:
            now = self._clock.monotonic()
            self._free_at = max(self._free_at, now - _BURST_SECONDS) + size_bytes / self._rate
            wait = self._free_at - now
        if wait > 0:
            self._clock.sleep(wait)


def check_bandwidth(bytes_per_second: int | None) -> None:
    """Refuse a limit that no backup could be made with.

    :raises ConfigurationError: when it is below 64 KiB/s.
    """
    if bytes_per_second is not None and bytes_per_second < LEAST_BYTES_PER_SECOND:
        raise ConfigurationError(
            f"bandwidth_limit: expected at least {LEAST_BYTES_PER_SECOND} bytes a second, got {bytes_per_second}"
        )
