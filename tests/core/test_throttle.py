# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from airflow_provider_dockerbackup.core.throttle import Throttle
from airflow_provider_dockerbackup.exceptions import ConfigurationError
from airflow_provider_dockerbackup.transport.memory import FixedClock

RATE = 1_000_000


def test_so_many_bytes_a_second_pass_over_all_that_come() -> None:
    """Ten megabytes at one a second take ten seconds, in whatever pieces."""
    for piece_bytes in (RATE // 100, RATE, 5 * RATE):
        clock = FixedClock()
        throttle = Throttle(clock, RATE)
        for _ in range(10 * RATE // piece_bytes):
            throttle.passed(piece_bytes)
        assert clock.monotonic() == pytest.approx(10, abs=0.3)


def test_a_pause_gives_next_to_no_credit() -> None:
    """After a minute of silence the line is not taken by storm."""
    clock = FixedClock()
    throttle = Throttle(clock, RATE)
    throttle.passed(RATE)
    clock.sleep(60)
    before = clock.monotonic()
    throttle.passed(5 * RATE)
    assert clock.monotonic() - before == pytest.approx(5, abs=0.3)


def test_without_a_limit_nobody_waits() -> None:
    """However much comes."""
    clock = FixedClock()
    Throttle(clock, None).passed(10**12)
    assert clock.monotonic() == 0


def test_a_limit_at_which_links_count_as_stalled_is_refused() -> None:
    """Before anything is connected."""
    with pytest.raises(ConfigurationError, match="bandwidth_limit: expected at least 65536"):
        Throttle(FixedClock(), 1000)
