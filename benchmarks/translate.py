"""How fast a folder of photographs is translated, beside the same written plainly; both in turn, in one run.

    python benchmarks/translate.py --generator unet-256 --pictures 48 --rounds 3
    python benchmarks/translate.py --generator shipped --pictures 96 --rounds 3
    python benchmarks/translate.py --generator shipped --pictures 960 --gpu 0

`plain` opens, translates and saves one picture after the other: torch's own instance norm and convolutions in fp32 on all
cores, Pillow's default PNG. The others are `fruitgan translate` end to end, its engine's start and the fsync of every file
included. The photographs are drawn fruit of 256 px as JPEG. Ratios are of the medians; behind them stand the least and the
largest ratio of a round. With `--gpu N` torch alone runs there (`plain` stays on the CPU), and the engine is timed by itself,
from decoded pictures to decoded pictures, with several numbers of them a call.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from train_step import plain_layers

from fruitgan import bundle as bundles
from fruitgan.demo.fruit import draw
from fruitgan.engines.torch_engine import TorchEngine, arrays_of
from fruitgan.machine import cores
from fruitgan.networks.contracts import generators
from fruitgan.networks.weights import build_for
from fruitgan.settings import Precision
from fruitgan.translate.job import TranslateSettings, translate

WAYS: dict[str, dict[str, Any]] = {
    "torch": {"engine": "torch"},
    "onnx": {"engine": "onnx"},
    "torch to JPEG": {"engine": "torch", "format": "jpg"},
    "onnx to JPEG": {"engine": "onnx", "format": "jpg"},
}


def bundle_of(generator: str, folder: Path) -> Path:
    """The bundle that ships, or one of a fresh generator, whose pictures are noise and take as long."""
    shipped = bundles.shipped()
    if generator == "shipped":
        return shipped
    torch.manual_seed(0)
    choice = generators.choose(generator)
    network = generators.build(choice)
    like = bundles.load_card(shipped)
    rule = network.size_rule
    fields = {**vars(like), "generator": choice, "directions": ("a2b",), "image_size_px": 256}
    card = bundles.Card(**{**fields, "size_minimum_px": rule.minimum_px, "size_multiple_px": rule.multiple_of_px})
    bundles.save(bundles.Bundle(card, {"a2b": arrays_of(network)}), folder / "fresh.safetensors")
    return folder / "fresh.safetensors"


def plainly(bundle: bundles.Bundle, sources: Path, out: Path) -> None:
    network = build_for(generators, bundle.card.generator, bundle.weights["a2b"]).eval()
    with plain_layers(), torch.inference_mode():
        for path in sorted(sources.iterdir()):
            with Image.open(path) as image:
                pixels = torch.from_numpy(np.array(image.convert("RGB")))
            made = network(pixels.permute(2, 0, 1)[None].float() / 127.5 - 1)
            levels = ((made[0] + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0)
            Image.fromarray(levels.numpy()).save(out / f"{path.stem}.png")


def apart(one: Path, other: Path) -> str:
    """The largest and the mean difference of two folders' pictures, in grey levels; not of JPEGs, which have their own."""
    differences = []
    for path in sorted(other.glob("*.png")):
        with Image.open(one / path.name) as a, Image.open(path) as b:
            differences.append(np.abs(np.asarray(a).astype(int) - np.asarray(b)))
    if not differences:
        return ""
    return f"largest difference {max(d.max() for d in differences)}, mean {np.mean([d.mean() for d in differences]):.2g}"


def alone(bundle: bundles.Bundle, gpu: str) -> None:
    """The engine's pictures a second, in both precisions."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        engine = TorchEngine(generator=bundle.card.generator, weights=bundle.weights["a2b"], gpu=gpu, precision=precision)
        for together in (1, 8, 32):
            images = np.stack([draw("apple", 256, 1, index) for index in range(together)]).astype(np.float32) / np.float32(255)
            engine.translate(images)
            begin, calls = time.perf_counter(), max(1, 256 // together)
            for _ in range(calls):
                engine.translate(images)
            rate = calls * together / (time.perf_counter() - begin)
            print(f"the engine alone, {precision}, {together:2} a call {rate:8.1f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generator", default="shipped")
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="*", default=None)
    parser.add_argument("--gpu", default="none")
    given = parser.parse_args()
    on_cpu = given.gpu == "none"
    given.ways = given.ways or [way for way in WAYS if on_cpu or not way.startswith("onnx")]
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for index in range(given.pictures):
            Image.fromarray(draw("apple", 256, 0, index)).save(folder / "in" / f"{index:03}.jpg", quality=92)
        path = bundle_of(given.generator, folder)
        bundle = bundles.load(path)

        def ours(way: str) -> Callable[[Path], Any]:
            options = {"sources": (str(folder / "in"),), "bundle": str(path), "gpu": given.gpu, "scale": "native", **WAYS[way]}
            return lambda out: translate(TranslateSettings(**options, output=str(out)))

        runs: dict[str, Callable[[Path], Any]] = {"plain": lambda out: plainly(bundle, folder / "in", out)}
        runs |= {way: ours(way) for way in given.ways}
        taken: dict[str, list[float]] = {way: [] for way in runs}
        differences = {}
        for round_ in range(given.rounds + 1):  # the first warms up
            for way, run in runs.items():
                out = folder / way
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                begin = time.perf_counter()
                run(out)
                if round_:
                    taken[way].append(time.perf_counter() - begin)
                differences[way] = apart(folder / "plain", out)
        if not on_cpu:
            alone(bundle, given.gpu)
    print(f"{given.generator}, {given.pictures} pictures of 256 px, {given.rounds} rounds, {cores()} cores")
    for way, seconds in taken.items():
        ratios = [plain / own for plain, own in zip(taken["plain"], seconds, strict=True)]
        ratio = statistics.median(taken["plain"]) / statistics.median(seconds)
        print(
            f"{way:22} {given.pictures / statistics.median(seconds):6.1f} images/s   {ratio:5.2f} times plain "
            f"({min(ratios):.2f} to {max(ratios):.2f})   {differences[way]}"
        )


if __name__ == "__main__":
    main()
