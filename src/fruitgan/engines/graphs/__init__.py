"""A generator's operations as an ONNX graph without its weights, so that an engine runs it where torch is not imported.

A graph belongs to a generator and its options, not to a bundle: those of our own generators at their usual options ship in
this folder, any other is exported once by torch and kept in the cache. The weights come from the bundle every time; no graph
of a stranger is ever run. Beside each `KEY.onnx` lies `KEY.json`, written last, which knows its bytes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruitgan.errors import DataError, EnvironmentProblem, FruitganError
from fruitgan.files import write_atomically
from fruitgan.machine import cache_folder
from fruitgan.registry import Choice, Entry, Registry
from fruitgan.settings import from_json, read_json, to_json

FORMAT = 1
"""Raised whenever other graphs are written, so that older ones in a cache are not used."""
SHIPPED = Path(__file__).parent
OWN_PACKAGE = "fruitgan"
INPUT, OUTPUT, TOTAL = "pixels", "pictures", "total"
"""uint8 [N, H, W, 3] in and out, and the sum of what the generator gave: not finite where any number of it is not."""

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class About:
    """What is known of a graph without reading it."""

    format: int
    generator: str
    options: Mapping[str, Any]
    weights: Mapping[str, tuple[int, ...]]
    """The shape of every tensor of the generator by name."""
    used: tuple[str, ...]
    """Those that the operations use: what a generator holds for its training alone is not among them."""
    sha256: str


@dataclass(frozen=True)
class Graph:
    """The operations, and what they need."""

    onnx: bytes
    about: About

    def fed(self, weights: Weights) -> dict[str, NDArray[Any]]:
        """What the operations use of these weights, in full precision.

        Raises:
            DataError: the weights are not this generator's.
        """
        wrong = _difference(self.about.weights, weights)
        if wrong:
            raise DataError(f"the weights are not those of the generator {self.about.generator} as installed here: {wrong}")
        return {
            name: np.ascontiguousarray(weights[name], np.float32 if weights[name].dtype.kind == "f" else None).reshape(
                self.about.weights[name]
            )
            for name in self.about.used
        }


def _difference(shapes: Mapping[str, tuple[int, ...]], weights: Weights) -> str | None:
    for name in shapes:
        if name not in weights:
            return f"{name} is missing"
        if tuple(weights[name].shape) != shapes[name]:
            return f"{name} has the shape {list(weights[name].shape)}, not {list(shapes[name])}"
    return next((f"{name} is unknown" for name in weights if name not in shapes), None)


def find(generator: Choice) -> Graph | None:
    """The graph that ships or that the cache holds; None if it must be exported first. Imports nothing.

    Raises:
        UsageError: two packages register the generator's name.
    """
    registry = Registry[Any]("generators")
    if generator.name not in registry.names():
        return None
    owner = registry.owner(generator.name)
    if owner.package == OWN_PACKAGE and (shipped := _read(SHIPPED / f"{shipped_stem(generator)}.onnx")):
        return shipped
    return _read(_cached(owner, generator))


def obtain(generator: Choice, weights: Weights) -> Graph:
    """The graph, exported by torch and put into the cache where there is none yet.

    Raises:
        DataError: the weights are not this generator's, or it is none that ONNX can express.
        EnvironmentProblem: its package is not installed, or what exports graphs is not.
    """
    graph = find(generator)
    if graph is None:
        graph = exported(generator, weights)
        with contextlib.suppress(FruitganError):  # a cache that cannot be written costs the next run its time, no more
            write(graph, _cached(Registry[Any]("generators").owner(generator.name), generator))
    return graph


def exported(generator: Choice, weights: Weights) -> Graph:
    """The graph as torch exports it, some ten seconds' work. Raises: as `obtain`."""
    try:
        from fruitgan.engines.exporting import export
    except ModuleNotFoundError as error:
        raise missing_extra("onnx", str(error.name), f"to export the generator {generator.name}") from error
    onnx, shapes, used = export(generator, weights)
    about = About(
        format=FORMAT,
        generator=generator.name,
        options=dict(generator.options),
        weights=shapes,
        used=used,
        sha256=hashlib.sha256(onnx).hexdigest(),
    )
    return Graph(onnx, about)


def write(graph: Graph, path: Path) -> None:
    """Write a graph and, after it, what is known of it. Raises: FruitganError, if it cannot be written."""
    write_atomically(path, graph.onnx)
    write_atomically(path.with_suffix(".json"), json.dumps(to_json(graph.about), sort_keys=True, indent=1).encode() + b"\n")


def shipped_stem(generator: Choice) -> str:
    """The name, without its suffix, under which a graph of our own generators ships."""
    return f"{generator.name}-{_digest([OWN_PACKAGE, generator.name, to_json(generator.options)])}"


def missing_extra(extra: str, module: str, why: str = "") -> EnvironmentProblem:
    """The error for an engine, or an export, whose packages are not installed."""
    return EnvironmentProblem(f'{module} is not installed{" " if why else ""}{why}: pip install "fruitgan[{extra}]"')


def _read(path: Path) -> Graph | None:
    """None for what is not there, torn, damaged or of another format: it is exported anew."""
    try:
        about = from_json(About, read_json(path.with_suffix(".json")), "graph")
        onnx = path.read_bytes()
    except (OSError, FruitganError):
        return None
    whole = about.format == FORMAT and hashlib.sha256(onnx).hexdigest() == about.sha256
    return Graph(onnx, about) if whole and set(about.used) <= set(about.weights) else None


def _cached(owner: Entry, generator: Choice) -> Path:
    known = [FORMAT, owner.package, owner.version, owner.target, to_json(generator.options), _sources(owner.target)]
    return cache_folder() / "graphs" / f"{_digest(known)}.onnx"


@functools.cache
def _sources(target: str) -> str:
    """A hash over the code beside the generator: who changes his network in place must not get the graph of before."""
    spec = importlib.util.find_spec(target.partition(":")[0])
    folder = Path(spec.origin).parent if spec and spec.origin else None
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")) if folder else ():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
