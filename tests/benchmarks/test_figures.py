# SPDX-License-Identifier: Apache-2.0
"""Figures are medians of what ran side by side, and verdicts follow from goals."""

from __future__ import annotations

import pytest

from benchmarks.figures import Goal, Round, Run, Series, figure_of, medians, quietest, ratio_of


def run(seconds: float, *, others: float = 0.0, **details: float) -> Run:
    """Return a run."""
    return Run(seconds=seconds, details=details, others_cores=others)


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    """Not the ratio of the medians: rounds that were slow for both sides count like any other."""
    rounds = [
        Round(ours=run(1.0), theirs=run(4.0)),
        Round(ours=run(10.0), theirs=run(50.0)),
        Round(ours=run(2.0), theirs=run(12.0, others=1.0)),
    ]
    measure = ratio_of("x", rounds, goal=Goal(target=5.0, floor=4.0))
    assert (measure.value, measure.low, measure.high, measure.verdict) == (5.0, 4.0, 6.0, "met")
    assert (measure.rounds, measure.disturbed) == (3, 1)


@pytest.mark.parametrize(
    ("value", "upward", "verdict"),
    [(2.0, True, "met"), (1.5, True, "near"), (0.9, True, "missed"), (2.0, False, "met"), (2.1, False, "missed")],
)
def test_a_verdict_is_by_target_and_floor_in_the_goals_direction(value: float, upward: bool, verdict: str) -> None:
    """Near is what misses the target but not the floor."""
    goal = Goal(target=2.0, floor=1.0 if upward else 2.0, upward=upward)
    assert goal.verdict(value) == verdict


def test_a_figure_without_a_goal_has_no_verdict() -> None:
    """It is shown all the same."""
    measure = figure_of("x", [run(1.0), run(3.0)], [5.0, 7.0], unit="kB", goal=None)
    assert (measure.value, measure.verdict) == (6.0, "no target")


def test_medians_are_by_side_and_figure_with_the_range_of_seconds() -> None:
    """A figure that only some runs have is the median of those."""
    found = medians({"ours": [run(1.0, wire_bytes=10.0), run(2.0), run(6.0, wire_bytes=30.0)]})
    assert found == {"ours_seconds": 2.0, "ours_low": 1.0, "ours_high": 6.0, "ours_wire_bytes": 20.0}


def test_the_quietest_rounds_are_chosen_whatever_they_took() -> None:
    """Else the suite would choose the rounds that it likes."""
    rounds = [
        Round(ours=run(1.0, others=load), theirs=run(ratio)) for load, ratio in ((0.9, 9.0), (0.1, 1.0), (0.2, 2.0))
    ]
    assert [each.ratio for each in quietest(rounds, count=2)] == [1.0, 2.0]


def test_a_series_is_compared_from_the_second_generation_on() -> None:
    """The first fills the repositories."""
    runs = {"push": [run(9.0), run(1.0), run(2.0)], "by hand": [run(9.0), run(8.0), run(8.0, stored_bytes=24.0)]}
    series = Series(kind="code", about="", runs=runs)
    assert [each.ratio for each in series.rounds("push", "by hand")] == [8.0, 4.0]
    assert series.stored_bytes("by hand") == 24.0
