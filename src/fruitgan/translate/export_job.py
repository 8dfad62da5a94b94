"""Generators for other programs (ONNX models, weights for the reference code), and bundles of what that code trained."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy

import fruitgan
from fruitgan.bundle import SUFFIX, Bundle, Card, load, locate, save
from fruitgan.data.decode import decode
from fruitgan.data.finder import image_files
from fruitgan.demo.fruit import KINDS, MINIMUM_SIZE_PX, draw
from fruitgan.engines.contracts import Weights, engines
from fruitgan.engines.onnx_engine import obtain_graph
from fruitgan.engines.padding import network_size, translate_pixels
from fruitgan.errors import DataError, FruitganError, UsageError, needing, shown
from fruitgan.files import check_writable, file_sha256, write_atomically
from fruitgan.images import Pixels, resize
from fruitgan.progress import Note, OnProgress, Progress, silent
from fruitgan.registry import Choice
from fruitgan.settings import Settings, to_json
from fruitgan.translate.job import BundleSettings, choose_direction

MOST_LEVELS_APART = 1
"""Of 255, in any pixel: what rounding may do where the generator gives a half. More is another picture, and refused."""
LARGEST_COMPARED_PX = 256
MOST_COMPARED = 8
"""Of given pictures: calibration and comparison get half of them each."""


@dataclass(frozen=True, kw_only=True)
class ExportModelSettings(BundleSettings):
    """Which bundle, as what, and where to; without a domain or a direction there is a model for each direction."""

    format: Literal["onnx", "junyanz"] = "onnx"
    dtype: Literal["fp32", "fp16", "int8"] = "fp32"
    """Of a model's arithmetic; `int8` has whole numbers in its convolutions."""
    pictures: Path | None = None
    """What a model is compared on, and calibrated for `int8`: a picture, or a folder of them; None is drawn fruit."""
    output: Path = Path("exported")
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format != "onnx" and (self.dtype != "fp32" or self.pictures is not None):
            raise UsageError(f"--format {self.format} is the weights as they are; --dtype and --pictures are for onnx")


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """One file that was written."""

    direction: str
    to: str
    path: str
    bytes: int
    parity: list[Mapping[str, Any]]
    """How far a model's pictures are from torch's in grey levels of 255, `largest` and `mean`, by picture and its size."""
    load: tuple[str, ...] = ()
    """The lines of Python that load weights for the reference code there."""


@dataclass(frozen=True, kw_only=True)
class ExportModelResult:
    """All models that were written."""

    bundle: str
    format: str
    dtype: str
    image_size_px: int
    """Of the bundle's card."""
    models: list[ExportedModel]
    seconds: float


def export_model(settings: ExportModelSettings, on_progress: OnProgress | None = None) -> ExportModelResult:
    """Write a bundle's generators as models that stand alone: uint8 pictures [N, H, W, 3] in and out, N, H and W free.

    Each is run by onnxruntime and compared with torch first; it is written whole or not. In fp32 no pixel is off by more than a
    grey level; by how much it is in fp16 and int8 is in the result. The format `junyanz` is the weights as safetensors under
    the keys of pytorch-CycleGAN-and-pix2pix.

    Raises:
        UsageError: an unknown name or direction, a model is there already and `overwrite` is off, or the reference code has no
            such generator.
        DataError: no bundle, no picture to compare on, or a generator that cannot be written so.
        EnvironmentProblem: the extra that exports is not installed.
        FruitganError: the model's pictures are not torch's, or it cannot be written.
    """
    begin = time.monotonic()
    bundle = load(locate(settings.bundle, settings.runs))
    card = bundle.card
    asked = settings.to is not None or settings.direction is not None
    ways = (choose_direction(card, settings.to, settings.direction),) if asked else card.directions
    suffix = {"fp32": ".onnx"}.get(settings.dtype, f"-{settings.dtype}.onnx") if settings.format == "onnx" else ".safetensors"
    names = {way: _name(card, way) for way in ways}
    if len(set(names.values())) < len(names):  # domains whose letters no name of a file has
        names = {way: f"{name}-{way}" for way, name in names.items()}
    places = {way: settings.output / f"{name}{suffix}" for way, name in names.items()}
    for place in places.values():
        if place.exists() and not settings.overwrite:
            raise UsageError(f"{place}: is there already; --overwrite replaces it, -o writes elsewhere")
        if place.is_dir():
            raise UsageError(f"{place}: is in the way and no model; give another folder with -o")
    check_writable(settings.output)
    pictures = _pictures(settings.pictures, card) if settings.format == "onnx" else []
    models: list[ExportedModel] = []
    for way, place in places.items():
        if settings.format == "onnx":
            model, made = _onnx(card, way, bundle.weights[way], settings.dtype, pictures)
        else:
            model, made = _junyanz(card, bundle.weights[way], place)
        write_atomically(place, model)
        models.append(ExportedModel(direction=way, to=card.target(way), path=str(place), bytes=len(model), **made))
        if on_progress is not None and on_progress(Progress("exporting", len(models), len(places))):
            break
    return ExportModelResult(
        bundle=card.name,
        format=settings.format,
        dtype=settings.dtype,
        image_size_px=card.image_size_px,
        models=models,
        seconds=round(time.monotonic() - begin, 3),
    )


