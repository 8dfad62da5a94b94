"""Generators that were trained by the reference code, as a bundle: settings, job and result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

import fruitgan
from fruitgan.bundle import SUFFIX, Bundle, Card, Weights, save
from fruitgan.engines.contracts import engines
from fruitgan.engines.padding import translate_pixels
from fruitgan.errors import DataError, UsageError, shown
from fruitgan.files import check_writable, file_sha256
from fruitgan.progress import Note, OnProgress, Progress, silent
from fruitgan.registry import Choice
from fruitgan.translate.export_job import LARGEST_COMPARED_PX, drawn, levels_apart

COMPARED_PICTURES = 2


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """Which files of the reference code, what is in them, and where to."""

    files: tuple[Path, ...]
    """The generator from a to b, and perhaps the one from b to a."""
    architecture: Literal["resnet-9", "resnet-6", "unet-256", "unet-128", "cut-resnet"]
    domains: tuple[str, str]
    output: Path
    image_size_px: int | None = None
    """Side of the training images; None is 128 for unet-128 and 256 for the others, the reference code's own default."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.files) <= 2:
            raise UsageError(f"{len(self.files)} files: give the generator from a to b, and perhaps the one from b to a")
        if self.output.suffix != SUFFIX:
            raise UsageError(f"-o {self.output}: a bundle's name ends in {SUFFIX}")


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """The bundle that was written."""

    bundle: Path
    generator: Choice
    directions: tuple[str, ...]
    weights_dtype: str
    half_precision: Mapping[str, Mapping[str, float]]
    """By direction, how far half precision moves the drawn pictures, in grey levels of 255: `largest` and `mean`."""
    seconds: float


def import_checkpoint(settings: ImportSettings, on_progress: OnProgress | None = None) -> ImportResult:
    """Read checkpoints of the reference code as tensors alone, and write the bundle.

    It is in half precision where that moves no pixel of drawn fruit by more than a grey level, else in full precision.

    Raises:
        UsageError: something is in the bundle's place and `overwrite` is off.
        DataError: a file cannot be read, or is not of the architecture; the two files are of different networks.
        FruitganError: the bundle cannot be written.
    """
    from fruitgan.networks.contracts import generators
    from fruitgan.networks.reference import read_checkpoint

    begin, tell = time.monotonic(), on_progress or silent
    if settings.output.exists() and not settings.overwrite:
        raise UsageError(f"{settings.output}: is there already; --overwrite replaces it, -o writes elsewhere")
    check_writable(settings.output.parent)
    read = dict(zip(("a2b", "b2a"), (read_checkpoint(file, settings.architecture) for file in settings.files), strict=False))
    choices = [choice for choice, _ in read.values()]
    if choices[0] != choices[-1]:
        raise DataError(
            f"{settings.files[1]}: another network than {settings.files[0]} ({shown(dict(choices[1].options))}, "
            f"{shown(dict(choices[0].options))}); a bundle holds two of one kind"
        )
    card = _card(settings, generators.build(choices[0]).size_rule, choices[0], tuple(read))
    apart = {}
    for way, (_, weights) in read.items():
        apart[way] = _half_precision(card, weights)
        tell(Progress("comparing half precision", len(apart), len(read)))
    if max(found["largest"] for found in apart.values()) > 1:
        card = replace(card, weights_dtype="float32")
        tell(Note("half precision would move a pixel by more than a grey level: the bundle is in full precision"))
    save(Bundle(card, {way: weights for way, (_, weights) in read.items()}), settings.output)
    return ImportResult(
        bundle=settings.output,
        generator=card.generator,
        directions=card.directions,
        weights_dtype=card.weights_dtype,
        half_precision=apart,
        seconds=round(time.monotonic() - begin, 3),
    )


def _half_precision(card: Card, weights: Weights) -> dict[str, float]:
    """How far pictures of drawn fruit by the weights in half precision are from those by the weights as they are."""
    with np.errstate(over="ignore"):
        half = {name: array.astype(np.float16) for name, array in weights.items()}
    if not all(np.isfinite(array).all() for array in half.values()):
        return {"largest": 255, "mean": 255.0}
    side = card.padded(min(card.image_size_px, LARGEST_COMPARED_PX))
    pictures = [drawn(index, side, side) for index in range(COMPARED_PICTURES)]
    one, other = (engines.get("torch")(generator=card.generator, weights=kept, gpu="none") for kept in (weights, half))
    made = [[translate_pixels(engine, card, picture, "native") for picture in pictures] for engine in (one, other)]
    return levels_apart(np.stack(made[0]), np.stack(made[1]))


def _card(settings: ImportSettings, rule: Any, generator: Choice, directions: tuple[str, ...]) -> Card:
    sums = ", ".join(f"{file.name} (sha256 {file_sha256(file)})" for file in settings.files)
    return Card(
        name=settings.output.stem,
        domains=settings.domains,
        generator=generator,
        directions=directions,
        image_size_px=settings.image_size_px or (128 if settings.architecture == "unet-128" else 256),
        size_minimum_px=rule.minimum_px,
        size_multiple_px=rule.multiple_of_px,
        recipe="imported",
        steps=0,
        images=0,
        data="not known",
        data_fingerprint="",
        licence="that of the imported weights",
        notes=f"imported as {settings.architecture} from {sums}",
        fruitgan_version=fruitgan.__version__,
        created="",
    )
