# SPDX-License-Identifier: Apache-2.0
"""Line and bar charts as plain SVG, legible on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Final

_WIDTH: Final = 760
_TOP: Final = 64
_BOTTOM: Final = 44
_PLOT_HEIGHT: Final = 300
_LEFT: Final = 60
_LABELS: Final = 150
_BAR: Final = 20
_GAP: Final = 8
_GROUP_GAP: Final = 26
_LINE_HEIGHT: Final = 15
_TICKS: Final = 5
# Told apart also by those who see few colours, on white and on near black alike.
_COLOURS: Final = ("#0b84c6", "#d9480f", "#2b9348", "#9c5fd6", "#b58900", "#c2366b", "#4f7a8b", "#8a6d5a")
_STYLE: Final = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .quiet { fill: #59636e; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
  .page { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .page { fill: #0d1117; }
  }
"""


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each of at most eight names, so that all charts of a result show them alike."""
    return dict(zip(names, _COLOURS, strict=False))


def line_chart(
    lines: Mapping[str, Sequence[float]], *, colours: Mapping[str, str], title: str, about: str, across: str
) -> str:
    """Return a chart of one line a name, all over 1, 2, 3 …; the vertical axis begins at the smallest sensible tick.

    :param lines: of equal length, at least two points each.
    :param colours: by name, see :func:`colours_of`.
    :param title: what is shown, with the unit.
    :param about: one more sentence.
    :param across: name of the horizontal axis.
    """
    points = max(len(values) for values in lines.values())
    ticks = _ticks(min(map(min, lines.values())), max(map(max, lines.values())))
    bottom, top = ticks[0], ticks[-1]
    right = _WIDTH - _LABELS

    def x(index: int) -> float:
        return _LEFT + index * (right - _LEFT) / max(1, points - 1)

    def y(value: float) -> float:
        return _TOP + _PLOT_HEIGHT * (top - value) / (top - bottom)

    parts = [_grid_line(y(tick), tick, right) for tick in ticks]
    parts += [_text(x(index), _TOP + _PLOT_HEIGHT + 18, str(index + 1), anchor="middle") for index in range(points)]
    parts.append(_text((_LEFT + right) / 2, _TOP + _PLOT_HEIGHT + 36, across, anchor="middle", kind="quiet"))
    places = _apart({name: y(values[-1]) for name, values in lines.items()})
    for name, values in lines.items():
        colour = colours[name]
        path = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(values))
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        parts.append(_text(right + 8, places[name] + 4, name, colour=colour))
    return _page(_TOP + _PLOT_HEIGHT + _BOTTOM, parts, title=title, about=about)


def bar_chart(groups: Mapping[str, Mapping[str, float]], *, colours: Mapping[str, str], title: str, about: str) -> str:
    """Return a chart of one horizontal bar a name, in groups with a heading each; an empty heading is left out.

    :param groups: by heading.
    :param colours: by name, see :func:`colours_of`.
    :param title: what is shown, with the unit.
    :param about: one more sentence.
    """
    largest = max(value for bars in groups.values() for value in bars.values()) or 1.0
    left, right = _LABELS, _WIDTH - 90
    parts: list[str] = []
    at = _TOP
    for heading, bars in groups.items():
        if heading:
            parts.append(_text(12, at + 12, heading, kind="quiet"))
            at += _GROUP_GAP
        for name, value in bars.items():
            width = max(1.0, (right - left) * value / largest)
            parts.append(_text(left - 8, at + 14, name, anchor="end"))
            parts.append(
                f'<rect x="{left}" y="{at}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{colours[name]}"/>'
            )
            parts.append(_text(left + width + 6, at + 14, _number(value)))
            at += _BAR + _GAP
        at += _GAP
    return _page(at + _GAP, parts, title=title, about=about)


def _ticks(smallest: float, largest: float) -> list[float]:
    """Return round numbers that span the values, from zero unless all of them lie close together."""
    low = smallest if smallest > largest / 2 else 0.0
    step = _round_step((largest - low or 1.0) / _TICKS)
    first, last = math.floor(low / step), math.ceil(largest / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _round_step(rough: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return float(next(factor for factor in (1, 2, 5, 10) if factor * magnitude >= rough) * magnitude)


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Move labels down until none covers another."""
    found = dict(sorted(places.items(), key=lambda item: item[1]))
    for above, below in pairwise(found):
        found[below] = max(found[below], found[above] + _LINE_HEIGHT)
    return found


def _grid_line(y: float, value: float, right: float) -> str:
    line = f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
    return line + _text(_LEFT - 8, y + 4, _number(value), anchor="end", kind="quiet")


def _number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", kind: str | None = None, colour: str | None = None
) -> str:
    """Return a text; a colour goes before the style sheet's."""
    look = (f' class="{kind}"' if kind else "") + (f' style="fill: {colour}"' if colour else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}>{escape(text)}</text>'


def _page(height: float, parts: Sequence[str], *, title: str, about: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
    )
    body = [f'<rect class="page" width="{_WIDTH}" height="{height:.0f}"/>', _text(12, 24, title, kind="title")]
    body += [_text(12, 44, about, kind="quiet"), *parts]
    return "\n".join([head, f"<style>{_STYLE}</style>", *body, "</svg>"]) + "\n"
