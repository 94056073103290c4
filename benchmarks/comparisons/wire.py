# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire for an image whose top layer changed, against the size of that layer as it is stored."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.contestants import OURS
from benchmarks.figures import Goal, Measure, Run, figure_of
from benchmarks.generations import Kind
from benchmarks.series import KINDS, is_small, series_of

_ALLOWANCE_BYTES = 64 * 1024


class Wire:
    """See the module."""

    name = "wire"
    about = "bytes on the wire beyond 64 KiB, both directions, as a part of the new layers' size at zstd -3"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio for each kind of change and each way to fetch."""
        return tuple(_measure(bench, kind, way) for kind in KINDS for way in OURS)


def _measure(bench: Bench, kind: Kind, way: str) -> Measure:
    runs = series_of(bench, kind).later(way)
    goal = Goal(target=1.1, floor=1.1, upward=False) if is_small(kind) else None
    return figure_of(f"wire {way}, {kind.name}", runs, [_beyond(run) for run in runs], unit="x", goal=goal)


def _beyond(run: Run) -> float:
    return max(0.0, run.details["wire_bytes"] - _ALLOWANCE_BYTES) / run.details["new_bytes"]
