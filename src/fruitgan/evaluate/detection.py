"""Whether a detector distinguishes generated from real images: leaks and controls first, and only then its accuracy."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import DataError
from fruitgan.evaluate.controls import HALVES, REALS, control_result, halved, identity_export, reals_against_reals
from fruitgan.evaluate.detectors import (
    SALIENCY,
    TwoSampleTest,
    detectors_named,
    judged_images,
    need,
    refuse_broken,
    result_of,
)
from fruitgan.evaluate.leaks import Facts, Leak
from fruitgan.evaluate.results import (
    ControlResult,
    DetectorResult,
    DetectorRow,
    JudgedImage,
    RobustnessResult,
    SaliencyResult,
)
from fruitgan.evaluate.settings import NO_DETECTOR, EvaluateSettings, Tell
from fruitgan.measures.contracts import Features
from fruitgan.measures.features import Pictures
from fruitgan.measures.statistics import maximum_test
from fruitgan.progress import Progress
from fruitgan.train_detector.detector import DetectorBundle, load_detector, open_image_dataset, predict
from fruitgan.train_detector.protocols import PROTOCOLS
from fruitgan.train_detector.regression import Logistic


@dataclass
class Detection:
    """All results of detectors; without a detector `withheld` says why."""

    detector: DetectorResult | None = None
    withheld: str | None = None
    controls: tuple[ControlResult, ...] = ()
    detectors: tuple[DetectorRow, ...] = ()
    judged: tuple[JudgedImage, ...] = ()
    robustness: tuple[RobustnessResult, ...] = ()
    saliency: tuple[SaliencyResult, ...] = ()
    trained_on: str = ""
    """The data that the detector's features were trained on elsewhere."""
    notes: list[str] = field(default_factory=list)


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
        found.trained_on = bundle.detector.trained_on
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
    with open_image_dataset(
        images, card.image_size_px, on_progress=lambda n, total: tell(Progress("reading", n, total))
    ) as dataset:
        refuse_broken(dataset)
        is_its_own = dataset.fingerprint == card.data_fingerprint
        if is_its_own:
            tested = [dataset.images[i] for i in PROTOCOLS[card.protocol].split(dataset.images, card.seed).test]
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
