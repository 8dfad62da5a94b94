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
