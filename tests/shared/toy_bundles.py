"""Small bundles: one whose weights nobody looks at, with an engine that costs nothing, and one that changes pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fruitgan import bundle as bundles
from fruitgan.engines.contracts import Engine, Images
from fruitgan.engines.torch_engine import arrays_of
from fruitgan.networks.contracts import generators
from fruitgan.registry import Choice
from fruitgan.train_detector.calibration import judge
from fruitgan.train_detector.detector import DetectorCard
from fruitgan.train_detector.seen import FilesSeen

CARD = bundles.Card(
    name="toy",
    domains=("apple", "orange"),
    generator=Choice("mobile", "fruitgan", "0.1.0", {"base_channels": 8, "blocks": 1, "mask": True}),
    directions=("a2b", "b2a"),
    image_size_px=64,
    size_minimum_px=8,
    size_multiple_px=4,
    recipe="fast",
    steps=10,
    images=20,
    data="drawn",
    data_fingerprint="0123",
    licence="Apache-2.0",
    notes="a toy; ångström",
    measured={"kid": 0.5, "how": "by eye"},
    fruitgan_version="0.1.0",
    created="",
)
"""With something in every field but the time."""


class Negative(Engine):
    """The negative, so that every expected pixel is known."""

    def __init__(self, **options: Any) -> None:
        pass

    def translate(self, images: Images) -> Images:
        return 1 - images


def save_toy(path: Path, weight: float | None = 1.0, **changes: Any) -> Path:
    """A bundle of one weight, or of none, that takes pictures of any size; `changes` are its card's."""
    card = replace(CARD, **{"size_minimum_px": 1, "size_multiple_px": 1, **changes})
    weights = {} if weight is None else {"w": np.full(1, weight, np.float32)}
    bundles.save(bundles.Bundle(card, dict.fromkeys(card.directions, weights)), path)
    return path


def save_small(path: Path, **changes: Any) -> Path:
    """A bundle of the smallest generator, with weights that change a picture; `changes` are its card's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        choice = generators.choose("mobile", {"base_channels": 4, "blocks": 1})
        network = generators.build(choice)
        torch.nn.init.normal_(network.head.weight, 0.0, 0.1)  # untrained, it would give back what it gets
    minimum_px, multiple_px = network.size_rule.minimum_px, network.size_rule.multiple_of_px
    card = replace(CARD, generator=choice, size_minimum_px=minimum_px, size_multiple_px=multiple_px, **changes)
    bundles.save(bundles.Bundle(card, dict.fromkeys(card.directions, arrays_of(network))), path)
    return path


def detector_card(detector: Choice, image_size_px: int, **changes: Any) -> DetectorCard:
    """The card of a detector that nobody trained."""
    about: dict[str, Any] = {
        **{"name": "toy", "protocol": "grouped", "training_images": 8, "rounds": 1, "seed": 0},
        **{"data": "drawn", "data_fingerprint": "0123", "fruitgan_version": "0.1.0"},
        "verdict": judge(np.array([1.0, -1.0]), np.array([True, False])),
        **dict.fromkeys(("train_sha256", "val_sha256", "test_sha256", "taught_looks"), ()),
        "files": FilesSeen(sides_px=(1, 9999), formats=("PNG",)),
    }
    return DetectorCard(detector=detector, image_size_px=image_size_px, **about | changes)
