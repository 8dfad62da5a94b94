"""How the strongest attacker bears changes of the pictures, and where it looked."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fruitgan import randomness
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.parallel import in_order
from fruitgan.evaluate.detector_results import LookedAt, RobustnessResult
from fruitgan.evaluate.detectors import OnStep
from fruitgan.files import write_atomically
from fruitgan.images import Pixels, to_pillow
from fruitgan.train_detector.calibration import average_precision, judge
from fruitgan.train_detector.detector import BATCH_SIZE, answers
from fruitgan.train_detector.robustness import CHANGES, Change, marked, saliency
from fruitgan.train_detector.two_sample_test import CrossValidation, Prepare

CHANGED = 100
"""Judged images of each class that are changed: the intervals of the rows are then 5 points to each side or less at 85%."""
SHOWN = 6
FOLDER = "saliency"

Read = Callable[[Path], Pixels]


def robustness(
    contest: CrossValidation, images: Sequence[LabelledImage], read: Read, device: torch.device, seed: int, tell: OnStep
) -> list[RobustnessResult]:
    """Judged images after each change, each before the detector of its fold. `images` are all, as the contest numbers them.

    Raises:
        DataError: an image cannot be decoded.
    """
    chosen = _some(contest, images, seed)
    logits = np.empty((len(CHANGES), len(chosen)))
    done = 0
    for number, winner in enumerate(contest.winners):
        rows = np.flatnonzero(contest.fold[chosen] == number)
        for start in range(0, len(rows), BATCH_SIZE):
            piece = rows[start : start + BATCH_SIZE]
            paths = [images[contest.judged[chosen[row]]].path for row in piece]
            seen = [changed for _, changed in in_order(partial(_changed, read=read, prepare=winner.prepare), paths)]
            for place in range(len(CHANGES)):
                logits[place, piece] = answers(winner.detector, [changed[place] for changed in seen], device)
            done += len(piece)
            tell("robustness", done, len(chosen))
    truth = np.array([images[i].generated for i in contest.judged[chosen]])
    return [_result(change, row, truth) for change, row in zip(CHANGES, logits, strict=True)]


def _some(contest: CrossValidation, images: Sequence[LabelledImage], seed: int) -> NDArray[np.int64]:
    """Rows of the contest, ascending: up to `CHANGED` of each class."""
    truth = np.array([images[i].generated for i in contest.judged])
    kept = []
    for label in (False, True):
        rows = np.flatnonzero(truth == label)
        kept.append(rows[randomness.permutation(seed, 0, len(rows), "evaluate/robustness")[:CHANGED]])
    return np.sort(np.concatenate(kept))


def _changed(path: Path, read: Read, prepare: Prepare) -> list[Pixels]:
    """The picture after every change, as the detector wants it."""
    pixels = read(path)
    number = int.from_bytes(path.name.encode()[-8:], "big") % 2**31
    return [prepare(change.apply(pixels, number)) for change in CHANGES]


def _result(change: Change, logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> RobustnessResult:
    verdict = judge(logits, truth)
    return RobustnessResult(
        change=change.name,
        amount=change.amount,
        accuracy=verdict.accuracy,
        interval=verdict.interval,
        auc=verdict.auc,
        average_precision=average_precision(logits, truth),
        n=verdict.n,
    )


def look(
    contest: CrossValidation, images: Sequence[LabelledImage], read: Read, device: torch.device, out: Path, seed: int
) -> tuple[LookedAt, ...]:
    """Pictures of where the detectors looked, of the surest generated images and of those that they missed by most.

    Raises:
        FruitganError: the pictures cannot be written.
    """
    truth = np.array([images[i].generated for i in contest.judged])
    said = contest.strongest
    wanted = {"surest": np.flatnonzero(truth & (said > 0)), "missed": np.flatnonzero(truth & (said <= 0))}
    found: list[LookedAt] = []
    for kind, rows in wanted.items():
        order = np.argsort(-said[rows] if kind == "surest" else said[rows], kind="stable")
        for row in rows[order][:SHOWN]:
            winner = contest.winners[contest.fold[row]]
            image = images[contest.judged[row]]
            pixels = winner.prepare(read(image.path))
            picture = marked(pixels, saliency(winner.detector, pixels[None], device, seed)[0])
            file = io.BytesIO()
            to_pillow(picture).save(file, "PNG")
            name = f"{FOLDER}/{kind}-{len(found):02d}.png"
            write_atomically(out / name, file.getvalue())
            found.append(LookedAt(file=image.path.name, kind=kind, logit=float(said[row]), picture=name))
    return tuple(found)
