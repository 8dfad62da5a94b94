"""A bundle: the weights of the generators and their model card in one safetensors file; read and written without torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from fruitgan.errors import DataError, FruitganError, UsageError, about_address, shown
from fruitgan.files import write_atomically
from fruitgan.images import Fit
from fruitgan.registry import Choice, suggestion
from fruitgan.settings import RUNS, SHIPPED, to_json
from fruitgan.tensorfile import TensorFile, open_tensors

if TYPE_CHECKING:
    from fruitgan.data.preprocessing import Preprocessing

FORMAT = 2
KEY = "fruitgan"
"""The one metadata key; with two their order, and so the file's bytes, would differ from save to save."""
PREFIXES = {"a2b": "generator_ab.", "b2a": "generator_ba."}
FILE_NAME = "bundle.safetensors"
AT_STEP = re.compile(r"(?!hf:)(.+)@([0-9]{1,15})")
"""RUN@STEP: what a run was at one of its checkpoints."""
SUFFIX = ".safetensors"
DEFAULT_SHIPPED = "apple2orange"
FEW_STEPS = 1000
"""A training with fewer is warned of."""
LARGEST_SIZE_PX = 8192
"""Side of the training images; a card with more is damaged or hostile."""
LARGEST_RULE_PX = 2048
"""Of the size rule: the smallest picture is padded to it, and must not need gigabytes for it."""

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """The model card: what the bundle is, how it was trained, and what was measured on it."""

    name: str
    domains: tuple[str, str]
    """What domain a and domain b hold."""
    generator: Choice
    directions: tuple[str, ...]
    """Which of a2b and b2a are in the file."""
    image_size_px: int
    """Side of the square images of the training."""
    size_minimum_px: int
    size_multiple_px: int
    """The generator's size rule, for engines that cannot ask it."""
    recipe: str
    resolved_recipe: Mapping[str, Any] | None = None
    """Every field of the recipe, with all that was changed in it. None: not known."""
    steps: int
    images: int
    data: str
    data_fingerprint: str
    trained_against: tuple[str, ...] | None = None
    """The pretrained networks that it was trained against, with their data: none of them can evaluate it. None: not known."""
    value_range: tuple[float, float] | None = None
    """The values that [0, 1] stands for in the training images. None: all that their type can hold."""
    background: str = "white"
    """The colour that transparent training images lay on."""
    dtype: str = "uint8"
    """The type of the training images' values."""
    weights_dtype: Literal["float16", "float32"] = "float16"
    """Of the stored weights: half precision, or full where half moved a picture by more than a grey level."""
    licence: str
    notes: str = ""
    measured: Mapping[str, float | str] = field(default_factory=dict)
    fruitgan_version: str
    created: str
    """An ISO date from the caller, or empty where the bytes must be reproducible."""

    def __post_init__(self) -> None:
        if not self.directions or any(direction not in PREFIXES for direction in self.directions):
            raise UsageError(f"the directions {shown(list(self.directions))} of a bundle are not out of a2b and b2a")
        if len(set(self.directions)) != len(self.directions):
            raise UsageError(f"a direction stands twice in {list(self.directions)}")
        if self.domains[0] == self.domains[1]:
            raise UsageError(f"both domains of a bundle are called {shown(self.domains[0])}")
        if not 1 <= self.image_size_px <= LARGEST_SIZE_PX:
            raise UsageError(f"the image size {self.image_size_px} of a bundle is not from 1 to {LARGEST_SIZE_PX} px")
        if min(self.size_minimum_px, self.size_multiple_px) < 1 or self.padded(1) > LARGEST_RULE_PX:
            raise UsageError(f"the sizes that a bundle takes are not from 1 to {LARGEST_RULE_PX} px")
        if self.steps < 0 or self.images < 0:
            raise UsageError("the steps and images of a bundle must not be negative")
        if not all(math.isfinite(value) for value in self.measured.values() if isinstance(value, float)):
            raise UsageError("a measured number of a bundle is not finite")

    def padded(self, side_px: int) -> int:
        """The smallest side that the generator takes and that is no shorter than `side_px`."""
        return -(-max(side_px, self.size_minimum_px) // self.size_multiple_px) * self.size_multiple_px

    @property
    def doubt(self) -> str | None:
        """A word of warning where it was hardly trained."""
        is_doubtful = self.resolved_recipe is not None and self.steps < FEW_STEPS
        return f"{self.name} was trained for {self.steps:,} steps: expect little of it" if is_doubtful else None

    @property
    def preprocessing(self) -> Preprocessing:
        """How the training images were made of files, which whoever exports or judges follows.

        Raises:
            UsageError: the background is no colour.
        """
        from fruitgan.data.preprocessing import Preprocessing

        fit: Any = (self.resolved_recipe or {}).get("fit")
        return Preprocessing(
            background=self.background, value_range=self.value_range, fit=fit if fit in get_args(Fit) else "squash"
        )

    def target(self, direction: str) -> str:
        """The domain that a direction leads to."""
        return self.domains[1] if direction == "a2b" else self.domains[0]


@dataclass(frozen=True)
class Bundle:
    """A card and, for each direction on it, the generator's tensors by parameter name."""

    card: Card
    weights: Mapping[str, Weights]

    def __post_init__(self) -> None:
        if set(self.weights) != set(self.card.directions):
            raise UsageError(
                f"the bundle's card names {list(self.card.directions)}, its weights are for {sorted(self.weights)}"
            )


def tensors(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """The tensors as they are stored, by full name in name order; floats in the precision of the card.

    Raises:
        FruitganError: a number is not finite, or too large for that precision; a tensor is empty.
    """
    stored, dtype = {}, np.dtype(bundle.card.weights_dtype).newbyteorder("<")
    named = {PREFIXES[way] + name: array for way, arrays in bundle.weights.items() for name, array in arrays.items()}
    for name in sorted(named):
        array = named[name]
        if not array.size:
            raise FruitganError(f"the tensor {name} is empty, which a bundle's are not; nothing was saved")
        if np.issubdtype(array.dtype, np.floating):
            with np.errstate(over="ignore"):  # what overflows is found below, as infinity
                array = array.astype(dtype)
            if not np.isfinite(array).all():
                raise FruitganError(f"the tensor {name} holds numbers that are not finite in {dtype.name}; nothing was saved")
        stored[name] = np.ascontiguousarray(array).reshape(array.shape)  # numpy makes [1] of a number's []
    return stored


def bundle_bytes(bundle: Bundle) -> bytes:
    """The file's content; the same bundle always gives the same bytes."""
    card = json.dumps({"format": FORMAT, **to_json(bundle.card)}, sort_keys=True, allow_nan=False)
    return safetensors.numpy.save(tensors(bundle), metadata={KEY: card})


def save(bundle: Bundle, path: Path) -> None:
    """Write the file; it is whole or absent.

    Raises:
        FruitganError: it cannot be written, or a weight is not finite.
    """
    write_atomically(path, bundle_bytes(bundle))


def weights_sha256(bundle: Bundle) -> str:
    """A hash over the stored tensors in name order: name, type, shape and bytes; the card does not count."""
    digest = hashlib.sha256()
    for name, array in tensors(bundle).items():
        digest.update(f"{name}\0{array.dtype.name}\0{list(array.shape)}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def load(path: Path | str) -> Bundle:
    """Read a bundle; nothing is allocated that is larger than the file.

    Raises:
        DataError: there is no such file, it is no bundle, it is torn or damaged, or its format is newer than this program.
    """
    file = open_tensors(Path(path), "bundle")
    card = _card(file)
    weights: dict[str, dict[str, NDArray[Any]]] = {way: {} for way in card.directions}
    for name, array in file.arrays().items():
        way = next((way for way in card.directions if name.startswith(PREFIXES[way])), None)
        if way is None:
            raise DataError(f"{path}: the tensor {shown(name)} belongs to none of the card's directions; it is damaged")
        if array.dtype.kind == "f" and array.dtype != card.weights_dtype:
            raise DataError(f"{path}: the tensor {shown(name)} is not in {card.weights_dtype}, as the bundle's card says")
        weights[way][name.removeprefix(PREFIXES[way])] = array
    return Bundle(card, weights)


def load_card(path: Path | str) -> Card:
    """Read the card alone, not the weights.

    Raises:
        DataError: as `load`, but for what is wrong with the weights.
    """
    return _card(open_tensors(Path(path), "bundle"))


def _card(file: TensorFile) -> Card:
    if KEY not in file.metadata:
        raise DataError(f"{file.path}: not a bundle: a safetensors file without fruitgan's model card")
    return file.card(Card, KEY, FORMAT)


def locate(wanted: Path | str | None = None, runs: Path | str = RUNS) -> Path:
    """The bundle that `--bundle FILE|NAME|RUN[@STEP]|hf:USER/NAME[@REVISION]` means.

    A path that exists, else a run's name, else one that ships; without a wish the newest run's under `runs`, else the one that
    ships. One of the Hub is fetched into the Hub's cache.

    Raises:
        UsageError: an unknown name.
        DataError: no such file, or a run that has none yet; what the Hub has is damaged.
        EnvironmentProblem: the Hub cannot be reached, or needs a login or a package.
    """
    runs = Path(runs)
    if wanted is None:
        made = [path for path in runs.glob(f"*/{FILE_NAME}") if path.is_file()]
        return max(made, key=lambda path: path.stat().st_mtime_ns, default=shipped())
    wanted, path = str(wanted), Path(wanted)
    if (advice := about_address(wanted)) is not None:
        raise UsageError(f"--bundle {wanted}: {advice}")
    if path.exists() and not path.is_dir():
        return path
    if wanted.startswith("hf:"):
        from fruitgan.data import hub

        pin = hub.pinned(wanted)
        files = hub.fetched(pin, [FILE_NAME])
        if FILE_NAME not in files:
            raise DataError(f"{pin}: the repository holds no {FILE_NAME}")
        return files[FILE_NAME]
    if (at := AT_STEP.fullmatch(wanted)) is not None and not path.exists():
        return _of_step(at[1], int(at[2]), runs)
    is_name = path.name == wanted and path.suffix != SUFFIX
    folders = [path, runs / wanted] if is_name else [path]
    for folder in folders:
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    if is_name and wanted in shipped_names():  # after the folders, but a data folder of the same name is not in its way
        return shipped(wanted)
    if any(folder.is_dir() for folder in folders):
        raise DataError(f"{wanted}: has no {FILE_NAME}; a run gets its first with its first checkpoint")
    if not is_name:
        raise DataError(f"{wanted}: no such bundle or run")
    known = sorted({*shipped_names(), *(found.parent.name for found in runs.glob(f"*/{FILE_NAME}"))})
    raise UsageError(f"no file, run or shipped bundle named {wanted!r}: {suggestion(wanted, known)}")


def pinned(wanted: str | None) -> str | None:
    """An address of the Hub with the commit that it means now, for results and configs; None for anything else.

    Raises:
        As `locate`, for an address.
    """
    if wanted is None or not wanted.startswith("hf:") or Path(wanted).exists():
        return None
    from fruitgan.data import hub

    return hub.pinned(wanted)


def _of_step(run: str, step: int, runs: Path) -> Path:
    """The bundle in a run's checkpoint."""
    found = locate(run, runs).parent.glob(f"checkpoints/step-*/{FILE_NAME}")
    named = ((file.parent.name.removeprefix("step-"), file) for file in found)
    files = {int(number): file for number, file in named if number.isdecimal()}  # a person's copy has another name
    if step not in files:
        there = ", ".join(map(str, sorted(files))) or "none"
        raise UsageError(f"{run}@{step}: no checkpoint of that step has a bundle; those that do: {there}")
    return files[step]


def shipped_names() -> list[str]:
    """The names of the bundles that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob(f"*{SUFFIX}"))


def shipped(name: str = DEFAULT_SHIPPED) -> Path:
    """The file of a bundle that comes with the package, by one of `shipped_names`."""
    return SHIPPED / f"{name}{SUFFIX}"
