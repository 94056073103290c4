# SPDX-License-Identifier: Apache-2.0
"""The charts of a result: what each contestant took for one generation of an image after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final

from benchmarks.contestants import CONTESTANTS, STORING
from benchmarks.figures import Run, Series
from benchmarks.plots import bar_chart, colours_of, line_chart

_MEGABYTE: Final = 1_000_000
_BY_HAND: Final = "by hand"
_COLOURS: Final = colours_of(list(CONTESTANTS))


def charts(series: Iterable[Series]) -> dict[str, str]:
    """Return SVG documents by the stem of their file name; none without a series."""
    found = list(series)
    if not found:
        return {}
    first = found[0]
    return {
        "time": _time(first),
        "stored": _stored(first),
        "wire": _wire(first),
        "growth": _growth(found),
    }


def _time(series: Series) -> str:
    return line_chart(
        {name: [run.seconds for run in runs] for name, runs in series.runs.items()},
        colours=_COLOURS,
        title="Seconds to back up each generation of an image",
        about=f"Each generation: {series.about}.",
        across="generation",
    )


def _stored(series: Series) -> str:
    by_hand = series.stored_bytes(_BY_HAND) / _MEGABYTE
    names = [name for name in STORING if name in series.runs and name != _BY_HAND]
    return line_chart(
        {name: _details(series.runs[name], "stored_bytes") for name in names},
        colours=_COLOURS,
        title="Megabytes stored, all generations so far together",
        about=f"Left out: one zstd-compressed file a generation, {by_hand:.0f} MB in the end.",
        across="generation",
    )


def _wire(series: Series) -> str:
    bars = {name: median(_details(series.later(name), "wire_bytes")) for name in series.runs if name in STORING}
    return bar_chart(
        {"": bars},
        colours=_COLOURS,
        title="Megabytes on the wire for each further generation (median)",
        about=f"Each generation: {series.about}.",
    )


def _growth(found: Sequence[Series]) -> str:
    return bar_chart(
        {each.about: _growth_of(each) for each in found},
        colours=_COLOURS,
        title="Megabytes by which storage grows with each further generation (mean)",
        about="By what each generation changes.",
    )


def _growth_of(series: Series) -> Mapping[str, float]:
    names = [name for name in STORING if name in series.runs and name != _BY_HAND]
    return {name: _mean_growth(_details(series.runs[name], "stored_bytes")) for name in names}


def _mean_growth(stored: Sequence[float]) -> float:
    return (stored[-1] - stored[0]) / max(1, len(stored) - 1)


def _details(runs: Sequence[Run], key: str) -> list[float]:
    return [run.details[key] / _MEGABYTE for run in runs]
