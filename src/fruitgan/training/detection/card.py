"""The file of a detector: its weights, and under one metadata key a JSON card that says what it is and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fruitgan.atomic import write_atomically
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.models.catalog import detectors
from fruitgan.models.contracts import Detector
from fruitgan.registry import Choice
from fruitgan.settings import from_json, to_json
from fruitgan.training.detection.splits import PROTOCOLS
from fruitgan.training.detection.verdict import Verdict

FORMAT = 1
KEY = "fruitgan-detector"
"""The one metadata key; with two their order, and so the file's bytes, would differ from save to save."""
BUNDLE_KEY = "fruitgan"
FILE_NAME = "detector.safetensors"


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
    """Read a detector file, or the one of a run folder.

    Raises:
        DataError: there is no such file, it is torn, of another kind or of a newer format, or its weights do not fit.
        EnvironmentProblem: the package of its detector is not installed.
    """
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():  # opening a pipe would wait for ever
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}; expected a detector (.safetensors)")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            card = _card(file.metadata() or {}, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except safetensors.SafetensorError as error:
        raise DataError(f"{path}: not a detector, or torn ({str(error).splitlines()[0]})") from error
    try:
        with torch.random.fork_rng(devices=[], device_type="cuda"):  # the weights that it is built with are thrown away
            detector: Detector = detectors.build(card.detector)
        detector.load_state_dict(tensors)
    except UsageError as error:
        raise DataError(f"{path}: made by another version of the detector ({error})") from error
    except RuntimeError as error:  # torch names the tensors that are missing, left over or of another shape
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise DataError(f"{path}: the weights do not fit the detector {card.detector.name} ({reason[0].strip()})") from error
    return DetectorBundle(card, detector.eval())


def _card(metadata: Mapping[str, str], path: Path) -> DetectorCard:
    if KEY not in metadata:
        what = "a generators' bundle" if BUNDLE_KEY in metadata else "a safetensors file without fruitgan's detector card"
        raise DataError(f"{path}: not a detector but {what}; train one with fruitgan train-detector")
    table = _json(metadata[KEY])
    if not isinstance(table, dict) or not isinstance(table.get("format"), int):
        raise DataError(f"{path}: not a detector: its card cannot be read")
    if table["format"] > FORMAT:
        raise DataError(f"{path}: has format {table['format']}, newer than this program's {FORMAT}: pip install -U fruitgan")
    try:
        card = from_json(DetectorCard, {key: value for key, value in table.items() if key != "format"}, "detector card")
    except UsageError as error:
        raise DataError(f"{path}: not a detector: {error}") from error
    if card.protocol not in PROTOCOLS:
        raise DataError(f"{path}: not a detector: its protocol {card.protocol!r} is none of {', '.join(PROTOCOLS)}")
    return card


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a hostile file may nest without end
        return None
