"""onnxruntime as the engine, on the CPU and without torch: a start in a second, and a faster generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fruitgan.engines.contracts import Engine, Images
from fruitgan.engines.cpu_only import checked, no_memory, refuse_gpu
from fruitgan.engines.graphs import INPUT, OUTPUT, TOTAL, missing_extra, obtain
from fruitgan.errors import UsageError
from fruitgan.registry import Choice


class OnnxEngine(Engine):
    """A generator in onnxruntime, in fp32."""

    concurrent = True

    def __init__(
        self,
        *,
        generator: Choice,
        weights: Mapping[str, NDArray[Any]],
        gpu: str | None = None,
        device: str | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
        threads: int | None = None,
    ) -> None:
        refuse_gpu("onnx", gpu, device)
        if precision == "bf16":
            raise UsageError("--engine onnx computes in fp32 alone; --engine torch has bf16")
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_extra("onnx", "onnxruntime") from error
        graph = obtain(generator, weights)
        fed = graph.fed(weights)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone, which are raised as well
        # No more threads than were given, and none that spins while others of this program have work to do.
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_external_initializers(
            list(fed), [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in fed.values()]
        )
        self.session = onnxruntime.InferenceSession(graph.onnx, options, providers=["CPUExecutionProvider"])

    def translate(self, images: Images) -> Images:
        try:
            pictures, total = self.session.run([OUTPUT, TOTAL], {INPUT: np.ascontiguousarray(images)})
        except Exception as error:  # onnxruntime has classes of its own, and none of them says "memory"
            raise no_memory(error, images) from error
        return checked(pictures, total)
