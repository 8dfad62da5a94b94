"""`colour-lab`: the sliced Wasserstein distance of the colours of all pixels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fruitgan.measures.contracts import Features, HalvedMetric, SquashedFeatures, Values
from fruitgan.measures.features.weightless import lab_of_srgb

SIZE_PX = 64
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
    size_px = SIZE_PX

    def forward(self, images: Tensor) -> Tensor:
        lab = lab_of_srgb(images.float()).flatten(2) - torch.tensor([50.0, 0, 0], device=images.device)[:, None]
        along = torch.from_numpy(directions()).float().to(images.device)
        values = torch.einsum("dc,ncp->ndp", along, lab).sort(-1).values.contiguous()
        edges = torch.linspace(LOW, HIGH, EDGES, device=images.device).expand(*values.shape[:2], EDGES).contiguous()
        return torch.searchsorted(values, edges).flatten(1) / values.shape[-1]


class LabDistance(HalvedMetric):
    """Sliced Wasserstein-1 distance of all pixels' Lab colours (Bonneel et al. 2015, equation 9), in Lab units; 2 is just
    visible.
    """

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
