# SPDX-License-Identifier: Apache-2.0
"""The first backup of an image into layout ``layers`` against ``ssh HOST 'docker save IMAGE | zstd -3' > FILE``."""

from __future__ import annotations

import shlex

from benchmarks.bench import Bench, remove
from benchmarks.figures import Goal, Measure, Run, ratio_of
from benchmarks.runner import interleave


class First:
    """See the module."""

    name = "first"
    about = "first backup into layout layers against `ssh host 'docker save X | zstd -3' > file && sync file`"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio of wall times, Python's start included."""
        rounds = interleave(bench, ours=lambda: _ours(bench), theirs=lambda: _by_hand(bench))
        return (ratio_of(self.name, rounds, goal=Goal(target=1.0, floor=1.0)),)


def _ours(bench: Bench) -> Run:
    repository = bench.repository()
    try:
        return bench.ours("save", "--image", bench.image, "--repository", str(repository), "--layout", "layers")
    finally:
        remove(repository)


def _by_hand(bench: Bench) -> Run:
    path = bench.fresh("by-hand")
    file = shlex.quote(str(path))
    try:
        return bench.shell(f"{bench.ssh} {bench.save_compressed(bench.image)} > {file} && sync {file}")
    finally:
        remove(path)
