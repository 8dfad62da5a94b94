"""Draw the plots of the documentation from the tables of docs/results.md. `python docs/plots.py`.

They are SVGs with a transparent background and grey text, which can be read on light and on dark pages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fruitgan.measures.statistics import wilson

FOLDER = Path(__file__).parent
INK, GRID, FRUIT, PLAIN = "#808080", "#80808040", "#e8702a", "#6f93c4"


@dataclass(frozen=True)
class Share:
    """Of n images a share in per cent."""

    label: str
    percent: float
    n: int
    colour: str = PLAIN

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson interval, in per cent."""
        low, high = wilson(round(self.percent * self.n / 100), self.n)
        return 100 * low, 100 * high


def percent(heading: str, *cells: str) -> float:
    """The first percentage in the row of a section's tables that begins with these cells.

    Raises:
        LookupError: docs/results.md has no such row.
    """
    page = (FOLDER / "results.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", page.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    for line in section.splitlines():
        if line.replace("*", "").startswith("".join(f"| {cell} " for cell in cells) + "|"):
            return float(re.findall(r"([\d.]+)%", line)[0])
    raise LookupError(f"docs/results.md, {heading}: no row {cells}")


def bars(axes: Axes, title: str, shares: Sequence[Share], guess: float | None = None) -> None:
    """Horizontal bars with their intervals and numbers; `guess` is where a line says what guessing would give."""
    for place, share in enumerate(reversed(shares)):
        low, high = share.interval
        axes.barh(place, share.percent, height=0.62, color=share.colour)
        axes.plot([low, high], [place, place], color=INK, linewidth=2)
        axes.text(high + 2, place, f"{share.percent:.1f}%", color=INK, va="center")
    axes.set_yticks(range(len(shares)), [share.label for share in reversed(shares)], color=INK)
    axes.set_title(title, color=INK, loc="left", fontsize=11)
    axes.set_xlim(0, 115)
    axes.set_xticks(range(0, 101, 25), [f"{tick}%" for tick in range(0, 101, 25)], color=INK)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if guess is not None:
        axes.axvline(guess, color=INK, linewidth=1, linestyle="dashed")


def save(figure: Figure, name: str) -> None:
    figure.savefig(FOLDER / name, transparent=True, bbox_inches="tight", metadata={"Date": None})


def measured_fruit() -> None:
    """What the bundle that ships does: how its pictures read, and how often they are recognised."""
    ships, detectors = "## The bundle that ships", "## By today's detectors"
    read = [
        Share("test apples, untouched", percent(ships, "apples, untouched"), 133),
        Share("oranges made of them", percent(ships, "oranges made of apples"), 133, FRUIT),
        Share("real test oranges", percent(ships, "real test oranges"), 111),
    ]
    names = {
        "`efficientnet-lite1`": "EfficientNet-Lite1, frozen",
        "`npr`": "neighbouring pixels",
        "`spectrum`": "power spectrum",
    }
    told = [Share("strongest of each fold", percent(detectors, "the strongest of each fold"), 222, FRUIT)]
    told += [Share(label, percent(detectors, name), 222) for name, label in names.items()]
    figure = Figure(figsize=(6.4, 5.2))
    upper, lower = figure.subplots(2, 1, height_ratios=[len(read), len(told)])
    bars(upper, "read as an orange", read)
    bars(lower, "classified correctly as real or generated (dashed: guessing)", told, guess=50)
    figure.tight_layout(h_pad=2)
    save(figure, "measured-fruit.svg")


def one_set_four_numbers() -> None:
    """The lab report's number and ours on one set of images, by detector and protocol."""
    heading = "## The lab report, replayed on real photographs"
    shares = [
        Share("lab report (its own fakes)", 100 * 330 / 360, 360, INK),
        Share("its network, its protocol", percent(heading, "`seed-cnn`", "the report's (`seed`)"), 360),
        Share("its network, grouped", percent(heading, "`seed-cnn`", "`grouped`"), 360),
        Share("power spectrum, grouped", percent(heading, "`spectrum`", "`grouped`"), 360),
        Share("small-cnn, grouped", percent(heading, "`small-cnn`", "`grouped`"), 360, FRUIT),
    ]
    figure = Figure(figsize=(6.4, 2.9))
    bars(figure.subplots(), "classified correctly (dashed: guessing)", shares, guess=50)
    save(figure, "one-set-four-numbers.svg")


if __name__ == "__main__":
    matplotlib.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "fruitgan", "font.family": "sans-serif", "font.size": 10}
    )
    measured_fruit()
    one_set_four_numbers()
