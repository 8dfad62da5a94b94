"""A graph and a bundle's weights as one ONNX model that stands alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray


def filled(onnx_bytes: bytes, fed: Mapping[str, NDArray[Any]]) -> bytes:
    """The graph with its weights in it: a model that stands alone."""
    model = onnx.load_from_string(onnx_bytes)
    for initializer in model.graph.initializer:
        if initializer.data_location == onnx.TensorProto.EXTERNAL:
            initializer.data_location = onnx.TensorProto.DEFAULT
            del initializer.external_data[:]
            initializer.raw_data = fed[initializer.name].tobytes()
    data: bytes = model.SerializeToString(deterministic=True)
    return data
