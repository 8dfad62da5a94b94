"""The commands `train-detector` (real and generated images in, a classifier and its test accuracy out) and `detect`."""

from __future__ import annotations

import csv
import io
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fruitgan.console import Console, names, options
from fruitgan.console.signals import polite_stop
from fruitgan.errors import DataError, Stopped
from fruitgan.progress import Event, Note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fruitgan.train_detector.settings import TrainDetectorResult, TrainDetectorSettings

training = partial(options.option, panel="Detector and training")


def train_detector(
    context: options.Context,
    data: Path | None = options.of_data(
        "--data DIR", "A folder with predicted (generated) and origins (real), as export-dataset makes it."
    ),
    protocol: Literal["grouped", "seed"] | None = options.of_data(
        "--protocol",
        "grouped: split by source image into train, val and test. seed: as the lab report, which leaks.",
        "grouped",
    ),
    detector: str | None = training(
        "--detector NAME",
        "small-cnn, spectrum, seed-cnn (the lab report's) and others: `fruitgan list detectors`.",
        "small-cnn",
        **names.registered("detectors"),
    ),
    detector_option: list[str] | None = training("--detector-option KEY=VALUE", "An option of the detector: base_channels=24."),
    augment: str | None = training(
        "--augment NAME",
        "How training images are augmented.",
        "what the detector suggests",
        **names.registered("augmentations"),
    ),
    image_size: int | None = training(
        "--image-size PIXELS", "Side of the square images.", "the detector's, or the images'", min=1
    ),
    epochs: int | None = options.of_length("--epochs", "How long, at most.", "100", min=1),
    patience: int | None = options.of_length(
        "--patience", "Stop after so many epochs without a lower validation loss.", "10", min=1
    ),
    batch_size: int | None = training("--batch-size,-b N", "Images per step.", "64, or 16 steps an epoch", min=2),
    learning_rate: float | None = training("--learning-rate X", "Learning rate (Adam).", "0.001"),
    name: options.Name = None,
    out: options.Out = Path("runs/train-detector"),
    resume: options.Resume = None,
    track: options.Track = None,
    seed: options.Seed = None,
    gpu: options.Gpus = None,
    processes: options.Processes = None,
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Train a classifier of real against generated images, and measure its test accuracy.

    Example: fruitgan train-detector --data dataset
    """
    given = locals()
    console = Console(json=json, quiet=quiet)
    from fruitgan.data.sources import must_be_folder
    from fruitgan.runs.resume import METRICS, find_run
    from fruitgan.train_detector.settings import OF_RUN, TrainDetectorSettings

    if resume is not None:
        given = options.without_environment(context, given, OF_RUN)
    settings = options.settings_of(TrainDetectorSettings, given)
    if resume is not None:  # what the job would refuse after seconds of imports, refused at once
        find_run(out, resume, METRICS)
    elif data is not None:
        must_be_folder(data)
    _train(settings, console)


def _train(settings: TrainDetectorSettings, console: Console) -> None:
    from fruitgan.runs.resume import resume_command
    from fruitgan.train_detector.fit import NoRoundDone
    from fruitgan.train_detector.job import train_detector as job

    run: Path | None = None

    def on_progress(event: Event) -> bool:
        nonlocal run
        show(event)
        if not isinstance(event, Note):
            if event.what not in ("training", "features") and stop.signal is not None:
                raise Stopped("stopped before the first epoch; nothing was changed", stop.exit_code)
            run = event.details.get("run", run)
            if "val_loss" in event.details:
                console.say(_in_a_line(event.details))
        return stop.signal is not None

    def at_once() -> str:
        if run is None:
            return "before the first epoch; nothing was changed"
        return f"since the last save nothing is kept; go on with: {resume_command(run, settings.gpu, settings.device)}"

    with polite_stop(at_once) as stop, console.events() as show:
        try:
            result = job(settings, on_progress)
        except NoRoundDone:
            assert run is not None
            console.result({"run": str(run), "rounds": 0, "finished": False})
            line = resume_command(run, settings.gpu, settings.device)
            raise Stopped(f"stopped before the end of the first epoch; start it again with: {line}", stop.exit_code) from None
    console.result(result)
    _show(result, console)
    if not result.finished:
        line = resume_command(result.run, settings.gpu, settings.device)
        raise Stopped(f"stopped, saved, the best weights so far tested; go on with: {line}", stop.exit_code)


def _in_a_line(entry: Mapping[str, Any]) -> str:
    """A line of the log for people."""
    number = f"epoch {entry['epoch']}" if "epoch" in entry else f"trial {entry['trial']}"
    best = ", the best so far" if entry["is_best"] else ""
    losses = f"training loss {entry['train_loss']:.4f}, validation loss {entry['val_loss']:.4f}"
    return f"{number}: {losses} (accuracy {entry['val_accuracy']:.1%}){best}"


def _show(result: TrainDetectorResult, console: Console) -> None:
    low, high = result.interval
    found = result.confusion
    rows = [
        ("accuracy", f"{result.accuracy:.2%} ({found.correct} of {result.n}; 95% interval {low:.1%} to {high:.1%})"),
        ("majority baseline", f"{result.majority_baseline:.2%} (p = {result.p_value:.2g})"),
        ("AUC", f"{result.auc:.4f}"),
        ("generated", f"{found.generated_as_generated} recognised, {found.generated_as_real} classified as real"),
        ("real", f"{found.real_as_real} recognised, {found.real_as_generated} classified as generated"),
    ]
    for part in result.parts:
        low, high = part["interval"]
        found_of_all = f"{part['found']:.2%} of {part['n']} recognised ({low:.1%} to {high:.1%})"
        rows.append((f"fakes of {part['split']} sources", found_of_all))
    console.table(f"{result.detector}, {result.protocol} protocol", ("what", "on the test images"), rows)
    if result.protocol == "seed":
        console.out("  reads too high: the test images chose the weights (--protocol grouped does not)")
    metrics = "metrics.json, " if result.finished else ""
    console.out(f"{result.run}: detector.safetensors, {metrics}report.html")
    console.out(f"  ask it about a picture: fruitgan detect photo.jpg --detector {shlex.quote(str(result.run))}")


def detect(
    pictures: list[str] = options.argument("PICTURE|FOLDER", "Files, folders or globs.", default=...),
    detector: str | None = options.option(
        "--detector FILE|RUN",
        "The detector to ask.",
        "the newest run of train-detector here",
        **names.one_of("file or run", names.runs("train-detector")),
    ),
    recursive: bool = options.option("--recursive,-r", "Include subfolders.", default=False),
    gpu: options.Gpu = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Say of each picture whether it is real or generated, with the calibrated probability that it is generated.

    Example: fruitgan detect photo.jpg
    """
    from fruitgan.runs.resume import locate_detector
    from fruitgan.train_detector.settings import OUT

    locate_detector(detector, OUT)  # before seconds of imports
    from fruitgan.train_detector import detect_job

    console = Console(json=json, quiet=quiet)
    settings = options.settings_of(detect_job.DetectSettings, locals())
    result = console.run(detect_job.detect, settings, "stopped; nothing was written", unit="img")
    console.out("file,verdict,probability,outside")
    for found in result.pictures:
        line = io.StringIO()
        verdict = {True: "generated", False: "real", None: "undecided"}[found.generated]
        row = (found.file, verdict, f"{found.probability:.4f}", "; ".join(found.outside))
        csv.writer(line, lineterminator="").writerow(row)
        console.out(line.getvalue())
    strange = sum(bool(found.outside) for found in result.pictures)
    if strange:
        what = "the picture is" if len(result.pictures) == 1 else f"{strange} of {len(result.pictures)} pictures are"
        console.warn(f"{what} unlike what the detector was trained on (see outside)")
    for remark in result.skipped:
        console.say(f"skipped: {remark.path}: {remark.reason}")
    for remark in result.failed:
        console.warn(f"{remark.path}: {remark.reason}")
    if result.failed:
        raise DataError(f"{len(result.failed)} of {len(result.failed) + len(result.pictures)} pictures could not be judged")
