"""Whether a detector tells the images apart: leaks, then controls, and only then the attackers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import DataError
from fruitgan.evaluate.controls import given_control, identity_export, reals_against_reals
from fruitgan.evaluate.detector_results import (
    AttackerResult,
    ControlResult,
    DetectorResult,
    JudgedImage,
    LookedAt,
    RobustnessResult,
)
from fruitgan.evaluate.detectors import Attacking, OnStep, attackers_named, need
from fruitgan.evaluate.given_detector import is_path, judge_by_given
from fruitgan.evaluate.leaks import Facts, Leak
from fruitgan.evaluate.robustness import FOLDER, look, robustness
from fruitgan.evaluate.settings import NO_DETECTOR, EvaluateSettings
from fruitgan.measures.contracts import Features
from fruitgan.measures.features import Pictures


@dataclass
class Detection:
    """What became of it; without a detector `withheld` says why."""

    detector: DetectorResult | None = None
    withheld: str | None = None
    controls: tuple[ControlResult, ...] = ()
    attackers: tuple[AttackerResult, ...] = ()
    judged: tuple[JudgedImage, ...] = ()
    robustness: tuple[RobustnessResult, ...] = ()
    saliency: tuple[LookedAt, ...] = ()
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def detect(
    settings: EvaluateSettings,
    images: Sequence[LabelledImage],
    facts: Sequence[Facts],
    leaks: Sequence[Leak],
    backends: Sequence[Features],
    pictures: Pictures,
    device: torch.device,
    out: Path,
    tell: OnStep,
) -> Detection:
    """Everything about detectors, `backends` being what `logistic` looks at; pictures of where they looked go below `out`.

    Raises:
        UsageError: no such detector.
        DataError: a file that is no detector; a detector was asked for and there are too few images, or too few different ones.
        FruitganError: the pictures cannot be written.
    """
    began = time.monotonic()
    found = Detection()
    _clear(out / FOLDER)
    if settings.detector == NO_DETECTOR:
        found.withheld = "no detector was asked for"
    elif spoiled := sorted({leak.kind for leak in leaks if leak.spoils_detector}):
        found.withheld = (
            f"its accuracy would measure the leak ({', '.join(spoiled)}) and not the pictures; "
            "make both classes by one path with export-dataset"
        )
    elif settings.detector is not None and is_path(settings.detector):
        _by_given(settings, images, device, found, tell)
    else:
        _by_attackers(settings, images, facts, backends, pictures, device, out, found, tell)
    found.seconds = round(time.monotonic() - began, 3)
    return found


def _by_given(
    settings: EvaluateSettings, images: Sequence[LabelledImage], device: torch.device, found: Detection, tell: OnStep
) -> None:
    path = Path(settings.detector or "")
    reals = [image for image in images if not image.generated]
    control = given_control(path, reals, device, settings.seed, tell)
    found.controls = () if control is None else (control,)
    if not _refused(found):
        found.detector, notes, found.judged = judge_by_given(path, images, device, settings.seed, tell)
        found.notes += notes


def _by_attackers(
    settings: EvaluateSettings,
    images: Sequence[LabelledImage],
    facts: Sequence[Facts],
    backends: Sequence[Features],
    pictures: Pictures,
    device: torch.device,
    out: Path,
    found: Detection,
    tell: OnStep,
) -> None:
    was_asked = settings.detector is not None or bool(settings.attackers)
    if reason := need(images):
        if was_asked:
            raise DataError(reason)
        found.withheld = reason
        return
    wanted = settings.attackers if settings.detector is None else (settings.detector,)
    names = attackers_named(wanted, settings.quick)
    with Attacking(images, names, device, settings.seed, settings.quick, tell, backends, pictures) as attacking:
        attackers = attacking.attackers(images)
        try:
            size_px, form = _usual(facts)
            controls = [
                reals_against_reals(attacking, attackers, settings.seed),
                identity_export(attacking, settings.seed, size_px, form),
            ]
            found.controls = tuple(control for control in controls if control is not None)
            if len(found.controls) < len(controls):
                found.notes.append("the real images are too few for the controls, so the detector's number stands without them")
            if _refused(found):
                return
            found.detector, found.attackers, contest = attacking.contest(attackers)
        except DataError as error:
            if was_asked:
                raise
            found.withheld = str(error)
            return
        found.judged = attacking.judged(contest)
        if not settings.quick:
            found.robustness = tuple(robustness(contest, images, pictures, device, settings.seed, tell))
        found.saliency = look(contest, images, pictures, device, out, settings.seed)


def _refused(found: Detection) -> bool:
    """Whether a control was told apart; if so it says why there is no number."""
    for control in found.controls:
        if control.told_apart:
            found.withheld = (
                f"the control {control.name} was told apart (p = {control.p_value:.2g}): {control.detail}; what tells images "
                "apart that are all real would be taken for the mark of the generated ones"
            )
            return True
    return False


def _usual(facts: Sequence[Facts]) -> tuple[tuple[int, int] | None, str]:
    """Height and width of the generated images where all are alike, and their usual format."""
    fakes = [fact for fact in facts if fact.generated]
    sizes = {(fact.height_px, fact.width_px) for fact in fakes}
    ((form, _),) = Counter(fact.format for fact in fakes).most_common(1)
    return (next(iter(sizes)) if len(sizes) == 1 else None), form


def _clear(folder: Path) -> None:
    """Take away the pictures of an earlier evaluation."""
    for path in folder.glob("*-[0-9][0-9].png"):
        with suppress(OSError):
            path.unlink()
