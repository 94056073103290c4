# SPDX-License-Identifier: Apache-2.0
"""Runs comparisons: both sides in turn, round by round, in quiet moments as far as there are any."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from benchmarks.bench import Bench
from benchmarks.figures import DISTURBED_CORES, Measure, Round, Run, quietest

Side = Callable[[], Run]
"""Does one run, cleans up after itself, and returns how long the run, not the cleaning, took."""


class Comparison(Protocol):
    """One file of :mod:`benchmarks.comparisons`."""

    name: str
    """For ``--only``."""
    about: str
    """What is compared with what, in one sentence."""

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the figures; what was written below ``bench.directory`` is removed again."""


def interleave(bench: Bench, *, ours: Side, theirs: Side) -> list[Round]:
    """Return as many rounds as were asked for, A B A B …, after those that are thrown away.

    When other jobs disturbed some, up to as many again are run, and the least disturbed of all are returned; unless
    there is no patience at all.
    """
    wanted = bench.options.rounds
    most = 2 * wanted if bench.options.patience_seconds > 0 else wanted
    for _ in range(bench.options.warm_up):
        _round(bench, ours, theirs)
    rounds: list[Round] = []
    while len(rounds) < wanted or (_quiet(rounds) < wanted and len(rounds) < most):
        rounds.append(_round(bench, ours, theirs))
        last = rounds[-1]
        print(
            f"  round {len(rounds)}: ours {last.ours.seconds:.2f} s, theirs {last.theirs.seconds:.2f} s, "
            f"{last.ratio:.2f}x, others used {last.others_cores:.2f} cores",
            flush=True,
        )
    return quietest(rounds, count=wanted)


def repeat(bench: Bench, side: Side) -> list[Run]:
    """Return as many runs as rounds were asked for, after those that are thrown away."""
    for _ in range(bench.options.warm_up):
        one_run(bench, side)
    return [one_run(bench, side) for _ in range(bench.options.rounds)]


def one_run(bench: Bench, side: Side) -> Run:
    """Return one run, begun with the disk at rest and in a quiet moment if one came."""
    os.sync()
    bench.load.wait_until_quiet()
    bench.load.begin()
    run = side()
    return replace(run, others_cores=bench.load.end())


def _round(bench: Bench, ours: Side, theirs: Side) -> Round:
    return Round(ours=one_run(bench, ours), theirs=one_run(bench, theirs))


def _quiet(rounds: list[Round]) -> int:
    return sum(each.others_cores <= DISTURBED_CORES for each in rounds)
