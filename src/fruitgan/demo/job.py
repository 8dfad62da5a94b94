"""The whole loop on fruit that we draw ourselves: draw, train, translate, export, detect, evaluate, and tell the story."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fruitgan.data.decode import decode
from fruitgan.demo.dataset import DrawSettings, draw
from fruitgan.device import choose_device
from fruitgan.errors import UsageError
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.files import check_writable, write_atomically
from fruitgan.images import Pixels
from fruitgan.progress import Event, Note, OnProgress, Progress, duration, silent
from fruitgan.report.page import grid, inline_images, render
from fruitgan.runs.run import Run
from fruitgan.settings import Settings, to_json
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.settings import TrainDetectorSettings
from fruitgan.train_gan.curves import Story, loss_panels
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TRAINING, RunConfig, TrainGanSettings, read_config
from fruitgan.translate.job import TranslateSettings, translate

REPORT = "report.html"
PICTURES_LIMIT_BYTES = 2_500_000
SHOWN = 8
OUT = Path("fruitgan-demo")  # not "demo": a folder of that name would hide the data set from --data demo


@dataclass(frozen=True, kw_only=True)
class Size:
    image_px: int
    train_images: int
    test_images: int
    steps: int
    detector: str
    detector_epochs: int


FULL = Size(image_px=64, train_images=200, test_images=100, steps=700, detector="small-cnn", detector_epochs=30)
QUICK = Size(image_px=48, train_images=40, test_images=30, steps=60, detector="spectrum", detector_epochs=10)


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Settings):
    out: Path = OUT
    quick: bool = False
    seed: int = 0
    gpu: str | None = None
    device: str | None = None

    @property
    def size(self) -> Size:
        return QUICK if self.quick else FULL


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What `--json` prints."""

    r: float
    """R on drawn fruit that was held out: 0 is perfect, 1 is as far from oranges as the apples were."""
    r_interval: tuple[float, float]
    detector_accuracy: float
    detector_interval: tuple[float, float]
    seconds: float
    report: Path


def demo(settings: DemoSettings, on_progress: OnProgress | None = None) -> DemoResult:
    """Run the loop in a new folder, each job as its own command would: trainings where `--gpu` says, the others on the CPU.

    Raises:
        UsageError: the folder exists.
    """
    began, tell = time.monotonic(), on_progress or silent
    out, size, seed = settings.out, settings.size, settings.seed
    choose_device(settings.gpu, settings.device)  # before minutes of work on the CPU
    if out.exists():
        raise UsageError(f"{out} exists; give another folder with --out, or remove it")
    check_writable(out)
    fruit, runs, dataset = out / "fruit", out / "runs", out / "dataset"
    asked: dict[str, Any] = {"out": runs, "seed": seed, "gpu": settings.gpu, "device": settings.device}

    def tell_training(event: Event) -> None:
        if isinstance(event, Progress):
            tell(replace(event, what="training the generators" if event.what == TRAINING else event.what))

    counts = {"train_count": size.train_images, "test_count": size.test_images}
    with _stage("drawing", tell):
        draw(DrawSettings(out=fruit, size_px=size.image_px, seed=seed, **counts), tell)
    with _stage("training the generators", tell):
        trained = train_gan(
            TrainGanSettings(
                **asked,
                name="gan",
                data=str(fruit),
                domains=("apple", "orange"),
                recipe="fast",
                discriminator_options={"base_channels": "16"},
                augment="jitter-mirror",  # the fruit is drawn at the size of the training: there is nothing finer to see
                image_size=size.image_px,
                steps=size.steps,
                sample_every=max(1, size.steps // 4),
                save_every=size.steps,
                log_every=max(1, size.steps // 70),
            ),
            tell_training,
        )
    # The engine torch needs no graph of a generator that was trained just now.
    translating: dict[str, Any] = {"bundle": str(trained.bundle), "engine": "torch", "device": "cpu"}
    with _stage("translating", tell):
        sources = (str(fruit / "testA"),)
        translate(TranslateSettings(sources=sources, output=str(out / "translated"), compare=True, **translating), tell)
    with _stage("exporting", tell):
        export_dataset(ExportSettings(data=str(fruit), domains=("apple", "orange"), out=dataset, **translating), tell)
    with _stage("training the detector", tell):
        detected = train_detector(
            TrainDetectorSettings(
                **asked,
                name="detector",
                data=dataset,
                detector=size.detector,
                epochs=size.detector_epochs,
            ),
            tell,
        )
    with _stage("evaluating", tell):
        judged = evaluate(
            EvaluateSettings(
                fake_dir=dataset / "predicted",
                source_dir=fruit / "testA",
                detector="spectrum",
                features=("random", "colour"),
                metrics=("kid", "fid"),
                quick=settings.quick,
                out=out / "evaluation",
                seed=seed,
                device="cpu",
            ),
            tell,
        )
    r = judged.ratios["r"]
    assert r is not None  # the sources are given and the images enough
    seconds = time.monotonic() - began
    run = Run(trained.run)
    page = demo_report(out, to_json(trained), read_config(run), run.entries(), to_json(detected), judged.as_json(), seconds)
    write_atomically(out / REPORT, page.encode())
    return DemoResult(
        r=r.value,
        r_interval=r.interval,
        detector_accuracy=detected.accuracy,
        detector_interval=detected.interval,
        seconds=round(seconds, 1),
        report=out / REPORT,
    )


@contextmanager
def _stage(what: str, tell: OnProgress) -> Iterator[None]:
    """A part of the loop, of which a line remains when its bars have gone."""
    began = time.monotonic()
    yield
    tell(Note(f"{what}: 100%, {duration(time.monotonic() - began)}"))


def demo_report(
    folder: Path,
    trained: Mapping[str, Any],
    config: RunConfig,
    entries: Sequence[Mapping[str, Any]],
    detected: Mapping[str, Any],
    judged: Mapping[str, Any],
    seconds: float,
) -> str:
    """The page as HTML text, of about 3 MB at most: from the files below `folder` and the jobs' results as JSON values.

    `config` and `entries` are the training run's, its settings and the lines of its log.
    """
    sheets = {
        "apples": _sheet(folder / "fruit" / "trainA"),
        "oranges": _sheet(folder / "fruit" / "trainB"),
        "translated": _sheet(folder / "translated", columns=4),
        "predicted": _sheet(folder / "dataset" / "predicted"),
        "origins": _sheet(folder / "dataset" / "origins"),
    }
    return render(
        "demo.html",
        pictures=dict(zip(sheets, inline_images(list(sheets.values()), PICTURES_LIMIT_BYTES), strict=True)),
        trained=trained,
        size_px=config.plan.recipe.image_size_px,
        panels=loss_panels(entries, Story(config)),
        detected=detected,
        judged=judged,
        seconds=seconds,
    )


def _sheet(folder: Path, columns: int = SHOWN) -> Pixels:
    """The first pictures of a folder in rows."""
    pictures = [decode(path).pixels for path in sorted(folder.glob("*.png"))[:SHOWN]]
    return grid([pictures[start : start + columns] for start in range(0, len(pictures), columns)])
