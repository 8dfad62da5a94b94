"""The detector's report: one self-contained page with its numbers, what they mean, its curves and its mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruitgan.images import Pixels
from fruitgan.registry import Choice
from fruitgan.report.page import inline_images, number, render, thousands
from fruitgan.report.plots import Line, line_plot
from fruitgan.train_detector.calibration import roc_points
from fruitgan.train_detector.epochs import Round
from fruitgan.train_detector.fit import FitSettings
from fruitgan.train_detector.plots import Plot, confusion_png, plot_png

PICTURES_LIMIT_BYTES = 1_500_000

Rows = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the page is made of."""

    name: str
    result: Mapping[str, Any]
    """The job's result as JSON values."""
    detector: Choice
    augmentation: Choice
    rounds: Sequence[Round]
    logits: NDArray[np.float64]
    """[n] of the judged images, above 0 for generated."""
    generated: NDArray[np.bool_]
    """[n], the truth."""
    examples: Mapping[str, Sequence[Pixels]]
    """Judged pictures by what they are and were taken for."""
    settings: FitSettings
    environment: Mapping[str, Any]


def detector_report(report: Report) -> str:
    """The page as HTML text, of about 2 MB at most."""
    result = report.result
    return render(
        "detector.html",
        name=report.name,
        result=result,
        accuracy=percent(result["accuracy"]),
        interval=tuple(percent(end) for end in result["interval"]),
        right=result["confusion"]["generated_as_generated"] + result["confusion"]["real_as_real"],
        meanings=meanings(result),
        confusion=_confusion(result["confusion"]),
        parts=[
            (part["split"], thousands(part["n"]), percent(part["found"]), " to ".join(percent(end) for end in part["interval"]))
            for part in result["parts"]
        ],
        examples=_examples(report.examples),
        panels=[(plot, _drawn(plot)) for plot in _plots(report)],
        settings=_settings(report),
    )


def plot_files(report: Report) -> dict[str, bytes]:
    """The plots as PNG files, by name."""
    files = {f"{plot.name}.png": plot_png(plot) for plot in _plots(report)}
    return files | {"confusion.png": confusion_png(report.result["confusion"])}


def percent(share: float) -> str:
    """91.7%, and 100% only where it is all."""
    return f"{100 * share:.1f}%" if share not in (0, 1) else f"{share:.0%}"


def meanings(result: Mapping[str, Any]) -> list[str]:
    """The numbers, each with its meaning in a sentence."""
    low, high = result["interval"]
    chance = result["chance"]
    said = [_accuracy_in_words(result["accuracy"], low, high, chance)]
    said.append(
        f"Interval {percent(low)} to {percent(high)} (95%, Wilson): where the accuracy would lie with ever more images of this "
        "kind; it says nothing of another training or another generator."
    )
    said.append(
        f"AUC {result['auc']:.3f}: of a generated and a real image, picked at random, the detector scores the generated one "
        f"higher {percent(result['auc'])} of the time. 0.5 is a coin, 1 is perfect; no threshold is involved."
    )
    p_value = result["p_value"]
    tiny = "below 0.0001" if p_value < 1e-4 else number(p_value, 2)
    said.append(f"p-value {tiny}: how often somebody who guesses would do at least as well by luck.")
    if result["protocol"] == "seed":
        said.append("The images that are counted here also chose the weights, so all these numbers read too high: see below.")
    return said


def _accuracy_in_words(accuracy: float, low: float, high: float, chance: float) -> str:
    start = f"Accuracy {percent(accuracy)}; always giving the more frequent answer would be right {percent(chance)} of the time"
    if low <= chance <= high:
        return f"{start}. The interval contains that: this detector does not tell the fakes from real images, another one may."
    if high < chance:
        return f"{start}. It does worse than that: what it learnt does not carry over to the judged images."
    if low >= 0.95:
        return f"{start}. It nearly always tells: the fakes carry a trace that is easy to find."
    return f"{start}. It tells, but not always: some fakes pass."


def _confusion(counts: Mapping[str, int]) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """Rows of the matrix: what the images are, and for each answer the count, its share of the row, and whether it is right."""
    rows = []
    for truth in ("generated", "real"):
        total = counts[f"{truth}_as_generated"] + counts[f"{truth}_as_real"]
        cells = []
        for answer in ("generated", "real"):
            count = counts[f"{truth}_as_{answer}"]
            cells.append((thousands(count), percent(count / total) if total else "", truth == answer))
        rows.append((truth, cells))
    return rows


