# SPDX-License-Identifier: Apache-2.0
"""An image whose top layer changed, fetched by push, against ``ssh HOST 'docker save IMAGE | zstd -3' > FILE``."""

from __future__ import annotations

from benchmarks.bench import Bench, BenchError
from benchmarks.figures import Goal, Measure, ratio_of
from benchmarks.generations import DEPLOYED, Kind
from benchmarks.series import series_of

_MOST_SPOOLED_BYTES = 1_000_000


class Push:
    """See the module."""

    name = "push"
    about = "an image whose top layer changed, by push, against `ssh host 'docker save X | zstd -3' > file`"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio of wall times, Python's start included."""
        return (_measure(bench, DEPLOYED),)


def _measure(bench: Bench, kind: Kind) -> Measure:
    series = series_of(bench, kind)
    spooled = max(run.details["host_written_bytes"] for run in series.later("push"))
    if spooled > _MOST_SPOOLED_BYTES:
        raise BenchError(f"{kind.name}: the host's daemon wrote {spooled:.0f} bytes to disk while it pushed")
    return ratio_of("push", series.rounds("push", "by hand"), goal=Goal(target=5.0, floor=5.0), note=kind.about)
