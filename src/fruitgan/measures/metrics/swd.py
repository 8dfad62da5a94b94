"""Sliced Wasserstein distance between patches of Laplacian pyramids: sharpness and texture, scale by scale."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fruitgan.images import Pixels, resize
from fruitgan.measures.contracts import Features, Values
from fruitgan.measures.subsampling import HalvedMetric
from fruitgan.randomness import generator

SIZE_PX = 256
LEVELS_PX = (256, 128, 64, 32, 16)
PATCH_PX = 7
PATCHES = 64
PATCH_NUMBERS = 3 * PATCH_PX**2
PROJECTIONS = 128
FEW_PROJECTIONS = 16
"""For the resamples, whose spread needs no more."""
SCALE = 1e3
KERNEL = (1.0, 4.0, 6.0, 4.0, 1.0)


def blurred(images: Tensor, gain: float = 1.0) -> Tensor:
    """The five-point binomial filter down and across, borders mirrored; [N, C, H, W]."""
    kernel = torch.tensor(KERNEL, dtype=images.dtype, device=images.device) / 16 * gain**0.5
    channels = images.shape[1]
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    down = F.conv2d(padded, kernel.reshape(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
    return F.conv2d(down, kernel.reshape(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """What each halving of the size loses, then what is left (Burt and Adelson 1983, equations 1 to 4), one a level."""
    levels = []
    for _ in LEVELS_PX[1:]:
        smaller = blurred(images)[:, :, ::2, ::2]
        spread = torch.zeros_like(images)
        spread[:, :, ::2, ::2] = smaller
        levels.append(images - blurred(spread, gain=4.0))
        images = smaller
    return [*levels, images]


def patch_corners(side_px: int) -> NDArray[np.int64]:
    """[PATCHES, 2]: the same places in every picture, spread evenly (the additive recurrence by the plastic number)."""
    plastic = 1.32471795724474602596
    steps = np.arange(1, PATCHES + 1)[:, None] * np.array([1 / plastic, 1 / plastic**2])
    corners: NDArray[np.int64] = ((0.5 + steps) % 1 * (side_px - PATCH_PX + 1)).astype(np.int64)
    return corners


class LaplacianPatches(Features):
    """64 patches of 7 x 7 px of each level of the pyramid."""

    name = "laplacian-patches"
    dimensions = len(LEVELS_PX) * PATCHES * PATCH_NUMBERS
    resize = f"squashed to {SIZE_PX} px (Lanczos, antialiased, 8 bits)"

    def prepare(self, pixels: Pixels) -> Pixels:
        return resize(pixels, SIZE_PX, SIZE_PX, Image.Resampling.LANCZOS)

    def forward(self, images: Tensor) -> Tensor:
        rows = []
        for level in laplacian_pyramid(images):
            corners = patch_corners(level.shape[-1])
            rows += [level[:, :, y : y + PATCH_PX, x : x + PATCH_PX].flatten(1) for y, x in corners.tolist()]
        return torch.cat(rows, dim=1)


class SlicedWasserstein(HalvedMetric):
    """The mean over the levels; each level's own number is among the details."""

    name = "swd"
    bounds = (0.0, np.inf)
    most_resamples = 20

    def own_features(self) -> Features:
        return LaplacianPatches()

    def compute(self, real: Values, fake: Values) -> float:
        return float(np.mean(level_distances(real, fake, FEW_PROJECTIONS, self.seed)))

    def details(self, real: Values, fake: Values) -> dict[str, float]:
        found = level_distances(real, fake, PROJECTIONS, self.seed)
        return {f"level_{side}_px": value for side, value in zip(LEVELS_PX, found.tolist(), strict=True)}


def level_distances(real: Values, fake: Values, projections: int, seed: int) -> Values:
    """[levels]: Karras et al. 2018, section 5, times 1000: patches normalised by their set's mean and deviation of each
    channel.
    """
    found = []
    for number, (x, y) in enumerate(zip(_levels(real), _levels(fake), strict=True)):
        along = generator(seed, number, "swd").normal(size=(PATCH_NUMBERS, projections))
        along /= np.linalg.norm(along, axis=0)
        count = min(len(x), len(y))
        quantiles = (np.arange(count) + 0.5) / count
        a, b = (_at(np.sort(normalised(side) @ along, axis=0), quantiles) for side in (x, y))
        found.append(SCALE * np.abs(a - b).mean())
    return np.array(found)


def _levels(rows: Values) -> list[Values]:
    """[N x PATCHES, PATCH_NUMBERS] of each level."""
    parts = rows.reshape(len(rows), len(LEVELS_PX), PATCHES, PATCH_NUMBERS)
    return [parts[:, level].reshape(-1, PATCH_NUMBERS) for level in range(len(LEVELS_PX))]


def normalised(patches: Values) -> Values:
    """Each colour channel of all patches brought to mean 0 and deviation 1."""
    channels = patches.reshape(len(patches), 3, -1)
    spread = channels.std((0, 2), keepdims=True)
    scaled: Values = ((channels - channels.mean((0, 2), keepdims=True)) / np.maximum(spread, 1e-12)).reshape(len(patches), -1)
    return scaled


def _at(ordered: Values, quantiles: Values) -> Values:
    """Ordered values [n, P] at shares of their number, so that sets of two sizes can be compared."""
    chosen: Values = ordered[np.minimum((quantiles * len(ordered)).astype(np.int64), len(ordered) - 1)]
    return chosen


def swd(*, resamples: int = 20, seed: int = 0) -> SlicedWasserstein:
    """Sliced Wasserstein distance of 7 x 7 patches on Laplacian levels 256 to 16 px, times 1000 (Karras et al. 2018, section
    5).
    """
    return SlicedWasserstein(resamples, seed)
