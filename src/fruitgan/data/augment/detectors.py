"""Augmentations for detectors: rotation, shift, mirroring, parts of pictures, blur and JPEG compression."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from kornia.enhance import jpeg_codec_differentiable
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import hflip, warp_affine
from torch import Tensor

from fruitgan.data.augment import Augmentation
from fruitgan.errors import UsageError


@dataclass(kw_only=True)
class RotateShiftMirror(Augmentation):
    """Rotation by up to 15 degrees, shift by up to a tenth and mirroring, borders repeated: the lab report's, for detectors.

    Between pixels it is bilinear. The numbers drawn for an image: angle (above 0 it turns the picture counter-clockwise about
    its centre), shift across, shift down (at most `shift` of the side), and whether it is mirrored, half the time.
    """

    degrees: float = 15.0
    shift: float = 0.1
    mirror: bool = True
    draws = 4

    def __post_init__(self) -> None:
        for name, value, most in (("degrees", self.degrees, 180), ("shift", self.shift, 1)):
            if not 0 <= value <= most:
                raise UsageError(f"augmentation rotate-shift-mirror, option {name}: {value} is not within 0 to {most}")

    def apply(self, images: Tensor, draws: Tensor, image_size_px: int) -> Tensor:
        if self.degrees or self.shift:
            matrices = self.matrices(draws, images.shape[-1]).to(images.device, images.dtype)
            images = warp_affine(images, matrices, (image_size_px, image_size_px), padding_mode="border", align_corners=True)
        return mirrored(images, draws[:, 3] < 0.5) if self.mirror else images

    def matrices(self, draws: Tensor, side_px: int) -> Tensor:
        """[N, 4] in [0, 1) to [N, 2, 3]: from the pixel (x, y) of the picture to where it goes, y downwards."""
        angle = (2 * draws[:, 0] - 1) * math.radians(self.degrees)
        across, down = ((2 * draws[:, 1:3] - 1) * self.shift * side_px).unbind(1)
        cos, sin = angle.cos(), angle.sin()
        centre = (side_px - 1) / 2
        first = torch.stack([cos, sin, centre - (cos + sin) * centre + across], dim=1)
        second = torch.stack([-sin, cos, centre - (cos - sin) * centre + down], dim=1)
        return torch.stack([first, second], dim=1)


class Mirror(Augmentation):
    """Random mirroring alone, which leaves the finest texture as it is: for detectors."""

    draws = 1

    def apply(self, images: Tensor, draws: Tensor, image_size_px: int) -> Tensor:
        return mirrored(images, draws[:, 0] < 0.5)


class PartMirror(Augmentation):
    """Random squares of half the side, mirrored half the time: for detectors that take any size, such as small-cnn.

    Four times as fast as the whole picture, and four and more pictures of one. The numbers drawn for an image: where the part
    begins along the width, along the height, and whether it is mirrored.
    """

    draws = 3

    def gives_size_px(self, image_size_px: int) -> int:
        return image_size_px // 2

    def apply(self, images: Tensor, draws: Tensor, image_size_px: int) -> Tensor:
        side = self.gives_size_px(image_size_px)
        corners = (draws[:, :2] * (images.shape[-1] - side + 1)).long().tolist()
        parts = [image[:, top : top + side, left : left + side] for image, (left, top) in zip(images, corners, strict=True)]
        return mirrored(torch.stack(parts), draws[:, 2] < 0.5)


def mirrored(images: Tensor, which: Tensor) -> Tensor:
    """[N, 3, H, W] with those images mirrored for which `which`, [N] of booleans, is true."""
    return torch.where(which.to(images.device).view(-1, 1, 1, 1), hflip(images), images)


LARGEST_SIGMA_PX = 3.0
SMALLEST_SIGMA_PX = 0.01
KERNEL_PX = 15
"""Reaches 2.3 sigma of the widest blur, and is narrow enough for the border of a picture of 16 px to be mirrored."""
QUALITIES = (30, 100)


@dataclass(kw_only=True)
class BlurJpeg(Augmentation):
    """Random blur, JPEG compression and mirroring, as CNNDetection trains: for detectors (0.5 or 0.1 there).

    Wang et al. 2020, section 4.1: blur of sigma uniform in 0 to 3 px, then JPEG of quality 30 to 100, each with `probability`;
    mirrored half the time. The numbers drawn for an image: whether and how much it is blurred, whether and how much it is
    compressed, and whether it is mirrored.
    """

    probability: float = 0.5
    draws = 5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise UsageError(f"augmentation blur-jpeg, option probability: {self.probability} is not within 0 to 1")

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
