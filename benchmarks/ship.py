"""Make the bundle that ships of a run's bundle: its name, its terms, what was measured on it, what it is known to get wrong.

    python benchmarks/ship.py --run runs/train-gan/NAME --card card.json [--scale 192] [--gain a2b=1.3,1.0]
        [--mean a2b=OTHER.safetensors] [--take b2a=OTHER.safetensors]

`card.json` holds what the run cannot know: {"name", "domains", "data", "licence", "notes", "measured"}. `--scale` is the size
at which pictures are translated, where the training saw crops of pictures of that size. `--gain` multiplies what the last
layer says of the colours, and adds to what it says of the mask, for generators with image-residual output: a bolder change by
the same network, chosen on images that nothing is reported on. `--mean` takes the mean of the run's weights and those of
another bundle that went on from the same one (Wortsman et al. 2022, model soups); `--take` takes a direction from another
bundle as it is. The result is src/fruitgan/weights/NAME.safetensors.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from fruitgan import bundle as bundles

WEIGHTS = Path(__file__).resolve().parent.parent / "src" / "fruitgan" / "weights"
LIMIT_BYTES = 6_000_000
KNOWN = {"name", "domains", "data", "licence", "notes", "measured"}


def bolder(weights: bundles.Weights, gain: float, offset: float) -> bundles.Weights:
    """The weights with the head's colour maps times `gain` and its mask map raised by `offset`, before the sigmoid."""
    head = {key: np.array(weights[key], np.float32) for key in ("head.weight", "head.bias")}
    colours = len(head["head.bias"]) // 4 * 3  # three maps of four, each of as many places of the pixel shuffle
    for values in head.values():
        values[:colours] *= gain
    head["head.bias"][colours:] += offset
    return {**weights, **head}


def mean(one: bundles.Weights, other: bundles.Weights) -> bundles.Weights:
    """Half of each."""
    return {key: (np.float32(0.5) * one[key] + np.float32(0.5) * other[key]).astype(np.float32) for key in one}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--scale", type=int)
    parser.add_argument("--mean", action="append", default=[], metavar="DIRECTION=FILE")
    parser.add_argument("--take", action="append", default=[], metavar="DIRECTION=FILE")
    parser.add_argument("--gain", action="append", default=[], metavar="DIRECTION=GAIN,OFFSET")
    given = parser.parse_args()
    words = json.loads(given.card.read_text(encoding="utf-8"))
    if set(words) != KNOWN:
        parser.error(f"{given.card}: expected exactly the keys {', '.join(sorted(KNOWN))}")
    trained = bundles.load(given.run / bundles.FILE_NAME)
    weights = dict(trained.weights)
    for direction, _, file in (asked.partition("=") for asked in given.mean):
        weights[direction] = mean(weights[direction], bundles.load(Path(file)).weights[direction])
    for direction, _, file in (asked.partition("=") for asked in given.take):
        weights[direction] = bundles.load(Path(file)).weights[direction]
    for direction, _, numbers in (asked.partition("=") for asked in given.gain):
        weights[direction] = bolder(weights[direction], *map(float, numbers.split(",")))
    words["domains"] = tuple(words["domains"])
    card = dataclasses.replace(trained.card, image_size_px=given.scale or trained.card.image_size_px, **words)
    shipped = bundles.Bundle(card, weights)
    target = WEIGHTS / f"{shipped.card.name}.safetensors"
    bundles.save(shipped, target)
    size = target.stat().st_size
    if size > LIMIT_BYTES:
        target.unlink()
        parser.error(f"{size:,} bytes are more than the {LIMIT_BYTES:,} that fit into the wheel")
    print(f"{target}: {size:,} bytes, weights {bundles.weights_sha256(shipped)}")


if __name__ == "__main__":
    main()
