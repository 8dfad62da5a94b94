"""A detector that looks at frequencies alone, fitted in seconds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fruitgan.errors import UsageError
from fruitgan.networks.contracts import LinearDetector
from fruitgan.networks.detectors.sizes import checked_size

# Brightness (ITU-R BT.601) and two colour differences, one a row.
OPPONENT = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
FLOOR = (
    1e-8  # what quantisation to 8 bits leaves is some 1e-6; without a floor, the log of a flat image would be minus infinity
)


class Spectrum(LinearDetector):
    """Logistic regression on the log power spectrum of brightness and colour, averaged over a grid of frequencies.

    Upsampling leaves peaks and a wrong fall-off at high frequencies (Durall et al. 2020). A Hann window keeps the image's
    borders out of it; frequencies that differ in sign alone are one, since a mirrored picture is as real.
    """

    window: Tensor
    opponent: Tensor

    def __init__(self, image_size_px: int, bins: int) -> None:
        super().__init__(3 * bins**2)
        self.image_size_px = image_size_px
        self.bins = bins
        hann = torch.hann_window(image_size_px, periodic=True)
        self.register_buffer("window", hann[:, None] * hann[None, :], persistent=False)
        self.register_buffer("opponent", torch.tensor(OPPONENT), persistent=False)

    def power(self, x: Tensor) -> Tensor:
        """[N, 3, S, S] to the power at 0 to S/2 cycles an image down and across, [N, 3, S/2 + 1, S/2 + 1].

        A window of mean square 3/8 an axis is allowed for, so that white noise of variance v has the power v everywhere.
        """
        opponent = torch.einsum("dc,nchw->ndhw", self.opponent.to(x.dtype), x)
        opponent = opponent - opponent.mean(dim=(2, 3), keepdim=True)
        window = self.window.to(x.dtype)
        spectrum = torch.fft.rfft2(opponent * window)  # [N, 3, S, S/2 + 1]
        power = spectrum.abs().square() / window.square().sum()
        half = self.image_size_px // 2
        upwards = power[:, :, 1:half].flip(2)  # frequencies 1 .. S/2 - 1, largest first, as their negatives stand
        folded = (power[:, :, half + 1 :] + upwards) / 2
        return torch.cat([power[:, :, :1], folded.flip(2), power[:, :, half : half + 1]], dim=2)

    def features(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(self.power(x), self.bins)
        return torch.log(pooled + FLOOR).flatten(1)


def spectrum(*, image_size_px: int = 128, bins: int = 16) -> Spectrum:
    """Logistic regression on the log power spectrum of brightness and colour: seconds on a CPU."""
    checked_size("spectrum", image_size_px)
    if not 1 <= bins <= image_size_px // 2 + 1:
        raise UsageError(f"detector spectrum, option bins: {bins} is not within 1 to {image_size_px // 2 + 1}")
    return Spectrum(image_size_px, bins)
