"""Whether a detector distinguishes generated from real images: leaks and controls first, and only then its accuracy.

A control puts real images, which cannot be distinguished, to the very test that the generated ones are put to.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fruitgan import randomness
from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.parallel import in_order
from fruitgan.engines.padding import translate_pixels
from fruitgan.errors import DataError
from fruitgan.evaluate.detectors import (
    LEAST_PER_CLASS,
    SALIENCY,
    TwoSampleTest,
    detectors_named,
    judged_images,
    need,
    result_of,
)
from fruitgan.evaluate.leaks import Facts, Leak
from fruitgan.evaluate.results import ControlResult, Detection, DetectorResult, JudgedImage
from fruitgan.evaluate.settings import NO_DETECTOR, EvaluateSettings, Tell
from fruitgan.export_dataset.job import Format, Unchanged, encode
from fruitgan.images import resize
from fruitgan.measures.contracts import Features
from fruitgan.measures.features import Pictures
from fruitgan.measures.statistics import MaximumTest, maximum_test
from fruitgan.progress import Progress
from fruitgan.train_detector.detector import DetectorBundle, load_detector, open_image_dataset, predict
from fruitgan.train_detector.protocols import PROTOCOLS, Split, half_split
from fruitgan.train_detector.regression import Logistic
from fruitgan.train_detector.two_sample_test import Candidate, two_sample_test

REALS = "reals-against-reals"
IDENTITY = "identity-export"
HALVES = "two disjoint halves of the real images"
FORMATS: dict[str, Format] = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}


def is_path(detector: str) -> bool:
    """Whether it means a file or a run rather than a registered name; what exists wins."""
    return Path(detector).exists() or "/" in detector or "\\" in detector or detector.endswith(".safetensors")


def detect(
    settings: EvaluateSettings,
    images: Sequence[LabelledImage],
    facts: Sequence[Facts],
    leaks: Sequence[Leak],
    backends: Sequence[Features],
    pictures: Pictures,
    device: torch.device,
    out: Path,
    tell: Tell,
) -> Detection:
    """Everything about detectors, `backends` being what `logistic` looks at; pictures of where they looked go below `out`.

    Raises:
        UsageError: no such detector.
        DataError: a file that is no detector; a detector was asked for and there are too few images, or too few different ones.
        FruitganError: the pictures cannot be written.
    """
    found = Detection()
    for path in (out / SALIENCY).glob("*-[0-9][0-9].png"):  # of an earlier evaluation
        with suppress(OSError):
            path.unlink()
    if settings.detector == NO_DETECTOR:
        found.withheld = "no detector was asked for"
    elif spoiled := sorted({leak.kind for leak in leaks if leak.spoils_detector}):
        found.withheld = (
            f"its accuracy would measure the leak ({', '.join(spoiled)}) and not the pictures; "
            "make both classes by one path with export-dataset"
        )
    elif settings.detector is not None and is_path(settings.detector):
        _given(Path(settings.detector), images, device, settings.seed, found, tell)
    else:
        was_asked = settings.detector is not None or bool(settings.attackers)
        names = detectors_named(settings.attackers if settings.detector is None else (settings.detector,), settings.quick)
        try:
            if reason := need(images):
                raise DataError(reason)
            with TwoSampleTest(images, names, device, settings.seed, settings.quick, tell, backends, pictures) as testing:
                _trained_here(testing, facts, out, found)
        except DataError as error:
            if was_asked:
                raise
            found.withheld = str(error)
    return found


def _trained_here(testing: TwoSampleTest, facts: Sequence[Facts], out: Path, found: Detection) -> None:
    trained = testing.detectors(testing.images)
    controls = [reals_against_reals(testing, trained), identity_export(testing, *_usual(facts))]
    found.controls = tuple(control for control in controls if control is not None)
    if len(found.controls) < len(controls):
        found.notes.append("the real images are too few for the controls, so the detector's number stands without them")
    if _is_refused(found):
        return
    detector, found.detectors, validated = testing.cross_validate(trained)
    found.detector = detector
    found.judged = judged_images([testing.images[i] for i in validated.judged], validated.strongest)
    if not testing.quick:
        found.robustness = testing.robustness(validated)
    found.saliency = testing.saliency(validated, out)


def _given(path: Path, images: Sequence[LabelledImage], device: torch.device, seed: int, found: Detection, tell: Tell) -> None:
    """The control and the accuracy of a detector from a file or a run."""
    bundle = load_detector(path)
    if isinstance(bundle.detector, Logistic):
        found.detector_trained_on = bundle.detector.trained_on
    halves = halved([image for image in images if not image.generated], seed, "evaluate/controls/reals")
    if halves:
        logits = _logits(path, bundle, halves, device, "control: reals against reals", tell)
        labels = np.array([image.generated for image in halves])
        test = maximum_test(logits[None], labels, [image.group for image in halves], seed=seed)
        found.controls = (control_result(REALS, HALVES, len(halves), test),)
    if not _is_refused(found):
        found.detector, notes, found.judged = judge_by_given(path, bundle, images, device, seed, tell)
        found.notes += notes


def judge_by_given(
    path: Path,
    bundle: DetectorBundle,
    images: Sequence[LabelledImage],
    device: torch.device,
    seed: int,
    tell: Tell,
) -> tuple[DetectorResult, list[str], tuple[JudgedImage, ...]]:
    """The accuracy of a detector from a file, notes on it, and its answers.

    Where these are the very images that it was trained with, only those of its own protocol's test part count.

    Raises:
        DataError: an image cannot be decoded, or an answer is not finite.
    """
    began = time.monotonic()
    card = bundle.card
    notes = []
    tested: Sequence[LabelledImage] = images
    protocol = "trained elsewhere; whether on some of these images cannot be known"
    with open_image_dataset(images, card.image_size_px, what="reading", tell=tell) as dataset:
        is_its_own = dataset.fingerprint == card.data_fingerprint
        if is_its_own:
            tested = [dataset.images[i] for i in PROTOCOLS[card.protocol](dataset.images, card.seed).test]
    if is_its_own:
        protocol = f"trained on other images of this set, by its protocol {card.protocol}"
        notes.append(f"the detector was trained on images of this set: its accuracy is that of its {len(tested)} test images")
        if card.protocol != "grouped":
            notes.append(f"its protocol {card.protocol} leaks: the accuracy reads too high")
    logits = _logits(path, bundle, tested, device, "detector", tell)
    truth, groups = np.array([image.generated for image in tested]), [image.group for image in tested]
    result = result_of(
        card.detector.name,
        logits,
        truth,
        groups,
        protocol=protocol,
        image_size_px=card.image_size_px,
        p_value=maximum_test(logits[None], truth, groups, seed=seed).p_value,
        seed=seed,
        began=began,
    )
    return result, notes, judged_images(tested, logits)


def _logits(
    path: Path, bundle: DetectorBundle, images: Sequence[LabelledImage], device: torch.device, what: str, tell: Tell
) -> np.ndarray:
    paths = [image.path for image in images]
    logits = predict(bundle.detector, paths, device=device, on_progress=lambda n, total: tell(Progress(what, n, total)))
    if not np.isfinite(logits).all():
        raise DataError(f"{path}: answers with numbers that are not finite; it is damaged, or was never fit to use")
    return logits


def _is_refused(found: Detection) -> bool:
    """Whether a control was distinguished; if so it says why there is no number."""
    for control in found.controls:
        if control.distinguished:
            found.withheld = (
                f"the control {control.name} was distinguished (p = {control.p_value:.2g}): {control.detail}; what "
                "distinguishes images that are all real would be taken for a trace of the generator"
            )
            return True
    return False


def _usual(facts: Sequence[Facts]) -> tuple[tuple[int, int] | None, str]:
    """Height and width of the generated images where all are alike, and their usual format."""
    fakes = [fact for fact in facts if fact.generated]
    sizes = {(fact.height_px, fact.width_px) for fact in fakes}
    ((form, _),) = Counter(fact.format for fact in fakes).most_common(1)
    return (next(iter(sizes)) if len(sizes) == 1 else None), form


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
