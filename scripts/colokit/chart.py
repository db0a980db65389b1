# SPDX-License-Identifier: GPL-2.0-or-later
"""Grouped bars as SVG, readable on light and on dark ground.

Each panel has a scale of its own.  The last series is what limits the others: it is drawn hollow,
and where it towers over them its bar is cut off, and its label has the number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence
from xml.sax.saxutils import escape

WIDTH = 760
MARGIN = 16
TITLE_HEIGHT = 58       # the title and the legend
PANEL_HEIGHT = 176
PANEL_TOP = 44          # of it, above the longest bar
PANEL_BOTTOM = 28       # of it, below the bars
SIDE = 110              # where the panels' titles are
BAR_GAP = 6
TOWERING = 2.5          # how far above the others the last series may rise before it is cut off
CUT_AT = 1.15           # where it is cut off then

STYLE = """
  text { font: 12px sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: bold; }
  .panel { font-size: 13px; font-weight: bold; }
  .value { font-size: 11px; text-anchor: middle; }
  .group { text-anchor: middle; }
  .axis { stroke: #8c959f; stroke-width: 1; }
  .spread { stroke: #24292f; stroke-width: 1.2; }
  .cut { stroke: #8c959f; stroke-width: 1.5; stroke-dasharray: 3 3; }
  .s0 { fill: #8c959f; }
  .s1 { fill: #bf8700; }
  .s2 { fill: #2f81f7; }
  .s3 { fill: #8250df; }
  .last { fill: none; stroke: #8c959f; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .spread { stroke: #e6edf3; }
  }
"""
SERIES_MAX = 5          # classes .s0 to .s3, and .last for what the others are held against


def _class(place: int, order: Sequence[str]) -> str:
    return "last" if place == len(order) - 1 else f"s{place}"


@dataclass(frozen=True)
class Panel:
    """Groups of bars: (label, [(series, median, least, greatest)])."""

    title: str
    groups: Sequence[tuple[str, Sequence[tuple[str, float, float, float]]]]


def short(value: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("M", 1e6), ("k", 1e3), ("", 1.0)):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{max(0, 2 - (scaled >= 10) - (scaled >= 100))}f} {unit}".strip()
    return f"{value:.2f}"


def _bar(at: float, width: float, base: float, scale: float, top: float, style: str,
         bar: tuple[str, float, float, float]) -> list[str]:
    _, median, least, greatest = bar
    left, right, middle = (f"{x:.1f}" for x in (at, at + width, at + width / 2))
    peak = base - min(median, top) * scale
    drawn = [f'<path class="{style}" d="M{left} {base:.1f}V{peak:.1f}{"M" if median > top else "L"}{right} {peak:.1f}'
             f'V{base:.1f}"/>']
    label = peak - 6
    if median > top:
        drawn.append(f'<path class="cut" d="M{left} {peak:.1f}v-12M{right} {peak:.1f}v-12"/>')
        label -= 8
    else:
        high = base - min(greatest, top * CUT_AT) * scale
        drawn.append(f'<path class="spread" d="M{middle} {base - least * scale:.1f}V{high:.1f}"/>')
        label = min(label, high - 4)
    drawn.append(f'<text class="value" x="{middle}" y="{label:.1f}">{short(median)}</text>')
    return drawn


def _panel(panel: Panel, order: Sequence[str], y: float) -> list[str]:
    base = y + PANEL_HEIGHT - PANEL_BOTTOM
    bars = [bar for _, group in panel.groups for bar in group]
    rest = max(bar[1] for bar in bars if bar[0] != order[-1])
    top = max(bar[1] for bar in bars)
    if top > rest * TOWERING:
        top = rest * CUT_AT
    scale = (PANEL_HEIGHT - PANEL_TOP - PANEL_BOTTOM) / top
    group_width = (WIDTH - SIDE - MARGIN) / len(panel.groups)
    bar_width = (group_width * 0.86) / len(order) - BAR_GAP

    drawn = [f'<text class="panel" x="{MARGIN}" y="{(y + base) / 2 + 14:.1f}">{escape(panel.title)}</text>']
    for number, (label, group) in enumerate(panel.groups):
        left = SIDE + number * group_width
        for bar in group:
            place = order.index(bar[0])
            drawn += _bar(left + place * (bar_width + BAR_GAP), bar_width, base, scale, top, _class(place, order), bar)
        middle = left + (bar_width + BAR_GAP) * len(order) / 2
        drawn.append(f'<text class="group" x="{middle:.1f}" y="{base + 17:.1f}">{escape(label)}</text>')
    drawn.append(f'<line class="axis" x1="{SIDE - 6}" x2="{WIDTH - MARGIN}" y1="{base}" y2="{base}"/>')
    return drawn


def grouped_bars(title: str, panels: Sequence[Panel], order: Sequence[str]) -> str:
    """The whole picture; `order` names the series from left to right."""
    assert len(order) <= SERIES_MAX
    height = TITLE_HEIGHT + PANEL_HEIGHT * len(panels) + MARGIN
    drawn = [f'<text class="title" x="{MARGIN}" y="24">{escape(title)}</text>']
    at = SIDE
    for place, name in enumerate(order):
        drawn.append(f'<rect class="{_class(place, order)}" x="{at}" y="38" width="12" height="12"/>')
        drawn.append(f'<text x="{at + 18}" y="48">{escape(name)}</text>')
        at += 44 + 7 * len(name)
    for number, panel in enumerate(panels):
        drawn += _panel(panel, order, TITLE_HEIGHT + number * PANEL_HEIGHT)
    lines = "\n".join(f"  {element}" for element in drawn)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img">\n  <title>{escape(title)}</title>\n'
            f"  <style>{STYLE}  </style>\n{lines}\n</svg>\n")
