"""Changes for testing a detector's robustness (compression, blur, resizing, cropping, noise), and saliency maps of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fruitgan.images import Pixels, from_pillow, resize, to_pillow
from fruitgan.networks.contracts import Detector
from fruitgan.randomness import generator
from fruitgan.train_detector.detector import unit_images


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


COPIES = 12
NOISE = 0.05
SMOOTHED = 32
"""The map is averaged over places of this fraction of the side: single pixels say nothing to a person."""
DIMMEST = 0.2


def saliency(detector: Detector, pixels: NDArray[np.uint8], device: torch.device, seed: int = 0) -> NDArray[np.float64]:
    """uint8 [n, S, S, 3] to [n, S, S] in [0, 1]: the squared gradient of the logit, mean over noisy copies (Smilkov 2017).

    The place that matters most in each image is 1; a detector that rounds its input, or whose answer never changes, gives 0
    everywhere.
    """
    detector.eval()
    images = unit_images(pixels, device)
    total = torch.zeros(len(images), 1, *images.shape[2:], device=device)
    for copy in range(COPIES):
        noise = generator(seed, copy, "detection/saliency").standard_normal(tuple(images.shape), dtype=np.float32)
        noisy = (images + NOISE * torch.from_numpy(noise).to(device)).requires_grad_()
        (slope,) = torch.autograd.grad(detector(noisy).sum(), noisy, allow_unused=True, materialize_grads=True)
        total += torch.nan_to_num(slope).square().sum(dim=1, keepdim=True)
    side = total.shape[-1] // SMOOTHED * 2 + 1
    smoothed = F.avg_pool2d(total, side, stride=1, padding=side // 2, count_include_pad=False)
    top = smoothed.amax(dim=(2, 3), keepdim=True)
    return np.asarray((smoothed / top.clamp_min(torch.finfo(top.dtype).tiny))[:, 0].cpu().double().numpy())


def marked(pixels: Pixels, places: NDArray[np.float64]) -> Pixels:
    """The image [S, S, 3] beside itself with all but the places [S, S] dimmed: [S, 2 S, 3]."""
    light = DIMMEST + (1 - DIMMEST) * np.sqrt(places)[:, :, None]
    return np.concatenate([pixels, np.rint(pixels * light).astype(np.uint8)], axis=1)
