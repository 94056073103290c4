# SPDX-License-Identifier: Apache-2.0
"""A whole save, compressed, against ``ssh HOST docker save IMAGE | zstd -3 > FILE && sync FILE``."""

from __future__ import annotations

import shlex
from functools import partial

from benchmarks.bench import Bench
from benchmarks.comparisons.save import pipe, save
from benchmarks.figures import Goal, Measure, ratio_of
from benchmarks.runner import interleave
from tests.lab.install import require_program


class Zstd:
    """See the module."""

    name = "zstd"
    about = "save of an image with zstd level 3 against `ssh host docker save X | zstd -3 > file && sync file`"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio of wall times, Python's start included."""
        by_hand = f"| {shlex.quote(str(require_program('zstd')))} -q -3"
        rounds = interleave(
            bench, ours=partial(save, bench, compression="zstd"), theirs=partial(pipe, bench, through=by_hand)
        )
        return (ratio_of(self.name, rounds, goal=Goal(target=1.0, floor=0.9)),)
