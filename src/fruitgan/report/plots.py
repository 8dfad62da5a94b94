"""Line plots as inline SVG that takes its colours and its font from the page, and is the same bytes for the same numbers.

No text of a user gets into a plot: legends and captions are the page's, which escapes them.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from fruitgan.report.page import visible

Style = Literal["raw", "strong", "dashed"]

WIDTH_PX, HEIGHT_PX = 440, 210
MARGINS_PX = {"left": 46, "right": 14, "top": 12, "bottom": 36}
FONT_PX = 12
POINTS_AT_MOST = 600
NICE_STEPS = [1, 2, 2.5, 5, 10]

# Stand-ins that matplotlib writes and the page's custom properties replace. The lines' colours are --line-1 and so on.
_INK, _FAINT = "#010101", "#020202"
_LINES = ("#030303", "#040404", "#050505")
_COLOURS = {_INK: "--plot-ink", _FAINT: "--plot-grid"} | {c: f"--line-{i}" for i, c in enumerate(_LINES, 1)}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line; `colour` is 1, 2 or 3."""

    x: Sequence[float]
    y: Sequence[float]
    colour: int
    style: Style = "strong"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A plot with its words; `legend` is of labels and numbers of colours, `level` names the dotted line."""

    title: str
    plot: Markup
    caption: str = ""
    legend: Sequence[tuple[str, int]] = ()
    level: str = ""


def line_plot(
    name: str,
    lines: Sequence[Line],
    *,
    description: str,
    x_end: float,
    y_start: float | None = None,
    y_end: float | None = None,
    level: float | None = None,
    x_label: str = "step",
    x_whole: bool = True,
) -> Markup:
    """The plot over training steps, or what `x_label` says, from 0 to `x_end`, as an SVG element.

    Args:
        name: unlike that of any other plot of the page: ids are made of it.
        description: what a screen reader says.
        y_start: lower end, where neither 0 nor the smallest value should decide.
        y_end: upper end, where the largest value should not decide; lines are cut there.
        level: where a dotted horizontal goes.
        x_whole: whether x counts something; else its ends and ticks may be fractions.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a person's matplotlibrc must not change a report
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": FONT_PX, "path.simplify": True})
        figure = Figure(figsize=(WIDTH_PX / 72, HEIGHT_PX / 72), dpi=72)
        axes = figure.add_axes(
            (
                MARGINS_PX["left"] / WIDTH_PX,
                MARGINS_PX["bottom"] / HEIGHT_PX,
                1 - (MARGINS_PX["left"] + MARGINS_PX["right"]) / WIDTH_PX,
                1 - (MARGINS_PX["top"] + MARGINS_PX["bottom"]) / HEIGHT_PX,
            )
        )
        for line in lines:
            _draw(axes, line)
        _frame(axes, lines, level, (y_start, y_end))
        axes.set_xlim(0, max(1.0, x_end) if x_whole else x_end)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=x_whole, steps=NICE_STEPS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if x_whole else f"{value:g}"))
        axes.set_xlabel(x_label, color=_INK, labelpad=3)
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"), None)
        )
    return _inline(buffer.getvalue(), name, description)


def _draw(axes: Axes, line: Line) -> None:
    colour = _LINES[line.colour - 1]
    if len(line.x) == 1:
        axes.plot(line.x, line.y, color=colour, marker="o", markersize=4, clip_on=False)
        return
    x, y = thinned(np.asarray(line.x, float), np.asarray(line.y, float))
    if line.style == "raw":
        axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.4)
    else:
        axes.plot(x, y, color=colour, linewidth=1.8, linestyle="-" if line.style == "strong" else (0, (3, 1.6)))


def _frame(axes: Axes, lines: Sequence[Line], level: float | None, ends: tuple[float | None, float | None]) -> None:
    values = [value for line in lines for value in line.y]
    top = ends[1] if ends[1] is not None else 1.08 * max(values, default=0.0)
    bottom = ends[0] if ends[0] is not None else min(0.0, min(values, default=0.0))
    axes.set_ylim(bottom, top if top > bottom else bottom + 1)
    if level is not None:
        axes.axhline(level, color=_INK, linewidth=1.2, linestyle=(0, (1, 2)))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=NICE_STEPS))
    power = min(0, math.floor(math.log10(axes.get_ylim()[1]))) if axes.get_ylim()[1] > 0 else 0
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, power)))
    axes.tick_params(length=0, pad=5, labelcolor=_INK)
    axes.grid(axis="y", color=_FAINT, linewidth=1)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_FAINT)


def _tick(value: float, power: int) -> str:
    """`0.05`, or `1.5e-4` where the axis is as small as that."""
    return f"{value:.6g}" if power > -3 or not value else f"{value / 10.0**power:.6g}e{power}"


def _inline(svg: str, name: str, description: str) -> Markup:
    """Matplotlib's document as an element of a page: ids of its own, colours and font from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)  # it would style the whole page
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for colour, variable in _COLOURS.items():
        svg = svg.replace(colour, f"var({variable})")
    head = f'<svg class="plot" role="img" aria-label="{escape(visible(description))}" viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}">'
    return Markup(head + svg[svg.index(">") + 1 :])


def smoothed(y: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Mean over `reach` values to either side, fewer at the ends; it does not lag behind."""
    window = np.ones(2 * reach + 1)
    means = np.convolve(y, window) / np.convolve(np.ones_like(y), window)
    return np.asarray(means[reach : reach + len(y)])


def thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most about POINTS_AT_MOST points that look the same: of each run of neighbours the lowest and the highest."""
    if len(x) <= POINTS_AT_MOST:
        return x, y
    keep: set[int] = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), POINTS_AT_MOST // 2):
        keep |= {int(part[np.argmin(y[part])]), int(part[np.argmax(y[part])])}
    chosen = sorted(keep)
    return x[chosen], y[chosen]
