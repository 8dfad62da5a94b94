"""How the strongest attacker bears changes of the pictures, and where it looked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fruitgan.atomic import write_atomically
from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.parallel import in_order
from fruitgan.evaluation.calibration import average_precision
from fruitgan.images import Pixels, resize, to_pillow
from fruitgan.training.detection import judge
from fruitgan.training.detection.album import RESAMPLE, unit_images
from fruitgan.training.detection.answers import BATCH_SIZE
from fruitgan.training.detection.attack import Contest
from fruitgan.training.detection.changes import CHANGES, Change
from fruitgan.training.detection.saliency import marked, saliency
from fruitgan.workflows.evaluate.attack_results import LookedAt, RobustnessResult
from fruitgan.workflows.evaluate.attacking import OnStep

SHOWN = 6
FOLDER = "saliency"


def robustness(contest: Contest, images: Sequence[LabelledImage], device: torch.device, tell: OnStep) -> list[RobustnessResult]:
    """The judged images after each change, each before the detector of its fold. `images` are all, as the contest numbers them.

    Raises:
        DataError: an image cannot be decoded.
    """
    logits = np.empty((len(CHANGES), len(contest.judged)))
    done = 0
    for number, winner in enumerate(contest.winners):
        rows = np.flatnonzero(contest.fold == number)
        for start in range(0, len(rows), BATCH_SIZE):
            piece = rows[start : start + BATCH_SIZE]
            paths = [images[contest.judged[row]].path for row in piece]
            side_px = winner.detector.image_size_px
            pictures = [seen for _, seen in in_order(partial(_changed, side_px=side_px), paths)]
            for place in range(len(CHANGES)):
                batch = unit_images(np.stack([seen[place] for seen in pictures]), device)
                with torch.inference_mode():
                    logits[place, piece] = winner.detector(batch).double().cpu().numpy()
            done += len(piece)
            tell("robustness", done, len(contest.judged))
    truth = np.array([images[i].generated for i in contest.judged])
    return [_result(change, row, truth) for change, row in zip(CHANGES, logits, strict=True)]


def _changed(path: Path, side_px: int) -> list[Pixels]:
    """The picture after every change, at the detector's size."""
    pixels = decode(path).pixels
    number = int.from_bytes(path.name.encode()[-8:], "big") % 2**31
    return [resize(change.apply(pixels, number), side_px, side_px, RESAMPLE) for change in CHANGES]


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


def look(contest: Contest, images: Sequence[LabelledImage], device: torch.device, out: Path, seed: int) -> tuple[LookedAt, ...]:
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
            detector = contest.winners[contest.fold[row]].detector
            image = images[contest.judged[row]]
            pixels = resize(decode(image.path).pixels, detector.image_size_px, detector.image_size_px, RESAMPLE)
            picture = marked(pixels, saliency(detector, pixels[None], device, seed)[0])
            file = io.BytesIO()
            to_pillow(picture).save(file, "PNG")
            name = f"{FOLDER}/{kind}-{len(found):02d}.png"
            write_atomically(out / name, file.getvalue())
            found.append(LookedAt(file=image.path.name, kind=kind, logit=float(said[row]), picture=name))
    return tuple(found)
