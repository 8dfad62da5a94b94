"""A generator written by torch as an ONNX graph without weights, and a graph filled with weights for other programs."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from fruitgan.engines.contracts import Weights
from fruitgan.engines.onnx_engine import FORMAT, INPUT, OUTPUT, About, Graph, sha256
from fruitgan.errors import DataError, reason_of
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


def export(generator: Choice, weights: Weights) -> Graph:
    """The generator's graph as torch writes it, some ten seconds' work; batch and size are dynamic.

    The weights are initializers without data, under their names in the bundle.

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
        raise DataError(f"the generator {generator.name} cannot be written as an ONNX graph: {reason_of(error)}") from error
    assert program is not None
    model = program.model_proto
    used = _open_weights(model, shapes)
    data = model.SerializeToString(deterministic=True)
    about = About(
        format=FORMAT, generator=generator.name, options=generator.options, weights=shapes, used=used, sha256=sha256(data)
    )
    return Graph(data, about)


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


def standalone(graph: bytes, weights: Mapping[str, NDArray[Any]], about: str, minimum_px: int, multiple_px: int) -> bytes:
    """A model for other programs, with its weights and a text on what it is: uint8 pictures of any size in and out.

    They are padded within to the least side that the generator takes, and its result is cropped.
    """
    model = onnx.load_from_string(graph)
    for initializer in model.graph.initializer:
        if initializer.data_location == TensorProto.EXTERNAL:
            initializer.data_location = TensorProto.DEFAULT
            del initializer.external_data[:]
            initializer.raw_data = weights[initializer.name].tobytes()
    inner = list(model.graph.node)
    del model.graph.node[:]
    op = _Nodes(model.graph)
    levels, sizes = op.constant(255.0), op("Shape", PIXELS)
    pixels, places = PIXELS, []
    for axis in (1, 2):
        taken, own = _padding(op, op("Gather", sizes, op.constant(axis)), minimum_px, multiple_px)
        pixels = op("Gather", pixels, taken, axis=axis)
        places.append(own)
    op("Div", op("Cast", pixels, to=TensorProto.FLOAT), levels, into=INPUT)
    model.graph.node.extend(inner)
    unit = op("Clip", OUTPUT, op.constant(0.0), op.constant(1.0))
    padded = op("Cast", op("Round", op("Mul", unit, levels)), to=TensorProto.UINT8)
    op("Gather", op("Gather", padded, places[0], axis=1), places[1], axis=2, into=PICTURES)
    for value, name in ((model.graph.input[0], PIXELS), (model.graph.output[0], PICTURES)):
        value.name = name
        value.type.tensor_type.elem_type = TensorProto.UINT8
    model.metadata_props.add(key="fruitgan", value=about)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def converted(model: bytes, dtype: str, pictures: Sequence[NDArray[np.uint8]]) -> bytes:
    """A standalone model in `fp16`, or in `int8`: whole numbers in its convolutions, of ranges that the pictures reach."""
    parsed = onnx.load_from_string(model)
    with _silently():
        if dtype == "fp16":
            from onnxruntime.transformers.float16 import convert_float_to_float16

            half: bytes = convert_float_to_float16(parsed).SerializeToString(deterministic=True)
            return half
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        class Pictures(CalibrationDataReader):  # type: ignore[misc]
            feed = iter(pictures)

            def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
                return next(({PIXELS: pixels[np.newaxis]} for pixels in self.feed), None)

        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "model.onnx")
            ways = {"per_channel": True, "activation_type": QuantType.QUInt8}  # signed maps took twice the time on a CPU
            quantize_static(parsed, place, Pictures(), op_types_to_quantize=["Conv", "ConvTranspose"], **ways)
            return place.read_bytes()


class _Nodes:
    """Adds operations to a graph, each called with the names of its inputs and giving that of its output."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph

    def __call__(self, operation: str, *inputs: str, into: str | None = None, **attributes: Any) -> str:
        name = into or f"around_{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(operation, inputs, [name], **attributes))
        return name

    def constant(self, value: float) -> str:
        kind = TensorProto.INT64 if isinstance(value, int) else TensorProto.FLOAT
        return self("Constant", value=helper.make_tensor("value", kind, [], [value]))


def _padding(op: _Nodes, size: str, minimum_px: int, multiple_px: int) -> tuple[str, str]:
    """Along an axis: which place of the picture each padded place takes, and where the picture lies; as `engines.padding`."""
    zero, one, multiple = op.constant(0), op.constant(1), op.constant(multiple_px)
    longer = op("Add", op("Max", size, op.constant(minimum_px)), op.constant(multiple_px - 1))
    margin = op("Sub", op("Mul", op("Div", longer, multiple), multiple), size)
    before = op("Div", margin, op.constant(2))
    behind, last = op("Sub", margin, before), op("Sub", size, one)
    places = op("Range", op("Neg", before), op("Add", size, behind), one)
    mirrored = op("Sub", last, op("Abs", op("Sub", last, op("Abs", places))))
    edge = op("Min", op("Max", places, zero), last)
    own = op("Range", before, op("Add", before, size), one)
    return op("Where", op("Less", behind, size), mirrored, edge), own
