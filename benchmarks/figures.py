# SPDX-License-Identifier: Apache-2.0
"""Figures and the statistics behind them; all of the suite's arithmetic is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, TypedDict

DISTURBED_CORES = 0.35
"""CPU of other jobs, in cores, above which a run counts as disturbed."""

Unit = Literal["x", "MB", "kB", "s", "ms"]
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
class Series:
    """What each contestant took to back up one generation of an image after the other.

    :param kind: how the generations differ.
    :param about: the same in a few words.
    :param runs: of each contestant, by its name, one run a generation; ``stored_bytes`` among a run's details is the
        size of all that it stores by then.
    """

    kind: str
    about: str
    runs: Mapping[str, Sequence[Run]]

    def later(self, contestant: str) -> Sequence[Run]:
        """Return the runs of the second and all later generations."""
        return self.runs[contestant][1:]

    def rounds(self, ours: str, theirs: str) -> list[Round]:
        """Return what two contestants took for the second and all later generations, generation by generation."""
        pairs = zip(self.later(ours), self.later(theirs), strict=True)
        return [Round(ours=one, theirs=other) for one, other in pairs]

    def stored_bytes(self, contestant: str) -> float:
        """Return the size of all that a contestant stores in the end."""
        return self.runs[contestant][-1].details["stored_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One line of the result.

    :param name: of the comparison, and of the case where it has several.
    :param value: the figure; of several rounds the median.
    :param low: smallest of the rounds.
    :param high: largest of the rounds.
    :param unit: ``x`` for a ratio, ``MB`` for 10^6 bytes, ``kB`` for 10^3, ``s`` for seconds,
        ``ms`` for 10^-3.
    :param details: medians of what each side took, by name with unit.
    :param of: which of those figures is compared.
    :param rounds: how many rounds the figure is from.
    :param disturbed: in how many of them other jobs used more than :data:`DISTURBED_CORES`.
    :param others_cores: CPU that other jobs used, median of the rounds, in cores.
    :param note: what a reader must know.
    :param comparison: the comparison's own name.
    :param measured_at: UTC, ISO 8601.
    :param commit: of this project.
    """

    name: str
    value: float
    low: float
    high: float
    unit: Unit
    goal: Goal | None
    details: Mapping[str, float]
    rounds: int
    disturbed: int
    others_cores: float
    of: str = "seconds"
    note: str = ""
    comparison: str = ""
    measured_at: str = ""
    commit: str = ""

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
    return Measure(
        name=name,
        **spread([each.ratio for each in rounds]),
        unit="x",
        goal=goal,
        details=medians({"ours": [each.ours for each in rounds], "theirs": [each.theirs for each in rounds]}),
        rounds=len(rounds),
        disturbed=sum(each.others_cores > DISTURBED_CORES for each in rounds),
        others_cores=median(each.others_cores for each in rounds),
        note=note,
    )


def figure_of(
    name: str,
    runs: Sequence[Run],
    values: Sequence[float],
    *,
    unit: Unit,
    goal: Goal | None,
    of: str = "seconds",
    note: str = "",
) -> Measure:
    """Return the median of a figure of our own runs.

    :param values: the figure, one a run.
    :param of: which of the runs' details it is made from.
    """
    return Measure(
        name=name,
        **spread(values),
        unit=unit,
        goal=goal,
        details=medians({"ours": runs}),
        rounds=len(runs),
        disturbed=sum(each.others_cores > DISTURBED_CORES for each in runs),
        others_cores=median(each.others_cores for each in runs),
        of=of,
        note=note,
    )


class Spread(TypedDict):
    """Median and range of some values."""

    value: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, smallest and largest."""
    return Spread(value=median(values), low=min(values), high=max(values))


def medians(sides: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    """Return the median of each figure of each side, ``<side>_<figure>``, and the range of its seconds."""
    found: dict[str, float] = {}
    for side, runs in sides.items():
        seconds = [run.seconds for run in runs]
        found |= {f"{side}_seconds": median(seconds), f"{side}_low": min(seconds), f"{side}_high": max(seconds)}
        for key in sorted(set[str]().union(*(run.details for run in runs))):
            found[f"{side}_{key}"] = median(run.details[key] for run in runs if key in run.details)
    return found
