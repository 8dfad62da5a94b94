"""Mild changes of what a discriminator is shown, which gradients pass through (Zhao et al. 2020, DiffAugment, section 3.2).

Moved, brighter or darker, more or less contrast. No hue and no saturation: where colour is what tells the domains apart, a
discriminator must not be taught to overlook it. Brightness and contrast are written here, since kornia's keep their results
within [0, 1], where the gradient of what is cut off is 0; moving is kornia's.
"""

from __future__ import annotations

import torch
from kornia.geometry.transform import translate
from torch import Tensor

from fruitgan.device import at_least_fp32, without_autocast

DRAWS = 7
"""Numbers an image: whether it is moved, how far across, how far down; whether and how it is brightened; so with contrast."""

MOVING_DRAWS = 5
"""Numbers an image: how far across, how far down; whether a square is cut out, where across, where down."""

SHIFT = 0.125  # of the side
BRIGHTNESS = 0.2  # on [-1, 1]; the paper has 0.5 on [0, 1]
CONTRAST = 0.25  # the paper has 0.5


def mildly_changed(images: Tensor, draws: Tensor, strength: Tensor) -> Tensor:
    """[N, 3, H, W] in [-1, 1], [N, DRAWS] in [0, 1) and a scalar in [0, 1] to [N, 3, H, W], which may leave [-1, 1] a little.

    Each change happens to an image with probability `strength`. With u uniform on [-1, 1): moved by u SHIFT of each side
    rounded to pixels, grey (0) coming in; x + u BRIGHTNESS; (x - mean) (1 + u CONTRAST) + mean, the mean the image's.
    """
    x = at_least_fp32(images)
    numbers = draws.to(x)
    moved, brightened, contrasted = ((numbers[:, i] < strength).to(x.dtype) for i in (0, 3, 5))
    across, down, brightness, contrast = ((2 * numbers[:, i] - 1) for i in (1, 2, 4, 6))
    height, width = x.shape[-2:]
    way = torch.stack([(across * SHIFT * width).round() * moved, (down * SHIFT * height).round() * moved], dim=1)
    with without_autocast(x.device):  # in bf16 kornia's coordinates are off by up to a pixel
        x = translate(x, way, mode="nearest", padding_mode="zeros", align_corners=True)
    x = x + (brightness * BRIGHTNESS * brightened).view(-1, 1, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (1 + contrast * CONTRAST * contrasted).view(-1, 1, 1, 1) + mean


def shifted_and_cut(images: Tensor, draws: Tensor, shift: float, cutout: float) -> Tensor:
    """[N, 3, H, W] and [N, MOVING_DRAWS] in [0, 1) to [N, 3, H, W]: moved by whole pixels, and a square of it grey.

    Moved by up to `shift` of each side, always, the image's own mirrored pixels coming in; half the time a square of `cutout`
    of the sides is set to 0, of which all or a part lies inside (DeVries & Taylor 2017).
    """
    numbers = draws.to(images.device)
    n, _, height, width = images.shape
    down, across = (_reflected(2 * numbers[:, i] - 1, shift, side) for i, side in ((1, height), (0, width)))
    number = torch.arange(n, device=images.device).view(n, 1, 1)
    moved = images[number, :, down.view(n, height, 1), across.view(n, 1, width)].permute(0, 3, 1, 2)
    if not cutout:
        return moved
    inside = [
        (torch.arange(side, device=images.device) - numbers[:, i].view(n, 1) * side).abs() <= cutout * side / 2
        for i, side in ((4, height), (3, width))
    ]
    cut = inside[0].view(n, 1, height, 1) & inside[1].view(n, 1, 1, width) & (numbers[:, 2] < 0.5).view(n, 1, 1, 1)
    return moved.masked_fill(cut, 0.0)


def _reflected(way: Tensor, shift: float, side_px: int) -> Tensor:
    """Which of `side_px` places to look at, [N, side_px], when moved by `way` (in [-1, 1]) of the share `shift` of the side."""
    places = torch.arange(side_px, device=way.device) + (way * (shift * side_px)).round().long().view(-1, 1)
    places = places.abs()
    return torch.minimum(places, 2 * (side_px - 1) - places)