def _examples(examples: Mapping[str, Sequence[Pixels]]) -> list[tuple[str, list[str]]]:
    pictures = [picture for group in examples.values() for picture in group]
    uris = iter(inline_images(pictures, PICTURES_LIMIT_BYTES))
    return [(kind, [next(uris) for _ in group]) for kind, group in examples.items() if len(group)]


def _plots(report: Report) -> list[Plot]:
    numbers = [float(round_.number) for round_ in report.rounds]
    is_regression = report.rounds[0].penalty is not None
    x_label = "trial, from the strongest penalty to the weakest" if is_regression else "epoch"
    best = int(report.result["best_round"])
    pair = (
        ("training images", "choosing images") if report.result["protocol"] != "seed" else ("training images", "judged images")
    )
    false, true = roc_points(report.logits, report.generated)
    return [
        Plot(
            name="loss",
            title="Loss",
            caption=f"Cross entropy; 0.693 is a coin. The weights of {x_label.split(',')[0]} {best} were kept: "
            "the lowest on images that trained nothing. Where the lines part, the training images are being learnt by heart.",
            x_label=x_label,
            lines=(
                (pair[0], numbers, [round_.train_loss for round_ in report.rounds]),
                (pair[1], numbers, [round_.val_loss for round_ in report.rounds]),
            ),
            x_end=numbers[-1],
        ),
        Plot(
            name="accuracy",
            title="Accuracy on the way",
            caption="Share told right. During training the images are augmented"
            " and parts of the network switched off, so that line may lie lower.",
            x_label=x_label,
            lines=(
                (pair[0], numbers, [round_.train_accuracy for round_ in report.rounds]),
                (pair[1], numbers, [round_.val_accuracy for round_ in report.rounds]),
            ),
            x_end=numbers[-1],
            y_end=1.02,
        ),
        Plot(
            name="roc",
            title="What each threshold would give",
            caption="Up: share of the fakes that is found. Right: share of the real images that is wrongly accused. "
            f"The area below is the AUC, {report.result['auc']:.3f}; a coin gives the diagonal.",
            x_label="real images taken for generated",
            lines=(("this detector", list(false), list(true)), ("a coin", [0.0, 1.0], [0.0, 1.0])),
            x_end=1.0,
            y_end=1.02,
        ),
    ]


def _drawn(plot: Plot) -> Any:
    lines = [
        Line(x=x, y=y, colour=colour, style="dashed" if label == "a coin" else "strong")
        for colour, (label, x, y) in enumerate(plot.lines, start=1)
    ]
    told = "; ".join(f"{label}: {number(y[0])} to {number(y[-1])}" for label, _, y in plot.lines)
    return line_plot(
        plot.name, lines, description=f"{plot.title}. {told}.", x_end=plot.x_end, y_end=plot.y_end, x_label=plot.x_label
    )


def _settings(report: Report) -> list[tuple[str, Rows]]:
    result, fitting = report.result, report.settings
    options = ", ".join(f"{name} {value}" for name, value in report.detector.options.items())
    data = [
        ("trained on", f"{thousands(result['train_images'])} images"),
        ("chose when to stop", f"{thousands(result['choose_images'])} images"),
        ("judged", f"{thousands(result['n'])} images"),
        ("left out for balance", thousands(result["left_out_images"])),
        ("could not be read", thousands(result["unreadable_images"])),
        ("image size", f"{result['image_size_px']} x {result['image_size_px']} px"),
    ]
    training = [("detector", report.detector.name), ("its options", options or "none"), ("protocol", result["protocol"])]
    if report.rounds[0].penalty is None:
        training += [
            ("optimiser", f"Adam, learning rate {fitting.learning_rate:g}, epsilon {fitting.epsilon:g}"),
            ("batch size", str(fitting.batch_size_for(result["train_images"]))),
            ("augmentation", report.augmentation.name),
            ("length", f"{len(report.rounds)} epochs of at most {fitting.epochs}, patience {fitting.patience}"),
        ]
    else:
        best = next(round_ for round_ in report.rounds if round_.number == result["best_round"])
        training += [("fitted by", "logistic regression (scikit-learn)"), ("penalty chosen", f"{best.penalty:g}")]
    training.append(("seed", str(fitting.seed)))
    machine = dict(report.environment)
    packages = machine.pop("packages", {})
    rows = [(key.replace("_", " "), str(value)) for key, value in machine.items() if value is not None]
    rows.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    return [("Images", data), ("Training", training), ("Machine", rows)]
