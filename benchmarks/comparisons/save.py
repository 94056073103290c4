# SPDX-License-Identifier: Apache-2.0
"""A whole save, uncompressed, against ``ssh HOST docker save IMAGE > FILE && sync FILE``."""

from __future__ import annotations

import shlex
from functools import partial

from benchmarks.bench import Bench, remove
from benchmarks.figures import Goal, Measure, Run, ratio_of
from benchmarks.runner import interleave


def save(bench: Bench, *, compression: str) -> Run:
    """Save the image into a new repository on the local disk, and remove that."""
    repository = bench.repository()
    try:
        return bench.ours("save", "--image", bench.image, "--repository", str(repository), "--compression", compression)
    finally:
        remove(repository)


def pipe(bench: Bench, *, through: str) -> Run:
    """Save the image by hand into a new file, which is synced, and remove that.

    :param through: part of the pipe between ``ssh`` and the file; empty for none.
    """
    path = bench.fresh("by-hand")
    file = shlex.quote(str(path))
    try:
        return bench.shell(f"{bench.ssh} docker save {bench.image} {through} > {file} && sync {file}")
    finally:
        remove(path)


class Save:
    """See the module."""

    name = "save"
    about = "save of an image, uncompressed, against `ssh host docker save X > file && sync file`"

    def measure(self, bench: Bench) -> tuple[Measure, ...]:
        """Return the ratio of wall times, Python's start included."""
        rounds = interleave(
            bench, ours=partial(save, bench, compression="none"), theirs=partial(pipe, bench, through="")
        )
        return (ratio_of(self.name, rounds, goal=Goal(target=1.0, floor=0.9)),)
