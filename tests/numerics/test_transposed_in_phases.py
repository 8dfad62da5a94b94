"""A transposed convolution of stride 2 as four ordinary ones gives torch's numbers; what cannot be one is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="fruitgan[openvino] is absent")
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fruitgan.engines.phases import with_phases

RANDOM = np.random.default_rng(0)
X, BIAS = RANDOM.normal(size=(2, 3, 5, 7)), RANDOM.normal(size=4)


def transposed(weights: NDArray[Any], **options: Any) -> ModelProto:
    node = helper.make_node("ConvTranspose", ["x", "weights", "bias"], ["y"], **options)
    x, y = (helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in "xy")
    kept = [numpy_helper.from_array(array, name) for array, name in ((weights, "weights"), (BIAS, "bias"))]
    return helper.make_model(helper.make_graph([node], "one", [x], [y], kept))


@pytest.mark.parametrize(
    ("kernel", "pad", "more"),
    [
        ((4, 4), (1, 1), (0, 0)),
        ((3, 3), (1, 1), (1, 1)),
        ((2, 2), (0, 0), (0, 0)),
        ((6, 4), (2, 1), (0, 0)),
        ((3, 2), (1, 0), (1, 0)),
    ],
)
def test_four_convolutions_woven_together_are_the_transposed_one(
    kernel: tuple[int, int], pad: tuple[int, int], more: tuple[int, int]
) -> None:
    weights = RANDOM.normal(size=(3, 4, *kernel))
    model = transposed(weights, strides=[2, 2], pads=[*pad, *pad], output_padding=list(more))
    assert with_phases(model) == 1
    assert [node.op_type for node in model.graph.node] == [*["Conv"] * 4, "Concat", "DepthToSpace"]
    assert "weights" not in {initializer.name for initializer in model.graph.initializer}
    (ours,) = ReferenceEvaluator(model).run(None, {"x": X})
    given = (torch.from_numpy(array) for array in (X, weights, BIAS))
    torchs = torch.nn.functional.conv_transpose2d(*given, stride=2, padding=pad, output_padding=more)
    np.testing.assert_allclose(ours, torchs.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"strides": [1, 1], "pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "pads": [0, 0, 0, 0]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [2, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "auto_pad": "SAME_UPPER"},
        {"strides": [3, 3], "pads": [1, 1, 1, 1]},
        {"pads": [1, 1, 1, 1]},
    ],
)
def test_what_does_not_double_its_input_is_left_as_it_is(options: dict[str, Any]) -> None:
    model = transposed(RANDOM.normal(size=(3, 4, 4, 4)), **options)
    before = model.SerializeToString(deterministic=True)
    assert with_phases(model) == 0
    assert model.SerializeToString(deterministic=True) == before


def test_groups_are_left_as_they_are() -> None:
    weights = RANDOM.normal(size=(4, 1, 4, 4))
    model = transposed(weights, strides=[2, 2], pads=[1, 1, 1, 1], group=4)
    assert with_phases(model) == 0
