"""A detector in use: its choice for images of a size, its file, the images as it sees them, and its logits."""

from __future__ import annotations

import inspect
import json
import statistics
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fruitgan.data.groups import NEAR_BITS, Look
from fruitgan.data.image_dataset import DecodeSettings, ImageDataset, cached_dataset
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.preprocessing import AS_USUAL, Preprocessing
from fruitgan.errors import DataError, FruitganError, UsageError, shown
from fruitgan.files import write_atomically
from fruitgan.images import Pixels, resize, unit_from_bytes
from fruitgan.networks.contracts import Detector, detectors
from fruitgan.networks.weights import build_for
from fruitgan.progress import Note, OnProgress, silent
from fruitgan.registry import Choice
from fruitgan.runs.resume import DETECTOR
from fruitgan.settings import to_json
from fruitgan.tensorfile import TensorFile, open_tensors
from fruitgan.train_detector.calibration import Verdict
from fruitgan.train_detector.protocols import PROTOCOLS, Indices
from fruitgan.train_detector.seen import FilesSeen, header_of
from fruitgan.train_detector.settings import SIZE_OPTION

FORMAT = 3
LARGEST_CARD_BYTES = 8 << 20
"""Room for the hashes of some 80,000 images."""
KEY = "fruitgan-detector"
"""The one metadata key; with two their order, and so the file's bytes, would differ from save to save."""
BUNDLE_KEY = "fruitgan"
LARGEST_SIZE_PX = 4096
"""Side of the images that a detector wants; every image is brought to it."""
RESAMPLE = Image.Resampling.LANCZOS  # for both classes alike; an image that has the size already is taken as it is
BATCH_SIZE = 64
MULTIPLE_PX = 8
LEAST_PX = 32

Values = NDArray[np.float64]
Network = Callable[[Tensor], Tensor]
OnDone = Callable[[int], object]
"""Called with the number of images that are done."""
Sizes = Mapping[bool, Sequence[tuple[int, int]]]
"""Width and height of the images by class (generated or not)."""


@dataclass(frozen=True, kw_only=True)
class DetectorCard:
    """What a detector is, how it was trained, and its accuracy on the test set."""

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
    train_sha256: tuple[str, ...]
    """Of the size and the pixels of each training image (`data.groups.content_sha256`)."""
    val_sha256: tuple[str, ...]
    """Of those that chose the weights; in the seed protocol they are the test images."""
    test_sha256: tuple[str, ...]
    taught_looks: tuple[str, ...]
    """Perceptual hashes of the images that trained it or chose its weights, the test images apart: 16 hex digits each."""
    files: FilesSeen
    """Sizes, formats and compression of the images that took part."""
    calibration_slope: float = 1.0
    """What a logit is multiplied by before the sigmoid makes a probability of it."""
    value_range: tuple[float, float] | None = None
    """The values of grey images of more than 8 bits that became 0 and 255; None: there was none among those of the training."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise UsageError(f"its protocol {shown(self.protocol)} is none of {', '.join(PROTOCOLS)}")
        if not 1 <= self.image_size_px <= LARGEST_SIZE_PX:
            raise UsageError(f"its images of {self.image_size_px} px are not from 1 to {LARGEST_SIZE_PX} px")
        if not all(len(look) == 16 and set(look) <= set(string.hexdigits) for look in self.taught_looks):
            raise UsageError("its perceptual hashes are not of 16 hex digits each")

    @property
    def preprocessing(self) -> Preprocessing:
        """How images that it judges are made of files."""
        return Preprocessing(value_range=self.value_range)

    def is_untaught(self, looks: Sequence[Look], groups: Sequence[str]) -> NDArray[np.bool_]:
        """[n]: which images can test it: none that taught it, none nearly like one that did, none of a group with one."""
        taught = set(self.train_sha256) | set(self.val_sha256) - set(self.test_sha256)
        codes = np.array([int(code, 16) for code in self.taught_looks], dtype=np.uint64)
        taught_groups = {
            group
            for group, look in zip(groups, looks, strict=True)
            if look.content in taught or (np.bitwise_count(codes ^ np.uint64(look.code)) <= NEAR_BITS).any()
        }
        return np.array([group not in taught_groups for group in groups], dtype=np.bool_)


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
    path = path / DETECTOR if path.is_dir() else path
    file = open_tensors(path, "detector", LARGEST_CARD_BYTES)
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


def load_card(path: Path) -> DetectorCard:
    """Read the card alone, not the weights. Raises: DataError as `load_detector`, but for what is wrong with the weights."""
    return _card(open_tensors(path, "detector", LARGEST_CARD_BYTES))


def _card(file: TensorFile) -> DetectorCard:
    if KEY not in file.metadata:
        what = "a generators' bundle" if BUNDLE_KEY in file.metadata else "a safetensors file without a detector's card"
        raise DataError(f"{file.path}: not a detector but {what}; train one with fruitgan train-detector")
    return file.card(DetectorCard, KEY, FORMAT)


@dataclass(frozen=True)
class LabelledImageDataset:
    """The images in the order given; float only a batch at a time."""

    images: tuple[LabelledImage, ...]
    decoded: ImageDataset
    generated: NDArray[np.bool_]
    """[N], the labels: those of the images, but for tests that permute them."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size_px(self) -> int:
        return self.decoded.load_size_px

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Tensor:
        """[n, 3, S, S] float32 in [0, 1] of the images with these numbers."""
        return unit_images(self.decoded.pixels[indices], device)

    def labels(self, indices: NDArray[np.int64], device: torch.device) -> Tensor:
        """[n] float32: 1 for a generated image, 0 for a real one."""
        return torch.from_numpy(self.generated[indices].astype(np.float32)).to(device)

    def logits(self, detector: Detector, indices: Indices, device: torch.device, batch_size: int = BATCH_SIZE) -> Values:
        """The detector's logits [n] of the images with these numbers."""
        return self.outputs(detector.eval(), indices, device, batch_size)

    @torch.no_grad()
    def outputs(
        self, network: Network, indices: Indices, device: torch.device, batch_size: int, on_done: OnDone = lambda count: None
    ) -> Values:
        """What the network gives for the images with these numbers, a batch at a time: [n] logits, or [n, D] features."""
        found = np.empty(0)
        for start in range(0, len(indices), batch_size):
            piece = indices[start : start + batch_size]
            values = network(self.batch(piece, device)).cpu().double().numpy()
            if not start:  # filled in place: small results kept one by one would pin the memory of the batches between them
                found = np.empty((len(indices), *values.shape[1:]))
            found[start : start + len(piece)] = values
            on_done(start + len(piece))
        return found


