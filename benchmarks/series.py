# SPDX-License-Identifier: Apache-2.0
"""Generations of an image, each backed up by all contestants in turn; run once, read by several comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.bench import Bench, remove
from benchmarks.contestants import CONTESTANTS, PROGRAMS, Contestant
from benchmarks.figures import Run, Series
from benchmarks.generations import CODE, DATABASE, DEPLOYED, Kind, generation
from benchmarks.runner import one_run
from tests.lab.install import ensure_programs

_ALL: Final = tuple(CONTESTANTS)
_SOME: Final = ("push", "restic", "borg", "skopeo")
KINDS: Final[Mapping[Kind, Sequence[str]]] = {DEPLOYED: _ALL, CODE: _SOME, DATABASE: _SOME}
"""The kinds of change, each with who takes part."""
_LARGEST_SMALL_SHARE: Final = 0.05


def series_of(bench: Bench, kind: Kind) -> Series:
    """Return the series of a kind of change, measured when first asked for."""
    if kind.name not in bench.series:
        bench.series[kind.name] = _measure(bench, kind)
    return bench.series[kind.name]


def is_small(kind: Kind) -> bool:
    """Tell whether goals that are set for small changes hold for a kind."""
    return kind.share <= _LARGEST_SMALL_SHARE


def _measure(bench: Bench, kind: Kind) -> Series:
    ensure_programs(PROGRAMS)
    before = set(bench.directory.iterdir())
    try:
        contestants = {name: CONTESTANTS[name](bench) for name in KINDS[kind]}
        runs: dict[str, list[Run]] = {name: [] for name in contestants}
        for number in range(1, _generations(bench, kind) + 1):
            image = generation(bench.host.daemon, kind, number, size_mb=bench.options.size_mb)
            for name in _in_turn(list(contestants), number):
                runs[name].append(_one(bench, contestants[name], image))
            print(f"  {kind.name} {number}: {_told(runs)}", flush=True)
    finally:
        for path in set(bench.directory.iterdir()) - before:
            remove(path)
    return Series(kind=kind.name, about=kind.about, runs=runs)


def _generations(bench: Bench, kind: Kind) -> int:
    wanted = bench.options.generations
    return wanted if kind is DEPLOYED else max(2, wanted // 2)


def _one(bench: Bench, contestant: Contestant, image: str) -> Run:
    return one_run(bench, lambda: contestant.back_up(image))


def _in_turn(names: list[str], number: int) -> list[str]:
    """Who comes first changes: the first to read a new image finds less of it in memory than the others."""
    first = number % len(names)
    return names[first:] + names[:first]


def _told(runs: Mapping[str, Sequence[Run]]) -> str:
    return ", ".join(f"{name} {each[-1].seconds:.2f} s" for name, each in runs.items())
