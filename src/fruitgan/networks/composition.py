"""How a generator's last maps and its source become the output: a change of the picture, and where it counts."""

from __future__ import annotations

import torch
from torch import Tensor

from fruitgan.device import at_least_fp32
from fruitgan.networks.contracts import GeneratorParts

LIMIT = 0.97  # the source is held inside the range of tanh, whose inverse would be infinite at 1
MASK_START = 1.0  # sigmoid(1) = 0.73: at the start the network's picture counts for most


def composed(source: Tensor, maps: Tensor) -> GeneratorParts:
    """[N, 3, H, W] in [-1, 1] and the last layer's [N, 3 or 4, H, W] to the output, with a mask where there is a fourth map.

    With h the three colour maps, x the source and m = sigmoid(fourth map + 1), y = tanh(h + atanh(clip(x, -0.97, 0.97))) is the
    changed picture and m y + (1 - m) x the output (Mejjati et al. 2018, equation 1, with the source as the background).
    At h = 0 the output differs from x by the clipping alone: a last layer that starts at zero starts as the identity.
    """
    x, maps = at_least_fp32(source), at_least_fp32(maps)
    changed = torch.tanh(maps[:, :3] + torch.atanh(x.clamp(-LIMIT, LIMIT)))
    if maps.shape[1] == 3:
        return GeneratorParts(changed, None)
    mask = torch.sigmoid(maps[:, 3:] + MASK_START)
    return GeneratorParts(torch.lerp(x, changed, mask), mask)
