"""The file of a detector: its weights, and under one metadata key a JSON card that says what it is and what was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from fruitgan.errors import DataError, FruitganError, UsageError, reason_of, shown
from fruitgan.files import write_atomically
from fruitgan.networks.catalog import detectors
from fruitgan.networks.contracts import Detector
from fruitgan.networks.weights import build_for
from fruitgan.registry import Choice
from fruitgan.settings import from_json, parse_json, to_json
from fruitgan.tensorfile import TensorFile, open_tensors
from fruitgan.train_detector.protocols import PROTOCOLS
from fruitgan.train_detector.scores import Verdict

FORMAT = 1
KEY = "fruitgan-detector"
"""The one metadata key; with two their order, and so the file's bytes, would differ from save to save."""
BUNDLE_KEY = "fruitgan"
FILE_NAME = "detector.safetensors"
LARGEST_SIZE_PX = 4096
"""Side of the images that a detector wants; every image is brought to it."""


@dataclass(frozen=True, kw_only=True)
class DetectorCard:
    """What a detector is, how it was trained, and how often it was right on which kind of images."""

    name: str
    detector: Choice
    image_size_px: int
    protocol: str
    """How the images were split: `grouped`, or `seed`, whose accuracy reads too high."""
    verdict: Verdict
    training_images: int
    rounds: int
    data: str
    data_fingerprint: str
    """sha256 over the pixels of all images that took part."""
    seed: int
    fruitgan_version: str


@dataclass(frozen=True)
class DetectorBundle:
    """A detector in evaluation mode, with its card."""

    card: DetectorCard
    detector: Detector


def save_detector(bundle: DetectorBundle, path: Path) -> None:
    """Write the file; it is whole or absent, and the same bundle always gives the same bytes.

    Raises:
        FruitganError: it cannot be written, or a weight is not finite.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in sorted(bundle.detector.state_dict().items()):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FruitganError(f"{path}: the weight {name} of the detector is not finite; nothing was saved")
        tensors[name] = tensor.detach().cpu().contiguous()
    card = json.dumps({"format": FORMAT, **to_json(bundle.card)}, sort_keys=True, allow_nan=False)
    write_atomically(path, safetensors.torch.save(tensors, metadata={KEY: card}))


def load_detector(path: Path) -> DetectorBundle:
    """Read a detector file, or the one of a run folder; nothing is allocated that is larger than the file.

    Raises:
        DataError: there is no such file, it is torn, of another kind or of a newer format, or its weights do not fit.
        EnvironmentProblem: the package of its detector is not installed.
    """
    path = path / FILE_NAME if path.is_dir() else path
    with open_tensors(path, "detector") as file:
        card = _card(file)
        arrays = file.arrays()
    try:
        detector = build_for(detectors, card.detector, arrays)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if detector.image_size_px != card.image_size_px:
        raise DataError(
            f"{path}: damaged: its card speaks of {card.image_size_px} px, its detector wants {detector.image_size_px}"
        )
    return DetectorBundle(card, detector.eval())


def _card(file: TensorFile) -> DetectorCard:
    path = file.path
    if KEY not in file.metadata:
        what = "a generators' bundle" if BUNDLE_KEY in file.metadata else "a safetensors file without fruitgan's detector card"
        raise DataError(f"{path}: not a detector but {what}; train one with fruitgan train-detector")
    try:
        table = parse_json(file.metadata[KEY])
    except ValueError as error:
        raise DataError(f"{path}: not a detector: its card cannot be read ({reason_of(error)})") from error
    version = table.pop("format", None) if isinstance(table, dict) else None
    if type(version) is not int or version < 1:
        raise DataError(f"{path}: not a detector: its card has no format")
    if version > FORMAT:
        raise DataError(f"{path}: has format {version}, newer than this program's {FORMAT}: pip install -U fruitgan")
    try:
        card = from_json(DetectorCard, table, "detector card")
    except UsageError as error:
        raise DataError(f"{path}: not a detector: {error}") from error
    if card.protocol not in PROTOCOLS:
        raise DataError(f"{path}: not a detector: its protocol {shown(card.protocol)} is none of {', '.join(PROTOCOLS)}")
    if not 1 <= card.image_size_px <= LARGEST_SIZE_PX:
        raise DataError(f"{path}: not a detector: its images of {card.image_size_px} px are not from 1 to {LARGEST_SIZE_PX} px")
    return card
