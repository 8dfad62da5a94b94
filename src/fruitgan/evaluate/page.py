"""The report of an evaluation: one self-contained page with the verdict, numbers, pictures, and how to check and cite it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fruitgan import randomness
from fruitgan.data.labelled import LabelledImage
from fruitgan.evaluate import wording
from fruitgan.evaluate.results import EvaluateResult
from fruitgan.evaluate.sources import Subject, unique
from fruitgan.evaluate.wording import NumberRow
from fruitgan.images import Pixels, resize
from fruitgan.measures.metrics.own_features import FREQUENCIES, PowerSpectrum
from fruitgan.progress import duration
from fruitgan.report.page import inline_images, render
from fruitgan.report.plots import Line, Panel, line_plot

GALLERY = 8
CONVINCING = 6
"""Pictures of each kind."""
PICTURES_LIMIT_BYTES = 2_200_000
FOLDERS = ("fake_dir", "real_dir", "source_dir")


@dataclass(frozen=True, kw_only=True)
class Exhibits:
    """The pictures of the page, and the lines of the spectra."""

    galleries: Mapping[str, Sequence[Pixels]]
    """Some of each kind, at random."""
    cards: Mapping[str, Sequence[tuple[str, float, Mapping[str, Pixels]]]]
    """By title, the most and the least convincing ones: file, logit, and the pictures by kind, the source's first."""
    sides: Sequence[Mapping[str, Pixels]] = ()
    """Of a comparison, by kind: a source, if it is known, and what each generator made of it."""
    spectra: Mapping[str, Sequence[float]]
    """By kind, mean decibels at even frequencies up to 1/2 cycle a pixel."""


def exhibits(result: EvaluateResult, subject: Subject, rows: Sequence[Mapping[str, Path]] = ()) -> Exhibits:
    """All pictures of the page, as they were judged; without a detector's answers, no picture is called convincing."""
    sources, fakes, read = subject.sources, subject.fakes, subject.pictures
    source_of: Mapping[Path, Path] = {}
    if sources is not None and sources.paired:
        source_of = {fake.path: source for fake, source in zip(fakes, sources.paths, strict=True)}
    logits = unique((row["file"], row["logit"]) for row in result.judged if row["generated"])
    ranked = sorted((image for image in fakes if image.path.name in logits), key=lambda image: logits[image.path.name])
    half = min(CONVINCING, len(ranked) // 2)

    def beside_source(made: Mapping[str, Path]) -> Mapping[str, Pixels]:
        first = next(iter(made.values()))
        before = {"source": source_of[first]} if first in source_of else {}
        return {kind: resize(read(path), *read(first).shape[:2]) for kind, path in {**before, **made}.items()}

    def card(image: LabelledImage) -> tuple[str, float, Mapping[str, Pixels]]:
        return image.path.name, logits[image.path.name], beside_source({"generated": image.path})

    def gallery(images: Sequence[LabelledImage]) -> list[Pixels]:
        order = randomness.permutation(result.seed, 0, len(images), "evaluate/gallery")
        return [read(images[i].path) for i in sorted(order[:GALLERY])]

    kinds = {"generated": fakes, "real": subject.reals}
    return Exhibits(
        galleries={kind: gallery(images) for kind, images in kinds.items()},
        cards={
            "Most convincing": [card(image) for image in ranked[:half]],
            "Least convincing": [card(image) for image in ranked[::-1][:half]],
        },
        sides=[beside_source(row) for row in rows],
        spectra={kind: subject.features(PowerSpectrum(), kind).values[:, :FREQUENCIES].mean(0).tolist() for kind in kinds},
    )


def evaluation_report(result: Mapping[str, Any], shown: Exhibits) -> str:
    """The page as HTML text, of about 3 MB at most, from the result's JSON values."""
    result = without_places(result)
    rows = wording.number_rows(result)
    strips = [*(made for group in shown.cards.values() for *_, made in group), *shown.sides]
    pictures = [picture for strip in strips for picture in strip.values()]
    pictures += [picture for gallery in shown.galleries.values() for picture in gallery]
    # All alike, so that none looks worse for its encoding.
    uris = {id(picture): uri for picture, uri in zip(pictures, inline_images(pictures, PICTURES_LIMIT_BYTES), strict=True)}
    return render(
        "evaluation.html",
        result=result,
        words=wording,
        duration=duration,
        rows=rows,
        meanings=list(wording.meanings(rows).values()),
        curves=[*detector_panels(result), spectrum_panel(shown.spectra)],
        shown=shown,
        uri=lambda picture: uris[id(picture)],
        names=[*(each["first"] for each in result["compare"][:1]), *(each["run"] for each in result["compare"])],
        resizes={row.features: row.resize for row in rows},
        citation=citation(result, rows),
    )


def without_places(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with absolute folders shortened to their last two names, in every text: a page may be passed on."""
    folders = [Path(result[key]) for key in FOLDERS if result.get(key)]
    parents = {str(folder.parent.parent).rstrip("/\\") for folder in folders if folder.is_absolute()} - {""}
    prefixes = re.compile(
        "|".join(f"{re.escape(parent)}[/\\\\]" for parent in sorted(parents, key=len, reverse=True)) or "(?!)"
    )

    def shortened(value: Any) -> Any:
        if isinstance(value, str):
            return prefixes.sub("", value)
        if isinstance(value, Mapping):
            return {key: shortened(entry) for key, entry in value.items()}
        return [shortened(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    found: dict[str, Any] = shortened(result)
    return found


def citation(result: Mapping[str, Any], rows: Sequence[NumberRow]) -> str:
    """A sentence for a paper: no number without what it was measured with."""
    version = result["environment"]["packages"]["fruitgan"]
    parts = [f"{result['n_fake']:,} generated against {result['n_real']:,} real images"]
    if any(seen := (result["n_fake_training"], result["n_real_training"])):
        parts[0] += f", {seen[0]:,} and {seen[1]:,} of them of the training split"
    if detector := result["detector"]:
        tried = [row["name"] for row in result["detectors"]]
        chosen = f", the strongest in each fold by source image of {', '.join(tried)}," if len(tried) > 1 else ""
        parts.append(
            f"{wording.detector_name(result)}{chosen} has a test accuracy of {detector['accuracy']:.1%} (95% interval "
            f"{wording.percent_interval(detector['interval'])}, n = {detector['n']:,}, AUC {detector['auc']:.3f}, "
            f"p = {detector['p_value']:.2g})"
        )
    else:
        parts.append("no detector's number")
    for row in rows:
        if row.says_more:
            value, interval, floor = row.texts
            beside = f"; real against real {floor}" if floor else ""
            parts.append(f"{row.title} ({row.features} features) {value} ({interval}{beside})")
    return f"Evaluated with fruitgan {version} (evaluate, seed {result['seed']}): {'; '.join(parts)}."


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
            (wording.detector_name(result), "a coin"),
            f"ROC curve of {wording.detector_name(result)}; the area below it is {area}.",
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
            f"the mean distance from it within a fold (expected calibration error, too high where folds are small) is {error}.",
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
