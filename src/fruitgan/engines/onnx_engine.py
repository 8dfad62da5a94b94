"""The engine `onnx`: onnxruntime on the CPU without torch, the graphs that it runs, and when `auto` takes it.

A graph holds a generator's operations without its weights: it belongs to a generator and its options and serves all bundles
of them. The graph of the bundle that ships lies beside that bundle. Any other is exported by torch once and kept in the cache.
No graph of a stranger is ever run. Beside each `KEY.onnx` lies `KEY.json`, written last, with the sum of its bytes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from fruitgan.engines.contracts import (
    LARGE_PIXELS,
    Engine,
    Images,
    Machine,
    Weights,
    checked,
    engines,
    finite,
    out_of_memory,
    worker_count,
)
from fruitgan.errors import DataError, FruitganError, UsageError, is_out_of_memory, needing, reason_of
from fruitgan.files import check_writable, write_atomically
from fruitgan.machine import cache_folder, cores, may_have_gpu
from fruitgan.progress import Note, OnProgress, silent
from fruitgan.registry import OWN_PACKAGE, OWN_PROGRAM, Choice, Registry
from fruitgan.settings import SHIPPED, from_json, read_json, to_json

AUTO = "auto"
FORMAT = 2
"""Raised whenever other graphs are written, so that older ones in a cache are not used."""
INPUT, OUTPUT = "images", "translated"
"""float32 [N, H, W, 3]: in [0, 1], and what the generator makes of it, not clipped."""
EXPORTERS = ("onnx", "onnxscript")
"""The packages that torch exports graphs with."""


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
    """The operations as an ONNX model whose weights are left open, and what they need."""

    onnx: bytes
    about: About

    def inputs(self, weights: Weights) -> dict[str, NDArray[Any]]:
        """Those of the weights that the operations use, in full precision.

        Raises:
            DataError: the weights are not this generator's.
        """
        shapes, given = dict(self.about.weights), {name: tuple(array.shape) for name, array in weights.items()}
        for name in sorted(shapes.keys() | given.keys()):
            if given.get(name) != shapes.get(name):
                odd = "is missing" if name not in given else "is unknown" if name not in shapes else None
                wrong = odd or f"has the shape {list(given[name])}, not {list(shapes[name])}"
                raise DataError(
                    f"the weights are not those of the generator {self.about.generator} as installed here: {name} {wrong}"
                )
        used = {name: weights[name] for name in self.about.used}
        whole = {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in used.items()}
        return {name: np.ascontiguousarray(array).reshape(shapes[name]) for name, array in whole.items()}


class OnnxEngine(Engine):
    """A generator in onnxruntime, in fp32."""

    concurrent = True

    def __init__(self, *, generator: Choice, weights: Weights, **machine: Unpack[Machine]) -> None:
        gpu, device = machine.get("gpu"), machine.get("device")
        if gpu is not None and device is not None:
            raise UsageError("--gpu and --device say the same thing; give one of them")
        if gpu not in (None, "auto", "none") or device not in (None, "cpu"):
            asked = f"--device {device}" if gpu is None else f"--gpu {gpu}"
            raise UsageError(f"--engine onnx runs on the CPU alone, not with {asked}; use --engine torch")
        if machine.get("precision") == "bf16":
            raise UsageError("--engine onnx computes in fp32 alone; --engine torch has bf16")
        import onnxruntime  # here: what runs through torch does without it

        graph = obtain_graph(generator, weights)
        inputs = graph.inputs(weights)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone, which are raised as well
        # No more threads than were given, and none that spins while others of this program have work to do.
        options.intra_op_num_threads = machine.get("threads") or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_external_initializers(
            list(inputs), [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in inputs.values()]
        )
        self.session = onnxruntime.InferenceSession(graph.onnx, options, providers=["CPUExecutionProvider"])

    def translate(self, images: Images) -> Images:
        made: NDArray[Any]
        given = np.ascontiguousarray(checked(images))
        try:
            (made,) = self.session.run([OUTPUT], {INPUT: given})
        except Exception as error:  # onnxruntime has classes of its own, and none of them says "memory"
            if not is_out_of_memory(error) and not is_out_of_memory(RuntimeError(str(error))):
                height, width = images.shape[1:3]
                raise DataError(
                    f"onnxruntime cannot run the generator on {width} x {height} px ({reason_of(error)})"
                ) from error
            or_else = ", or use --engine torch, which cuts a large picture into tiles"
            raise out_of_memory(images, or_else=or_else) from error
        return finite(made)


def open_engine(
    wanted: str,
    generator: Choice,
    weights: Weights,
    images: int,
    *,
    scale: str | int = AUTO,
    tell: OnProgress = silent,
    **machine: Unpack[Machine],
) -> tuple[str, Engine]:
    """The name of the engine, `auto` being the fastest here, and the engine for so many images.

    Raises:
        UsageError, DataError, EnvironmentProblem: as `EngineBuilder`, or two packages register the generator's name.
    """
    name = engine_name(wanted, generator, weights, scale=scale, tell=tell, **machine)
    workers = worker_count(images)
    machine["threads"] = None if workers == 1 else max(1, cores() // workers)
    return name, engines.get(name)(generator=generator, weights=weights, **machine)


def engine_name(
    wanted: str,
    generator: Choice,
    weights: Weights,
    *,
    scale: str | int = AUTO,
    tell: OnProgress = silent,
    **machine: Unpack[Machine],
) -> str:
    """The name of the engine, where `auto` is asked for the fastest.

    torch where a GPU was asked for or may be here, for bf16, for large scales (torch alone has tiles) and for what this program
    registered itself; else onnx.

    The latter if the generator's graph ships, is in the cache, or can be exported into it now, of which `tell` gets a note.
    """
    if wanted != AUTO:
        return wanted
    gpu, device = machine.get("gpu"), machine.get("device")
    on_cpu = device == "cpu" or gpu == "none" or (device is None and gpu in (None, AUTO) and not may_have_gpu())
    is_large = scale == "native" or (isinstance(scale, int) and scale**2 > LARGE_PIXELS)
    if not on_cpu or machine.get("precision") == "bf16" or is_large or generator.package == OWN_PROGRAM:
        return "torch"
    if find_graph(generator) is not None:
        return "onnx"
    if not all(find_spec(module) for module in EXPORTERS):
        tell(Note(f'{generator.name} runs through torch; with pip install "fruitgan[onnx]" it starts and runs faster'))
        return "torch"
    tell(Note(f"exporting the generator {generator.name} as an ONNX graph into the cache, once"))
    try:
        check_writable(_cached(generator).parent)
        obtain_graph(generator, weights)
    except FruitganError as error:
        tell(Note(f"{generator.name} runs through torch: {error}"))
    return "torch" if find_graph(generator) is None else "onnx"


def find_graph(generator: Choice) -> Graph | None:
    """The graph that ships or that the cache holds; None if it must be exported first. Imports nothing."""
    registry = Registry[Any]("generators")
    if generator.name not in registry.names() or generator.package == OWN_PROGRAM:  # whose code may change as it runs
        return None
    shipped = registry.owner(generator.name).package == OWN_PACKAGE and _read(SHIPPED / f"{shipped_stem(generator)}.onnx")
    return shipped or _read(_cached(generator))


def obtain_graph(generator: Choice, weights: Weights) -> Graph:
    """The graph, exported by torch and put into the cache where there is none yet.

    Raises:
        DataError: the weights are not this generator's, or it is none that ONNX can express.
        EnvironmentProblem: its package is not installed, or the extra that exports graphs is not.
    """
    graph = find_graph(generator)
    if graph is None:
        with needing("onnx", f"the export of the generator {generator.name}"):
            from fruitgan.engines.onnx_export import export
        graph = export(generator, weights)
        if generator.package == OWN_PROGRAM:
            return graph
        with contextlib.suppress(FruitganError):  # a cache that cannot be written costs the next run its time, no more
            write_graph(graph, _cached(generator))
    return graph


def write_graph(graph: Graph, path: Path) -> None:
    """Write a graph and, after it, what is known of it. Raises: FruitganError, if it cannot be written."""
    write_atomically(path, graph.onnx)
    write_atomically(path.with_suffix(".json"), json.dumps(to_json(graph.about), sort_keys=True, indent=1).encode() + b"\n")


def shipped_stem(generator: Choice) -> str:
    """The name, without its suffix, under which the graph of a generator of ours ships."""
    return f"{generator.name}-{_digest([OWN_PACKAGE, generator.name, to_json(generator.options)])}"


def _read(path: Path) -> Graph | None:
    """None for what is not there, torn, damaged or of another format: it is exported anew."""
    try:
        about = from_json(About, read_json(path.with_suffix(".json")), "graph")
        onnx = path.read_bytes()
    except (OSError, FruitganError):
        return None
    whole = about.format == FORMAT and sha256(onnx) == about.sha256
    return Graph(onnx, about) if whole and set(about.used) <= set(about.weights) else None


def _cached(generator: Choice) -> Path:
    owner = Registry[Any]("generators").owner(generator.name)
    known = [FORMAT, owner.package, owner.version, owner.target, to_json(generator.options), _sources(owner.target)]
    return cache_folder() / "graphs" / f"{_digest(known)}.onnx"


@functools.cache
def _sources(target: str) -> str:
    """A hash over the code beside the generator: who changes his network in place must not get the graph of before."""
    spec = find_spec(target.partition(":")[0])
    files = sorted(Path(spec.origin).parent.glob("*.py")) if spec and spec.origin else []
    return sha256(b"".join(file.read_bytes() for file in files))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode())[:16]
