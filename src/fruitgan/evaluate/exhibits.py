"""Exhibits of the report beside its numbers: pictures of each kind, the most and least convincing ones, spectra, and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup

from fruitgan import randomness
from fruitgan.data.labelled import LabelledImage
from fruitgan.evaluate.results import EvaluateResult
from fruitgan.evaluate.sources import Sources
from fruitgan.images import Pixels, resize
from fruitgan.measures.features import Pictures, extract
from fruitgan.measures.metrics.spectrum import FREQUENCIES, PowerSpectrum
from fruitgan.report.plots import Line, line_plot

GALLERY = 8
CONVINCING = 6
"""Pictures of each kind."""


@dataclass(frozen=True)
class Shown:
    """A generated image with the detector's logit and its pictures: its source and itself."""

    file: str
    logit: float
    pictures: Mapping[str, Pixels]


@dataclass(frozen=True, kw_only=True)
class Exhibits:
    """The pictures, and the lines of the spectra."""

    galleries: Mapping[str, Sequence[Pixels]]
    """Some of each kind, at random."""
    cards: Mapping[str, Sequence[Shown]]
    """By title: the most and the least convincing ones."""
    sides: Sequence[Mapping[str, Pixels]] = ()
    """Of a comparison, by kind: a source, if it is known, and what each generator made of it."""
    spectra: Mapping[str, Sequence[float]]
    """By kind, mean decibels at even frequencies up to 1/2 cycle a pixel."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A plot with its words; `legend` is of labels and numbers of colours."""

    title: str
    plot: Markup
    caption: str = ""
    legend: tuple[tuple[str, int], ...] = ()
    level: str = ""


def exhibits(
    result: EvaluateResult,
    fakes: Sequence[LabelledImage],
    reals: Sequence[LabelledImage],
    sources: Sources | None,
    read: Pictures,
    device: torch.device,
    rows: Sequence[Mapping[str, Path]] = (),
) -> Exhibits:
    """All pictures of the page, as they were judged; without a detector's answers, no picture is called convincing."""
    source_of: Mapping[Path, Path] = {}
    if sources is not None and sources.paired:
        source_of = {fake.path: source for fake, source in zip(fakes, sources.paths, strict=True)}
    logits = {image.file: image.logit for image in result.judged if image.generated}
    ranked = sorted((image for image in fakes if image.path.name in logits), key=lambda image: logits[image.path.name])
    half = min(CONVINCING, len(ranked) // 2)

    def beside_source(made: Mapping[str, Path]) -> Mapping[str, Pixels]:
        pictures = {name: read(path) for name, path in made.items()}
        first = next(iter(made))
        height, width = pictures[first].shape[:2]
        if (source := source_of.get(made[first])) is not None:
            pictures = {"source": read(source)} | pictures
        return {name: resize(pixels, height, width) for name, pixels in pictures.items()}

    def shown(image: LabelledImage) -> Shown:
        fake = read(image.path)
        pictures = {"generated": fake}
        if image.path in source_of:
            pictures = {"source": resize(read(source_of[image.path]), *fake.shape[:2])} | pictures
        return Shown(image.path.name, logits[image.path.name], pictures)

    return Exhibits(
        galleries={"generated": _gallery(fakes, result.seed, read), "real": _gallery(reals, result.seed, read)},
        cards={
            "Most convincing": [shown(image) for image in ranked[:half]],
            "Least convincing": [shown(image) for image in ranked[::-1][:half]],
        },
        sides=[beside_source(row) for row in rows],
        spectra={"generated": _spectrum(fakes, read, device), "real": _spectrum(reals, read, device)},
    )


def _gallery(images: Sequence[LabelledImage], seed: int, read: Pictures) -> tuple[Pixels, ...]:
    order = randomness.permutation(seed, 0, len(images), "evaluate/gallery")
    return tuple(read(images[i].path) for i in sorted(order[:GALLERY]))


def _spectrum(images: Sequence[LabelledImage], read: Pictures, device: torch.device) -> tuple[float, ...]:
    """Mean decibels at each frequency."""
    values = extract(PowerSpectrum(), [image.path for image in images], device, read=read).values
    return tuple(float(value) for value in values[:, :FREQUENCIES].mean(0))


def detector_panels(result: Mapping[str, Any]) -> list[Panel]:
    """ROC and reliability of the detector."""
    detector = result["detector"]
    if detector is None:
        return []
    true = detector["roc"]
    low, high = detector["auc_interval"]
    area = f"{detector['auc']:.3f} (95% interval {low:.3f} to {high:.3f})"
    bins, error = detector["calibration"]["bins"], f"{detector['calibration']['error']:.3f}"
    observed = Line(x=[entry["predicted"] for entry in bins], y=[entry["observed"] for entry in bins], colour=1)
    whiskers = [Line(x=(entry["predicted"],) * 2, y=tuple(entry["interval"]), colour=1, style="raw") for entry in bins]
    return [
        _unit_panel(
            "roc",
            "Every threshold (ROC)",
            [Line(x=list(np.linspace(0, 1, len(true))), y=true, colour=1)],
            (detector["name"], "a coin"),
            f"ROC curve of {detector['name']}; the area below it is {area}.",
            "share of the real images taken for generated",
            f"Up: share of the generated images that is found, mean over the folds. The area below the curve, AUC, is {area}; "
            "a coin's is 0.5.",
        ),
        _unit_panel(
            "reliability",
            "Reliability of its probabilities",
            [observed, *whiskers],
            ("observed", "as it should be"),
            f"Share that is generated over the detector's probability; expected calibration error {error}.",
            "the detector's probability of being generated",
            "Up: share of such images that is generated, with 95% intervals. On the dashed line the probabilities are true; "
            f"the mean distance from it (expected calibration error) is {error}.",
        ),
    ]


def _unit_panel(
    name: str, title: str, lines: Sequence[Line], labels: tuple[str, str], description: str, x_label: str, caption: str
) -> Panel:
    """A plot of shares over shares with its diagonal; `labels` are of the first line and of the diagonal."""
    diagonal = Line(x=(0.0, 1.0), y=(0.0, 1.0), colour=3, style="dashed")
    plot = line_plot(name, [*lines, diagonal], description=description, x_end=1.0, y_end=1.02, x_label=x_label, x_whole=False)
    return Panel(title=title, plot=plot, caption=caption, legend=((labels[0], 1), (labels[1], 3)))


def spectrum_panel(spectra: Mapping[str, Sequence[float]]) -> Panel:
    """Mean power over frequency of generated and of real images."""
    values = np.array(list(spectra.values()))  # [2, F]
    frequencies = list(np.arange(1, values.shape[1] + 1) / (2 * values.shape[1]))
    margin = 0.05 * float(np.ptp(values) or 1.0)
    gap = float(np.ptp(values, axis=0).max())
    return Panel(
        title="Radial power spectrum",
        plot=line_plot(
            "spectra",
            [Line(x=frequencies, y=line, colour=colour) for colour, line in enumerate(spectra.values(), start=1)],
            description=f"Mean power in decibels over frequency, {' and '.join(spectra)}; at most {gap:.1f} dB apart.",
            x_end=0.5,
            y_start=float(values.min()) - margin,
            y_end=float(values.max()) + margin,
            x_label="frequency, cycles a pixel",
            x_whole=False,
        ),
        caption=f"Power of the brightness in dB, mean over directions and images, at most {gap:.1f} dB apart. Upsampling "
        "leaves peaks at 1/4 and 1/2; a fall-off on the right is missing fine texture.",
        legend=tuple((kind, colour) for colour, kind in enumerate(spectra, start=1)),
    )
