"""Random jitter and mirroring, as every paper of this family does it."""

from __future__ import annotations

import torch
from kornia.geometry.transform import crop_by_indices, hflip
from torch import Tensor

from fruitgan.augment.contracts import Augmentation
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
        places = images.shape[-1] - image_size_px + 1
        left, top = (draws[:, :2] * places).long().unbind(1)
        right, bottom = left + image_size_px - 1, top + image_size_px - 1
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        boxes = torch.stack([torch.stack(corner, dim=1) for corner in corners], dim=1)
        images = crop_by_indices(images, boxes, size=(image_size_px, image_size_px))
        if not self.mirror:
            return images
        mirrored = (draws[:, 2] < 0.5).to(images.device)
        return torch.where(mirrored.view(-1, 1, 1, 1), hflip(images), images)


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
