"""A bundle's generators as ONNX models for other programs, compared with torch before anything is written."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fruitgan.bundle import RUNS, Card, load, locate
from fruitgan.demo.fruit import MINIMUM_SIZE_PX, draw
from fruitgan.engines.contracts import Engine, engines
from fruitgan.engines.onnx_engine import exporters_needed, obtain_graph
from fruitgan.errors import FruitganError, UsageError
from fruitgan.files import check_writable, write_atomically
from fruitgan.images import bytes_from_unit, unit_from_bytes
from fruitgan.progress import OnProgress, Progress
from fruitgan.settings import to_json
from fruitgan.translate.job import choose_direction

MOST_LEVELS_APART = 1
"""Of 255, in any pixel: what rounding may do where the generator gives a half. More is another picture, and refused."""
LARGEST_COMPARED_PX = 256


@dataclass(frozen=True, kw_only=True)
class ExportModelSettings:
    """Which bundle, as what, and where to."""

    bundle: str | None = None
    """A file, a run or a name; None for the newest run, else the bundle that ships."""
    format: Literal["onnx"] = "onnx"
    to: str | None = None
    """The domain that the model leads to; without it and `direction` there is a model for each direction."""
    direction: Literal["a2b", "b2a"] | None = None
    output: Path = Path("exported")
    overwrite: bool = False
    runs: Path = RUNS


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """One model that was written."""

    direction: str
    to: str
    path: str
    bytes: int
    parity: list[Mapping[str, Any]]
    """How far its pictures are from torch's in grey levels of 255, `largest` and `mean`, by their number and size."""


@dataclass(frozen=True, kw_only=True)
class ExportModelResult:
    """All models that were written."""

    bundle: str
    format: str
    models: list[ExportedModel]
    seconds: float


def export_model(settings: ExportModelSettings, on_progress: OnProgress | None = None) -> ExportModelResult:
    """Write a bundle's generators as models that stand alone: uint8 pictures [N, H, W, 3] in and out, N, H and W free.

    Each is run by onnxruntime and compared with torch on drawn fruit at several sizes first; it is written whole or not.

    Raises:
        UsageError: an unknown name or direction, or a model is there already and `overwrite` is off.
        DataError: no bundle, or a generator that cannot be written so.
        EnvironmentProblem: the extra that exports is not installed.
        FruitganError: the model's pictures are not torch's, or it cannot be written.
    """
    begin = time.monotonic()
    bundle = load(locate(settings.bundle, settings.runs))
    card = bundle.card
    asked = settings.to is not None or settings.direction is not None
    ways = (choose_direction(card, settings.to, settings.direction),) if asked else card.directions
    places = {way: settings.output / _name(card, way) for way in ways}
    for place in places.values():
        if place.exists() and not settings.overwrite:
            raise UsageError(f"{place}: is there already; --overwrite replaces it, -o writes elsewhere")
        if place.is_dir():
            raise UsageError(f"{place}: is in the way and no model; give another folder with -o")
    check_writable(settings.output)
    with exporters_needed("to export a model"):
        from fruitgan.engines.onnx_export import standalone
    kept = ("name", "domains", "image_size_px", "size_minimum_px", "size_multiple_px", "licence", "notes", "data")
    about = {key: value for key, value in to_json(card).items() if key in kept}
    models: list[ExportedModel] = []
    for way, place in places.items():
        to, weights = card.target(way), bundle.weights[way]
        graph = obtain_graph(card.generator, weights)
        text = json.dumps({**about, "direction": way, "to": to}, sort_keys=True)
        model = standalone(graph.onnx, graph.inputs(weights), text)
        parity = _compared(card, model, engines.get("torch")(generator=card.generator, weights=weights, gpu="none"))
        write_atomically(place, model)
        models.append(ExportedModel(direction=way, to=to, path=str(place), bytes=len(model), parity=parity))
        if on_progress is not None and on_progress(Progress("exporting", len(models), len(places))):
            break
    return ExportModelResult(
        bundle=card.name, format=settings.format, models=models, seconds=round(time.monotonic() - begin, 3)
    )


def _name(card: Card, way: str) -> str:
    """`apple2orange-to-orange.onnx`; a card may hold any text, a name of a file may not."""
    words = (re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:80] or "bundle" for text in (card.name, card.target(way)))
    return "-to-".join(words) + ".onnx"


def _compared(card: Card, model: bytes, torchs: Engine) -> list[Mapping[str, Any]]:
    """Raises: FruitganError where a picture is not torch's."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    side = card.padded(min(card.image_size_px, LARGEST_COMPARED_PX))
    small = card.padded(1)
    found: list[Mapping[str, Any]] = []
    for count, height, width in ((2, side, side), (1, side, card.padded(side + side // 2)), (1, small, card.padded(small + 1))):
        square = max(height, width, MINIMUM_SIZE_PX)
        images = np.stack([draw("apple", square, 0, index)[:height, :width] for index in range(count)])
        expected = bytes_from_unit(torchs.translate(unit_from_bytes(images.astype(np.float32))))
        apart = np.abs(session.run(None, {"pixels": images})[0].astype(int) - expected)
        largest = int(apart.max())
        if largest > MOST_LEVELS_APART:
            raise FruitganError(
                f"the model of {card.name} is up to {largest} grey levels from torch at {width} x {height} px: not written"
            )
        found.append({"images": count, "height_px": height, "width_px": width, "largest": largest, "mean": float(apart.mean())})
    return found
