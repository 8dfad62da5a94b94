"""A detector's accuracy on images that taught it nothing: one that was given, or one trained on the spot, fold by fold."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fruitgan import randomness
from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import DataError
from fruitgan.evaluation.statistics import auc_interval
from fruitgan.models.catalog import detectors
from fruitgan.training.detection import PROTOCOLS, FitSettings, Parts, fit, judge, load_detector, open_album
from fruitgan.training.detection.album import Album
from fruitgan.workflows.evaluate.settings import DetectorResult
from fruitgan.workflows.train_detector.sizes import choose_detector, sizes_of

FOLDS = 5
QUICK_FOLDS = 3
LEAST_PER_CLASS = 10
SUFFIX = ".safetensors"

OnStep = Callable[[str, int, int], None]
Logits = NDArray[np.float64]
Indices = NDArray[np.int64]


def is_path(detector: str) -> bool:
    """Whether it means a file or a run rather than a registered name; what exists wins."""
    return Path(detector).exists() or "/" in detector or "\\" in detector or detector.endswith(SUFFIX)


def need(images: Sequence[LabelledImage], least: int = LEAST_PER_CLASS) -> str | None:
    """What is missing for a detector to be trained here; None if nothing is."""
    counts = Counter(image.generated for image in images)
    if min(counts[True], counts[False]) >= least:
        return None
    return (
        f"a detector trained on the spot needs at least {least} images of each class, "
        f"found {counts[True]} generated and {counts[False]} real ones"
    )


def judge_by_given(
    path: Path, images: Sequence[LabelledImage], device: torch.device, seed: int, on_step: OnStep
) -> tuple[DetectorResult, list[str]]:
    """The accuracy of a detector from a file, and what to know about it.

    Where these are the very images that it was trained with, only those count that its own protocol kept for judging.

    Raises:
        DataError: not a detector's file, or an image cannot be decoded.
    """
    began = time.monotonic()
    bundle = load_detector(path)
    card = bundle.card
    notes = []
    with open_album(images, card.image_size_px, on_progress=lambda done, total: on_step("reading", done, total)) as album:
        _refuse_broken(album)
        chosen: Indices = np.arange(len(album), dtype=np.int64)
        protocol = "trained elsewhere; whether on some of these images cannot be known"
        if album.fingerprint == card.data_fingerprint:
            chosen = PROTOCOLS[card.protocol].split(album.images, card.seed).judge
            protocol = f"trained on other images of this set, by its protocol {card.protocol}"
            notes.append(
                f"the detector was trained on images of this set; judged are the {len(chosen)} that its protocol kept back"
            )
            if card.protocol != "grouped":
                notes.append(f"its protocol {card.protocol} leaks: the accuracy reads too high")
        bundle.detector.to(device)
        logits = _answers(bundle.detector, album, chosen, device, on_step)
    if not np.isfinite(logits).all():
        raise DataError(f"{path}: answers with numbers that are not finite; it is damaged, or was never fit to use")
    groups = [images[index].group for index in chosen]
    name = card.detector.name
    return _result(name, logits, album.generated[chosen], groups, protocol, card.image_size_px, seed, began), notes


def judge_on_the_spot(
    name: str, images: Sequence[LabelledImage], device: torch.device, seed: int, folds: int, on_step: OnStep
) -> DetectorResult:
    """Grouped cross-validation: each image is judged once, by a detector that saw neither it nor anything of its group.

    One fold judges, the next chooses when to stop, the others train.

    Raises:
        UsageError: no such detector.
        DataError: too few images or groups.
    """
    began = time.monotonic()
    if reason := need(images):
        raise DataError(reason)
    choice = choose_detector(name, {}, None, sizes_of(images))
    with torch.device("meta"):
        size_px = detectors.build(choice).image_size_px
    with open_album(images, size_px, on_progress=lambda done, total: on_step("reading", done, total)) as album:
        _refuse_broken(album)
        parts = grouped_folds(images, folds, seed)
        logits: Logits = np.full(len(images), np.nan)
        for fold, part in enumerate(parts):
            on_step(f"detector {name}", fold, folds)
            fitted = fit(choice, album, part, FitSettings(seed=seed), device=device)
            logits[part.judge] = fitted.logits(album, part.judge)
        on_step(f"detector {name}", folds, folds)
        judged: Indices = np.flatnonzero(~np.isnan(logits))
        generated = album.generated[judged]
    groups = [images[index].group for index in judged]
    protocol = f"trained here in {folds} folds by source image, each judging what the others taught; classes balanced"
    return _result(name, logits[judged], generated, groups, protocol, size_px, seed, began)


def grouped_folds(images: Sequence[LabelledImage], folds: int, seed: int) -> list[Parts]:
    """As many splits as folds; the larger class is cut down to the smaller at random, and no group is in two folds.

    Raises:
        DataError: a fold would lack a class.
    """
    members = {label: [i for i, image in enumerate(images) if image.generated == label] for label in (True, False)}
    least = min(map(len, members.values()))
    groups: dict[str, list[int]] = defaultdict(list)
    left_out: list[int] = []
    for label, indices in members.items():
        order = randomness.permutation(seed, 0, len(indices), f"evaluate/balance/{label}")
        left_out += [indices[i] for i in order[least:]]
        for i in sorted(order[:least]):
            groups[images[indices[i]].group].append(indices[i])
    names = sorted(groups)
    order = randomness.permutation(seed, 0, len(names), "evaluate/folds")
    filled: list[list[int]] = [[] for _ in range(folds)]
    counts = [Counter[bool]() for _ in range(folds)]
    for name in sorted((names[i] for i in order), key=lambda name: -len(groups[name])):  # large groups first, else at random
        labels = Counter(images[index].generated for index in groups[name])
        place = min(range(folds), key=lambda fold: sum(counts[fold][label] for label in labels))
        filled[place] += groups[name]
        counts[place] += labels
    if any(min(count[True], count[False]) == 0 for count in counts):
        raise DataError(
            f"the images show too few different things for {folds} folds: at least {folds} groups of each class are needed"
        )
    rest = _sorted(left_out)
    return [
        Parts(
            train=_sorted(i for f in range(folds) if f not in (fold, (fold + 1) % folds) for i in filled[f]),
            choose=_sorted(filled[(fold + 1) % folds]),
            judge=_sorted(filled[fold]),
            left_out=rest,
        )
        for fold in range(folds)
    ]


def _sorted(indices: object) -> Indices:
    return np.array(sorted(indices), dtype=np.int64)  # type: ignore[call-overload]


def _answers(detector: torch.nn.Module, album: Album, chosen: Indices, device: torch.device, on_step: OnStep) -> Logits:
    pieces: list[Logits] = []
    with torch.inference_mode():
        for start in range(0, len(chosen), 64):
            pieces.append(detector(album.batch(chosen[start : start + 64], device)).double().cpu().numpy())
            on_step("detector", min(start + 64, len(chosen)), len(chosen))
    return np.concatenate(pieces)


def _refuse_broken(album: Album) -> None:
    if album.broken:
        path, reason = album.broken[0]
        raise DataError(f"{path}: {reason}")


def _result(
    name: str,
    logits: Logits,
    generated: NDArray[np.bool_],
    groups: Sequence[str],
    protocol: str,
    image_size_px: int,
    seed: int,
    began: float,
) -> DetectorResult:
    verdict = judge(logits, generated)
    return DetectorResult(
        name=name,
        accuracy=verdict.accuracy,
        interval=verdict.interval,
        auc=verdict.auc,
        auc_interval=auc_interval(logits, generated, groups, seed=seed),
        p_value=verdict.p_value,
        n=verdict.n,
        chance=verdict.chance,
        confusion=verdict.confusion,
        protocol=protocol,
        image_size_px=image_size_px,
        seconds=round(time.monotonic() - began, 3),
    )
