# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire for an image whose top layer changed, against the size of that layer as the engine compresses it.

That is what a push sends of it: gzip, as in every registry. Stored it is smaller, zstd; the ratio to that is noted.
"""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.contestants import OURS
from benchmarks.figures import Goal, Measure, figure_of
from benchmarks.generations import Kind
from benchmarks.series import KINDS, is_small, series_of

_ALLOWANCE_BYTES = 64 * 1024


class Wire:
    """See the module."""

    name = "wire"
    about = "bytes on the wire beyond 64 KiB, both directions, as a part of the new layers' compressed size"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio for each kind of change and each way to fetch."""
        return tuple(_measure(bench, kind, way) for kind in KINDS for way in OURS if way in KINDS[kind])


def _measure(bench: Bench, kind: Kind, way: str) -> Measure:
    series = series_of(bench, kind)
    runs = series.later(way)
    beyond = [max(0.0, run.details["wire_bytes"] - _ALLOWANCE_BYTES) for run in runs]
    compressed = [run.details["received_bytes"] for run in series.later("push")]
    stored = median(run.details["wire_bytes"] / run.details["new_bytes"] for run in runs)
    return figure_of(
        f"wire {way}, {kind.name}",
        runs,
        [part / whole for part, whole in zip(beyond, compressed, strict=True)],
        unit="x",
        goal=Goal(target=1.1, floor=1.1, upward=False) if is_small(kind) else None,
        of="wire_bytes",
        note=f"all bytes on the wire are {stored:.2f} times what the new layers take in storage, at zstd -3",
    )
