"""Whether narrower numbers pay in `translate`: int8 in onnxruntime and bf16 in torch, beside fp32 with the same weights.

    python benchmarks/narrow.py --pictures 16 --rounds 5       # needs fruitgan[onnx]

The bundle that ships, drawn apples of 256 px. int8 is onnxruntime's static quantisation (weights by channel, ranges from
eight other drawn apples), once for all convolutions and once without the first and the last. Told are, after rounding to 8
bits, the largest difference and the share of values that are off by more than one grey level; and the ratio of times, in turn
in one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from fruitgan import bundle as bundles
from fruitgan.demo.fruit import draw
from fruitgan.engines.contracts import Images
from fruitgan.engines.onnx_engine import INPUT, OnnxEngine, obtain_graph
from fruitgan.engines.torch_engine import TorchEngine

SIDE_PX, CALIBRATED = 256, 8


class Apples(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self) -> None:
        self.left: Iterator[dict[str, Images]] = iter([{INPUT: apple(1, number)} for number in range(CALIBRATED)])

    def get_next(self) -> dict[str, Images] | None:
        return next(self.left, None)


def apple(seed: int, number: int) -> Images:
    """[1, H, W, 3] in [0, 1]."""
    return draw("apple", SIDE_PX, seed, number)[None].astype(np.float32) / np.float32(255)


def with_weights(bundle: bundles.Bundle, path: Path) -> Path:
    """The generator's graph as an ONNX file that holds its weights."""
    weights = bundle.weights["a2b"]
    graph = obtain_graph(bundle.card.generator, weights)
    inputs = graph.inputs(weights)
    model = onnx.load_model_from_string(graph.onnx)
    for tensor in model.graph.initializer:
        if tensor.name in inputs:
            tensor.CopyFrom(onnx.numpy_helper.from_array(inputs[tensor.name], tensor.name))
    onnx.save(model, path)
    return path


def int8(fp32: Path, left_out: list[str]) -> Callable[[Images], Images]:
    path = fp32.with_name(f"int8-{len(left_out)}.onnx")
    kinds: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    quantize_static(
        fp32, path, Apples(), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv"], nodes_to_exclude=left_out, **kinds
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {INPUT: images})[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    bundle = bundles.load(bundles.shipped())
    built: dict[str, Any] = {"generator": bundle.card.generator, "weights": bundle.weights["a2b"], "gpu": "none", "threads": 1}
    with tempfile.TemporaryDirectory() as scratch:
        fp32 = with_weights(bundle, Path(scratch) / "fp32.onnx")
        convolutions = [node.name for node in onnx.load(fp32).graph.node if node.op_type == "Conv"]
        ways: dict[str, Callable[[Images], Images]] = {
            "onnx fp32": OnnxEngine(**built).translate,
            "onnx int8": int8(fp32, []),
            "onnx int8, not the first and last": int8(fp32, [convolutions[0], convolutions[-1]]),
            "torch fp32": TorchEngine(**built).translate,
            "torch bf16": TorchEngine(**built, precision="bf16").translate,
        }
        pictures = [apple(0, number) for number in range(asked.pictures)]
        made: dict[str, list[Images]] = {}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, translate in ways.items():
                began = time.perf_counter()
                made[name] = [translate(picture) for picture in pictures]
                seconds[name].append((time.perf_counter() - began) / len(pictures))
    print("| | ms a picture | times as fast | largest difference | off by more than one |")
    print("|---|---|---|---|---|")
    exact = np.rint(np.clip(np.concatenate(made["onnx fp32"]), 0, 1) * 255)
    for name in ways:
        off = np.abs(np.rint(np.clip(np.concatenate(made[name]), 0, 1) * 255) - exact)
        mine, ratio = statistics.median(seconds[name]), statistics.median(np.divide(seconds["onnx fp32"], seconds[name]))
        print(f"| {name} | {1000 * mine:.1f} | {ratio:.2f} | {off.max():.0f} | {(off > 1).mean():.2%} |")


if __name__ == "__main__":
    main()
