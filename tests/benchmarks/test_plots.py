# SPDX-License-Identifier: Apache-2.0
"""Charts are well-formed SVG in which no label covers another, legible on a dark page too."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

from benchmarks.plots import bar_chart, colours_of, line_chart

_SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[ElementTree.Element]:
    """Return the texts of a chart."""
    return ElementTree.fromstring(svg).findall(f"{_SVG}text")  # noqa: S314 - our own


def test_a_line_chart_has_a_line_and_a_label_for_each_name() -> None:
    """Labels of lines that end at one place are moved apart."""
    lines = {"one & two": [1.0, 2.0, 3.0], "three": [2.0, 2.0, 3.0], "four": [0.0, 9.0, 3.01]}
    svg = line_chart(lines, colours=colours_of(list(lines)), title="t", about="a", across="generation")
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own
    assert len(root.findall(f"{_SVG}polyline")) == 3
    labels = sorted(float(text.get("y", "")) for text in texts(svg) if text.text in lines)
    assert all(below - above >= 14 for above, below in pairwise(labels))
    assert "prefers-color-scheme: dark" in svg


def test_a_line_chart_of_values_close_together_does_not_begin_at_zero() -> None:
    """Else what differs could not be seen."""
    chart = {"colours": colours_of(["a"]), "title": "t", "about": "a", "across": "n"}
    ticks = {text.text for text in texts(line_chart({"a": [250.0, 300.0]}, **chart))}  # type: ignore[arg-type]
    assert "0" not in ticks
    assert "0" in {text.text for text in texts(line_chart({"a": [10.0, 300.0]}, **chart))}  # type: ignore[arg-type]


def test_bars_are_as_long_as_their_values() -> None:
    """In all groups by the same measure."""
    groups = {"x": {"a": 10.0, "b": 5.0}, "y": {"a": 2.5}}
    svg = bar_chart(groups, colours=colours_of(["a", "b"]), title="t", about="a")
    bars = [bar for bar in ElementTree.fromstring(svg).findall(f"{_SVG}rect") if bar.get("rx")]  # noqa: S314 - our own
    widths = [float(bar.get("width", "")) for bar in bars]
    assert widths[0] == 2 * widths[1] == 4 * widths[2]
    assert bars[0].get("fill") == bars[2].get("fill") != bars[1].get("fill")
