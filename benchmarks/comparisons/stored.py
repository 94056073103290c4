# SPDX-License-Identifier: Apache-2.0
"""What all generations of an image take in storage together, against each tool that stores equal parts once."""

from __future__ import annotations

from typing import Final

from benchmarks.bench import Bench
from benchmarks.figures import DISTURBED_CORES, Goal, Measure, Series, medians
from benchmarks.generations import Kind
from benchmarks.series import KINDS, is_small, series_of

_PEERS: Final = ("restic", "borg", "borg zstd", "skopeo")
_GOAL: Final = Goal(target=1.0, floor=1.0)


class Stored:
    """See the module."""

    name = "stored"
    about = "bytes stored for all generations, theirs to ours, against restic, borg and skopeo at their defaults"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio for each kind of change and each peer."""
        return tuple(
            _measure(series_of(bench, kind), kind, peer) for kind in KINDS for peer in _PEERS if peer in KINDS[kind]
        )


def _measure(series: Series, kind: Kind, peer: str) -> Measure:
    ours, theirs = series.later("push"), series.later(peer)
    ratio = series.stored_bytes(peer) / series.stored_bytes("push")
    others = [run.others_cores for run in (*ours, *theirs)]
    return Measure(
        name=f"stored {kind.name}, {peer}",
        value=ratio,
        low=ratio,
        high=ratio,
        unit="x",
        goal=_GOAL if is_small(kind) else None,
        details=medians({"ours": ours[-1:], "theirs": theirs[-1:]}),
        rounds=1,
        disturbed=sum(each > DISTURBED_CORES for each in others),
        others_cores=max(others),
        of="stored_bytes",
    )
