"""The evaluation's plots: numbers with their intervals, what each threshold would give, reliability, and mean spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fruitgan.evaluate.wording import Row, figure
from fruitgan.report.plots import Line, line_plot
from fruitgan.train_detector.calibration import roc_points


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A plot with its words; `legend` is of labels and numbers of colours."""

    title: str
    plot: Markup
    caption: str
    legend: tuple[tuple[str, int], ...] = ()
    level: str | None = None


def detector_panels(result: Mapping[str, Any]) -> list[Panel]:
    """ROC, precision over recall, and reliability, from what the detector said of each judged image."""
    detector, judged = result["detector"], result["judged"]
    truth = np.array([image["generated"] for image in judged], dtype=bool)
    if detector is None or not truth.any() or truth.all():
        return []
    logits = np.array([image["logit"] for image in judged], dtype=np.float64)
    return [_roc(detector, logits, truth), _precision(detector, logits, truth), _reliability(detector)]


def _roc(detector: Mapping[str, Any], logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> Panel:
    false, true = roc_points(logits, truth)
    low, high = detector["auc_interval"]
    area = f"{detector['auc']:.3f} (95% interval {low:.3f} to {high:.3f})"
    return Panel(
        title="What each threshold would give (ROC)",
        plot=line_plot(
            "roc",
            [Line(x=false, y=true, colour=1), Line(x=(0.0, 1.0), y=(0.0, 1.0), colour=3, style="dashed")],
            description=f"ROC curve of {detector['name']}; the area below it is {area}.",
            x_end=1.0,
            y_end=1.02,
            x_label="share of the real images taken for generated",
            x_whole=False,
        ),
        caption=f"Up: share of the generated images that is found. The area below the curve, AUC, is {area}; a coin's is 0.5.",
        legend=((detector["name"], 1), ("a coin", 3)),
    )


def _precision(detector: Mapping[str, Any], logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> Panel:
    recall, precision = precision_points(logits, truth)
    share = float(truth.mean())
    area = f"{detector['average_precision']:.3f}"
    return Panel(
        title="Precision over recall",
        plot=line_plot(
            "precision",
            [Line(x=recall, y=precision, colour=1)],
            description=f"Precision over recall of {detector['name']}; average precision {area}.",
            x_end=1.0,
            y_end=1.02,
            level=share,
            x_label="share of the generated images that is found",
            x_whole=False,
        ),
        caption=f"Up: of the images called generated, the share that is. Average precision, the area below, is {area}; "
        f"calling everything generated gives {share:.2f}.",
        legend=((detector["name"], 1),),
        level="share of generated images",
    )


def precision_points(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """For every threshold from the highest to the lowest: recall, and precision at it."""
    levels = np.unique(logits)[::-1]
    called = [logits >= level for level in levels]
    recall = [float(generated[said].sum() / generated.sum()) for said in called]
    precision = [float(generated[said].mean()) for said in called]
    return [0.0, *recall], [precision[0], *precision]


def _reliability(detector: Mapping[str, Any]) -> Panel:
    bins = detector["calibration"]["bins"]
    error = detector["calibration"]["error"]
    said = [entry["predicted"] for entry in bins]
    lines = [
        Line(x=said, y=[entry["observed"] for entry in bins], colour=1),
        Line(x=(0.0, 1.0), y=(0.0, 1.0), colour=3, style="dashed"),
        *(Line(x=(entry["predicted"],) * 2, y=tuple(entry["interval"]), colour=1, style="raw") for entry in bins),
    ]
    return Panel(
        title="Can its certainty be trusted?",
        plot=line_plot(
            "reliability",
            lines,
            description=f"Share that is generated over the probability that was said; expected calibration error {error:.3f}.",
            x_end=1.0,
            y_end=1.02,
            x_label="probability of being generated, as said",
            x_whole=False,
        ),
        caption=f"Up: share of such images that is generated, with 95% intervals. On the dashed line certainty is earned; the "
        f"mean distance from it (expected calibration error) is {error:.3f}.",
        legend=(("observed", 1), ("as it should be", 3)),
    )


def spectrum_panel(spectra: Mapping[str, Sequence[float]]) -> Panel:
    """Mean power over frequency of each kind of images."""
    values = [value for line in spectra.values() for value in line]
    lines = [
        Line(x=list(np.arange(1, len(line) + 1) / (2 * len(line))), y=line, colour=colour)
        for colour, line in enumerate(spectra.values(), start=1)
    ]
    margin = 0.05 * (max(values) - min(values) or 1.0)
    gap = max((abs(a - b) for a, b in zip(*list(spectra.values())[:2], strict=True)), default=0.0)
    return Panel(
        title="Radial power spectrum",
        plot=line_plot(
            "spectra",
            lines,
            description=f"Mean power in decibels over frequency, {' and '.join(spectra)}; at most {gap:.1f} dB apart.",
            x_end=0.5,
            y_start=min(values) - margin,
            y_end=max(values) + margin,
            x_label="frequency, cycles a pixel",
            x_whole=False,
        ),
        caption=f"Power of the brightness in dB, mean over directions and images, at most {gap:.1f} dB apart. Upsampling "
        "leaves peaks at 1/4 and 1/2; a fall-off on the right is missing fine texture.",
        legend=tuple((kind, colour) for colour, kind in enumerate(spectra, start=1)),
    )


WIDTH_PX, HEIGHT_PX, MARGIN_PX = 300, 84, 12


def whisker(row: Row) -> Markup:
    """The value with its interval, over the band of the floor (or over 0 to 1, for R), as inline SVG."""
    low_band, high_band = (row.floor[1], row.floor[2]) if row.floor else (0.0, 1.0)
    start = min(0.0, row.low, low_band)
    end = max(row.high, high_band, start + 1e-9)
    width = WIDTH_PX - 2 * MARGIN_PX

    def x(value: float) -> str:
        return f"{MARGIN_PX + width * (value - start) / (end - start):.1f}"

    band = f"{max(2.0, float(x(high_band)) - float(x(low_band))):.1f}"
    marks = "".join(
        f'<text x="{x(value)}" y="76" text-anchor="{anchor}" font-size="11" fill="var(--plot-ink)">{figure(value)}</text>'
        for value, anchor in ((start, "start"), (end, "end"))
    )
    return Markup(
        f'<svg class="plot" role="img" aria-label="{figure(row.value)}, interval {figure(row.low)} to {figure(row.high)}" '
        f'viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}">'
        f'<rect x="{x(low_band)}" y="12" width="{band}" height="44" fill="var(--line-3)" opacity=".28"/>'
        f'<line x1="{MARGIN_PX}" x2="{WIDTH_PX - MARGIN_PX}" y1="60" y2="60" stroke="var(--plot-grid)"/>'
        f'<line x1="{x(0)}" x2="{x(0)}" y1="10" y2="60" stroke="var(--plot-ink)" stroke-dasharray="2 2"/>'
        f'<line x1="{x(row.low)}" x2="{x(row.high)}" y1="34" y2="34" stroke="var(--line-1)" stroke-width="3"/>'
        f'<circle cx="{x(row.value)}" cy="34" r="6" fill="var(--line-1)"/>{marks}</svg>'
    )
