"""Where a detector looks: how much its answer would change with each place of the picture."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fruitgan.images import Pixels
from fruitgan.networks.contracts import Detector
from fruitgan.randomness import generator
from fruitgan.train_detector.image_dataset import unit_images

COPIES = 12
NOISE = 0.05
SMOOTHED = 32
"""The map is averaged over places of this fraction of the side: single pixels say nothing to a person."""
DIMMEST = 0.2


def saliency(detector: Detector, pixels: NDArray[np.uint8], device: torch.device, seed: int = 0) -> NDArray[np.float64]:
    """uint8 [n, S, S, 3] to [n, S, S] in [0, 1]: the squared slope of the logit, meant over noisy copies (Smilkov et al. 2017).

    The place that matters most in each picture is 1; a detector that rounds what it sees, or whose answer never changes, gives
    0 everywhere.
    """
    detector.eval()
    images = unit_images(pixels, device)
    total = torch.zeros(len(images), 1, *images.shape[2:], device=device)
    for copy in range(COPIES):
        noise = generator(seed, copy, "detection/saliency").standard_normal(tuple(images.shape), dtype=np.float32)
        noisy = (images + NOISE * torch.from_numpy(noise).to(device)).requires_grad_()
        (slope,) = torch.autograd.grad(detector(noisy).sum(), noisy, allow_unused=True, materialize_grads=True)
        total += torch.nan_to_num(slope).square().sum(dim=1, keepdim=True)
    smoothed = _smoothed(total)
    top = smoothed.amax(dim=(2, 3), keepdim=True)
    return np.asarray((smoothed / top.clamp_min(torch.finfo(top.dtype).tiny))[:, 0].double().cpu().numpy())


def _smoothed(maps: Tensor) -> Tensor:
    side = maps.shape[-1] // SMOOTHED * 2 + 1
    return F.avg_pool2d(maps, side, stride=1, padding=side // 2, count_include_pad=False)


def marked(pixels: Pixels, places: NDArray[np.float64]) -> Pixels:
    """The picture [S, S, 3] beside itself with all but the places [S, S] dimmed: [S, 2 S, 3]."""
    light = DIMMEST + (1 - DIMMEST) * np.sqrt(places)[:, :, None]
    return np.concatenate([pixels, np.rint(pixels * light).astype(np.uint8)], axis=1)
