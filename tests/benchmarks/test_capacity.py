# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of capacity, against a simulation of every task; and the page, against both."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from benchmarks.capacity import WINDOW_SECONDS, Fleet, estimate_seconds, pool_for, rows, simulate

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "size-workers-and-pools.md"


def test_one_task_after_the_other_takes_as_long_as_all_of_them() -> None:
    """A pool of one slot: 3 starts of 5 s and 3 captures of 10 s on average; nobody waits for a place."""
    fleet = Fleet(hosts=3, sources=1, gigabytes=0.6, starts_a_second=100)
    found = simulate(fleet, 1)
    assert found.seconds == pytest.approx(3 * (5 + 10))
    assert found.waited_seconds == 0


def test_a_host_with_one_place_captures_one_after_the_other() -> None:
    """However many slots there are: the others wait in theirs."""
    fleet = Fleet(hosts=1, sources=5, gigabytes=0.6, places=1, starts_a_second=100)
    found = simulate(fleet, 5)
    assert found.seconds == pytest.approx(5 + 5 * 10, abs=0.1)
    assert found.waited_seconds > 50


def test_the_scheduler_is_the_narrowest_part_of_tasks_that_do_nothing() -> None:
    """A hundred tasks, one start a second."""
    fleet = Fleet(hosts=10, changed=0, starts_a_second=1)
    assert simulate(fleet, 100).seconds == pytest.approx(99 + 5)
    assert estimate_seconds(fleet, 100) == pytest.approx(100 + 5)


@pytest.mark.parametrize(
    ("hosts", "sources", "changed", "pool", "places"),
    list(product((3, 10, 100), (10, 40), (0, 0.3, 1), (1, 4, 16, 60), (1, 2))),
)
def test_the_arithmetic_is_near_what_happens(hosts: int, sources: int, changed: float, pool: int, places: int) -> None:
    """Within a tenth, or a large capture, where the pool is narrowest; else a host's lot of large ones counts too."""
    fleet = Fleet(hosts=hosts, sources=sources, changed=changed, places=places)
    found, estimated = simulate(fleet, pool).seconds, estimate_seconds(fleet, pool)
    narrowest_elsewhere = estimate_seconds(fleet, 10**9)
    if fleet.work_seconds / pool > 1.5 * narrowest_elsewhere:
        assert estimated == pytest.approx(found, rel=0.1, abs=2.5 * fleet.capture_seconds)
    else:
        assert found / 2 < estimated < found * 2 + 2.5 * fleet.capture_seconds


@pytest.mark.parametrize(("hosts", "changed"), list(product((10, 100, 1000), (1.0, 0.1))))
def test_the_pool_of_the_page_is_the_smallest_that_ends_in_time(hosts: int, changed: float) -> None:
    """As simulated: with it the run ends within the window, with a slot less it does not."""
    fleet = Fleet(hosts=hosts, changed=changed)
    pool = pool_for(fleet, window_seconds=WINDOW_SECONDS)
    assert simulate(fleet, pool).seconds <= WINDOW_SECONDS
    if pool > 1:
        assert simulate(fleet, pool - 1).seconds > WINDOW_SECONDS


def test_no_pool_helps_where_a_host_is_too_slow() -> None:
    """And that is said."""
    with pytest.raises(ValueError, match="no pool is large enough for 1 hosts"):
        pool_for(Fleet(hosts=1, sources=1000, places=1), window_seconds=WINDOW_SECONDS)


def test_the_page_shows_the_table_that_the_simulation_gives() -> None:
    """Row by row."""
    page = PAGE.read_text(encoding="utf-8")
    for row in rows():
        assert f"| {' | '.join(row)} |" in page
