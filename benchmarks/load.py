# SPDX-License-Identifier: Apache-2.0
"""How busy other jobs keep this machine: all CPU used, less what the suite and its lab used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.figures import DISTURBED_CORES
from tests.lab.processes import PROC, command_line, descendants, pids

_TICKS = os.sysconf("SC_CLK_TCK")
_WINDOW_SECONDS = 0.5
# Fields of /proc/PID/stat from the third on: user and system time, of the process and of its reaped children.
_TIMES = slice(11, 15)
# user, nice, system, irq, softirq, steal
_BUSY = (0, 1, 2, 5, 6, 7)


class LoadMeter:
    """Measures the CPU of jobs other than the suite's.

    :param directory: processes that name it in their arguments, and all their descendants, belong to the suite.
    :param patience_seconds: how long :meth:`wait_until_quiet` may wait, all calls together.
    """

    def __init__(self, directory: Path, *, patience_seconds: float) -> None:
        self._mark = f"{directory}/"
        self._patience = patience_seconds
        self._own = self._family()
        self._began = (time.monotonic(), _busy_seconds(), cpu_seconds(self._own))

    def begin(self) -> None:
        """Begin a measurement."""
        self._own = self._family()
        self._began = (time.monotonic(), _busy_seconds(), cpu_seconds(self._own))

    def end(self) -> float:
        """Return the cores that others used since :meth:`begin`."""
        moment, busy, own = time.monotonic(), _busy_seconds(), cpu_seconds(self._family())
        others = (busy - self._began[1]) - (own - self._began[2])
        return max(0.0, others / (moment - self._began[0]))

    def wait_until_quiet(self) -> None:
        """Return once others use little CPU, or once patience is used up."""
        while self._patience > 0:
            self.begin()
            time.sleep(_WINDOW_SECONDS)
            if self.end() < DISTURBED_CORES:
                return
            self._patience -= _WINDOW_SECONDS

    def _family(self) -> frozenset[int]:
        return with_descendants(pid for pid in pids() if pid == os.getpid() or self._mark in command_line(pid))


def with_descendants(roots: Iterable[int]) -> frozenset[int]:
    """Return processes, their children, and theirs."""
    found = frozenset(roots)
    return found.union(*(descendants(pid) for pid in found))


def _busy_seconds() -> float:
    fields = (PROC / "stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    return sum(int(fields[index]) for index in _BUSY) / _TICKS


def cpu_seconds(family: frozenset[int]) -> float:
    """Return the CPU that processes and those of their children that ended used until now, in seconds.

    A process that ended meanwhile is in its parent's time then, and the parent is in the family.
    """
    total = 0
    for pid in family:
        try:
            fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        total += sum(int(value) for value in fields[_TIMES])
    return total / _TICKS
