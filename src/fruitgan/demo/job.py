"""The whole loop on fruit that we draw ourselves: draw, train, translate, export, detect, evaluate, and tell the story."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fruitgan.demo.dataset import DrawSettings, draw
from fruitgan.demo.page import demo_report
from fruitgan.device import choose_device
from fruitgan.errors import UsageError
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.files import new_folder, remove_abandoned, write_atomically
from fruitgan.progress import Event, Note, OnProgress, Progress, duration, silent
from fruitgan.runs.run import CONFIG, Run, locked
from fruitgan.settings import read_json, to_json
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.settings import TrainDetectorSettings
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TRAINING, TrainGanSettings
from fruitgan.translate.job import TranslateSettings, translate

MARK = "demo.json"
"""Says which demo the folder is of, so that one that was stopped can be gone on with."""
REPORT = "report.html"
OUT = Path("fruitgan-demo")  # not "demo": a folder of that name would hide the data set from --data demo


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything."""

    image_px: int
    train_images: int
    test_images: int
    steps: int
    detector: str
    detector_epochs: int


FULL = Size(image_px=64, train_images=200, test_images=100, steps=700, detector="small-cnn", detector_epochs=30)
QUICK = Size(image_px=48, train_images=40, test_images=30, steps=60, detector="spectrum", detector_epochs=10)


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
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
    detector_accuracy: float
    seconds: float
    report: Path


def demo(settings: DemoSettings, on_progress: OnProgress | None = None) -> DemoResult:
    """Run the loop in a new folder, each job as its own command would run it; one that was stopped goes on where it was.

    Raises:
        UsageError: the folder exists, and is not that of such a demo.
        RunInUse: another process is at work in it.
    """
    choose_device(settings.gpu, settings.device)  # before minutes of work on the CPU
    out, mark = settings.out, {"format": 1, "quick": settings.quick, "seed": settings.seed}
    if not out.exists():
        with new_folder(out) as folder:  # whole with its mark
            (folder / MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")
    if not (out / MARK).is_file() or read_json(out / MARK) != mark or (out / REPORT).exists():
        raise UsageError(f"{out} exists; give another folder with --out, or remove it")
    with locked(out):
        remove_abandoned(out)
        return _run(settings, on_progress or silent)


def _run(settings: DemoSettings, tell: OnProgress) -> DemoResult:
    """Each job in turn; those that train run where `--gpu` says, the others on the CPU."""
    began = time.monotonic()
    out, size, seed = settings.out, settings.size, settings.seed
    fruit, runs, dataset = out / "fruit", out / "runs", out / "dataset"
    asked: dict[str, Any] = {"out": runs, "seed": seed, "gpu": settings.gpu, "device": settings.device}

    def tell_training(event: Event) -> None:
        if isinstance(event, Progress):
            tell(replace(event, what="training the generators" if event.what == TRAINING else event.what))

    if not fruit.exists():
        counts = {"train_count": size.train_images, "test_count": size.test_images}
        with _stage("drawing", tell):
            draw(DrawSettings(out=fruit, size_px=size.image_px, seed=seed, **counts), tell)
    with _stage("training the generators", tell):
        trained = train_gan(
            TrainGanSettings(
                **_resume_or_name(runs, "gan"),
                **asked,
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
                **_resume_or_name(runs, "detector"),
                **asked,
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
    page = demo_report(out, to_json(trained), run.config, run.entries(), to_json(detected), judged.as_json(), seconds)
    write_atomically(out / REPORT, page.encode())
    return DemoResult(r=r.value, detector_accuracy=detected.accuracy, seconds=round(seconds, 1), report=out / REPORT)


@contextmanager
def _stage(what: str, tell: OnProgress) -> Iterator[None]:
    """A part of the loop, of which a line remains when its bars have gone."""
    began = time.monotonic()
    yield
    tell(Note(f"{what}: 100%, {duration(time.monotonic() - began)}"))


def _resume_or_name(runs: Path, name: str) -> dict[str, Any]:
    """The run to go on with, if there is one of this name, else the name of a new one."""
    return {"resume" if (runs / name / CONFIG).is_file() else "name": name}
