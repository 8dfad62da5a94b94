"""Exhibits of the report beside its numbers: pictures of each kind, the most and least convincing ones, spectra, and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from fruitgan import randomness
from fruitgan.bundle import Card, load, locate, weights_sha256
from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage
from fruitgan.engines.contracts import Engine, engines
from fruitgan.engines.padding import translate_pixels
from fruitgan.errors import FruitganError
from fruitgan.evaluate.results import EvaluateResult
from fruitgan.evaluate.sources import Sources, dataset_card
from fruitgan.evaluate.wording import Row, figure
from fruitgan.images import Pixels, resize
from fruitgan.measures.features import extract
from fruitgan.measures.metrics.spectrum import FREQUENCIES, PowerSpectrum
from fruitgan.report.plots import Line, line_plot
from fruitgan.train_detector.calibration import roc_points

GALLERY = 8
CONVINCING = 6
"""Pictures of each kind."""
KINDS = ("surest", "missed")
"""Of saliency pictures: generated images that the detector recognised, and those that it took for real."""
BACK = {"a2b": "b2a", "b2a": "a2b"}
WIDTH_PX, HEIGHT_PX, MARGIN_PX = 300, 84, 12


@dataclass(frozen=True)
class Shown:
    """A generated image with the detector's logit and its pictures by their words: its source, itself, its way back."""

    file: str
    logit: float
    pictures: Mapping[str, Pixels]


@dataclass(frozen=True, kw_only=True)
class Exhibits:
    """The pictures, and the lines of the spectra."""

    galleries: Mapping[str, Sequence[Pixels]]
    """Some of each kind, at random."""
    cards: Mapping[str, Sequence[Shown]] = field(default_factory=dict)
    """By title: the most and the least convincing ones, and where the detector looked."""
    spectra: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By kind, mean decibels at even frequencies up to 1/2 cycle a pixel."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A plot with its words; `legend` is of labels and numbers of colours."""

    title: str
    plot: Markup
    caption: str = ""
    legend: tuple[tuple[str, int], ...] = ()
    level: str | None = None


