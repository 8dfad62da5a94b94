"""A detector in use: its choice for images of a size, its file, the images as it sees them, and its logits."""

from __future__ import annotations

import copy
import inspect
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fruitgan.data.decode import decode
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.labelled import LabelledImage
from fruitgan.data.parallel import in_order
from fruitgan.errors import DataError, FruitganError, UsageError, reason_of, shown
from fruitgan.files import write_atomically
from fruitgan.images import Pixels, resize, unit_from_bytes
from fruitgan.networks.contracts import Detector, detectors
from fruitgan.networks.weights import build_for
from fruitgan.progress import OnProgress, silent
from fruitgan.registry import Choice
from fruitgan.settings import from_json, parse_json, to_json
from fruitgan.tensorfile import TensorFile, open_tensors
from fruitgan.train_detector.calibration import Verdict
from fruitgan.train_detector.protocols import PROTOCOLS, Indices
from fruitgan.train_detector.settings import SIZE_OPTION

FORMAT = 2
KEY = "fruitgan-detector"
"""The one metadata key; with two their order, and so the file's bytes, would differ from save to save."""
BUNDLE_KEY = "fruitgan"
FILE_NAME = "detector.safetensors"
LARGEST_SIZE_PX = 4096
"""Side of the images that a detector wants; every image is brought to it."""
MEMORY_LIMIT_BYTES = 256 * 2**20
"""Above it the bytes lie in a file, of which the system keeps in memory what it can spare."""
RESAMPLE = Image.Resampling.LANCZOS  # for both classes alike; an image that has the size already is taken as it is
BATCH_SIZE = 64
MULTIPLE_PX = 8
LEAST_PX = 32

Sizes = Mapping[bool, Counter[tuple[int, int]]]
"""By class (generated or not): how many images have which width and height."""


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
    verdict = table.get("verdict")
    if version == 1 and isinstance(verdict, dict):
        verdict["majority_baseline"] = verdict.pop("chance", None)
    try:
        card = from_json(DetectorCard, table, "detector card")
    except UsageError as error:
        raise DataError(f"{path}: not a detector: {error}") from error
    if card.protocol not in PROTOCOLS:
        raise DataError(f"{path}: not a detector: its protocol {shown(card.protocol)} is none of {', '.join(PROTOCOLS)}")
    if not 1 <= card.image_size_px <= LARGEST_SIZE_PX:
        raise DataError(f"{path}: not a detector: its images of {card.image_size_px} px are not from 1 to {LARGEST_SIZE_PX} px")
    return card


class LabelledImageDataset:
    """The images that can be decoded, in the order given; float only a batch at a time."""

    def __init__(self, images: Sequence[LabelledImage], bank: ImageDataset) -> None:
        """Use `open_image_dataset`."""
        by_path = {image.path: image for image in images}
        self.images = tuple(by_path[path] for path in bank.names)
        self.broken = bank.broken
        self.size_px = bank.load_size_px
        self.generated: NDArray[np.bool_] = np.array([image.generated for image in self.images], dtype=np.bool_)
        self._bank = bank

    def __len__(self) -> int:
        return len(self.images)

    def labelled(self, generated: NDArray[np.bool_]) -> LabelledImageDataset:
        """The same images with other labels, [N]; `images` keeps the labels that they came with."""
        other = copy.copy(self)
        other.generated = generated
        return other

    @property
    def fingerprint(self) -> str:
        """sha256 over the pixels of all images in their order."""
        return self._bank.fingerprint

    def pixels(self, index: int) -> Pixels:
        """uint8 [S, S, 3] of one image, a copy."""
        return self._bank.image(index).copy()

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Tensor:
        """[n, 3, S, S] float32 in [0, 1] of the images with these numbers."""
        pixels = self._bank.gather(indices, np.zeros((len(indices), 2)))
        return unit_images(pixels, device)

    def labels(self, indices: NDArray[np.int64], device: torch.device) -> Tensor:
        """[n] float32: 1 for a generated image, 0 for a real one."""
        return torch.from_numpy(self.generated[indices].astype(np.float32)).to(device)


def squashed(pixels: Pixels, side_px: int) -> Pixels:
    """One image as a dataset of this size holds it."""
    return resize(pixels, side_px, side_px, RESAMPLE)