def _onnx(
    card: Card, way: str, weights: Weights, dtype: str, pictures: list[tuple[str, Pixels]]
) -> tuple[bytes, dict[str, Any]]:
    """The model's bytes and how far it is from torch. Raises: FruitganError where a picture in fp32 is not torch's."""
    with needing("onnx", "the export of a model"):
        from fruitgan.engines.onnx_export import converted, standalone
    kept = ("name", "domains", "image_size_px", "size_minimum_px", "size_multiple_px", "licence", "notes", "data")
    about = {key: value for key, value in to_json(card).items() if key in kept}
    graph = obtain_graph(card.generator, weights)
    text = json.dumps({**about, "direction": way, "to": card.target(way)}, sort_keys=True)
    model = standalone(graph.onnx, graph.inputs(weights), text, card.size_minimum_px, card.size_multiple_px)
    if dtype != "fp32":
        model = converted(model, dtype, [pixels for _, pixels in pictures[1::2] or pictures])
        pictures = pictures[::2]
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    torchs = engines.get("torch")(generator=card.generator, weights=weights, gpu="none")
    found: list[Mapping[str, Any]] = []
    for name, pixels in pictures:
        (made,) = session.run(None, {"pixels": pixels[np.newaxis]})
        apart = levels_apart(made[0], translate_pixels(torchs, card, pixels, "native"))
        if dtype == "fp32" and apart["largest"] > MOST_LEVELS_APART:
            raise FruitganError(f"{card.name} is up to {apart['largest']} grey levels from torch on {name}: not written")
        found.append({"picture": name, "height_px": pixels.shape[0], "width_px": pixels.shape[1], **apart})
    return model, {"parity": found}


