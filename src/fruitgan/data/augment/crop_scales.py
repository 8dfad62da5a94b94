"""Random crops at random scales: texture from near, whole objects from afar."""

from __future__ import annotations

import torch
from torch import Tensor

from fruitgan.data.augment.contracts import Augmentation
from fruitgan.errors import UsageError

LOBES = 3


class CropScales(Augmentation):
    """A square of random size and place, resized to the training size (Lanczos, antialiased), mirrored half the time.

    With the load ratio r drawn uniformly from `smallest` to `largest`, it is what a crop of S px from the picture at r S px
    shows. Pictures are kept at the largest. The numbers drawn for an image: r, where the square begins along the width, along
    the height, and whether it is mirrored.
    """

    draws = 4

    def __init__(self, smallest: float, largest: float) -> None:
        self.smallest = smallest
        self.largest = largest

    def load_size_px(self, image_size_px: int) -> int:
        return round(image_size_px * self.largest)

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


def crop_scales(*, smallest: float = 1.1, largest: float = 2.0) -> CropScales:
    """Random square of the picture, resized to the training size: as a crop from load ratios of 1.1 to 2.0; mirrored or not."""
    if not 1 <= smallest <= largest <= 4:
        raise UsageError(f"augmentation crop-scales: {smallest} and {largest} do not rise within 1 to 4")
    return CropScales(smallest, largest)