def squashed(pixels: Pixels, side_px: int) -> Pixels:
    """One image as a dataset of this size holds it."""
    return resize(pixels, side_px, side_px, RESAMPLE)


def unit_images(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [n, S, S, 3] to float32 [n, 3, S, S] in [0, 1] on the device."""
    return unit_from_bytes(torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float())


def open_image_dataset(
    images: Sequence[LabelledImage],
    size_px: int,
    *,
    how: Preprocessing = AS_USUAL,
    what: str = "loading images",
    tell: OnProgress = silent,
) -> LabelledImageDataset:
    """Every image squashed to `size_px`, from the cache of decoded images.

    Raises:
        DataError: no images, or one cannot be decoded.
    """
    settings = DecodeSettings(load_size_px=size_px, resample=RESAMPLE, how=how)
    found, problem = cached_dataset([image.path for image in images], settings, what=what, tell=tell)
    for path, reason in found.broken:
        raise DataError(f"{path}: {reason}")
    if problem is not None:
        tell(Note(problem, is_warning=True))
    return LabelledImageDataset(tuple(images), found, np.array([image.generated for image in images], dtype=np.bool_))


@torch.no_grad()
def answers(detector: Detector, pictures: Sequence[Pixels], device: torch.device) -> Values:
    """Logits [n] of images that are as the detector wants them; those of several sizes one by one."""
    if len({picture.shape for picture in pictures}) > 1:
        return np.concatenate([answers(detector, [picture], device) for picture in pictures])
    return np.asarray(detector(unit_images(np.stack(pictures), device)).cpu().double().numpy())


def sizes_of(images: Sequence[LabelledImage]) -> Sizes:
    """From the files' headers alone; a file that has none counts for nothing here and is named when it is decoded."""
    headers = [(image.generated, header_of(image.path)) for image in images]
    return {kind: [header[:2] for label, header in headers if header and label == kind] for kind in (True, False)}


def choose_detector(name: str, options: Mapping[str, Any], image_size: int | None, sizes: Sizes) -> Choice:
    """The detector at the size asked for, or else at its own, but no larger than the images are.

    Raises:
        UsageError: an unknown name or option, or a size that the detector does not take.
    """
    given: dict[str, object] = dict(options)
    own_size = inspect.signature(detectors.get(name)).parameters.get(SIZE_OPTION)
    if image_size is not None:
        given[SIZE_OPTION] = image_size  # where the detector has no such option, `choose` says so
    elif own_size is not None and SIZE_OPTION not in given:
        side = _usual_side(sizes, own_size.default) // MULTIPLE_PX * MULTIPLE_PX
        given[SIZE_OPTION] = min(own_size.default, max(LEAST_PX, side))
    return detectors.choose(name, given)


def _usual_side(sizes: Sizes, default: int) -> int:
    sides = [min(size) for those in sizes.values() for size in those]
    return int(statistics.median_low(sides)) if sides else default


def size_notes(sizes: Sizes, size_px: int) -> tuple[str, ...]:
    """How resizing affects the accuracy: it may give the classes away, or remove what distinguishes them."""
    notes, number = [], len({*sizes[True], *sizes[False]})
    if set(sizes[True]) != set(sizes[False]) and sizes[True] and sizes[False]:
        usual = [" x ".join(map(str, statistics.mode(sizes[generated]))) for generated in (True, False)]
        notes.append(
            f"the classes differ in size (mostly {usual[0]} px generated, {usual[1]} px real): all are resized alike, but the "
            "resizing itself can give them away; export-dataset makes both the same way"
        )
    elif number > 1:
        notes.append(f"images of {number} sizes: all are resized alike to {size_px} x {size_px} px")
    if (side := _usual_side(sizes, size_px)) > size_px:
        notes.append(f"the images are shrunk from {side} to {size_px} px: the finest traces of generation are lost")
        if (larger := side // MULTIPLE_PX * MULTIPLE_PX) > size_px:
            what = "keeps them" if larger == side else "loses less"
            notes[-1] += f" (--image-size {larger} {what} and takes {(larger / size_px) ** 2:.1f} times as long)"
    return tuple(notes)
