"""Small sets of pictures to evaluate, and settings that do so in a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fruitgan.data.labelled import LabelledImage, ManifestRow, manifest_bytes
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.evaluate.sources import Sources, Subject
from fruitgan.files import file_sha256
from fruitgan.images import Pixels
from fruitgan.measures.features import Pictures
from fruitgan.progress import silent
from fruitgan.train_detector.seen import looks_of

SIDE_PX = 32
GRAIN, SMOOTH = 6.0, 1.0
"""Of photographs, and of what a generator smoothed."""


def blob(number: int, redness: float = 0.5, grain: float = GRAIN, striped: bool = False) -> Pixels:
    """A disc on cloudy grey: its number says where it lies, the clouds and the grain, so that it can be recoloured."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    centre, radius = random.uniform(10, 22, 2), random.uniform(6, 12)
    disc = np.clip(radius - np.hypot(y - centre[0], x - centre[1]), 0, 1)[:, :, None]
    colour = np.array([200 * redness + random.uniform(0, 40), 90, 200 * (1 - redness)])
    clouds = Image.fromarray(random.uniform(95, 145, (5, 5)).astype(np.uint8)).resize(
        (SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC
    )
    ground = np.asarray(clouds, dtype=float)[:, :, None]
    drawn = disc * colour + (1 - disc) * ground + random.normal(0, grain, (SIDE_PX, SIDE_PX, 3))
    drawn[:: 2 if striped else SIDE_PX] -= 60 * striped
    pixels: Pixels = np.clip(drawn, 2, 250).astype(np.uint8)
    return pixels


def fill(folder: Path, count: int, first: int = 0, redness: float = 0.5, grain: float = GRAIN, striped: bool = False) -> Path:
    """So many discs from this number on, as files 000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(blob(first + i, redness, grain, striped)).save(folder / f"{i:03d}.png")
    return folder


def write_manifest(dataset: Path, trained_reals: int = 0) -> None:
    """As of an export whose sources lie in `x`; so many real images are of the training split."""
    rows = []
    for label, folder in (("generated", "predicted"), ("real", "origins")):
        for number, path in enumerate(sorted((dataset / folder).iterdir())):
            split = "train" if label == "real" and number < trained_reals else "test"
            about = f"x/{path.name}", split, f"{folder} {number}", file_sha256(path), ""
            rows.append(ManifestRow(f"{folder}/{path.name}", label, *about))
    (dataset / "manifest.csv").write_bytes(manifest_bytes(rows))


def evaluating(dataset: Path, **changes: object) -> EvaluateSettings:
    """How `predicted` is held against `origins`: by colours alone, without a detector."""
    base = EvaluateSettings(
        fake_dir=dataset / "predicted",
        real_dir=dataset / "origins",
        detector="none",
        features=("colour",),
        metrics=("kid", "fid"),
        quick=True,
        device="cpu",
        threads=1,
        out=dataset / "out",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def subject_of(dataset: Path, images: Sequence[LabelledImage], sources: Sources | None = None) -> Subject:
    """These images as parts of the evaluation have them."""
    looks = looks_of([image.path for image in images])
    return Subject(evaluating(dataset), images, sources, Pictures(), torch.device("cpu"), silent, looks)
