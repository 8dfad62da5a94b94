"""A detector's report: one self-contained page with its scores, what they mean, its curves and its mistakes; and its plots."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fruitgan.files import write_atomically
from fruitgan.images import Pixels
from fruitgan.registry import Choice
from fruitgan.report.page import inline_images, number, render, thousands
from fruitgan.report.plots import Line, line_plot
from fruitgan.runs.run import PLOTS
from fruitgan.train_detector.calibration import roc_points
from fruitgan.train_detector.detector import LabelledImageDataset
from fruitgan.train_detector.protocols import Split
from fruitgan.train_detector.regression import Round
from fruitgan.train_detector.settings import FitSettings

REPORT = "report.html"
PICTURES_LIMIT_BYTES = 1_500_000
EXAMPLES = 6
COLOURS = ("#c2540a", "#1f66a8")
DPI = 120

Rows = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot and its words: `lines` are x and y by label, two at most."""

    name: str
    title: str
    caption: str
    x_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    x_end: float = 1.0
    y_end: float | None = None

    def svg(self) -> Markup:
        """For the page."""
        lines = [
            Line(x=x, y=y, colour=colour, style="dashed" if label == "a coin" else "strong")
            for colour, (label, (x, y)) in enumerate(self.lines.items(), start=1)
        ]
        told = "; ".join(f"{label}: {number(y[0])} to {number(y[-1])}" for label, (_, y) in self.lines.items())
        description = f"{self.title}. {told}."
        return line_plot(self.name, lines, description=description, x_end=self.x_end, y_end=self.y_end, x_label=self.x_label)

    def png(self) -> bytes:
        """A file of its own, with title and legend."""
        with _figure(5.6, 3.4) as (figure, file):
            axes = figure.add_axes((0.11, 0.15, 0.86, 0.76))
            for (label, (x, y)), colour in zip(self.lines.items(), COLOURS, strict=False):
                axes.plot(x, y, color=colour, label=label, marker="o" if len(x) == 1 else "")
            axes.set(title=self.title, xlabel=self.x_label)
            axes.set_ylim(bottom=0, top=self.y_end)
            axes.legend(frameon=False)
        return file.getvalue()


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
    """[n] of the test images, above 0 for generated."""
    generated: NDArray[np.bool_]
    """[n], the truth."""
    examples: Mapping[str, Sequence[Pixels]]
    """Test images by what they are and were classified as."""
    settings: FitSettings
    environment: Mapping[str, Any]


def write_report(report: Report, folder: Path) -> None:
    """Write the page and the plots into the run's folder."""
    for name, png in plot_files(report).items():
        write_atomically(folder / PLOTS / name, png)
    write_atomically(folder / REPORT, detector_report(report).encode())


def detector_report(report: Report) -> str:
    """The page as HTML text, of about 2 MB at most."""
    result = report.result
    uris = iter(inline_images([picture for group in report.examples.values() for picture in group], PICTURES_LIMIT_BYTES))
    return render(
        "detector.html",
        name=report.name,
        result=result,
        percent=percent,
        meanings=meanings(result),
        examples=[(kind, [next(uris) for _ in group]) for kind, group in report.examples.items() if len(group)],
        panels=[(plot, list(enumerate(plot.lines, start=1)), plot.svg()) for plot in _plots(report)],
        settings=_settings(report),
    )


def plot_files(report: Report) -> dict[str, bytes]:
    """The plots as PNG files, by name."""
    files = {f"{plot.name}.png": plot.png() for plot in _plots(report)}
    return files | {"confusion.png": confusion_png(report.result["confusion"])}


def percent(share: float) -> str:
    """91.7%, and 100% only where it is all."""
    return f"{100 * share:.1f}%" if share not in (0, 1) else f"{share:.0%}"


def meanings(result: Mapping[str, Any]) -> list[str]:
    """The scores, each with its meaning in a sentence."""
    low, high = result["interval"]
    tiny = "below 0.0001" if result["p_value"] < 1e-4 else number(result["p_value"], 2)
    sentences = [
        _accuracy_in_words(result["accuracy"], low, high, result["majority_baseline"]),
        f"Interval {percent(low)} to {percent(high)} (95%, Wilson): where the accuracy would lie with ever more images of this "
        "kind; it says nothing of another training or another generator.",
        f"AUC {result['auc']:.3f}: of a generated and a real image, picked at random, the detector scores the generated one "
        f"higher {percent(result['auc'])} of the time. 0.5 is a coin, 1 is perfect; no threshold is involved.",
        f"p-value {tiny}: how often somebody who guesses would do at least as well by luck.",
    ]
    if result["protocol"] == "seed":
        sentences.append("The test images are also the validation images here, so all these numbers read too high: see below.")
    return sentences


