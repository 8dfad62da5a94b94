"""Which engine `auto` means; decided without importing any of them."""

from __future__ import annotations

from importlib.util import find_spec

from fruitgan.engines.graphs import find
from fruitgan.machine import may_have_gpu
from fruitgan.registry import Choice

AUTO = "auto"
MANY_PICTURES = 32
"""From here on OpenVINO, which starts later. With the shipping generator the two were level at 48 pictures; where exactly they
cross was not measured, nor with larger ones (docs/performance.md)."""
NEEDED = {"onnx": ("onnxruntime",), "openvino": ("openvino", "onnx")}
"""The modules without which an engine does not start, its graph given."""


def choose_engine(
    wanted: str,
    generator: Choice,
    *,
    pictures: int,
    scale: str | int = AUTO,
    gpu: str | None = None,
    device: str | None = None,
    precision: str = AUTO,
) -> str:
    """The name of the engine for so many pictures: the wanted one, or for `auto` the one that is through with them first.

    torch where a GPU was asked for or may be here, for `native` scale (torch alone cuts what is too large into tiles), and
    where the generator's graph neither ships nor is in the cache; else OpenVINO (for many pictures, and for bf16) or
    onnxruntime, as they are installed.

    Raises:
        UsageError: two packages register the generator's name.
    """
    if wanted != AUTO:
        return wanted
    cpu_asked = device == "cpu" or gpu == "none"
    gpu_asked = device not in (None, "cpu") or gpu not in (None, AUTO, "none")
    if gpu_asked or (not cpu_asked and may_have_gpu()) or scale == "native" or find(generator) is None:
        return "torch"
    order = ["openvino"] if precision == "bf16" else ["onnx", "openvino"]
    if pictures >= MANY_PICTURES:
        order.sort(reverse=True)
    return next((name for name in order if all(find_spec(module) for module in NEEDED[name])), "torch")
