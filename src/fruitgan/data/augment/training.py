"""Augmentations for training a GAN: random jitter, crops at random scales, and differentiable changes for discriminators."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fruitgan.data.augment import Augmentation
from fruitgan.errors import UsageError


@dataclass(kw_only=True)
class JitterMirror(Augmentation):
    """Random crop from a copy `load_ratio` times as large (286 px for 256), and random mirroring.

    The numbers drawn for an image: where the crop begins along the width, along the height, and whether it is mirrored.
    """

    load_ratio: float = 286 / 256
    mirror: bool = True
    draws = 3

    def __post_init__(self) -> None:
        if not 1 <= self.load_ratio <= 2:
            raise UsageError(f"augmentation jitter-mirror, option load_ratio: {self.load_ratio} is not within 1 to 2")

    def load_size_px(self, image_size_px: int) -> int:
        return round(image_size_px * self.load_ratio)

    def apply(self, images: Tensor, draws: Tensor, image_size_px: int) -> Tensor:
        n, places = len(images), images.shape[-1] - image_size_px + 1
        side = torch.arange(image_size_px, device=images.device)
        # Places are looked up on the device: kornia's crop would bring the boxes back to the host.
        left, top = (draws[:, :2] * places).long().to(images.device).unbind(1)
        rows, columns = top.view(n, 1) + side, left.view(n, 1) + side  # [N, S]
        if self.mirror:
            mirrored = (draws[:, 2] < 0.5).to(images.device)
            columns = torch.where(mirrored.view(n, 1), columns.flip(1), columns)
        number = torch.arange(n, device=images.device).view(n, 1, 1)
        return images[number, :, rows.view(n, -1, 1), columns.view(n, 1, -1)].permute(0, 3, 1, 2)


class NoAugmentation(Augmentation):
    """No augmentation: every image at the training size, as it is."""

    draws = 0

    def apply(self, images: Tensor, draws: Tensor, image_size_px: int) -> Tensor:
        return images


LOBES = 3


@dataclass(kw_only=True)
class CropScales(Augmentation):
    """Random square of the picture, resized to the training size: as a crop from load ratios of 1.1 to 2.0; mirrored or not.

    With the load ratio r drawn uniformly from `smallest` to `largest`, it is what a crop of S px from the picture at r S px
    shows (Lanczos, antialiased). Pictures are kept at the largest. The numbers drawn for an image: r, where the square begins
    along the width, along the height, and whether it is mirrored.
    """

    smallest: float = 1.1
    largest: float = 2.0
    draws = 4

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.largest <= 4:
            raise UsageError(f"augmentation crop-scales: {self.smallest} and {self.largest} do not rise within 1 to 4")

    def load_size_px(self, image_size_px: int) -> int:
        return round(image_size_px * self.largest)

    def picture_size_px(self, image_size_px: int) -> int:
        return self.load_size_px(image_size_px)

    def apply(self, images: Tensor, draws: Tensor, image_size_px: int) -> Tensor:
        numbers = draws.to(images.device, images.dtype)
        kept = images.shape[-1]
        side = kept / (self.smallest + numbers[:, 0] * (self.largest - self.smallest))
        left, top = ((kept - side) * numbers[:, i] for i in (1, 2))
        rows, columns = (_lanczos(first, side, kept, image_size_px) for first in (top, left))  # [N, S, L]
        columns = torch.where((numbers[:, 3] < 0.5).view(-1, 1, 1), columns.flip(1), columns)
        return (rows.unsqueeze(1) @ images @ columns.transpose(1, 2).unsqueeze(1)).clamp(0, 1)


def _lanczos(first: Tensor, side: Tensor, length_px: int, size_px: int) -> Tensor:
    """What each of `size_px` pixels takes of `length_px`, [N, size_px, length_px]; rows sum to 1.

    The pixels divide the stretch of `side` px, at least `size_px`, that begins at `first` (both [N], in px), as Pillow's
    antialiased resize does it: Lanczos of three lobes, widened by the ratio, cut off at the border of the picture.
    """
    ratio = (side / size_px).view(-1, 1, 1)
    middle = first.view(-1, 1, 1) + (torch.arange(size_px, device=side.device).view(1, -1, 1) + 0.5) * ratio
    distance = (torch.arange(length_px, device=side.device) + 0.5 - middle) / ratio
    weights = torch.sinc(distance) * torch.sinc(distance / LOBES) * (distance.abs() < LOBES)
    return weights / weights.sum(2, keepdim=True)


MOVING_DRAWS = 5
"""Numbers an image: how far across and down, whether a square is cut out, and where, across and down."""


def shifted_and_cut(images: Tensor, draws: Tensor, shift: float, cutout: float) -> Tensor:
    """[N, 3, H, W] and [N, MOVING_DRAWS] in [0, 1) to [N, 3, H, W]: moved by whole pixels, and a square of it grey.

    Moved by up to `shift` of each side, the image's own mirrored pixels coming in; half the time a square of `cutout` of the
    sides is set to 0, of which all or a part lies inside (DeVries & Taylor 2017).
    """
    numbers = draws.to(images.device)
    n, _, height, width = images.shape
    down, across = (_reflected(2 * numbers[:, i] - 1, shift, side) for i, side in ((1, height), (0, width)))
    number = torch.arange(n, device=images.device).view(n, 1, 1)
    moved = images[number, :, down.view(n, height, 1), across.view(n, 1, width)].permute(0, 3, 1, 2)
    if not cutout:
        return moved
    rows, columns = (
        (torch.arange(side, device=images.device) - numbers[:, i].view(n, 1) * side).abs() <= cutout * side / 2
        for i, side in ((4, height), (3, width))
    )
    cut = rows.view(n, 1, height, 1) & columns.view(n, 1, 1, width) & (numbers[:, 2] < 0.5).view(n, 1, 1, 1)
    return moved.masked_fill(cut, 0.0)


def _reflected(way: Tensor, shift: float, side_px: int) -> Tensor:
    """Which of `side_px` places to look at, [N, side_px], when moved by `way` (in [-1, 1]) of the share `shift` of the side."""
    places = torch.arange(side_px, device=way.device) + (way * (shift * side_px)).round().long().view(-1, 1)
    places = places.abs()
    return torch.minimum(places, 2 * (side_px - 1) - places)