def _accuracy_in_words(accuracy: float, low: float, high: float, baseline: float) -> str:
    start = f"Test accuracy {percent(accuracy)}; the majority baseline (always the more frequent class) is {percent(baseline)}"
    if low <= baseline <= high:
        return f"{start}. The interval contains it: this detector cannot distinguish the fakes from real images, another may."
    if high < baseline:
        return f"{start}. The accuracy is below it: what the detector learnt does not carry over to the test images."
    if low >= 0.95:
        return f"{start}. It nearly always distinguishes them: the fakes carry a trace that is easy to find."
    return f"{start}. It distinguishes them, but not always: some fakes pass."


def examples(dataset: LabelledImageDataset, split: Split, logits: NDArray[np.float64]) -> dict[str, list[Pixels]]:
    """The test images of each class that were classified most surely, correctly or not, uint8 [S, S, 3]."""
    truth = dataset.generated[split.test]
    kinds = {
        "generated, recognised": (truth & (logits > 0), -logits),
        "generated, classified as real": (truth & (logits <= 0), logits),
        "real, recognised": (~truth & (logits <= 0), logits),
        "real, classified as generated": (~truth & (logits > 0), -logits),
    }
    shown = {}
    for kind, (which, order) in kinds.items():
        numbers = np.flatnonzero(which)
        numbers = numbers[np.argsort(order[numbers], kind="stable")][:EXAMPLES]
        shown[kind] = [dataset.pixels(int(split.test[number])) for number in numbers]
    return shown


def _plots(report: Report) -> list[Plot]:
    rounds, protocol = report.rounds, report.result["protocol"]
    numbers = [float(found.number) for found in rounds]
    is_regression = rounds[0].penalty is not None
    x_label = "trial, from the strongest penalty to the weakest" if is_regression else "epoch"
    val = "val" if protocol != "seed" else "val, which is also test"

    def curves(of_train: list[float], of_val: list[float]) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
        return {"train": (numbers, of_train), val: (numbers, of_val)}

    false, true = roc_points(report.logits, report.generated)
    return [
        Plot(
            name="loss",
            title="Loss",
            caption=f"Cross entropy; 0.693 is a coin. The weights of {x_label.split(',')[0]} {report.result['best_round']} "
            "were kept: the lowest validation loss. Where the lines part, the detector overfits.",
            x_label=x_label,
            x_end=numbers[-1],
            lines=curves([found.train_loss for found in rounds], [found.val_loss for found in rounds]),
        ),
        Plot(
            name="accuracy",
            title="Accuracy during training",
            caption="During training the images are augmented and parts of the network switched off, "
            "so that the line of the training images may lie lower.",
            x_label=x_label,
            x_end=numbers[-1],
            y_end=1.02,
            lines=curves([found.train_accuracy for found in rounds], [found.val_accuracy for found in rounds]),
        ),
        Plot(
            name="roc",
            title="ROC curve",
            caption="For each threshold: share of the fakes recognised over share of the real images classified as generated. "
            f"The area below is the AUC, {report.result['auc']:.3f}; a coin gives the diagonal.",
            x_label="real images classified as generated",
            y_end=1.02,
            lines={"this detector": (false, true), "a coin": ([0.0, 1.0], [0.0, 1.0])},
        ),
    ]


def _settings(report: Report) -> list[tuple[str, Rows]]:
    result, fitting = report.result, report.settings
    options = ", ".join(f"{name} {value}" for name, value in report.detector.options.items())
    data = [
        ("train", f"{thousands(result['train_images'])} images"),
        ("val", f"{thousands(result['val_images'])} images"),
        ("test", f"{thousands(result['n'])} images"),
        ("left out for balance", thousands(result["left_out_images"])),
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
    training.append(("random seed", str(fitting.seed)))
    machine = dict(report.environment)
    packages = machine.pop("packages", {})
    rows = [(key.replace("_", " "), str(value)) for key, value in machine.items() if value is not None]
    rows.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    return [("Images", data), ("Training", training), ("Machine", rows)]


def confusion_png(counts: Mapping[str, int]) -> bytes:
    """The confusion matrix as a PNG file."""
    classes = ("generated", "real")
    matrix = np.array([[counts[f"{truth}_as_{answer}"] for answer in classes] for truth in classes])
    with _figure(3.8, 3.4) as (figure, file):
        axes = figure.add_axes((0.25, 0.16, 0.72, 0.8))
        axes.imshow(matrix, cmap="Oranges", vmin=0)
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if count > 0.6 * matrix.max() else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=14)
        axes.set_xticks(range(2), classes)
        axes.set_yticks(range(2), classes)
        axes.set(xlabel="classified as", ylabel="is")
    return file.getvalue()


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A figure of this size in inches to draw on, and the file that it is in afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a person's matplotlibrc must not change a report
        figure, file = Figure(figsize=(width, height), dpi=DPI), io.BytesIO()
        yield figure, file
        figure.savefig(file, format="png", metadata={"Software": None})  # else the version of matplotlib is in the file
