"""What a student is worth beside its teacher, on test images: as near, as convincing, as hard to tell, and fast."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fruitgan.bundle import Bundle
from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.sources import Source
from fruitgan.errors import DataError
from fruitgan.evaluate.detectors import TwoSampleTest, need
from fruitgan.files import write_atomically
from fruitgan.images import Pixels
from fruitgan.measures.contracts import features, metrics
from fruitgan.measures.features import extract
from fruitgan.networks.contracts import Generator, generators
from fruitgan.networks.weights import build_for
from fruitgan.report.grid import fit_square, png_bytes
from fruitgan.train_gan.samples import translate_batch

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

OnMeasure = Callable[[str, int, int], object]
"""What is measured, how much of it is done, of how much."""


@dataclass(frozen=True)
class Gate:
    """One number of a student; `passed` is None where it could not be measured here, and `said` tells why or how."""

    name: str
    value: float | None
    limit: float
    passed: bool | None
    said: str


def measure(
    *, teacher: Bundle, student: Bundle, source: Source, limit: int, device: torch.device, seed: int, on_measure: OnMeasure
) -> tuple[Gate, ...]:
    """Every gate in both directions, and the student's speed.

    The pictures have the student's training size and go through one path, the real ones too.
    """
    gates: list[Gate] = []
    domains = {"a2b": (source.a, source.b), "b2a": (source.b, source.a)}
    network: Generator | None = None
    for way, (of, to) in domains.items():
        taught, network = network_of(teacher, way).to(device), network_of(student, way).to(device)
        size = student.card.image_size_px
        shown, real = (_pictures(domain.test or domain.train, size, limit) for domain in (of, to))
        pairs = [
            (_translated(net, shown, device, on_measure, f"{who} {way}"))
            for who, net in (("teacher", taught), ("student", network))
        ]
        gates.append(psnr_gate(way, *pairs))
        with tempfile.TemporaryDirectory(prefix="fruitgan-") as folder:
            kinds = dict(zip(("real", "teacher", "student"), (real, *pairs), strict=True))
            files = {kind: _written(Path(folder) / kind, images) for kind, images in kinds.items()}
            gates.append(kid_gate(way, files, device, seed))
            gates.append(detector_gate(way, files, device, seed))
    assert network is not None
    return (*gates, speed_gate(network.to("cpu")))


def network_of(bundle: Bundle, direction: str) -> Generator:
    """A bundle's generator, for evaluation."""
    return build_for(generators, bundle.card.generator, bundle.weights[direction]).eval()


def psnr_gate(way: str, right: Sequence[Pixels], said: Sequence[Pixels]) -> Gate:
    """Peak signal-to-noise ratio of the student's pictures to the teacher's, the mean over pictures of 20 log10(255 / RMSE)."""
    values = []
    for one, other in zip(right, said, strict=True):
        mse = float(np.mean((one.astype(np.float64) - other) ** 2))
        values.append(20 * math.log10(255 / math.sqrt(max(mse, 1e-3))))  # alike to the last level would be infinite
    value = sum(values) / len(values)
    return Gate(f"psnr_{way}", value, LEAST_PSNR_DB, value >= LEAST_PSNR_DB, f"dB to the teacher, {len(values)} test images")


def kid_gate(way: str, files: dict[str, list[Path]], device: torch.device, seed: int) -> Gate:
    """The student's KID to real images by the teacher's, at most 1.10, or more by less than a standard error."""
    name = f"kid_ratio_{way}"
    metric = metrics.build(metrics.choose("kid", {"resamples": 200, "seed": seed}))
    backend = features.build(features.choose(FEATURES, {}))
    try:
        metric.check_counts(len(files["real"]), len(files["student"]))
    except DataError as error:
        return Gate(name, None, MOST_KID_RATIO, None, str(error))
    sets = {kind: extract(backend, paths, device) for kind, paths in files.items()}
    teacher, student = (metric(sets["real"], sets[kind]) for kind in ("teacher", "student"))
    spread = (student.interval.high - student.interval.low) / (2 * 1.96)
    passed = student.value <= MOST_KID_RATIO * teacher.value + spread
    ratio = student.value / teacher.value if teacher.value > 0 else math.inf
    said = (
        f"KID x 100 on {FEATURES}: student {100 * student.value:.2f}, teacher {100 * teacher.value:.2f}, +- {100 * spread:.2f}"
    )
    return Gate(name, ratio if math.isfinite(ratio) else None, MOST_KID_RATIO, passed, said)


def detector_gate(way: str, files: dict[str, list[Path]], device: torch.device, seed: int) -> Gate:
    """How many points better a detector tells the student's pictures from real ones than the teacher's."""
    name = f"detector_points_{way}"
    right = {}
    for kind in ("teacher", "student"):
        count = min(len(files["real"]), len(files[kind]))
        # Reals and fakes are of different photographs: each is a group of its own, a fake that of its source.
        images = [
            LabelledImage(path, generated, f"{generated} {number}", "test", "")
            for generated, paths in ((True, files[kind]), (False, files["real"]))
            for number, path in enumerate(paths[:count])
        ]
        if reason := need(images):
            return Gate(name, None, MOST_POINTS, None, reason)
        with TwoSampleTest(images, (DETECTOR,), device, seed, quick=True, tell=lambda _: None) as testing:
            right[kind] = testing.cross_validate(testing.detectors(images))[0].accuracy
    points = 100 * (right["student"] - right["teacher"])
    said = f"{DETECTOR} right: student {right['student']:.1%}, teacher {right['teacher']:.1%}"
    return Gate(name, points, MOST_POINTS, points <= MOST_POINTS, said)


def speed_gate(network: nn.Module) -> Gate:
    """Pictures a second, one at a time, at 256 px on two threads of this machine's CPU: the fastest of ten."""
    x = torch.zeros(1, 3, SPEED_SIDE_PX, SPEED_SIDE_PX)
    seconds = math.inf
    with _threads(SPEED_THREADS), torch.inference_mode():
        for _ in range(SPEED_PASSES):
            began = time.perf_counter()
            network(x)
            seconds = min(seconds, time.perf_counter() - began)
    rate = 1 / seconds
    said = f"images/s at {SPEED_SIDE_PX} px, torch, {SPEED_THREADS} threads of this CPU"
    return Gate("images_per_second", rate, LEAST_IMAGES_PER_SECOND, rate >= LEAST_IMAGES_PER_SECOND, said)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pictures(paths: Sequence[Path], side_px: int, limit: int) -> list[Pixels]:
    """The first so many, squares.

    Raises:
        DataError: one cannot be decoded (named), or there is none.
    """
    if not paths:
        raise DataError("there are no images to measure a student on")
    return [fit_square(decode(path).pixels, side_px) for path in paths[:limit]]


def _translated(
    network: nn.Module, images: Sequence[Pixels], device: torch.device, on_measure: OnMeasure, label: str
) -> list[Pixels]:
    out: list[Pixels] = []
    for start in range(0, len(images), BATCH):
        out += translate_batch(network, images[start : start + BATCH], device)
        on_measure(label, len(out), len(images))
    return out


def _written(folder: Path, images: Sequence[Pixels]) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:05d}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_atomically(path, png_bytes(image))
    return paths
