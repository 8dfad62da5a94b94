"""The job: train a student on a teacher's images, then measure it beside the teacher on test images (gates)."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import timeit
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fruitgan import bundle as bundles
from fruitgan.bundle import Bundle
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.sources import Source, find_source
from fruitgan.device import choose_device, using_threads
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.detectors import TwoSampleTest
from fruitgan.files import write_atomically
from fruitgan.images import Pixels
from fruitgan.measures.contracts import features, metrics
from fruitgan.measures.features import extract
from fruitgan.networks.contracts import generators
from fruitgan.networks.weights import build_for
from fruitgan.progress import Listener, OnProgress, Progress, silent
from fruitgan.report.page import png_bytes
from fruitgan.runs.run import CONFIG, Run
from fruitgan.settings import Settings, to_json
from fruitgan.train_detector.protocols import too_few
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.page import training_report
from fruitgan.train_gan.samples import translate_batch
from fruitgan.train_gan.settings import TrainGanResult, TrainGanSettings, read_config

RECIPE = "lesson"
DEFAULT_STUDENT = "lite-u"
GATES = "gates.json"
IMAGES_PER_DIRECTION = 200
"""How many test images the gates look at, at most."""
LEAST_PSNR_DB = 28.0
MOST_KID_RATIO = 1.10
MOST_POINTS = 3.0
LEAST_IMAGES_PER_SECOND = 25.0
SPEED_SIDE_PX = 256
SPEED_THREADS = 2
SPEED_PASSES = 10
BATCH = 8
FEATURES = "random"
DETECTOR = "spectrum"


@dataclass(frozen=True)
class Gate:
    """One number of a student; `passed` is None where it could not be measured; `said` is how it was, or why not."""

    name: str
    value: float | None
    limit: float
    passed: bool | None
    said: str

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, value, limit, outcome, and how it was measured, for people."""
        value = "" if self.value is None else f"{self.value:.2f}"
        outcome = {True: "passed", False: "failed", None: "not measured"}[self.passed]
        return self.name, value, f"{self.limit:g}", outcome, self.said


@dataclass(frozen=True, kw_only=True)
class DistillSettings(Settings):
    """The teacher, and how the student is trained."""

    teacher: str | None = None
    """A run, a bundle's file or the name of one that ships; a resumed run keeps its own."""
    training: TrainGanSettings
    """None in it means what the teacher or the recipe `lesson` says."""


@dataclass(frozen=True)
class DistillResult:
    """The training and, once it is finished, the gates."""

    training: TrainGanResult
    gates: tuple[Gate, ...]


def distill(settings: DistillSettings, on_progress: OnProgress | None = None) -> DistillResult:
    """Train a student on a teacher's images, or resume that, and measure both on the test images.

    Raises:
        UsageError: as `train_gan`, and where there is no teacher, or it has one direction alone.
    """
    asked = settings.training
    if asked.resume is None:
        asked = _first_settings(settings)
    elif settings.teacher is not None:
        asked = dataclasses.replace(asked, teacher=_located(settings.teacher))
    trained = train_gan(asked, on_progress)
    if not trained.finished:
        return DistillResult(trained, ())
    run = Run(trained.run)
    stored = read_config(run).settings
    source = find_source(stored.data, stored.data_a, stored.data_b, stored.domains)
    gates = measure(
        teacher=bundles.load(bundles.locate(stored.teacher)),
        student=bundles.load(trained.bundle),
        source=source,
        device=choose_device(asked.gpu, asked.device),
        seed=stored.seed or 0,
        listener=Listener(on_progress),
    )
    write_atomically(trained.run / GATES, json.dumps(to_json(gates), indent=1).encode())
    page = training_report(run.path, read_config(run), run.entries(), to_json(trained), gates=[gate.cells for gate in gates])
    write_atomically(run.path / "report.html", page.encode())
    return DistillResult(trained, gates)


def _first_settings(settings: DistillSettings) -> TrainGanSettings:
    """The training's settings, with the data and the size of the teacher where nothing else is asked for."""
    asked = settings.training
    if settings.teacher is None:
        raise UsageError("which teacher? Give --teacher RUN|FILE|NAME")
    found = bundles.locate(settings.teacher)
    card = bundles.load_card(found)
    if asked.data is None and asked.data_a is None and asked.data_b is None:
        if not (found.parent / CONFIG).is_file():
            hint = "a bundle does not hold its images; give --data, or the run that made it"
            raise UsageError(f"--teacher {settings.teacher}: {hint}")
        run = read_config(Run(found.parent)).settings
        asked = dataclasses.replace(asked, data=run.data, data_a=run.data_a, data_b=run.data_b, domains=run.domains)
    return dataclasses.replace(
        asked,
        recipe=RECIPE,
        allow_overlap=True,  # as its teacher was taught
        generator=asked.generator or DEFAULT_STUDENT,
        image_size=asked.image_size or card.image_size_px,
        teacher=_located(settings.teacher),
    )


def _located(teacher: str) -> str:
    """The bundle's file, or its address with the commit, so that a run can be resumed from another folder."""
    return bundles.pinned(teacher) or str(bundles.locate(teacher).resolve())


