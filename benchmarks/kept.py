# SPDX-License-Identifier: Apache-2.0
"""Results of an earlier run, so that a later one can add to them or replace some."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.figures import Goal, Measure, Run, Series


def earlier(files: Path) -> tuple[list[Measure], dict[str, Series]]:
    """Return the measures and the series, by kind, that a run wrote; none when there is no such file.

    :param files: where it wrote, up to the suffix.
    """
    path = files.with_suffix(".json")
    if not path.exists():
        return [], {}
    document = json.loads(path.read_text(encoding="utf-8"))
    series = [_series(each) for each in document["series"]]
    return [_measure(each) for each in document["measures"]], {each.kind: each for each in series}


def _measure(fields: dict[str, Any]) -> Measure:
    given = {name: value for name, value in fields.items() if name != "verdict"}
    goal = given.pop("goal")
    return Measure(**given, goal=None if goal is None else Goal(**goal))


def _series(fields: dict[str, Any]) -> Series:
    runs = {name: [Run(**run) for run in runs] for name, runs in fields["runs"].items()}
    return Series(kind=fields["kind"], about=fields["about"], runs=runs)
