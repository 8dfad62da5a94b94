"""Which engine `auto` means; decided without importing any of them."""

from __future__ import annotations

from importlib.util import find_spec

from fruitgan.engines.catalog import engines
from fruitgan.engines.graphs import find
from fruitgan.errors import UsageError
from fruitgan.machine import may_have_gpu
from fruitgan.registry import Choice

AUTO = "auto"


def check_engine(wanted: str) -> None:
    """Raises: UsageError for a name that is neither `auto` nor an engine's."""
    if wanted == "openvino":
        raise UsageError("--engine openvino is no more: --engine onnx is as fast on a CPU, and --engine torch has bf16")
    if wanted != AUTO:
        engines.owner(wanted)


def choose_engine(
    wanted: str,
    generator: Choice,
    *,
    scale: str | int = AUTO,
    gpu: str | None = None,
    device: str | None = None,
    precision: str = AUTO,
) -> str:
    """The name of the engine: the wanted one, or for `auto` the fastest.

    torch where a GPU was asked for or may be here, for bf16 and for `native` scale (torch alone has them), and where the
    generator's graph neither ships nor is in the cache; else onnxruntime, where it is installed.

    Raises:
        UsageError: two packages register the generator's name.
    """
    if wanted != AUTO:
        return wanted
    cpu_asked = device == "cpu" or gpu == "none"
    gpu_asked = device not in (None, "cpu") or gpu not in (None, AUTO, "none")
    torch_alone = gpu_asked or (not cpu_asked and may_have_gpu()) or scale == "native" or precision == "bf16"
    return "torch" if torch_alone or find(generator) is None or not find_spec("onnxruntime") else "onnx"
