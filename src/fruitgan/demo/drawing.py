"""Drawn fruit as a folder in the CycleGAN layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fruitgan.demo.fruit import KINDS, draw
from fruitgan.files import new_folder

FIRST_TEST_INDEX = 1_000_000_000
"""Test images are numbered from here, so that they are the same whatever the number of training images."""


def draw_folder(
    folder: Path,
    *,
    train_count: int,
    test_count: int,
    size_px: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw so many apples into trainA and testA and so many oranges into trainB and testB, as PNG; whole or not at all.

    Raises:
        UsageError: a size below 16 px.
        FruitganError: the folder is there already or cannot be written.
    """
    jobs = [
        (f"{split}{letter}", kind, first + number)
        for split, count, first in (("train", train_count, 0), ("test", test_count, FIRST_TEST_INDEX))
        for letter, kind in zip("AB", KINDS, strict=True)
        for number in range(count)
    ]
    with new_folder(folder) as part:
        for done, (split, kind, index) in enumerate(jobs, start=1):
            (part / split).mkdir(exist_ok=True)
            picture = Image.fromarray(draw(kind, size_px, seed, index))
            picture.save(part / split / f"{kind}-{index % FIRST_TEST_INDEX:05}.png")
            if on_progress is not None:
                on_progress(done, len(jobs))
