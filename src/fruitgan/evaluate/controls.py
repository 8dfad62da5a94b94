"""Two controls: images that nobody should be able to tell apart, put to the very test that the generated ones are put to."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fruitgan import randomness
from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.parallel import in_order
from fruitgan.engines.padding import translate_padded
from fruitgan.errors import DataError
from fruitgan.evaluate.detector_results import ControlResult
from fruitgan.evaluate.detectors import LEAST_PER_CLASS, Attacking, OnStep
from fruitgan.export_dataset.job import Unchanged, encode
from fruitgan.export_dataset.settings import Format
from fruitgan.images import Pixels, resize
from fruitgan.measures.statistics import MaximumTest, maximum_test
from fruitgan.train_detector.detector import load_detector, predict
from fruitgan.train_detector.protocols import Split, half_split
from fruitgan.train_detector.two_sample_test import Candidate, two_sample_test

REALS = "reals-against-reals"
IDENTITY = "identity-export"
FORMATS: dict[str, Format] = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


@dataclass(frozen=True)
class AnySize:
    """What the canvas must know of a generator that takes every size."""

    image_size_px: int = 256

    def padded(self, side_px: int) -> int:
        return side_px


def halved(reals: Sequence[LabelledImage], seed: int, stream: str) -> list[LabelledImage]:
    """The real images, half of the groups labelled as if they were generated."""
    groups = sorted({image.group for image in reals})
    order = randomness.permutation(seed, 0, len(groups), stream)
    first = {groups[i] for i in order[: len(groups) // 2]}
    return [replace(image, generated=image.group in first) for image in reals]


def reals_against_reals(attacking: Attacking, attackers: Sequence[Candidate], seed: int) -> ControlResult | None:
    """Real images of two disjoint halves; None where they are too few to train on."""
    places = [i for i, image in enumerate(attacking.images) if not image.generated]
    images = halved([attacking.images[i] for i in places], seed, "evaluate/controls/reals")
    if _too_few(images):
        return None
    parts = half_split(images, seed)
    numbers = np.array(places)
    mapped = Split(*(numbers[part] for part in (parts.train, parts.val, parts.test, parts.left_out)))
    generated = np.zeros(len(attacking.images), dtype=np.bool_)
    generated[numbers] = [image.generated for image in images]
    test = two_sample_test(
        attackers,
        mapped,
        generated,
        [image.group for image in attacking.images],
        seed,
        lambda name, done, total: attacking.tell(f"control: reals against reals, {name}", done, total),
    )
    return _result(REALS, "two disjoint halves of the real images", len(images), test)


def identity_export(attacking: Attacking, seed: int, size_px: tuple[int, int] | None, form: str) -> ControlResult | None:
    """Half of the real images through the export path with a generator that changes nothing, against the other half as it is.

    `size_px` (height, width) and `form`, in Pillow's words, are those of the generated images; None is each image's own size.
    """
    reals = [image for image in attacking.images if not image.generated]
    images = halved(reals, seed, "evaluate/controls/identity")
    if _too_few(images):
        return None
    with _exported(images, size_px, FORMATS.get(form, "png"), attacking) as (exported, is_same):
        path = "half of the real images through the export path with a generator that changes nothing, against the other half"
        if is_same:
            return ControlResult(
                name=IDENTITY,
                detail=f"{path}: every pixel comes out as it went in, so there is nothing to tell apart",
                n=len(images),
                p_value=1.0,
                auc=None,
                told_apart=False,
            )
        attackers = attacking.attackers(exported)
        test = two_sample_test(
            attackers,
            half_split(exported, seed),
            np.array([image.generated for image in exported]),
            [image.group for image in exported],
            seed,
            lambda name, done, total: attacking.tell(f"control: identity export, {name}", done, total),
        )
        return _result(IDENTITY, path, len(images), test)


def given_control(
    path: Path, reals: Sequence[LabelledImage], device: torch.device, seed: int, tell: OnStep
) -> ControlResult | None:
    """A detector that was trained elsewhere, asked for the difference between two disjoint halves of the real images.

    Raises:
        DataError: not a detector's file, or an image cannot be decoded.
    """
    images = halved(reals, seed, "evaluate/controls/reals")
    if _too_few(images):
        return None
    logits = predict(
        load_detector(path).detector,
        [image.path for image in images],
        device=device,
        on_progress=lambda done, total: tell("control: reals against reals", done, total),
    )
    if not np.isfinite(logits).all():
        raise DataError(f"{path}: answers with numbers that are not finite; it is damaged, or was never fit to use")
    generated = np.array([image.generated for image in images])
    test = maximum_test(logits[None], generated, [image.group for image in images], seed=seed)
    return _result(REALS, "two disjoint halves of the real images", len(images), test)


@contextmanager
def _exported(
    images: Sequence[LabelledImage], size_px: tuple[int, int] | None, form: Format, attacking: Attacking
) -> Iterator[tuple[list[LabelledImage], bool]]:
    """The images with one half exported anew, and whether that changed no pixel."""
    engine = Unchanged()

    def export(item: tuple[int, LabelledImage]) -> tuple[Path, bool]:
        number, image = item
        if not image.generated:
            return image.path, True
        pixels = decode(image.path).pixels
        square = pixels if size_px is None else resize(pixels, *size_px)
        data = encode(translate_padded(engine, AnySize(), square), form)
        path = folder / f"{number:06d}.{form}"
        path.write_bytes(data)
        return path, _same(pixels, decode(data).pixels)

    with tempfile.TemporaryDirectory(prefix="fruitgan-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        made: list[LabelledImage] = []
        is_same = True
        for (_, image), (path, same) in in_order(export, list(enumerate(images))):
            made.append(replace(image, path=path))
            is_same &= same
            attacking.tell("control: identity export", len(made), len(images))
        yield made, is_same


def _same(one: Pixels, other: Pixels) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _too_few(images: Sequence[LabelledImage]) -> bool:
    counts: Counter[bool] = Counter(image.generated for image in images)
    return min(counts[True], counts[False]) < LEAST_PER_CLASS


def _result(name: str, detail: str, n: int, test: MaximumTest) -> ControlResult:
    return ControlResult(name=name, detail=detail, n=n, p_value=test.p_value, auc=max(test.aucs), told_apart=test.rejects)
