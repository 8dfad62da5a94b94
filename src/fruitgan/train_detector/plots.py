"""A detector's plots as files of their own, with their legends in them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

COLOURS = ("#c2540a", "#1f66a8")
DPI = 120


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot and its words; `lines` are (label, x, y), two at most."""

    name: str
    title: str
    caption: str
    x_label: str
    lines: tuple[tuple[str, Sequence[float], Sequence[float]], ...]
    x_end: float
    y_end: float | None = None

    @property
    def legend(self) -> list[tuple[str, int]]:
        """Label and the number of the colour."""
        return [(label, colour) for colour, (label, _, _) in enumerate(self.lines, start=1)]


def plot_png(plot: Plot) -> bytes:
    """The plot with its title and legend as a PNG file."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a person's matplotlibrc must not change a report
        figure = Figure(figsize=(5.6, 3.4), dpi=DPI)
        axes = figure.add_axes((0.11, 0.15, 0.86, 0.76))
        for (label, x, y), colour in zip(plot.lines, COLOURS, strict=False):
            axes.plot(x, y, color=colour, label=label, marker="o" if len(x) == 1 else "")
        axes.set_title(plot.title)
        axes.set_xlabel(plot.x_label)
        axes.set_ylim(bottom=0, top=plot.y_end)
        axes.legend(frameon=False)
        return _png(figure)


def confusion_png(counts: Mapping[str, int]) -> bytes:
    """The confusion matrix as a PNG file."""
    classes = ("generated", "real")
    matrix = np.array([[counts[f"{truth}_as_{answer}"] for answer in classes] for truth in classes])
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(3.8, 3.4), dpi=DPI)
        axes = figure.add_axes((0.25, 0.16, 0.72, 0.8))
        axes.imshow(matrix, cmap="Oranges", vmin=0)
        for row in range(2):
            for column in range(2):
                dark = matrix[row, column] > 0.6 * matrix.max()
                colour = "white" if dark else "black"
                axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=colour, fontsize=14)
        axes.set_xticks(range(2), classes)
        axes.set_yticks(range(2), classes)
        axes.set_xlabel("taken for")
        axes.set_ylabel("is", rotation=0)
        return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})  # else the version of matplotlib is in the file
    return buffer.getvalue()
