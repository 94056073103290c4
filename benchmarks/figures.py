# SPDX-License-Identifier: Apache-2.0
"""Figures and the statistics behind them; all of the suite's arithmetic is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

DISTURBED_CORES = 0.35
"""CPU of other jobs, in cores, above which a run counts as disturbed."""

Verdict = Literal["met", "near", "missed", "no target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one side.

    :param seconds: what is compared.
    :param details: other figures of the run, by name with unit, such as ``start_seconds``.
    :param others_cores: CPU that jobs other than this suite's used meanwhile, kernel threads included, in cores.
    """

    seconds: float
    details: Mapping[str, float] = field(default_factory=dict)
    others_cores: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One run of each side, one right after the other."""

    ours: Run
    theirs: Run

    @property
    def ratio(self) -> float:
        """How many times faster ours was."""
        return self.theirs.seconds / self.ours.seconds

    @property
    def others_cores(self) -> float:
        """CPU that other jobs used during the busier of the two runs, in cores."""
        return max(self.ours.others_cores, self.theirs.others_cores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a figure should be.

    :param target: the value aimed at.
    :param floor: the value that is still borne.
    :param upward: whether more is better.
    """

    target: float
    floor: float
    upward: bool = True

    def verdict(self, value: float) -> Verdict:
        """Return what to think of a value."""
        sign = 1 if self.upward else -1
        if sign * value >= sign * self.target:
            return "met"
        return "near" if sign * value >= sign * self.floor else "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of the result.

    :param name: of the comparison, and of the case where it has several.
    :param value: the figure; of several rounds the median.
    :param low: smallest of the rounds.
    :param high: largest of the rounds.
    :param unit: ``x`` for a ratio, ``MB`` for 10^6 bytes.
    :param details: medians of what each side took, by name with unit.
    :param rounds: how many rounds the figure is from.
    :param disturbed: in how many of them other jobs used more than :data:`DISTURBED_CORES`.
    :param others_cores: CPU that other jobs used, median of the rounds, in cores.
    :param note: what a reader must know.
    """

    name: str
    value: float
    low: float
    high: float
    unit: Literal["x", "MB"]
    goal: Goal | None
    details: Mapping[str, float]
    rounds: int
    disturbed: int
    others_cores: float
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """What to think of the figure."""
        return "no target" if self.goal is None else self.goal.verdict(self.value)


def quietest(rounds: Sequence[Round], *, count: int) -> list[Round]:
    """Return the ``count`` rounds that other jobs disturbed least, in their order; times play no part in the choice."""
    ranked = sorted(range(len(rounds)), key=lambda index: rounds[index].others_cores)[:count]
    return [rounds[index] for index in sorted(ranked)]


def ratio_of(name: str, rounds: Sequence[Round], *, goal: Goal | None, note: str = "") -> Measure:
    """Return the median of the rounds' ratios, theirs to ours: each round compares what ran side by side."""
    ratios = [each.ratio for each in rounds]
    return Measure(
        name=name,
        value=median(ratios),
        low=min(ratios),
        high=max(ratios),
        unit="x",
        goal=goal,
        details=_medians(rounds),
        rounds=len(rounds),
        disturbed=sum(each.others_cores > DISTURBED_CORES for each in rounds),
        others_cores=median(each.others_cores for each in rounds),
        note=note,
    )


def _medians(rounds: Sequence[Round]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for each in rounds:
        for side, run in (("ours", each.ours), ("theirs", each.theirs)):
            for key, value in {"seconds": run.seconds, **run.details}.items():
                found.setdefault(f"{side}_{key}", []).append(value)
    return {key: median(values) for key, values in found.items()}
