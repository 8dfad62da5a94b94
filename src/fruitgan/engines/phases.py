"""Transposed convolutions of stride 2 as ordinary ones, which OpenVINO computes in bf16; the former it computes in fp32 always.

Each second row and column of the output of a transposed convolution of stride 2 hangs on each second tap of the kernel alone.
So it is four ordinary convolutions (one for even rows and even columns, and so on: its phases), woven together: the same
products summed in another order (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?").
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

STRIDE = 2


def with_phases(model: onnx.ModelProto) -> int:
    """Replace, in place, the transposed convolutions that can be; of how many it was so. Weights must be in the model."""
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    nodes, replaced = [], 0
    for node in model.graph.node:
        if node.op_type == "ConvTranspose" and node.input[1] in weights and _doubles(node, weights[node.input[1]]):
            nodes += _woven(node, numpy_helper.to_array(weights[node.input[1]]), model.graph)
            replaced += 1
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for name, initializer in weights.items():
        if name not in used:
            model.graph.initializer.remove(initializer)
    return replaced


def _options(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _doubles(node: onnx.NodeProto, weights: onnx.TensorProto) -> bool:
    """Whether it is one group, undilated, of stride 2, and gives twice its input's height and width."""
    given = _options(node)
    begin, end = given.get("pads", [0, 0, 0, 0])[:2], given.get("pads", [0, 0, 0, 0])[2:]
    more = given.get("output_padding", [0, 0])
    plain = {"auto_pad": b"NOTSET", "group": 1, "dilations": [1, 1], "strides": [STRIDE, STRIDE]}
    is_plain = given.get("strides") is not None and all(given.get(name, value) == value for name, value in plain.items())
    sizes = zip(weights.dims[2:], begin, end, more, strict=True)
    return is_plain and all(taps + extra - first - last == STRIDE for taps, first, last, extra in sizes)


def _taps(size: int, pad: int, phase: int) -> tuple[list[int], int, int]:
    """The kernel's taps of a phase, in the order of the inputs they meet, and by how much the first and the last lie outside.

    Input j and tap t add to output 2 j - pad + t. With output 2 i + phase, j - i is (phase + pad - t) / 2.
    """
    met = sorted(((phase + pad - tap) // STRIDE, tap) for tap in range(size) if (phase + pad - tap) % STRIDE == 0)
    return [tap for _, tap in met], -met[0][0], met[-1][0]


def _woven(node: onnx.NodeProto, weights: NDArray[Any], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Four convolutions with the weights [in, out, h, w] shared out among them, and what weaves their results together."""
    name, pads = node.output[0], _options(node).get("pads", [0, 0, 0, 0])
    nodes, phases = [], []
    for row in range(STRIDE):
        rows, above, below = _taps(weights.shape[2], pads[0], row)
        for column in range(STRIDE):
            columns, left, right = _taps(weights.shape[3], pads[1], column)
            kernel = np.ascontiguousarray(weights[:, :, rows][:, :, :, columns].transpose(1, 0, 2, 3))
            phases.append(f"{name}_phase_{row}{column}")
            graph.initializer.append(numpy_helper.from_array(kernel, f"{phases[-1]}_kernel"))
            inputs = [node.input[0], f"{phases[-1]}_kernel", *node.input[2:]]
            nodes.append(helper.make_node("Conv", inputs, [phases[-1]], pads=[above, left, below, right]))
    nodes.append(helper.make_node("Concat", phases, [f"{name}_phases"], axis=1))
    nodes.append(helper.make_node("DepthToSpace", [f"{name}_phases"], [name], blocksize=STRIDE, mode="DCR"))
    return nodes
