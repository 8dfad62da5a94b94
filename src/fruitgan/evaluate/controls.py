"""Controls: real images that cannot be distinguished, put to the very test that the generated ones are put to."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fruitgan import randomness
from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.parallel import in_order
from fruitgan.engines.padding import translate_pixels
from fruitgan.evaluate.detectors import LEAST_PER_CLASS, TwoSampleTest
from fruitgan.evaluate.results import ControlResult
from fruitgan.export_dataset.job import Format, Unchanged, encode
from fruitgan.images import resize
from fruitgan.measures.statistics import MaximumTest
from fruitgan.progress import Progress
from fruitgan.train_detector.protocols import Split, half_split
from fruitgan.train_detector.two_sample_test import Candidate, two_sample_test

REALS = "reals-against-reals"
IDENTITY = "identity-export"
HALVES = "two disjoint halves of the real images"
FORMATS: dict[str, Format] = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


@dataclass(frozen=True)
class AnySize:
    """What the canvas must know of a generator that takes every size."""

    image_size_px: int = 256

    def padded(self, side_px: int) -> int:
        return side_px


def halved(reals: Sequence[LabelledImage], seed: int, stream: str) -> list[LabelledImage]:
    """The real images, half of the groups labelled as if they were generated; empty where they are too few to train on."""
    groups = sorted({image.group for image in reals})
    order = randomness.permutation(seed, 0, len(groups), stream)
    first = {groups[i] for i in order[: len(groups) // 2]}
    images = [replace(image, generated=image.group in first) for image in reals]
    counts = Counter(image.generated for image in images)
    return images if min(counts[True], counts[False]) >= LEAST_PER_CLASS else []


def control_result(name: str, detail: str, n: int, test: MaximumTest) -> ControlResult:
    """A control by its test."""
    return ControlResult(name=name, detail=detail, n=n, p_value=test.p_value, auc=max(test.aucs), distinguished=test.rejects)


def reals_against_reals(testing: TwoSampleTest, trained: Sequence[Candidate]) -> ControlResult | None:
    """Real images of two disjoint halves; None where they are too few to train on."""
    places = np.flatnonzero(~testing.generated)
    images = halved([image for image in testing.images if not image.generated], testing.seed, "evaluate/controls/reals")
    if not images:
        return None
    split = half_split(images, testing.seed)
    mapped = Split(*(places[part] for part in (split.train, split.val, split.test, split.left_out)))
    generated = np.zeros(len(testing.images), dtype=np.bool_)
    generated[places] = [image.generated for image in images]
    test = two_sample_test(
        trained, mapped, generated, testing.groups, testing.seed, testing.counted("control: reals against reals,")
    )
    return control_result(REALS, HALVES, len(images), test)


def identity_export(testing: TwoSampleTest, size_px: tuple[int, int] | None, form: str) -> ControlResult | None:
    """Half of the real images through the export path with a generator that changes nothing, against the other half as it is.

    `size_px` (height, width) and `form`, in Pillow's words, are those of the generated images; None is each image's own size.
    """
    reals = [image for image in testing.images if not image.generated]
    images = halved(reals, testing.seed, "evaluate/controls/identity")
    if not images:
        return None
    detail = "half of the real images through the export path with a generator that changes nothing, against the other half"
    with _exported(images, size_px, FORMATS.get(form, "png"), testing) as (exported, is_same):
        if is_same:
            return ControlResult(
                name=IDENTITY,
                detail=f"{detail}: every pixel comes out as it went in, so there is nothing to distinguish",
                n=len(images),
                p_value=1.0,
                auc=None,
                distinguished=False,
            )
        test = two_sample_test(
            testing.detectors(exported),
            half_split(exported, testing.seed),
            np.array([image.generated for image in exported]),
            [image.group for image in exported],
            testing.seed,
            testing.counted("control: identity export,"),
        )
        return control_result(IDENTITY, detail, len(images), test)


@contextmanager
def _exported(
    images: Sequence[LabelledImage], size_px: tuple[int, int] | None, form: Format, testing: TwoSampleTest
) -> Iterator[tuple[list[LabelledImage], bool]]:
    """The images with one half exported anew, and whether that changed no pixel."""
    engine = Unchanged()

    def export(item: tuple[int, LabelledImage]) -> tuple[Path, bool]:
        number, image = item
        if not image.generated:
            return image.path, True
        pixels = decode(image.path).pixels
        square = pixels if size_px is None else resize(pixels, *size_px)
        data = encode(translate_pixels(engine, AnySize(), square, "native"), form)
        path = folder / f"{number:06d}.{form}"
        path.write_bytes(data)
        return path, np.array_equal(pixels, decode(data).pixels)

    with tempfile.TemporaryDirectory(prefix="fruitgan-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        made: list[LabelledImage] = []
        is_same = True
        for (_, image), (path, same) in in_order(export, list(enumerate(images))):
            made.append(replace(image, path=path))
            is_same &= same
            testing.tell(Progress("control: identity export", len(made), len(images)))
        yield made, is_same
