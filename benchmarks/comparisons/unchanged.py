# SPDX-License-Identifier: Apache-2.0
"""An image found unchanged and confirmed against reading it once more: ``ssh HOST 'docker save IMAGE' | cat``.

In layout ``layers`` also alone: its time, its bytes on the wire, and that the engine neither saved nor pushed anything.
"""

from __future__ import annotations

import time

from benchmarks.bench import Bench, BenchError, remove
from benchmarks.figures import Goal, Measure, Run, figure_of, ratio_of
from benchmarks.runner import interleave, repeat

_KILOBYTE = 1000
_SECONDS = Goal(target=1.0, floor=1.0, upward=False)
# Key exchange, login, and what the engine says of itself and of the image: no byte of a layer.
_WIRE = Goal(target=64.0, floor=64.0, upward=False)


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
        runs = _in_layers(bench)
        wire = [run.details["wire_bytes"] / _KILOBYTE for run in runs]
        return (
            ratio_of(self.name, rounds, goal=Goal(target=12.0, floor=12.0)),
            figure_of("unchanged layers", runs, [run.seconds for run in runs], unit="s", goal=_SECONDS),
            figure_of("unchanged layers, wire", runs, wire, unit="kB", goal=_WIRE, of="wire_bytes"),
        )


def _in_layers(bench: Bench) -> list[Run]:
    repository = bench.repository()
    arguments = ("--image", bench.image, "--repository", str(repository), "--layout", "layers")
    try:
        bench.ours("save", *arguments)
        since = time.time()
        runs = repeat(bench, lambda: bench.ours("save", *arguments, "--expect", "unchanged"))
        if bench.engine_events(since, "save", "push"):
            raise BenchError("the engine saved or pushed an image that was unchanged")
    finally:
        remove(repository)
    return runs
