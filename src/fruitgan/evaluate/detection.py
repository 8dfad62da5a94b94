"""Whether a detector distinguishes generated from real images: leaks and the control first, and only then its accuracy.

The control puts real images, which cannot be distinguished, to the very test that the generated ones are put to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fruitgan import randomness
from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import DataError
from fruitgan.evaluate.detectors import TwoSampleTest, detectors_named, judged_images, result_of
from fruitgan.evaluate.results import DetectorResult, EvaluateResult, Row
from fruitgan.evaluate.settings import NO_DETECTOR
from fruitgan.evaluate.sources import Subject
from fruitgan.measures.contracts import Features, squashing
from fruitgan.measures.statistics import MaximumTest, maximum_test
from fruitgan.runs.resume import DETECTOR, locate_detector
from fruitgan.train_detector.detector import DetectorBundle, load_detector, open_image_dataset
from fruitgan.train_detector.protocols import Split, half_split, too_few
from fruitgan.train_detector.regression import Logistic
from fruitgan.train_detector.settings import OUT
from fruitgan.train_detector.two_sample_test import two_sample_test

REALS = "reals-against-reals"


def is_path(detector: str) -> bool:
    """Whether it means a file or a run rather than a registered name; what exists wins."""
    is_path = "/" in detector or "\\" in detector or detector.endswith(".safetensors")
    return is_path or Path(detector).exists() or (OUT / detector / DETECTOR).is_file()


def detect(subject: Subject, backends: Sequence[Features], result: EvaluateResult) -> None:
    """Put everything about detectors into the result, `backends` being what `logistic` looks at.

    Raises:
        UsageError: no such detector.
        DataError: a file that is no detector; a detector was asked for and there are too few images, or too few different ones.
    """
    settings, images = subject.settings, subject.images
    if settings.detector == NO_DETECTOR:
        result.withheld = "no detector was asked for"
    elif spoiled := sorted({leak.kind for leak in result.leaks if leak.spoils_detector}):
        result.withheld = (
            f"its accuracy would measure the leak ({', '.join(spoiled)}) and not the pictures; "
            "make both classes by one path with export-dataset"
        )
    elif settings.detector is not None and is_path(settings.detector):
        _given(locate_detector(settings.detector, OUT), subject, result)
    else:
        was_asked = settings.detector is not None or bool(settings.attackers)
        names = detectors_named(settings.attackers if settings.detector is None else (settings.detector,), settings.quick)
        try:
            if reason := too_few(images):
                raise DataError(reason)
            device, tell, pictures = subject.device, subject.tell, subject.pictures
            _trained_here(TwoSampleTest(images, names, device, settings.seed, settings.quick, tell, backends, pictures), result)
        except DataError as error:
            if was_asked:
                raise
            result.withheld = str(error)


def _trained_here(testing: TwoSampleTest, result: EvaluateResult) -> None:
    trained = testing.detectors()
    places = np.flatnonzero(~testing.generated)
    if halves := halved([testing.images[place] for place in places.tolist()], testing.seed):
        split = half_split(halves, testing.seed)
        mapped = Split(*(places[part] for part in (split.train, split.val, split.test, split.left_out)))
        generated = np.zeros(len(testing.images), dtype=np.bool_)
        generated[places] = [image.generated for image in halves]
        what = "control: reals against reals,"
        test = two_sample_test(trained, mapped, generated, testing.groups, testing.seed, testing.tell, what)
        if _refused_by_control(result, len(halves), test):
            return
    else:
        result.notes.append("the real images are too few for the control, so the detector's number stands without it")
    result.detector, result.detectors, validated = testing.cross_validate(trained)
    result.judged = judged_images([testing.images[i] for i in validated.judged], validated.strongest)
    result.by_depth = testing.by_depth(trained, validated)
    if not testing.quick:
        result.robustness = testing.robustness(validated)
        result.learning_curve = testing.learning_curve(trained, validated)


def _given(path: Path, subject: Subject, result: EvaluateResult) -> None:
    """The control and the accuracy of a detector from a file or a run."""
    bundle, seed = load_detector(path), subject.settings.seed
    if isinstance(bundle.detector, Logistic):
        result.detector_trained_on = bundle.detector.trained_on
    if halves := halved(subject.reals, seed):
        logits = _logits(path, bundle, halves, subject, "control: reals against reals")
        if _refused_by_control(result, len(halves), _tested(logits, halves, seed)):
            return
    result.detector, notes, result.judged = judge_by_given(path, bundle, subject)
    result.notes += notes


def _refused_by_control(result: EvaluateResult, n: int, test: MaximumTest) -> bool:
    """Keep the control of n real images; if it was distinguished, say why there is no number."""
    detail = "two disjoint halves of the real images"
    control = {"name": REALS, "detail": detail, "n": n, "p_value": test.p_value, "auc": max(test.aucs)}
    result.controls = [control | {"distinguished": test.rejects}]
    if test.rejects:
        result.withheld = (
            f"the control {REALS} was distinguished (p = {test.p_value:.2g}): {detail}; what distinguishes images that are "
            "all real would be taken for a trace of the generator"
        )
    return test.rejects


def halved(reals: Sequence[LabelledImage], seed: int) -> list[LabelledImage]:
    """The real images, half of the groups labelled as if they were generated; empty where they are too few to train on."""
    groups = sorted({image.group for image in reals})
    order = randomness.permutation(seed, 0, len(groups), "evaluate/controls/reals")
    first = {groups[i] for i in order[: len(groups) // 2]}
    images = [replace(image, generated=image.group in first) for image in reals]
    return [] if too_few(images) else images


def judge_by_given(path: Path, bundle: DetectorBundle, subject: Subject) -> tuple[DetectorResult, list[str], list[Row]]:
    """The accuracy of a detector from a file, notes on it, and its answers, on images that did not teach it, as its card says.

    Raises:
        DataError: an image cannot be decoded, an answer is not finite, or no image of one class is left.
    """
    began, seed = time.monotonic(), subject.settings.seed
    card, images, notes = bundle.card, subject.images, []
    untaught = card.is_untaught(subject.looks, [image.group for image in images])
    tested = [image for image, is_untaught in zip(images, untaught, strict=True) if is_untaught]
    left_out = len(images) - len(tested)
    taught = f"{left_out} of {len(images)} images taught the detector, or are nearly like one that did"
    if len({image.generated for image in tested}) < 2:
        raise DataError(f"{path}: {taught}: no real or no generated one is left to test it with; give others")
    if left_out:
        notes.append(f"{taught}, and are left out")
    if card.protocol != "grouped":
        notes.append(f"by its protocol {card.protocol} its test images also chose its weights: on them it reads too high")
    logits = _logits(path, bundle, tested, subject, "detector")
    result = result_of(
        logits,
        tested,
        np.zeros(len(tested), dtype=np.int64),
        name=card.detector.name,
        protocol="trained on other images than these, as the hashes on its card say",
        image_size_px=card.image_size_px,
        resize=squashing(card.image_size_px),
        p_value=_tested(logits, tested, seed).p_value,
        began=began,
    )
    return replace(result, left_out=left_out), notes, judged_images(tested, logits)


def _tested(logits: np.ndarray, images: Sequence[LabelledImage], seed: int) -> MaximumTest:
    truth = np.array([image.generated for image in images])
    return maximum_test(logits[None], truth, [image.group for image in images], seed=seed)


def _logits(path: Path, bundle: DetectorBundle, images: Sequence[LabelledImage], subject: Subject, what: str) -> np.ndarray:
    how, size_px, device = bundle.card.preprocessing, bundle.card.image_size_px, subject.device
    dataset = open_image_dataset(images, size_px, how=how, what=what, tell=subject.tell)
    logits = dataset.logits(bundle.detector.to(device), np.arange(len(images), dtype=np.int64), device)
    if not np.isfinite(logits).all():
        raise DataError(f"{path}: answers with numbers that are not finite; it is damaged, or was never fit to use")
    return logits
