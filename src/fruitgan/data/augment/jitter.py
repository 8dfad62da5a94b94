"""Random jitter and mirroring, as every paper of this family does it."""

from __future__ import annotations

import torch
from torch import Tensor

from fruitgan.data.augment.contracts import Augmentation
from fruitgan.errors import UsageError


class JitterMirror(Augmentation):
    """A random crop from an image kept `load_ratio` times larger (286 for 256), mirrored half the time.

    The numbers drawn for an image: where the crop begins along the width, along the height, and whether it is mirrored.
    """

    draws = 3

    def __init__(self, load_ratio: float, mirror: bool) -> None:
        self.load_ratio = load_ratio
        self.mirror = mirror

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
    """Images as they are."""

    draws = 0

    def load_size_px(self, image_size_px: int) -> int:
        return image_size_px

    def apply(self, images: Tensor, draws: Tensor, image_size_px: int) -> Tensor:
        return images


def jitter_mirror(*, load_ratio: float = 286 / 256, mirror: bool = True) -> JitterMirror:
    """Random crop from a larger copy (286 px for 256) and random mirroring."""
    if not 1 <= load_ratio <= 2:
        raise UsageError(f"augmentation jitter-mirror, option load_ratio: {load_ratio} is not within 1 to 2")
    return JitterMirror(load_ratio, mirror)


def none() -> NoAugmentation:
    """No augmentation: every image at the training size, as it is."""
    return NoAugmentation()