def exhibits(
    result: EvaluateResult,
    fakes: Sequence[LabelledImage],
    reals: Sequence[LabelledImage],
    sources: Sources | None,
    device: torch.device,
) -> Exhibits:
    """All pictures of the page; without a detector's answers, no picture is called convincing."""
    source_of: Mapping[Path, Path] = {}
    if sources is not None and sources.paired:
        source_of = {fake.path: source for fake, source in zip(fakes, sources.paths, strict=True)}
    logits = {image.file: image.logit for image in result.judged if image.generated}
    ranked = sorted((image for image in fakes if image.path.name in logits), key=lambda image: logits[image.path.name])
    half = min(CONVINCING, len(ranked) // 2)
    way_back = _way_back(result.fake_dir, device)

    def shown(image: LabelledImage) -> Shown:
        fake = decode(image.path).pixels
        pictures = {"generated": fake}
        if image.path in source_of:
            pictures = {"source": resize(decode(source_of[image.path]).pixels, *fake.shape[:2])} | pictures
        if way_back is not None:
            with suppress(FruitganError):
                pictures["cycled"] = translate_pixels(*way_back, fake, "native")
        return Shown(image.path.name, logits[image.path.name], pictures)

    cards = {"Most convincing": ranked[:half], "Least convincing": ranked[::-1][:half]}
    looked = {f"Where the detector looked: {kind}": [s for s in result.saliency if s.kind == kind] for kind in KINDS}
    return Exhibits(
        galleries={"generated": _gallery(fakes, result.seed), "real": _gallery(reals, result.seed)},
        cards={
            **{title: [shown(image) for image in images] for title, images in cards.items()},
            **{
                title: [Shown(s.file, s.logit, {"saliency": decode(result.out / s.picture).pixels}) for s in found]
                for title, found in looked.items()
            },
        },
        spectra={"generated": _spectrum(fakes, device), "real": _spectrum(reals, device)},
    )


def _gallery(images: Sequence[LabelledImage], seed: int) -> tuple[Pixels, ...]:
    order = randomness.permutation(seed, 0, len(images), "evaluate/gallery")
    return tuple(decode(images[i].path).pixels for i in sorted(order[:GALLERY]))


def _spectrum(images: Sequence[LabelledImage], device: torch.device) -> tuple[float, ...]:
    """Mean decibels at each frequency."""
    values = extract(PowerSpectrum(), [image.path for image in images], device).values
    return tuple(float(value) for value in values[:, :FREQUENCIES].mean(0))


def _way_back(fake_dir: Path, device: torch.device) -> tuple[Engine, Card] | None:
    """The generator of the other direction, if the very bundle that made the pictures can be had."""
    try:
        made_by = dataset_card(fake_dir)
        name = made_by["bundle"]["name"]
        if Path(name).name != name:
            return None  # a stranger's file names no places
        bundle = load(locate(name))
        if weights_sha256(bundle) != made_by["bundle"]["weights_sha256"]:
            return None
        weights = bundle.weights[BACK[made_by["settings"]["direction"]]]
        engine = engines.get("torch")(generator=bundle.card.generator, weights=weights, gpu=None, device=str(device))
        return engine, bundle.card
    except (OSError, ValueError, LookupError, TypeError, FruitganError):
        return None  # no dataset of export-dataset, or its bundle is not here: the page does without


def detector_panels(result: Mapping[str, Any]) -> list[Panel]:
    """ROC, precision over recall, and reliability, from the detector's logits of the test images."""
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
        title="Every threshold (ROC)",
        plot=_unit_plot(
            "roc",
            [Line(x=false, y=true, colour=1), Line(x=(0.0, 1.0), y=(0.0, 1.0), colour=3, style="dashed")],
            f"ROC curve of {detector['name']}; the area below it is {area}.",
            "share of the real images taken for generated",
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
        plot=_unit_plot(
            "precision",
            [Line(x=recall, y=precision, colour=1)],
            f"Precision over recall of {detector['name']}; average precision {area}.",
            "share of the generated images that is found",
            level=share,
        ),
        caption=f"Up: of the images called generated, the share that is. Average precision, the area below, is {area}; "
        f"calling everything generated gives {share:.2f}.",
        legend=((detector["name"], 1),),
        level="share of generated images",
    )


def precision_points(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """For every threshold from the highest to the lowest: recall, and precision at it."""
    called = [logits >= level for level in np.unique(logits)[::-1]]
    recall = [float(generated[said].sum() / generated.sum()) for said in called]
    precision = [float(generated[said].mean()) for said in called]
    return [0.0, *recall], [precision[0], *precision]


def _reliability(detector: Mapping[str, Any]) -> Panel:
    bins = detector["calibration"]["bins"]
    error = detector["calibration"]["error"]
    lines = [
        Line(x=[entry["predicted"] for entry in bins], y=[entry["observed"] for entry in bins], colour=1),
        Line(x=(0.0, 1.0), y=(0.0, 1.0), colour=3, style="dashed"),
        *(Line(x=(entry["predicted"],) * 2, y=tuple(entry["interval"]), colour=1, style="raw") for entry in bins),
    ]
    return Panel(
        title="Reliability of its probabilities",
        plot=_unit_plot(
            "reliability",
            lines,
            f"Share that is generated over the detector's probability; expected calibration error {error:.3f}.",
            "the detector's probability of being generated",
        ),
        caption=f"Up: share of such images that is generated, with 95% intervals. On the dashed line the probabilities are "
        f"true; the mean distance from it (expected calibration error) is {error:.3f}.",
        legend=(("observed", 1), ("as it should be", 3)),
    )


def _unit_plot(name: str, lines: Sequence[Line], description: str, x_label: str, level: float | None = None) -> Markup:
    """A plot of shares over shares."""
    return line_plot(name, lines, description=description, x_end=1.0, y_end=1.02, level=level, x_label=x_label, x_whole=False)


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
