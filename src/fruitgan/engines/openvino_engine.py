"""OpenVINO as the engine, on the CPU and without torch: half a second more to start than onnxruntime, then faster."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fruitgan.engines.contracts import Engine, Images
from fruitgan.engines.cpu_only import checked, no_memory, refuse_gpu
from fruitgan.engines.graphs import INPUT, OUTPUT, TOTAL, missing_extra, obtain
from fruitgan.machine import cores
from fruitgan.registry import Choice


class OpenvinoEngine(Engine):
    """A generator in OpenVINO; `auto` precision is fp32."""

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
        refuse_gpu("openvino", gpu, device)
        try:
            import openvino

            from fruitgan.engines.filling import filled
        except ModuleNotFoundError as error:
            raise missing_extra("openvino", str(error.name)) from error
        graph = obtain(generator, weights)
        core = openvino.Core()
        model = core.read_model(filled(graph.onnx, graph.fed(weights), in_phases=precision == "bf16"))
        all_threads = cores()
        self.compiled = core.compile_model(
            model,
            "CPU",
            {
                # Its own default is bf16 wherever the CPU has it.
                "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
                "INFERENCE_NUM_THREADS": all_threads,
                "NUM_STREAMS": max(1, all_threads // (threads or all_threads)),
            },
        )
        # OpenVINO looks for numpy when it first touches an array, under a lock, and lets go of Python's meanwhile: two first
        # calls at once would wait for each other for ever. So the first is here, where nobody else calls.
        openvino.Tensor(np.zeros(1, np.uint8)).data.fill(0)
        self._own = threading.local()

    def translate(self, images: Images) -> Images:
        try:
            request = getattr(self._own, "request", None)
            if request is None:  # one a thread: a request holds the results of its last run
                request = self._own.request = self.compiled.create_infer_request()
            request.infer({INPUT: np.ascontiguousarray(images)})
        except RuntimeError as error:
            raise no_memory(error, images) from error
        return checked(request.get_tensor(OUTPUT).data.copy(), request.get_tensor(TOTAL).data)