def measure(
    *, teacher: Bundle, student: Bundle, source: Source, device: torch.device, seed: int, listener: Listener
) -> tuple[Gate, ...]:
    """Every gate in both directions, and the student's speed.

    The pictures have the student's training size and go through one path, the real ones too.
    """
    gates: list[Gate] = []
    for way, of, to in (("a2b", source.a, source.b), ("b2a", source.b, source.a)):
        shown, real = (_pictures(domain.test or domain.train, student.card) for domain in (of, to))
        pictures = {"real": real}
        for who, bundle in (("teacher", teacher), ("student", student)):
            network = build_for(generators, bundle.card.generator, bundle.weights[way]).eval().to(device)
            pictures[who] = []
            for start in range(0, len(shown), BATCH):
                pictures[who] += translate_batch(network, shown[start : start + BATCH], device)
                listener.tell(Progress(f"{who} {way}", len(pictures[who]), len(shown)))
        gates.append(psnr_gate(way, pictures["teacher"], pictures["student"]))
        with tempfile.TemporaryDirectory(prefix="fruitgan-") as folder:
            files = {kind: _written(Path(folder) / kind, images) for kind, images in pictures.items()}
            gates += [kid_gate(way, files, device, seed), detector_gate(way, files, device, seed)]
    return (*gates, speed_gate(network.to("cpu")))


def psnr_gate(way: str, teacher: Sequence[Pixels], student: Sequence[Pixels]) -> Gate:
    """Peak signal-to-noise ratio of the student's pictures to the teacher's, the mean over pictures of 20 log10(255 / RMSE)."""
    errors = [float(np.mean((one.astype(np.float64) - other) ** 2)) for one, other in zip(teacher, student, strict=True)]
    values = [20 * math.log10(255 / math.sqrt(max(mse, 1e-3))) for mse in errors]  # no error at all would be infinite
    value = sum(values) / len(values)
    return Gate(f"psnr_{way}", value, LEAST_PSNR_DB, value >= LEAST_PSNR_DB, f"dB to the teacher, {len(values)} test images")


def kid_gate(way: str, files: dict[str, list[Path]], device: torch.device, seed: int) -> Gate:
    """The student's KID to real images by the teacher's, at most 1.10, or more by less than a standard error."""
    name = f"kid_ratio_{way}"
    metric = metrics.build(metrics.choose("kid", {"resamples": 200, "seed": seed}))
    backend = features.build(features.choose(FEATURES))
    try:
        metric.check_counts(len(files["real"]), len(files["student"]))
    except DataError as error:
        return Gate(name, None, MOST_KID_RATIO, None, str(error))
    sets = {kind: extract(backend, paths, device) for kind, paths in files.items()}
    teacher, student = (metric(sets["real"], sets[kind]) for kind in ("teacher", "student"))
    spread = (student.interval.high - student.interval.low) / (2 * 1.96)
    passed = student.value <= MOST_KID_RATIO * teacher.value + spread
    ratio = student.value / teacher.value if teacher.value > 0 else None
    values = f"student {100 * student.value:.2f}, teacher {100 * teacher.value:.2f}, +- {100 * spread:.2f}"
    return Gate(name, ratio, MOST_KID_RATIO, passed, f"KID x 100 on {FEATURES}: {values}")


def detector_gate(way: str, files: dict[str, list[Path]], device: torch.device, seed: int) -> Gate:
    """By how many points the detector's accuracy on the student's images exceeds that on the teacher's."""
    name = f"detector_points_{way}"
    accuracy = {}
    for kind in ("teacher", "student"):
        count = min(len(files["real"]), len(files[kind]))
        # Reals and fakes are of different photographs: each is a group of its own, a fake that of its source.
        images = [
            LabelledImage(path, generated, f"{generated} {number}", "test", "")
            for generated, paths in ((True, files[kind]), (False, files["real"]))
            for number, path in enumerate(paths[:count])
        ]
        if reason := too_few(images):
            return Gate(name, None, MOST_POINTS, None, reason)
        testing = TwoSampleTest(images, (DETECTOR,), device, seed, quick=True, tell=silent)
        accuracy[kind] = testing.cross_validate(testing.detectors())[0].accuracy
    points = 100 * (accuracy["student"] - accuracy["teacher"])
    said = f"accuracy of {DETECTOR}: student {accuracy['student']:.1%}, teacher {accuracy['teacher']:.1%}"
    return Gate(name, points, MOST_POINTS, points <= MOST_POINTS, said)


def speed_gate(network: nn.Module) -> Gate:
    """Pictures a second, one at a time, at 256 px on two threads of this machine's CPU: the fastest of ten."""
    x = torch.zeros(1, 3, SPEED_SIDE_PX, SPEED_SIDE_PX)
    with using_threads(SPEED_THREADS), torch.inference_mode():
        rate = 1 / min(timeit.repeat(lambda: network(x), number=1, repeat=SPEED_PASSES))
    said = f"images/s at {SPEED_SIDE_PX} px, torch, {SPEED_THREADS} threads of this CPU"
    return Gate("images_per_second", rate, LEAST_IMAGES_PER_SECOND, rate >= LEAST_IMAGES_PER_SECOND, said)


def _pictures(paths: Sequence[Path], card: bundles.Card) -> list[Pixels]:
    """The first so many, squares as in the training. Raises: DataError if one cannot be decoded (named), or there is none."""
    if not paths:
        raise DataError("there are no images to measure a student on")
    how = card.preprocessing
    return [how.squared(how.decode(path).pixels, card.image_size_px) for path in paths[:IMAGES_PER_DIRECTION]]


def _written(folder: Path, images: Sequence[Pixels]) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:05d}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_atomically(path, png_bytes(image))
    return paths
