"""A detector's report: one self-contained page with its scores, what they mean, its curves and its mistakes; and its plots."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fruitgan.files import write_atomically
from fruitgan.images import Pixels
from fruitgan.report.page import inline_images, number, render
from fruitgan.report.plots import Line, Panel, line_plot
from fruitgan.runs.run import PLOTS
from fruitgan.settings import typed
from fruitgan.train_detector.calibration import Verdict, roc_points
from fruitgan.train_detector.fit import Training

REPORT = "report.html"
PICTURES_LIMIT_BYTES = 1_500_000
EXAMPLES = 6
COLOURS = ("#c2540a", "#1f66a8")
DPI = 120
COIN = "a coin"

Logits = NDArray[np.float64]
"""[n] of the test images, above 0 for generated."""


class Plot(NamedTuple):
    """Curves by label, two at most, each its x and y."""

    title: str
    x_label: str
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    y_end: float | None = None

    def panel(self, name: str) -> Panel:
        """For the page."""
        lines = [
            Line(x=x, y=y, colour=colour, style="dashed" if label == COIN else "strong")
            for colour, (label, (x, y)) in enumerate(self.lines.items(), start=1)
        ]
        told = "; ".join(f"{label}: {number(y[0])} to {number(y[-1])}" for label, (_, y) in self.lines.items())
        description, x_end = f"{self.title}. {told}.", lines[0].x[-1]
        plot = line_plot(name, lines, description=description, x_end=x_end, y_end=self.y_end, x_label=self.x_label)
        return Panel(title=self.title, plot=plot, legend=[(label, colour) for colour, label in enumerate(self.lines, start=1)])

    def png(self) -> bytes:
        """A file of its own, with title and legend."""
        file = io.BytesIO()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # a person's matplotlibrc must not change a report
            figure = Figure(figsize=(5.6, 3.4), dpi=DPI)
            axes = figure.add_axes((0.11, 0.15, 0.86, 0.76))
            for (label, (x, y)), colour in zip(self.lines.items(), COLOURS, strict=False):
                axes.plot(x, y, color=colour, label=label, marker="o" if len(x) == 1 else "")
            axes.set(title=self.title, xlabel=self.x_label)
            axes.set_ylim(bottom=0, top=self.y_end)
            axes.legend(frameon=False)
            figure.savefig(file, format="png", metadata={"Software": None})  # else the version of matplotlib is in the file
        return file.getvalue()


def write_report(
    folder: Path, result: Mapping[str, Any], training: Training, logits: Logits, environment: Mapping[str, Any]
) -> None:
    """Write the page and the plots into the run's folder; `result` is the job's as JSON values."""
    for name, png in plot_files(result, training, logits).items():
        write_atomically(folder / PLOTS / name, png)
    write_atomically(folder / REPORT, detector_report(folder.name, result, training, logits, environment).encode())


def detector_report(
    name: str, result: Mapping[str, Any], training: Training, logits: Logits, environment: Mapping[str, Any]
) -> str:
    """The page as HTML text, of about 2 MB at most."""
    packages = ", ".join(f"{package} {version}" for package, version in environment["packages"].items())
    machine = {**environment, "packages": packages}
    examples = {kind: pictures for kind, pictures in _examples(training, logits).items() if pictures}
    uris = iter(inline_images([picture for group in examples.values() for picture in group], PICTURES_LIMIT_BYTES))
    return render(
        "detector.html",
        name=name,
        at_random=typed(Verdict, {field.name: result[field.name] for field in fields(Verdict)}, "the scores").is_at_random,
        result=result,
        examples=[(kind, [next(uris) for _ in group]) for kind, group in examples.items()],
        panels={name: plot.panel(name) for name, plot in _plots(result, training, logits).items()},
        training=training,
        machine=[(key.replace("_", " "), str(value)) for key, value in machine.items() if value is not None],
    )


def plot_files(result: Mapping[str, Any], training: Training, logits: Logits) -> dict[str, bytes]:
    return {f"{name}.png": plot.png() for name, plot in _plots(result, training, logits).items()}


def _examples(training: Training, logits: Logits) -> dict[str, list[Pixels]]:
    """The test images of each class that were classified most surely, correctly or not, uint8 [S, S, 3]."""
    dataset, test = training.dataset, training.split.test
    truth, found = dataset.generated[test], logits > 0
    kinds = {
        "generated, recognised": (truth & found, -logits),
        "generated, classified as real": (truth & ~found, logits),
        "real, recognised": (~truth & ~found, logits),
        "real, classified as generated": (~truth & found, -logits),
    }
    shown = {}
    for kind, (which, order) in kinds.items():
        numbers = np.flatnonzero(which)
        numbers = numbers[np.argsort(order[numbers], kind="stable")][:EXAMPLES]
        shown[kind] = [dataset.decoded.pixels[test[place]] for place in numbers]
    return shown


def _plots(result: Mapping[str, Any], training: Training, logits: Logits) -> dict[str, Plot]:
    rounds = training.rounds
    numbers = [float(found.number) for found in rounds]
    x_label = "epoch" if rounds[0].penalty is None else "trial, from the strongest penalty to the weakest"
    val = "val" if result["protocol"] != "seed" else "val, which is also test"
    losses = {"train": [found.train_loss for found in rounds], val: [found.val_loss for found in rounds]}
    accuracies = {"train": [found.train_accuracy for found in rounds], val: [found.val_accuracy for found in rounds]}
    roc = {"this detector": roc_points(logits, training.dataset.generated[training.split.test]), COIN: ([0.0, 1.0], [0.0, 1.0])}
    return {
        "loss": Plot("Loss", x_label, {label: (numbers, values) for label, values in losses.items()}),
        "accuracy": Plot("Accuracy during training", x_label, {k: (numbers, v) for k, v in accuracies.items()}, 1.02),
        "roc": Plot("ROC curve", "real images classified as generated", roc, 1.02),
    }
