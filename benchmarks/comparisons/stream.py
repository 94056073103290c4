# SPDX-License-Identifier: Apache-2.0
"""The bare stream of a file in the page cache against ``ssh HOST cat FILE > /dev/null``."""

from __future__ import annotations

import os
import shlex

from benchmarks.bench import Bench, remove
from benchmarks.figures import Goal, Measure, ratio_of
from benchmarks.runner import interleave

_MEGABYTE = 1_000_000


class Stream:
    """See the module."""

    name = "stream"
    about = "bare stream of a file over SSH, nothing done with it, against `ssh host cat file > /dev/null`"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio of wall times, Python's start included."""
        path = bench.fresh("file")
        size = bench.options.size_mb * _MEGABYTE
        command = f"cat {shlex.quote(str(path))}"
        with path.open("wb") as file:
            piece = os.urandom(_MEGABYTE)
            for _ in range(bench.options.size_mb):
                file.write(piece)
        try:
            rounds = interleave(
                bench,
                ours=lambda: bench.ours("stream", "--command", command, "--size-bytes", str(size)),
                theirs=lambda: bench.shell(f"{bench.ssh} {shlex.quote(command)} > /dev/null"),
            )
        finally:
            remove(path)
        return (ratio_of(self.name, rounds, goal=Goal(target=1.25, floor=1.25)),)