def unit_images(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [n, S, S, 3] to float32 [n, 3, S, S] in [0, 1] on the device."""
    return unit_from_bytes(torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float())


@contextmanager
def open_image_dataset(
    images: Sequence[LabelledImage],
    size_px: int,
    *,
    what: str = "loading images",
    tell: OnProgress = silent,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> Iterator[LabelledImageDataset]:
    """Decode every image once and squash it to `size_px`; what cannot be decoded is left out and listed in `broken`.

    Raises:
        DataError: no images, or none can be decoded.
    """
    paths = [image.path for image in images]
    in_memory = len(paths) * size_px**2 * 3 <= memory_limit_bytes
    # ignore_cleanup_errors: Windows cannot delete a file that is still mapped.
    with tempfile.TemporaryDirectory(prefix="fruitgan-", ignore_cleanup_errors=True) as folder:
        yield LabelledImageDataset(
            images,
            ImageDataset.build(
                paths,
                load_size_px=size_px,
                resample=RESAMPLE,
                what=what,
                tell=tell,
                memory_map=None if in_memory else Path(folder, "images"),
            ),
        )


def predict(
    detector: Detector,
    paths: Sequence[Path],
    *,
    device: torch.device,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Logits [n], above 0 for generated, of images from the disk, each squashed to the detector's size, a batch at a time.

    Raises:
        DataError: an image cannot be decoded.
    """
    size_px = detector.image_size_px
    detector.eval().to(device)
    logits = np.empty(len(paths))
    for start in range(0, len(paths), batch_size):
        piece = paths[start : start + batch_size]
        pixels = [found for _, found in in_order(lambda path: squashed(decode(path).pixels, size_px), piece)]
        logits[start : start + len(piece)] = _answers(detector, unit_images(np.stack(pixels), device))
        if on_progress is not None:
            on_progress(start + len(piece), len(paths))
    return logits


def dataset_logits(
    detector: Detector, dataset: LabelledImageDataset, indices: Indices, device: torch.device, batch_size: int
) -> NDArray[np.float64]:
    """Logits [n] of the dataset's images with these numbers."""
    detector.eval()
    logits = np.empty(len(indices))
    for start in range(0, len(indices), batch_size):
        piece = indices[start : start + batch_size]
        logits[start : start + len(piece)] = _answers(detector, dataset.batch(piece, device))
    return logits


def answers(detector: Detector, pictures: Sequence[Pixels], device: torch.device) -> NDArray[np.float64]:
    """Logits [n] of images that are as the detector wants them; those of several sizes one by one."""
    if len({picture.shape for picture in pictures}) > 1:
        return np.concatenate([answers(detector, [picture], device) for picture in pictures])
    return _answers(detector, unit_images(np.stack(pictures), device))


@torch.no_grad()
def _answers(detector: Detector, images: Tensor) -> NDArray[np.float64]:
    return np.asarray(detector(images).cpu().double().numpy())


def sizes_of(images: Sequence[LabelledImage]) -> Sizes:
    """From the files' headers alone; a file that has none counts for nothing here and is named when it is decoded."""
    sizes: dict[bool, Counter[tuple[int, int]]] = {True: Counter(), False: Counter()}
    for image in images:
        if size := _header(image.path):
            sizes[image.generated][size] += 1
    return sizes


def _header(path: Path) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # whatever is wrong with it is said where it is decoded
        return None


def choose_detector(name: str, options: Mapping[str, str], image_size: int | None, sizes: Sizes) -> Choice:
    """The detector at the size asked for, or else at its own, but no larger than the images are.

    Raises:
        UsageError: an unknown name or option, or a size that the detector does not take.
    """
    builder = detectors.get(name)
    has_size = SIZE_OPTION in inspect.signature(builder).parameters
    given: dict[str, object] = dict(options)
    if image_size is not None:
        given[SIZE_OPTION] = image_size  # where the detector has no such option, `choose` says so
    elif has_size and SIZE_OPTION not in given:
        default = int(inspect.signature(builder).parameters[SIZE_OPTION].default)
        given[SIZE_OPTION] = min(default, max(LEAST_PX, _usual_side(sizes, default) // MULTIPLE_PX * MULTIPLE_PX))
    return detectors.choose(name, given)


def _usual_side(sizes: Sizes, default: int) -> int:
    sides = [min(size) for counter in sizes.values() for size in counter.elements()]
    return int(statistics.median_low(sides)) if sides else default


def size_notes(sizes: Sizes, size_px: int) -> tuple[str, ...]:
    """How resizing affects the accuracy: it may give the classes away, or remove what distinguishes them."""
    notes = []
    if set(sizes[True]) != set(sizes[False]) and sizes[True] and sizes[False]:
        notes.append(
            f"the classes differ in size ({_usual(sizes[True])} generated, {_usual(sizes[False])} real): all are resized "
            "alike, but the resizing itself can give them away; export-dataset makes both the same way"
        )
    elif len(sizes[True] | sizes[False]) > 1:
        notes.append(f"images of {len(sizes[True] | sizes[False])} sizes: all are resized alike to {size_px} x {size_px} px")
    if (side := _usual_side(sizes, size_px)) > size_px:
        larger = side // MULTIPLE_PX * MULTIPLE_PX
        notes.append(
            f"the images are shrunk from {side} to {size_px} px: the finest traces of generation are lost "
            f"(--image-size {larger} keeps them and takes {(larger / size_px) ** 2:.1f} times as long)"
        )
    return tuple(notes)


def _usual(counter: Counter[tuple[int, int]]) -> str:
    (width, height), count = counter.most_common(1)[0]
    return f"{'mostly ' if count < counter.total() else ''}{width} x {height} px"
