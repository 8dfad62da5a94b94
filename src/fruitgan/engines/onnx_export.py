"""A generator written by torch as an ONNX graph without weights, and a graph filled with weights for other programs."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from fruitgan.engines.contracts import Weights
from fruitgan.engines.onnx_engine import INPUT, OUTPUT
from fruitgan.errors import DataError
from fruitgan.images import signed_from_unit, unit_from_signed
from fruitgan.networks.contracts import Generator, generators
from fruitgan.networks.layers import InstanceNorm
from fruitgan.networks.weights import build_for
from fruitgan.registry import Choice

OPSET = 18
"""Of 2022: instance norm is one operation there, and every runtime knows it."""
BUNDLE = "bundle"
"""Where a graph says that its weights lie, which whoever loads it must give."""
PIXELS, PICTURES = "pixels", "pictures"
"""uint8 [N, H, W, 3] in and out of a model for other programs."""


class _InUnitRange(nn.Module):
    """A generator for [N, H, W, 3] in [0, 1], which gives the same shape, not clipped."""

    def __init__(self, network: Generator) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.network(signed_from_unit(images.permute(0, 3, 1, 2)))
        out: Tensor = unit_from_signed(made).permute(0, 2, 3, 1)
        return out


def export(generator: Choice, weights: Weights) -> tuple[bytes, dict[str, tuple[int, ...]], tuple[str, ...]]:
    """The graph's bytes, the shape of each of the generator's tensors by name, and the names of those that the graph uses.

    Batch and size are dynamic. In the graph the weights are initializers without data, under their names in the bundle.

    Raises:
        DataError: the weights are not this generator's, or it does what ONNX cannot express.
        EnvironmentProblem: its package is not installed.
    """
    network = build_for(generators, generator, weights).requires_grad_(False).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    random = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():  # equal tensors, such as all offsets of a fresh network, would become one
            tensor.normal_(generator=random)
    _use_torchs_instance_norm(network)
    side = network.size_rule.padded(2 * network.size_rule.minimum_px)
    example = torch.zeros((2, side, side + network.size_rule.multiple_of_px, 3))
    try:
        with _silently():
            program = torch.onnx.export(
                _InUnitRange(network),
                (example,),
                dynamo=True,
                dynamic_shapes=(dict.fromkeys(range(3), torch.export.Dim.DYNAMIC),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # the exporter raises what it likes on a network that it cannot follow
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"the generator {generator.name} cannot be written as an ONNX graph: {reason}") from error
    assert program is not None
    model = program.model_proto
    used = _open_weights(model, shapes)
    return model.SerializeToString(deterministic=True), shapes, used


def _use_torchs_instance_norm(network: nn.Module) -> None:
    """Ours is torch's group norm, which ONNX has only as a dozen operations; the same formula is one operation as this."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, InstanceNorm):
                norm = nn.InstanceNorm2d(child.channels, child.eps, affine=child.weight is not None)
                if child.weight is not None:
                    norm.weight, norm.bias = child.weight, child.bias  # type: ignore[assignment]
                setattr(module, name, norm.eval())


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    """The exporter writes on stdout, warns and logs of its own affairs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _open_weights(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Take the weights' numbers out of the model, give them their names in the bundle, and drop what only explains."""
    names = {f"network.{name}": name for name in shapes}
    used = []
    for initializer in model.graph.initializer:
        name = names.get(initializer.name)
        if name is not None:
            used.append(name)
            initializer.name = name
            initializer.ClearField("raw_data")
            initializer.data_location = TensorProto.EXTERNAL
            del initializer.external_data[:]
            initializer.external_data.add(key="location", value=BUNDLE)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in (model.graph.input[0], model.graph.output[0]):
        for axis, word in zip(value.type.tensor_type.shape.dim, ("images", "height", "width"), strict=False):
            axis.dim_param = word
    return tuple(sorted(used))


def standalone(graph: bytes, weights: Mapping[str, NDArray[Any]], about: str) -> bytes:
    """A model for other programs, with its weights: uint8 pictures in, uint8 pictures out, and a text on what it is."""
    model = onnx.load_from_string(graph)
    for initializer in model.graph.initializer:
        if initializer.data_location == TensorProto.EXTERNAL:
            initializer.data_location = TensorProto.DEFAULT
            del initializer.external_data[:]
            initializer.raw_data = weights[initializer.name].tobytes()
    for name, value in (("zero", 0.0), ("one", 1.0), ("levels", 255.0)):
        model.graph.initializer.append(helper.make_tensor(f"8bit_{name}", TensorProto.FLOAT, [], [value]))
    inner = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("Cast", [PIXELS], ["8bit_floats"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["8bit_floats", "8bit_levels"], [INPUT]),
            *inner,
            helper.make_node("Clip", [OUTPUT, "8bit_zero", "8bit_one"], ["8bit_clipped"]),
            helper.make_node("Mul", ["8bit_clipped", "8bit_levels"], ["8bit_scaled"]),
            helper.make_node("Round", ["8bit_scaled"], ["8bit_rounded"]),
            helper.make_node("Cast", ["8bit_rounded"], [PICTURES], to=TensorProto.UINT8),
        ]
    )
    for value, name in ((model.graph.input[0], PIXELS), (model.graph.output[0], PICTURES)):
        value.name = name
        value.type.tensor_type.elem_type = TensorProto.UINT8
    model.metadata_props.add(key="fruitgan", value=about)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
