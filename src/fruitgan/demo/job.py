"""The whole loop on fruit that we draw ourselves: draw, train, translate, export, detect, evaluate, and tell the story."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fruitgan.demo.dataset import DrawSettings, draw
from fruitgan.demo.page import Story, demo_report
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.results import EvaluateResult
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.export_dataset.job import ExportSettings, export_dataset
from fruitgan.files import new_folder, remove_abandoned, write_atomically
from fruitgan.progress import Event, Progress
from fruitgan.runs.run import CONFIG, Run, locked
from fruitgan.settings import read_json, to_json
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.settings import TrainDetectorResult, TrainDetectorSettings
from fruitgan.train_gan import settings as training
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanResult, TrainGanSettings
from fruitgan.translate.job import TranslateSettings, translate

MARK = "demo.json"
"""Says which demo the folder is of, so that one that was stopped can be gone on with."""
REPORT = "report.html"
OUT = Path("fruitgan-demo")  # not "demo": a folder of that name would hide the data set from --data demo
OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


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
    """What cli.md promises as JSON."""

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
    _take_place(settings)
    with locked(settings.out):
        remove_abandoned(settings.out)
        return _run(settings, on_progress)


def _take_place(settings: DemoSettings) -> None:
    """Make the folder, whole with its mark, unless it is that of the same demo, not finished."""
    out, mark = settings.out, {"format": 1, "quick": settings.quick, "seed": settings.seed}
    if not out.exists():
        with new_folder(out) as folder:
            (folder / MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")
        return
    try:
        is_ours = read_json(out / MARK) == mark
    except DataError:
        is_ours = False
    if not is_ours or (out / REPORT).exists():
        raise UsageError(f"{out} exists; give another folder with --out, or remove it")


def _run(settings: DemoSettings, on_progress: OnProgress | None) -> DemoResult:
    tell = on_progress or (lambda what, done, total: None)
    began = time.monotonic()
    size, fruit = settings.size, settings.out / "fruit"
    if not fruit.exists():
        draw(
            DrawSettings(
                out=fruit,
                train_count=size.train_images,
                test_count=size.test_images,
                size_px=size.image_px,
                seed=settings.seed,
            ),
            lambda event: tell(event.what, event.done, event.total) if isinstance(event, Progress) else None,
        )
    trained = _train(settings, fruit, tell)
    tell("translating", 0, 1)
    translate(
        TranslateSettings(
            sources=(str(fruit / "testA"),),
            bundle=str(trained.bundle),
            output=str(settings.out / "translated"),
            compare=True,
            engine="torch",  # which needs no graph of a generator that was trained just now
            device="cpu",
        )
    )
    dataset = settings.out / "dataset"
    export_dataset(
        ExportSettings(
            bundle=str(trained.bundle), data=str(fruit), domains=("apple", "orange"), out=dataset, engine="torch", device="cpu"
        ),
        lambda event: tell(event.what, event.done, event.total) if isinstance(event, Progress) else None,
    )
    detected = _detect(settings, dataset, tell)
    tell("evaluating", 0, 1)
    judged = evaluate(
        EvaluateSettings(
            fake_dir=dataset / "predicted",
            source_dir=fruit / "testA",
            detector="spectrum",
            features=("random", "colour"),
            metrics=("kid", "fid"),
            quick=settings.quick,
            out=settings.out / "evaluation",
            seed=settings.seed,
            device="cpu",
        ),
        lambda event: tell(event.what, event.done, event.total) if isinstance(event, Progress) else None,
    )
    return _conclude(settings, trained, detected, judged, time.monotonic() - began)


def _train(settings: DemoSettings, fruit: Path, tell: OnProgress) -> TrainGanResult:
    size = settings.size

    def pass_on(event: training.Event) -> None:
        match event:
            case training.Loading(label, done, total):
                tell(label, done, total)
            case training.Stepped(report):
                tell("training the generators", report.step, size.steps)

    resume, name = _resume_or_name(settings, "gan")
    return train_gan(
        TrainGanSettings(
            resume=resume,
            data=str(fruit),
            domains=("apple", "orange"),
            recipe="fast",
            discriminator_options={"base_channels": "16"},
            augment="jitter-mirror",  # the fruit is drawn at the size of the training: there is nothing finer to see
            image_size=size.image_px,
            steps=size.steps,
            seed=settings.seed,
            name=name,
            out=settings.out / "runs",
            sample_every=max(1, size.steps // 4),
            save_every=size.steps,
            log_every=max(1, size.steps // 70),
            gpu=settings.gpu,
            device=settings.device,
        ),
        pass_on,
    )


def _detect(settings: DemoSettings, dataset: Path, tell: OnProgress) -> TrainDetectorResult:
    def pass_on(event: Event) -> None:
        if isinstance(event, Progress):
            tell("training the detector" if event.what == "training" else "reading the dataset", event.done, event.total)

    resume, name = _resume_or_name(settings, "detector")
    return train_detector(
        TrainDetectorSettings(
            resume=resume,
            data=dataset,
            detector=settings.size.detector,
            epochs=settings.size.detector_epochs,
            name=name,
            out=settings.out / "runs",
            seed=settings.seed,
            gpu=settings.gpu,
            device=settings.device,
        ),
        pass_on,
    )


def _resume_or_name(settings: DemoSettings, name: str) -> tuple[str | None, str | None]:
    """The run to go on with, if there is one of this name, else the name of a new one."""
    return (name, None) if (settings.out / "runs" / name / CONFIG).is_file() else (None, name)


def _conclude(
    settings: DemoSettings, trained: TrainGanResult, detected: TrainDetectorResult, judged: EvaluateResult, seconds: float
) -> DemoResult:
    r = judged.ratios["r"]
    if r is None:  # the sources are given and the images enough: it cannot be missing but by our own mistake
        raise AssertionError(f"the demo has no R: {judged.r_withheld}")
    report = settings.out / REPORT
    run = Run(trained.run)
    story = Story(
        folder=settings.out,
        trained=to_json(trained),
        config=run.config,
        entries=run.entries(),
        detected=to_json(detected),
        judged=judged.as_json(),
        seconds=seconds,
    )
    write_atomically(report, demo_report(story).encode())
    return DemoResult(r=r.value, detector_accuracy=detected.accuracy, seconds=round(seconds, 1), report=report)
