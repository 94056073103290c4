# SPDX-License-Identifier: Apache-2.0
"""Garbage collection of a large repository on local disk, in a process of its own."""

from __future__ import annotations

from benchmarks.bench import Bench, BenchError, remove
from benchmarks.corpus import blob_names, fill
from benchmarks.figures import Goal, Measure, Run, figure_of
from benchmarks.runner import one_run

_GOAL = Goal(target=60.0, floor=60.0, upward=False)


class Gc:
    """See the module."""

    name = "gc"
    about = "garbage collection of many blobs, a tenth of them garbage, and a fifth as many records"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return its wall time, Python's start included; of a run that only plans, too."""
        plan, whole = _collect(bench)
        about = f"{bench.options.blobs} blobs, {bench.options.blobs // 5} records"
        return (
            figure_of("gc dry run", [plan], [plan.seconds], unit="s", goal=_GOAL, note=about),
            figure_of("gc", [whole], [whole.seconds], unit="s", goal=_GOAL, note=about),
        )


def _collect(bench: Bench) -> tuple[Run, Run]:
    repository = bench.repository()
    where = ("--repository", str(repository))
    try:
        bench.ours("create", *where)
        corpus = fill(repository, blobs=bench.options.blobs)
        before = set(blob_names(repository))
        plan = one_run(bench, lambda: bench.ours("gc", *where, "--dry-run"))
        if set(blob_names(repository)) != before:
            raise BenchError("a dry run of garbage collection changed blobs")
        whole = one_run(bench, lambda: bench.ours("gc", *where))
        if before - set(blob_names(repository)) != corpus.garbage:
            raise BenchError("garbage collection did not remove exactly the garbage")
    finally:
        remove(repository)
    print(f"  dry run {plan.seconds:.1f} s, whole {whole.seconds:.1f} s", flush=True)
    return plan, whole
