"""Pictures made up on the spot, as files: noise, smooth or on a ramp too, drawn fruit, and datasets of two classes."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fruitgan.demo.fruit import Kind, draw
from fruitgan.images import Pixels, resize

SPLITS = ("trainA", "trainB", "testA", "testB")
drawn = functools.cache(draw)


def pixels_of(path: str | Path) -> Pixels:
    with Image.open(path) as image:
        return np.array(image)


def noise(height_px: int, width_px: int, seed: int | np.random.Generator = 0, low: int = 0, high: int = 256) -> Pixels:
    """Independent values from `low` up to `high`, which is not among them."""
    return np.random.default_rng(seed).integers(low, high, (height_px, width_px, 3), dtype=np.uint8)


def smooth(seed: int, height_px: int = 24, width_px: int = 24, low: int = 0, high: int = 256) -> Pixels:
    """Coarse noise enlarged: like a photograph it has most of its strength in low frequencies, and looks alike at any size."""
    return resize(noise(6, 6, seed, low, high), height_px, width_px)


def save_picture(path: str | Path, pixels: Pixels, **options: Any) -> Pixels:
    """As a picture file in a folder that is made; gives the pixels."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def save_noise(path: str | Path, height_px: int = 5, width_px: int = 7, seed: int = 0, **options: Any) -> Pixels:
    """Noise as a picture file; gives its pixels."""
    return save_picture(path, noise(height_px, width_px, seed), **options)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture's file."""
    file = io.BytesIO()
    if "append_images" in options:  # copies, since Pillow leaves its encoders' settings on what it saves
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    image.copy().save(file, kind, **options)
    return file.getvalue()


def write_noise(
    folder: Path,
    sizes_px: Sequence[tuple[int, int]],
    *,
    low: int = 0,
    high: int = 256,
    seed: int | np.random.Generator = 0,
    suffix: str = ".png",
) -> list[Path]:
    """A file of noise for each height and width, in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)  # a generator stays itself, so that several folders have other noise each
    paths = [folder / f"{number:04}{suffix}" for number in range(len(sizes_px))]
    for path, size_px in zip(paths, sizes_px, strict=True):
        Image.fromarray(noise(*size_px, random, low, high)).save(path)
    return paths


def write_noise_domains(
    folder: Path,
    count: int,
    size_px: tuple[int, int],
    *,
    lighter_b: int = 0,
    splits: Sequence[str] = SPLITS,
    suffix: str = ".png",
) -> Path:
    """So many pictures of noise a split, by so many grey levels lighter in domain B."""
    random = np.random.default_rng(0)
    for split in splits:
        low = lighter_b * split.endswith("B")
        high = 256 - lighter_b + low
        write_noise(folder / split, [size_px] * count, low=low, high=high, seed=random, suffix=suffix)
    return folder


def write_ramp_domains(folder: Path, seed: int = 1) -> Path:
    """Five and four training images and a test image each, noise on a ramp of 40 x 36 px, lighter in domain B."""
    random = np.random.default_rng(seed)
    for split, count, light in (("trainA", 5, 0), ("trainB", 4, 80), ("testA", 1, 0), ("testB", 1, 80)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            ramp = np.linspace(0, 100, 40)[:, None, None] * random.random(3)
            pixels = ramp + random.random((40, 36, 3)) * 70 + light
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / f"{number}.png")
    return folder


def write_fruit_domains(
    folder: Path,
    count: int,
    side_px: int,
    *,
    fruit_a: Kind = "orange",
    fruit_b: Kind = "orange",
    splits: Sequence[str] = SPLITS,
) -> Path:
    """So many drawn fruit a split."""
    for seed, split in enumerate(splits):
        (folder / split).mkdir(parents=True)
        for index in range(count):
            pixels = drawn(fruit_a if split.endswith("A") else fruit_b, side_px, seed, index)
            Image.fromarray(pixels).save(folder / split / f"{index}.png")
    return folder


def write_dataset(folder: Path, count: int, *, planted: int) -> Path:
    """Noise of 16 x 16 px in both classes, in the generated one with a grid of this strength on every second pixel."""
    random = np.random.default_rng(0)
    for name in ("predicted", "origins"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = noise(16, 16, random, 60, 120)
            if name == "predicted":
                pixels[::2, ::2] += np.uint8(planted)
            Image.fromarray(pixels).save(folder / name / f"{number:06d}.png")
    return folder
