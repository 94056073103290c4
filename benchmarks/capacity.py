# SPDX-License-Identifier: Apache-2.0
"""How long a fleet's backup run takes: an arithmetic for planning, and a simulation that checks it.

Pure. A task takes a slot of the pool for as long as it runs. It starts (Python, imports, SSH, a look at the source);
then, if its source changed, it waits for one of its host's places for captures, still in its slot, and moves the bytes.

``python -m benchmarks.capacity`` prints the table of docs/how-to/size-workers-and-pools.md.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random

# Captures differ: a few large ones among many small ones, as long on average as they are said to take.
_SPREAD = (0.25, 2.25, 0.5, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is to be backed up in one run, and what that takes.

    :param hosts: how many Docker hosts.
    :param sources: how many due sources each has.
    :param changed: share of the sources that must be captured; exports of containers always are.
    :param gigabytes: what crosses the wire for a capture, on average, in 10^9 bytes.
    :param megabytes_a_second: how fast one capture moves, in 10^6 bytes.
    :param start_seconds: how long a task takes besides the capture.
    :param places: how many captures a host does at once (``max_captures``).
    :param starts_a_second: how many tasks the scheduler starts in a second.
    """

    hosts: int
    sources: int = 10
    changed: float = 1.0
    gigabytes: float = 2.0
    megabytes_a_second: float = 60.0
    start_seconds: float = 5.0
    places: int = 2
    starts_a_second: float = 1.0

    @property
    def tasks(self) -> int:
        """How many tasks the run has."""
        return self.hosts * self.sources

    @property
    def capture_seconds(self) -> float:
        """How long a capture takes, on average."""
        return self.gigabytes * 1000 / self.megabytes_a_second

    @property
    def work_seconds(self) -> float:
        """How long all tasks take together."""
        return self.tasks * (self.start_seconds + self.changed * self.capture_seconds)

    @property
    def terabytes(self) -> float:
        """What crosses the wire in the run, in 10^12 bytes."""
        return self.tasks * self.changed * self.gigabytes / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a simulated run came to.

    :param seconds: how long it took.
    :param waited_seconds: how long tasks sat in slots and waited for a place on their host, all together.
    """

    seconds: float
    waited_seconds: float


def estimate_seconds(fleet: Fleet, pool: int) -> float:
    """Return how long a run takes by arithmetic: its narrowest part, and one start and one large capture at its end.

    :param pool: slots of the pool.
    """
    of_the_pool = fleet.work_seconds / pool
    of_the_scheduler = fleet.tasks / fleet.starts_a_second
    of_a_host = fleet.sources * fleet.changed * fleet.capture_seconds / fleet.places
    tail = fleet.start_seconds + (max(_SPREAD) * fleet.capture_seconds if fleet.changed else 0)
    return max(of_the_pool, of_the_scheduler, of_a_host) + tail


def pool_for(fleet: Fleet, *, window_seconds: float) -> int:
    """Return how many slots a run needs to end within a window.

    :raises ValueError: when no pool is large enough, for the scheduler or a host is too slow.
    """
    for pool in range(1, fleet.tasks + 1):
        if estimate_seconds(fleet, pool) <= window_seconds:
            return pool
    raise ValueError(f"no pool is large enough for {fleet.hosts} hosts in {window_seconds:g} s")


def simulate(fleet: Fleet, pool: int) -> Outcome:
    """Return what a run comes to when each of its tasks is followed from its start to its end.

    Tasks begin in the order in which ``DockerListDueOperator`` returns them: one of each host, then the next of each.

    :param pool: slots of the pool.
    """
    waiting = _tasks(fleet)
    free_slots, next_start, now = pool, 0.0, 0.0
    places = [fleet.places] * fleet.hosts
    queues: list[deque[tuple[float, float]]] = [deque() for _ in range(fleet.hosts)]
    waited = 0.0
    events: list[tuple[float, int, str, int, float]] = []  # time, number, what ends, host, seconds of its capture
    number = 0
    pending = next(waiting, None)
    while pending is not None or events:
        while pending is not None and free_slots:
            host, seconds = pending
            begun = max(now, next_start)
            next_start = begun + 1 / fleet.starts_a_second
            number += 1
            heapq.heappush(events, (begun + fleet.start_seconds, number, "start", host, seconds))
            free_slots -= 1
            pending = next(waiting, None)
        now, _, ended, host, seconds = heapq.heappop(events)
        if ended == "start" and seconds:
            queues[host].append((now, seconds))
        else:
            free_slots += 1
            places[host] += ended == "capture"
        while places[host] and queues[host]:
            since, capture = queues[host].popleft()
            waited += now - since
            places[host] -= 1
            number += 1
            heapq.heappush(events, (now + capture, number, "capture", host, capture))
    return Outcome(seconds=now, waited_seconds=waited)


def _tasks(fleet: Fleet) -> Iterator[tuple[int, float]]:
    """Yield host and seconds of the capture of each task; 0 for one that finds its source unchanged."""
    captured = round(fleet.tasks * fleet.changed)
    spread = list(islice(cycle(_SPREAD), captured))
    average = sum(spread) / captured if captured else 1
    lengths = [each / average * fleet.capture_seconds for each in spread] + [0.0] * (fleet.tasks - captured)
    # By lot, but always the same: else the large ones could all be those of one host.
    Random(1).shuffle(lengths)  # noqa: S311 - no secret
    yield from ((index % fleet.hosts, seconds) for index, seconds in enumerate(lengths))


def rows() -> Iterator[tuple[str, ...]]:
    """Yield the rows of the page's table."""
    for changed, what in ((1.0, "every container exported"), (0.1, "one image in ten changed")):
        for hosts in (10, 100, 1000):
            fleet = Fleet(hosts=hosts, changed=changed)
            pool = pool_for(fleet, window_seconds=WINDOW_SECONDS)
            yield (
                what,
                f"{hosts:,}",
                f"{fleet.tasks:,}",
                f"{fleet.terabytes:g} TB",
                str(pool),
                _hours(estimate_seconds(fleet, pool)),
                _hours(simulate(fleet, pool).seconds),
                f"{fleet.terabytes * 8000 / WINDOW_SECONDS:.2f} Gbit/s",
            )


WINDOW_SECONDS = 6 * 3600.0
_HEADINGS = ("each night", "hosts", "tasks", "on the wire", "pool", "by arithmetic", "simulated", "line")


def _hours(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def main() -> None:
    """Print the table."""
    for row in (_HEADINGS, ("---",) * len(_HEADINGS), *rows()):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
