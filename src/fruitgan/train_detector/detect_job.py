"""The job `detect`: real or generated, a calibrated probability for each picture, and what in it the detector does not know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from fruitgan.data.finder import Remark, find_images
from fruitgan.device import choose_device
from fruitgan.errors import DataError
from fruitgan.images import Pixels
from fruitgan.parallel import in_order
from fruitgan.progress import Note, OnProgress, Progress, silent
from fruitgan.runs.resume import locate_detector
from fruitgan.settings import Settings
from fruitgan.train_detector.detector import BATCH_SIZE, DetectorCard, answers, load_detector, squashed
from fruitgan.train_detector.seen import header_of
from fruitgan.train_detector.settings import OUT


@dataclass(frozen=True, kw_only=True)
class DetectSettings(Settings):
    """Which pictures, and by which detector."""

    pictures: tuple[str, ...]
    """Files, folders and glob patterns."""
    recursive: bool = False
    detector: str | None = None
    """A file, a run's folder, or its name under `runs`; None: the newest there."""
    gpu: str | None = None
    device: str | None = None
    runs: Path = OUT


@dataclass(frozen=True, kw_only=True)
class DetectedPicture:
    """What the detector says of one picture."""

    file: str
    generated: bool | None
    """None where the probability is one half, as it always is where the logits told nothing of the validation images."""
    probability: float
    """That it is generated, if as many pictures are real as are generated."""
    logit: float
    outside: tuple[str, ...]
    """In what the file is unlike all that the detector was trained on: its size, format or compression."""


@dataclass(frozen=True, kw_only=True)
class DetectResult:
    """What `--json` prints."""

    detector: Path
    accuracy: float
    """Of the detector on its own test images, with its interval of 95%."""
    interval: tuple[float, float]
    pictures: tuple[DetectedPicture, ...]
    skipped: tuple[Remark, ...]
    """What is no picture; those that cannot be decoded are `failed`."""
    failed: tuple[Remark, ...]


def detect(settings: DetectSettings, on_progress: OnProgress = silent) -> DetectResult:
    """Judge every picture, one batch after the other; what cannot be decoded is listed and the others are judged.

    Raises:
        DataError: no detector, or a file that is none; no picture at all.
        UsageError: no run of that name.
        EnvironmentProblem: no such GPU, or the package of the detector is not installed.
    """
    file = locate_detector(settings.detector, settings.runs)
    bundle, device = load_detector(file), choose_device(settings.gpu, settings.device)
    card, detector = bundle.card, bundle.detector.to(device)
    for doubt in _doubts(card):
        on_progress(Note(doubt, is_warning=True))
    found = find_images(settings.pictures, settings.recursive)
    paths, failed = [source.path for source in found.images], list(found.failed)
    if not paths and not failed:
        for remark in found.skipped:
            raise DataError(f"{remark.path}: {remark.reason}")
        raise DataError(f"{', '.join(settings.pictures)}: no picture there (-r includes subfolders)")
    judged: list[DetectedPicture] = []

    def read(path: Path) -> Pixels | DataError:
        try:
            return squashed(card.preprocessing.decode(path).pixels, detector.image_size_px)
        except DataError as error:
            return error

    for start in range(0, len(paths), BATCH_SIZE):
        readable: dict[Path, Pixels] = {}
        for path, found_there in in_order(read, paths[start : start + BATCH_SIZE]):
            if isinstance(found_there, DataError):
                failed.append(Remark(str(path), str(found_there).removeprefix(f"{path}: ")))
            else:
                readable[path] = found_there
        if readable:
            judged += _judged(card, list(readable), answers(detector, list(readable.values()), device))
        on_progress(Progress("judging", min(start + BATCH_SIZE, len(paths)), len(paths)))
    return DetectResult(
        detector=file,
        accuracy=card.verdict.accuracy,
        interval=card.verdict.interval,
        pictures=tuple(judged),
        skipped=tuple(found.skipped),
        failed=tuple(failed),
    )


def _judged(card: DetectorCard, paths: Sequence[Path], logits: np.ndarray) -> Iterator[DetectedPicture]:
    if not np.isfinite(logits).all():
        raise DataError(f"{card.name}: answers with numbers that are not finite; it is damaged, or was never fit to use")
    for path, logit, probability in zip(paths, logits, expit(card.calibration_slope * logits), strict=True):
        header = header_of(path)
        yield DetectedPicture(
            file=str(path),
            generated=None if probability == 0.5 else bool(probability > 0.5),
            probability=float(probability),
            logit=float(logit),
            outside=() if header is None else tuple(card.files.outside(header)),
        )


def _doubts(card: DetectorCard) -> Iterator[str]:
    """What there is to know before its answers are believed."""
    low, high = card.verdict.interval
    if card.verdict.is_at_random:
        yield f"{card.name}: no better than guessing on its own test images ({low:.1%} to {high:.1%} correct)"
    if card.protocol != "grouped":
        yield f"{card.name}: trained by the protocol {card.protocol}, whose accuracy reads too high"
