"""How an image is coloured, whatever it shows: histograms and moments in CIE Lab."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from fruitgan.images import Pixels, resize
from fruitgan.measures.contracts import Features

SIZE_PX = 128
LIGHTNESS_BINS = 16
CHROMA_BINS = 24
JOINT_BINS = 12
CHROMA_END = 96.0
"""a and b are counted in [-96, 96]; the few colours of sRGB beyond it go into the outermost bins."""
MOMENT_SCALE = 25.0

# sRGB's primaries to CIE XYZ under D65 (IEC 61966-2-1), and that light's own XYZ.
_XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)


def lab_of_srgb(images: Tensor) -> Tensor:
    """[N, 3, H, W] in [0, 1] to CIE Lab under D65: L in [0, 100], a and b about [-128, 127] (CIE 15:2004, section 8.2.1)."""
    linear = torch.where(images > 0.04045, ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, images / 12.92)
    matrix = torch.tensor(_XYZ_OF_RGB, dtype=images.dtype, device=images.device)
    white = torch.tensor(_WHITE, dtype=images.dtype, device=images.device)
    xyz = torch.einsum("ij,njhw->nihw", matrix / white[:, None], linear)
    bent = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min((6 / 29) ** 3) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


class Colour(Features):
    """Square roots of histograms of L, a, b and of a with b, and the pixels' mean, spread, skewness and correlations."""

    name = "colour"
    dimensions = LIGHTNESS_BINS + 2 * CHROMA_BINS + JOINT_BINS**2 + 12
    resize = f"squashed to {SIZE_PX} px (Lanczos, antialiased, 8 bits)"

    def prepare(self, pixels: Pixels) -> Pixels:
        return resize(pixels, SIZE_PX, SIZE_PX, Image.Resampling.LANCZOS)

    def forward(self, images: Tensor) -> Tensor:
        lab = lab_of_srgb(images.float()).flatten(2)  # [N, 3, P]
        lightness, a, b = lab.unbind(1)
        joint = _bin(a, JOINT_BINS, -CHROMA_END, CHROMA_END) * JOINT_BINS + _bin(b, JOINT_BINS, -CHROMA_END, CHROMA_END)
        return torch.cat(
            [
                _histogram(_bin(lightness, LIGHTNESS_BINS, 0.0, 100.0), LIGHTNESS_BINS),
                _histogram(_bin(a, CHROMA_BINS, -CHROMA_END, CHROMA_END), CHROMA_BINS),
                _histogram(_bin(b, CHROMA_BINS, -CHROMA_END, CHROMA_END), CHROMA_BINS),
                _histogram(joint, JOINT_BINS**2),
                _moments(lab),
            ],
            dim=1,
        )


def _bin(values: Tensor, bins: int, low: float, high: float) -> Tensor:
    """[N, P] of bin numbers; what lies beyond an end goes into the bin there."""
    return ((values - low) * (bins / (high - low))).floor().clamp(0, bins - 1).long()


def _histogram(numbers: Tensor, bins: int) -> Tensor:
    """[N, bins]: square roots of shares (Hellinger's distance between shares is the Euclidean one between these).

    Multiplied by the root of `bins`, so that the mean square of the entries is 1.
    """
    counts = torch.zeros(len(numbers), bins, device=numbers.device)
    counts.scatter_add_(1, numbers, torch.ones_like(numbers, dtype=counts.dtype))
    return (counts * (bins / numbers.shape[1])).sqrt()


def _moments(lab: Tensor) -> Tensor:
    """[N, 12]: per channel mean, standard deviation and cube root of the third moment, in units of 25; three correlations."""
    mean = lab.mean(2, keepdim=True)
    centred = lab - mean
    spread = (centred**2).mean(2).sqrt()
    third = (centred**3).mean(2)
    skew = third.sign() * third.abs() ** (1 / 3)
    unit = centred / spread.clamp_min(1e-3)[:, :, None]
    pairs = torch.stack([(unit[:, i] * unit[:, j]).mean(1) for i, j in ((0, 1), (0, 2), (1, 2))], dim=1)
    lightness = torch.tensor([50.0, 0.0, 0.0], device=lab.device)
    return torch.cat([(mean[:, :, 0] - lightness) / MOMENT_SCALE, spread / MOMENT_SCALE, skew / MOMENT_SCALE, pairs], dim=1)


def colour() -> Colour:
    """Lab histograms and moments: which colours, and how much of each."""
    return Colour()
