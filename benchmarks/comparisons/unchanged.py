# SPDX-License-Identifier: Apache-2.0
"""An image found unchanged and confirmed against reading it once more: ``ssh HOST 'docker save IMAGE' | cat``."""

from __future__ import annotations

from benchmarks.bench import Bench, remove
from benchmarks.figures import Goal, Measure, ratio_of
from benchmarks.runner import interleave


class Unchanged:
    """See the module."""

    name = "unchanged"
    about = "confirmation of an unchanged image against `ssh host 'docker save X' | cat > /dev/null`"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio of wall times, Python's start included."""
        repository = bench.repository()
        arguments = ("--image", bench.image, "--repository", str(repository))
        try:
            bench.ours("save", *arguments)
            rounds = interleave(
                bench,
                ours=lambda: bench.ours("save", *arguments, "--expect", "unchanged"),
                theirs=lambda: bench.shell(f"{bench.ssh} 'docker save {bench.image}' | cat > /dev/null"),
            )
        finally:
            remove(repository)
        return (ratio_of(self.name, rounds, goal=Goal(target=12.0, floor=12.0)),)
