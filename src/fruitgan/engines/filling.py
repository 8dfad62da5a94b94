"""A graph and a bundle's weights as one ONNX model that stands alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray

from fruitgan.engines.graphs import TOTAL


def standalone(onnx_bytes: bytes, fed: Mapping[str, NDArray[Any]], about: str) -> bytes:
    """A model for others: pictures in, pictures out and nothing else, with a text on what it is."""
    model = _filled(onnx_bytes, fed)
    for node in [node for node in model.graph.node if TOTAL in node.output]:
        model.graph.node.remove(node)
    for output in [output for output in model.graph.output if output.name == TOTAL]:
        model.graph.output.remove(output)
    model.metadata_props.add(key="fruitgan", value=about)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _filled(onnx_bytes: bytes, fed: Mapping[str, NDArray[Any]]) -> Any:
    model = onnx.load_from_string(onnx_bytes)
    for initializer in model.graph.initializer:
        if initializer.data_location == onnx.TensorProto.EXTERNAL:
            initializer.data_location = onnx.TensorProto.DEFAULT
            del initializer.external_data[:]
            initializer.raw_data = fed[initializer.name].tobytes()
    return model
