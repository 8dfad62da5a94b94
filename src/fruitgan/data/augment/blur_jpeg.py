"""Blurred and re-compressed pictures, so that a detector does not rest on what the next upload wipes out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from kornia.enhance import jpeg_codec_differentiable
from kornia.filters import gaussian_blur2d
from torch import Tensor

from fruitgan.data.augment.contracts import Augmentation
from fruitgan.data.augment.rigid import mirrored
from fruitgan.errors import UsageError

LARGEST_SIGMA_PX = 3.0
SMALLEST_SIGMA_PX = 0.01
KERNEL_PX = 15
"""Reaches 2.3 sigma of the widest blur, and is narrow enough for the border of a picture of 16 px to be mirrored."""
QUALITIES = (30, 100)


class BlurJpeg(Augmentation):
    """Blur of sigma uniform in 0 to 3 px, then JPEG of quality 30 to 100, each with its probability; mirrored half the time.

    Wang et al. 2020, section 4.1. The numbers drawn for an image: whether and how much it is blurred, whether and how much
    it is compressed, and whether it is mirrored.
    """

    draws = 5

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def load_size_px(self, image_size_px: int) -> int:
        return image_size_px

    def apply(self, images: Tensor, draws: Tensor, image_size_px: int) -> Tensor:
        images = self._changed(images, draws[:, 0], self._blurred, draws[:, 1])
        images = self._changed(images, draws[:, 2], self._compressed, draws[:, 3])
        return mirrored(images, draws[:, 4] < 0.5)

    def _changed(self, images: Tensor, whether: Tensor, change: Callable[[Tensor, Tensor], Tensor], how_much: Tensor) -> Tensor:
        chosen = torch.nonzero(whether < self.probability)[:, 0]
        if not len(chosen):
            return images
        amounts = how_much[chosen].to(images.device, images.dtype)
        chosen = chosen.to(images.device)
        return images.index_copy(0, chosen, change(images[chosen], amounts))

    @staticmethod
    def _blurred(images: Tensor, amounts: Tensor) -> Tensor:
        sigma = (LARGEST_SIGMA_PX * amounts).clamp_min(SMALLEST_SIGMA_PX)
        return gaussian_blur2d(images, (KERNEL_PX, KERNEL_PX), torch.stack([sigma, sigma], dim=1))

    @staticmethod
    def _compressed(images: Tensor, amounts: Tensor) -> Tensor:
        low, high = QUALITIES
        quality = low + (amounts * (high - low + 1)).floor()
        coded: Tensor = jpeg_codec_differentiable(images, quality)
        return coded.clamp(0, 1)


def blur_jpeg(*, probability: float = 0.5) -> BlurJpeg:
    """Random blur, JPEG compression and mirroring, as CNNDetection trains: for detectors (0.5 or 0.1 there)."""
    if not 0 <= probability <= 1:
        raise UsageError(f"augmentation blur-jpeg, option probability: {probability} is not within 0 to 1")
    return BlurJpeg(probability)
