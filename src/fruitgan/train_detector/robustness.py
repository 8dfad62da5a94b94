"""Changes for testing a detector's robustness (compression, blur, resizing, cropping, noise)."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from fruitgan.images import Pixels, from_pillow, resize, to_pillow
from fruitgan.randomness import generator


@dataclass(frozen=True)
class Change:
    """One change of a certain strength."""

    name: str
    amount: float
    apply: Callable[[Pixels, int], Pixels]
    """uint8 [H, W, 3] to the same (a crop is smaller); the number makes noise another for each image."""


def _jpeg(quality: float, pixels: Pixels, _: int) -> Pixels:
    file = io.BytesIO()
    to_pillow(pixels).save(file, "JPEG", quality=quality)
    return from_pillow(Image.open(io.BytesIO(file.getvalue())))


def _blur(sigma_px: float, pixels: Pixels, _: int) -> Pixels:
    # Pillow blurs with three boxes, whose joint spread is that of the Gaussian.
    return from_pillow(to_pillow(pixels).filter(ImageFilter.GaussianBlur(sigma_px)))


def _resize(scale: float, pixels: Pixels, _: int) -> Pixels:
    height, width = pixels.shape[:2]
    small = resize(pixels, round(scale * height), round(scale * width), Image.Resampling.BICUBIC)
    return resize(small, height, width, Image.Resampling.BICUBIC)


def _crop(share: float, pixels: Pixels, _: int) -> Pixels:
    height, width = (round(share * side) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _noise(sigma: float, pixels: Pixels, number: int) -> Pixels:
    noise = sigma * generator(0, number, "evaluation/noise").standard_normal(pixels.shape, dtype=np.float32)
    noisy: Pixels = np.rint(np.clip(pixels + noise, 0, 255)).astype(np.uint8)
    return noisy


CHANGES = (
    Change("none", 0, lambda pixels, _: pixels),
    *(Change("jpeg", quality, partial(_jpeg, quality)) for quality in (95, 75, 50, 30)),
    *(Change("blur", sigma_px, partial(_blur, sigma_px)) for sigma_px in (1, 2, 3)),
    *(Change("resize", scale, partial(_resize, scale)) for scale in (0.75, 0.5)),
    Change("crop", 0.875, partial(_crop, 0.875)),
    Change("noise", 4, partial(_noise, 4)),
)
"""Of the images at their own size, before the detector's resizing; the crop is what 224 px are of 256."""
