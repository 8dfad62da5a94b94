"""Sliced Wasserstein metrics: `swd` on patches of Laplacian pyramids, `colour-lab` on the colours of all pixels."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fruitgan.measures.contracts import Features, HalvedMetric, SquashedFeatures, Values
from fruitgan.measures.features.weightless import lab_of_srgb
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


class LaplacianPatches(SquashedFeatures):
    """64 patches of 7 x 7 px of each level of the pyramid."""

    trained_on = ""
    name = "laplacian-patches"
    dimensions = len(LEVELS_PX) * PATCHES * PATCH_NUMBERS
    size_px = SIZE_PX

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


LAB_SIZE_PX = 64
DIRECTIONS = 16
EDGES = 193
LOW, HIGH = -144.0, 144.0
"""No colour of sRGB lies farther from grey of L = 50, along any direction."""
STEP = (HIGH - LOW) / (EDGES - 1)


def directions() -> Values:
    """[3 + DIRECTIONS, 3]: L, a and b themselves, then unit vectors spread evenly over half a sphere (Fibonacci's spiral)."""
    i = np.arange(DIRECTIONS)
    up = (i + 0.5) / DIRECTIONS
    turn = i * math.pi * (3 - math.sqrt(5))
    side = np.sqrt(1 - up**2)
    return np.concatenate([np.eye(3), np.stack([up, side * np.cos(turn), side * np.sin(turn)], axis=1)])


class LabDistribution(SquashedFeatures):
    """Along each direction, the share of pixels below each of 193 values."""

    trained_on = ""
    name = "lab-distribution"
    dimensions = (3 + DIRECTIONS) * EDGES
    size_px = LAB_SIZE_PX

    def forward(self, images: Tensor) -> Tensor:
        lab = lab_of_srgb(images.float()).flatten(2) - torch.tensor([50.0, 0, 0], device=images.device)[:, None]
        along = torch.from_numpy(directions()).float().to(images.device)
        values = torch.einsum("dc,ncp->ndp", along, lab).sort(-1).values.contiguous()
        edges = torch.linspace(LOW, HIGH, EDGES, device=images.device).expand(*values.shape[:2], EDGES).contiguous()
        return torch.searchsorted(values, edges).flatten(1) / values.shape[-1]


class LabDistance(HalvedMetric):
    """The sliced Wasserstein distance of the pixels of all pictures."""

    name = "colour-lab"
    bounds = (0.0, np.inf)

    def own_features(self) -> Features:
        return LabDistribution()

    def compute(self, real: Values, fake: Values) -> float:
        return float(_distances(real, fake)[3:].mean())

    def details(self, real: Values, fake: Values) -> dict[str, float]:
        found = _distances(real, fake)
        return {"lightness": float(found[0]), "green_red": float(found[1]), "blue_yellow": float(found[2])}


def _distances(real: Values, fake: Values) -> Values:
    """[3 + DIRECTIONS]: the area between two distribution functions is the Wasserstein-1 distance."""
    between: Values = np.abs(real.mean(0) - fake.mean(0)).reshape(-1, EDGES).sum(1) * STEP
    return between


def colour_lab(*, resamples: int = 200, seed: int = 0) -> LabDistance:
    """Sliced Wasserstein-1 distance of all pixels' Lab colours (Bonneel et al. 2015, equation 9), in Lab units; 2 is just
    visible.
    """
    return LabDistance(resamples, seed)
