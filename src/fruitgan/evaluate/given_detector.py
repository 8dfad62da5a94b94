"""The accuracy of a detector that was given, on images that taught it nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import DataError
from fruitgan.evaluate.detector_results import DetectorResult, JudgedImage, judged_images, result_of
from fruitgan.evaluate.detectors import OnStep
from fruitgan.measures.statistics import maximum_test
from fruitgan.train_detector.detector import LabelledImageDataset, load_detector, open_image_dataset
from fruitgan.train_detector.protocols import PROTOCOLS

SUFFIX = ".safetensors"

Logits = NDArray[np.float64]
Indices = NDArray[np.int64]


def is_path(detector: str) -> bool:
    """Whether it means a file or a run rather than a registered name; what exists wins."""
    return Path(detector).exists() or "/" in detector or "\\" in detector or detector.endswith(SUFFIX)


def judge_by_given(
    path: Path, images: Sequence[LabelledImage], device: torch.device, seed: int, on_step: OnStep
) -> tuple[DetectorResult, list[str], tuple[JudgedImage, ...]]:
    """The accuracy of a detector from a file, what to know about it, and what it said.

    Where these are the very images that it was trained with, only those count that its own protocol kept for judging.

    Raises:
        DataError: not a detector's file, or an image cannot be decoded.
    """
    began = time.monotonic()
    bundle = load_detector(path)
    card = bundle.card
    notes = []
    with open_image_dataset(
        images, card.image_size_px, on_progress=lambda done, total: on_step("reading", done, total)
    ) as album:
        _refuse_broken(album)
        chosen: Indices = np.arange(len(album), dtype=np.int64)
        protocol = "trained elsewhere; whether on some of these images cannot be known"
        if album.fingerprint == card.data_fingerprint:
            chosen = PROTOCOLS[card.protocol].split(album.images, card.seed).test
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
    truth = album.generated[chosen]
    result = result_of(
        card.detector.name,
        logits,
        truth,
        groups,
        protocol=protocol,
        image_size_px=card.image_size_px,
        p_value=maximum_test(logits[None], truth, groups, seed=seed).p_value,
        chosen={},
        seed=seed,
        seconds=time.monotonic() - began,
    )
    return result, notes, judged_images([images[index] for index in chosen], logits)


def _answers(
    detector: torch.nn.Module, album: LabelledImageDataset, chosen: Indices, device: torch.device, on_step: OnStep
) -> Logits:
    pieces: list[Logits] = []
    with torch.inference_mode():
        for start in range(0, len(chosen), 64):
            pieces.append(detector(album.batch(chosen[start : start + 64], device)).double().cpu().numpy())
            on_step("detector", min(start + 64, len(chosen)), len(chosen))
    return np.concatenate(pieces)


def _refuse_broken(album: LabelledImageDataset) -> None:
    if album.broken:
        path, reason = album.broken[0]
        raise DataError(f"{path}: {reason}")