def _pictures(given: Path | None, card: Card) -> list[tuple[str, Pixels]]:
    """Pictures uint8 [H, W, 3] to compare on, and names: of a folder some, evenly chosen; else drawn fruit."""
    side, small = card.padded(min(card.image_size_px, LARGEST_COMPARED_PX)), card.size_minimum_px
    if given is None:
        sizes = ((side, side), (side, side), (side + 1, side + side // 2 - 1), (small, small + 1))
        return [(f"drawn {index}", drawn(index, *size)) for index, size in enumerate(sizes)]
    files = image_files(given)
    if not files:
        raise DataError(f"{given}: holds no image")
    pictures = []
    for file in files[:: -(-len(files) // MOST_COMPARED)]:
        pixels = decode(file).pixels
        height, width = pixels.shape[:2]
        pictures.append((file.name, resize(pixels, *network_size(height, width, card, min(side, height, width)))))
    return pictures


def _junyanz(card: Card, weights: Weights, place: Path) -> tuple[bytes, dict[str, Any]]:
    """The weights' bytes and the lines that load them."""
    from fruitgan.networks.reference import reference_builder, reference_tensors

    content = safetensors.numpy.save(reference_tensors(card.generator, weights))
    lines = (f"net = {reference_builder(card.generator)}", f"net.load_state_dict(safetensors.torch.load_file({str(place)!r}))")
    return content, {"parity": [], "load": lines}


def _name(card: Card, way: str) -> str:
    """`apple2orange-to-orange`; a card may hold any text, a name of a file may not."""
    words = (
        re.sub(r"[^\w.-]+", "-", text).strip(".-").encode()[:80].decode(errors="ignore")
        for text in (card.name, card.target(way))
    )
    return "-to-".join(word or "bundle" for word in words)


def drawn(index: int, height_px: int, width_px: int) -> Pixels:
    """uint8 [H, W, 3]: an apple or, of odd numbers, an orange, cut to the size."""
    return draw(KINDS[index % 2], max(height_px, width_px, MINIMUM_SIZE_PX), 0, index)[:height_px, :width_px]


def levels_apart(one: Pixels, other: Pixels) -> dict[str, float]:
    """How far two uint8 arrays are apart: `largest` and `mean` difference in grey levels."""
    apart = np.abs(one.astype(int) - other)
    return {"largest": int(apart.max()), "mean": float(apart.mean())}


@dataclass(frozen=True, kw_only=True)
class ImportSettings(Settings):
    """Which files of the reference code, what is in them, and where to."""

    files: tuple[Path, ...]
    """The generator from a to b, and perhaps the one from b to a."""
    architecture: Literal["resnet-9", "resnet-6", "unet-256", "unet-128", "cut-resnet"]
    domains: tuple[str, str]
    output: Path
    image_size_px: int | None = None
    """Side of the training images; None is 128 for unet-128 and 256 for the others, the reference code's own default."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.files) <= 2:
            raise UsageError(f"{len(self.files)} files: give the generator from a to b, and perhaps the one from b to a")
        if self.output.suffix != SUFFIX:
            raise UsageError(f"-o {self.output}: a bundle's name ends in {SUFFIX}")


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """The bundle that was written."""

    bundle: Path
    generator: Choice
    directions: tuple[str, ...]
    weights_dtype: str
    half_precision: Mapping[str, Mapping[str, float]]
    """By direction, how far half precision moves the drawn pictures, in grey levels of 255: `largest` and `mean`."""
    seconds: float


def import_checkpoint(settings: ImportSettings, on_progress: OnProgress | None = None) -> ImportResult:
    """Read checkpoints of the reference code as tensors alone, and write the bundle.

    It is in half precision where that moves no pixel of drawn fruit by more than a grey level, else in full precision.

    Raises:
        UsageError: something is in the bundle's place and `overwrite` is off.
        DataError: a file cannot be read, or is not of the architecture; the two files are of different networks.
        FruitganError: the bundle cannot be written.
    """
    from fruitgan.networks.contracts import generators
    from fruitgan.networks.reference import read_checkpoint

    begin, tell = time.monotonic(), on_progress or silent
    if settings.output.exists() and not settings.overwrite:
        raise UsageError(f"{settings.output}: is there already; --overwrite replaces it, -o writes elsewhere")
    check_writable(settings.output.parent)
    read = dict(zip(("a2b", "b2a"), (read_checkpoint(file, settings.architecture) for file in settings.files), strict=False))
    choices = [choice for choice, _ in read.values()]
    if choices[0] != choices[-1]:
        raise DataError(
            f"{settings.files[1]}: another network than {settings.files[0]} ({shown(dict(choices[1].options))}, "
            f"{shown(dict(choices[0].options))}); a bundle holds two of one kind"
        )
    card = _card(settings, generators.build(choices[0]).size_rule, choices[0], tuple(read))
    apart = {}
    for way, (_, weights) in read.items():
        apart[way] = _half_precision(card, weights)
        tell(Progress("comparing half precision", len(apart), len(read)))
    if max(found["largest"] for found in apart.values()) > MOST_LEVELS_APART:
        card = replace(card, weights_dtype="float32")
        tell(Note("half precision would move a pixel by more than a grey level: the bundle is in full precision"))
    save(Bundle(card, {way: weights for way, (_, weights) in read.items()}), settings.output)
    return ImportResult(
        bundle=settings.output,
        generator=card.generator,
        directions=card.directions,
        weights_dtype=card.weights_dtype,
        half_precision=apart,
        seconds=round(time.monotonic() - begin, 3),
    )


def _half_precision(card: Card, weights: Weights) -> dict[str, float]:
    """How far pictures of drawn fruit by the weights in half precision are from those by the weights as they are."""
    with np.errstate(over="ignore"):
        half = {name: array.astype(np.float16) for name, array in weights.items()}
    if not all(np.isfinite(array).all() for array in half.values()):
        return {"largest": 255, "mean": 255.0}
    side = card.padded(min(card.image_size_px, LARGEST_COMPARED_PX))
    pictures = [drawn(index, side, side) for index in range(2)]
    one, other = (engines.get("torch")(generator=card.generator, weights=kept, gpu="none") for kept in (weights, half))
    made = [[translate_pixels(engine, card, picture, "native") for picture in pictures] for engine in (one, other)]
    return levels_apart(np.stack(made[0]), np.stack(made[1]))


def _card(settings: ImportSettings, rule: Any, generator: Choice, directions: tuple[str, ...]) -> Card:
    sums = ", ".join(f"{file.name} (sha256 {file_sha256(file)})" for file in settings.files)
    return Card(
        name=settings.output.stem,
        domains=settings.domains,
        generator=generator,
        directions=directions,
        image_size_px=settings.image_size_px or (128 if settings.architecture == "unet-128" else 256),
        size_minimum_px=rule.minimum_px,
        size_multiple_px=rule.multiple_of_px,
        recipe="imported",
        steps=0,
        images=0,
        data="not known",
        data_fingerprint="",
        licence="that of the imported weights",
        notes=f"imported as {settings.architecture} from {sums}",
        fruitgan_version=fruitgan.__version__,
        created="",
    )
