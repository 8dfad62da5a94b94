"""Metrics with features of their own: the colours of all pixels, power spectra, and the peaks that upsampling leaves there."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fruitgan.measures.contracts import Features, HalvedMetric, SquashedFeatures, Values
from fruitgan.measures.features.weightless import lab_of_srgb
from fruitgan.networks.detectors import FLOOR, OPPONENT, power_spectrum

FREQUENCIES = 64
"""From 1/128 to 1/2 cycle a pixel, evenly: what a picture of 128 px can hold."""


class PowerSpectrum(Features):
    """Power over frequency of a picture's brightness in decibels, the mean over all directions, and its peaks.

    Durall et al. 2020, equation 3 (the azimuthal integration; ours takes the mean of logarithms) over a Hann window. White
    noise of variance v has 10 log10 v everywhere. Pictures are taken at their own size, since resizing would remove what is
    looked for; frequencies are in cycles a pixel, so that sizes may differ.
    """

    trained_on = ""
    name = "power-spectrum"
    dimensions = FREQUENCIES + 2
    resize = "none"

    def forward(self, images: Tensor) -> Tensor:
        found = power(images)  # [N, H, W]
        return torch.cat([radial_means(decibels(found)), peak_excess(found)], dim=1)


def decibels(found: Tensor) -> Tensor:
    """Ten times the decimal logarithm of a power."""
    return 10 * torch.log10(found + FLOOR)


def power(images: Tensor) -> Tensor:
    """[N, 3, H, W] in [0, 1] to [N, H, W]: the power of the brightness at each frequency, frequency 0 first."""
    luma = torch.tensor(OPPONENT[0], dtype=images.dtype, device=images.device)
    return power_spectrum(torch.einsum("c,nchw->nhw", luma, images))


def radial_means(decibel: Tensor) -> Tensor:
    """[N, FREQUENCIES] of [N, H, W]: the mean over rings as wide as one step of the shorter side, read off at even
    frequencies.
    """
    height, width = decibel.shape[1:]
    steps = max(1, min(height, width) // 2)
    down, across = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    ring = np.rint(np.hypot(down, across) * 2 * steps).astype(np.int64)  # 0 .. steps .. corners beyond
    inside = torch.from_numpy((ring >= 1) & (ring <= steps)).to(decibel.device)
    numbers = torch.from_numpy(ring).to(decibel.device)[inside] - 1
    sums = torch.zeros(len(decibel), steps, dtype=decibel.dtype, device=decibel.device)
    sums.index_add_(1, numbers, decibel[:, inside])
    means = sums / torch.bincount(numbers, minlength=steps).to(decibel.dtype)
    at = torch.arange(1, FREQUENCIES + 1, device=decibel.device) * (steps / FREQUENCIES) - 1
    low = at.floor().clamp(0, steps - 1).long()
    share = (at - low).clamp(0, 1).to(decibel.dtype)
    return means[:, low] * (1 - share) + means[:, (low + 1).clamp(max=steps - 1)] * share


# Where the peaks of patterns of period 2 and 4 px lie, (down, across) in quarters of a cycle a pixel.
BY_TWO = ((2, 0), (0, 2), (2, 2))
BY_FOUR = ((1, 0), (0, 1), (1, 1), (1, 3), (1, 2), (2, 1))


def peak_excess(found: Tensor) -> Tensor:
    """[N, 2] of a power [N, H, W]: how far 1/2 and 1/4 cycle a pixel stand out of their surroundings, in decibels.

    Upsampling by 2 repeats a spectrum about 1/2, and a second time about 1/4 (Odena et al. 2016; Durall et al. 2020,
    section 3): a fixed pattern that recurs every 2 or 4 pixels has all its power exactly there, which the window spreads over
    one place to each side. So the mean power of 3 x 3 places is held against that of those 3 to 5 away.
    """
    height, width = found.shape[1:]
    rows = torch.arange(-5, 6)
    away = torch.maximum(rows.abs()[:, None], rows.abs()[None, :])
    excesses = []
    for family in (BY_TWO, BY_FOUR):
        of_places = []
        for down, across in ((round(v * height / 4), round(u * width / 4)) for v, u in family):
            block = found[:, (down + rows) % height][:, :, (across + rows) % width]  # [N, 11, 11]
            of_places.append(decibels(block[:, away <= 1].mean(1)) - decibels(block[:, away >= 3].mean(1)))
        excesses.append(torch.stack(of_places).mean(0))
    return torch.stack(excesses, dim=1)


class SpectrumMetric(HalvedMetric):
    """Mean absolute difference of the mean log power spectra over direction-averaged frequencies, in dB (Durall et al. 2020,
    equation 3).
    """

    name = "spectrum"
    bounds = (0.0, np.inf)
    own_features = PowerSpectrum

    def compute(self, real: Values, fake: Values) -> float:
        return float(np.abs(real[:, :FREQUENCIES].mean(0) - fake[:, :FREQUENCIES].mean(0)).mean())


class UpsamplingPeaks(HalvedMetric):
    """How far patterns of period 2 or 4 px stand out of the spectrum, generated less real, in dB (Odena et al. 2016); about
    0 is good.
    """

    name = "upsampling-peaks"
    own_features = PowerSpectrum

    def compute(self, real: Values, fake: Values) -> float:
        return float((fake[:, FREQUENCIES:].mean(0) - real[:, FREQUENCIES:].mean(0)).max())

    def details(self, real: Values, fake: Values) -> dict[str, float]:
        return {
            f"{kind}_{period}_px": float(side[:, FREQUENCIES + place].mean())
            for kind, side in (("real", real), ("fake", fake))
            for place, period in enumerate((2, 4))
        }


LAB_SIZE_PX = 64
DIRECTIONS = 16
EDGES = 193
LAB_LOW, LAB_HIGH = -144.0, 144.0
"""No colour of sRGB lies farther from grey of L = 50, along any direction."""
LAB_STEP = (LAB_HIGH - LAB_LOW) / (EDGES - 1)


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
        edges = torch.linspace(LAB_LOW, LAB_HIGH, EDGES, device=images.device).expand(*values.shape[:2], EDGES).contiguous()
        return torch.searchsorted(values, edges).flatten(1) / values.shape[-1]


class LabDistance(HalvedMetric):
    """Sliced Wasserstein-1 distance of all pixels' Lab colours (Bonneel et al. 2015, equation 9), in Lab units; 2 is just
    visible.
    """

    name = "colour-lab"
    bounds = (0.0, np.inf)
    own_features = LabDistribution

    def compute(self, real: Values, fake: Values) -> float:
        return float(lab_distances(real, fake)[3:].mean())

    def details(self, real: Values, fake: Values) -> dict[str, float]:
        found = lab_distances(real, fake)
        return {"lightness": float(found[0]), "green_red": float(found[1]), "blue_yellow": float(found[2])}


def lab_distances(real: Values, fake: Values) -> Values:
    """[3 + DIRECTIONS]: the area between two distribution functions is the Wasserstein-1 distance."""
    between: Values = np.abs(real.mean(0) - fake.mean(0)).reshape(-1, EDGES).sum(1) * LAB_STEP
    return between
