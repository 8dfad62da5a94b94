"""Detectors that are small or simple: `small-cnn`, the lab report's `seed-cnn`, and a regression on the `spectrum`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.errors import UsageError
from fruitgan.networks.contracts import Detector, LinearDetector

DROPOUT = 0.3


class SmallCnn(Detector):
    """Small convolutional network with global average pooling: the sensible default.

    Four pairs of convolutions with batch norm, the mean over the whole image, one linear layer. The mean leaves no place for
    where a thing stands in the picture, and few weights (0.29 M): what remains to be learnt is texture, which is where
    generated images differ.
    """

    suggested_augmentation = "mirror"
    takes_any_size = True

    def __init__(self, *, image_size_px: int = 128, base_channels: int = 16) -> None:
        super().__init__()
        self.image_size_px = checked_size("small-cnn", image_size_px)
        layers: list[nn.Module] = []
        width = 3
        for level in range(4):
            channels = base_channels * 2**level
            for _ in range(2):
                convolution = nn.Conv2d(width, channels, 3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                width = channels
            if level < 3:
                layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(width, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.head(self.layers(x - 0.5).mean(dim=(2, 3)))
        return logit.squeeze(1)


# (channels, dropout behind the block); each block halves the side.
BLOCKS = ((32, 0.2), (64, 0.3), (128, 0.5))
DENSE = ((1024, 0.4), (512, 0.5))
EPSILON, MOMENTUM = 1e-3, 0.01  # of batch norm in Keras; its momentum of 0.99 is what stays, torch's is what is new


class SeedCnn(Detector):
    """The lab report's network: six convolutions and three dense layers, 540 MB at 256 px; kept for comparison.

    Two outputs; each layer before is followed by ReLU and then by batch norm, in this order. At 256 px it has 135,035,554
    parameters and 3,968 statistics, 134,218,752 of the parameters in the first dense layer alone: with some 1,440 training
    images it learns them by heart, which is why it is not the default.
    """

    suggested_augmentation = "rotate-shift-mirror"

    def __init__(self, *, image_size_px: int = 256) -> None:
        super().__init__()
        self.image_size_px = checked_size("seed-cnn", image_size_px)
        layers: list[nn.Module] = []
        width = 3
        for channels, dropout in BLOCKS:
            for _ in range(2):
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(channels, EPSILON, MOMENTUM)]
                width = channels
            layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
        self.convolutions = nn.Sequential(*layers)
        layers = []
        width *= (image_size_px // 2 ** len(BLOCKS)) ** 2
        for units, dropout in DENSE:
            layers += [nn.Linear(width, units), nn.ReLU(), nn.BatchNorm1d(units, EPSILON, MOMENTUM), nn.Dropout(dropout)]
            width = units
        self.dense = nn.Sequential(*layers, nn.Linear(width, 2))
        # He et al. 2015 (uniform) before each ReLU, Glorot and Bengio 2010 (uniform) for the outputs, every bias 0.
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                (nn.init.xavier_uniform_ if module is self.dense[-1] else nn.init.kaiming_uniform_)(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def outputs(self, x: Tensor) -> Tensor:
        """[N, 3, S, S] in [0, 1] to [N, 2]: how much speaks for real, and for generated, before the softmax."""
        maps = self.convolutions(x)
        # Height, width, channels, as Keras flattens, so that weights from there keep their order.
        out: Tensor = self.dense(maps.permute(0, 2, 3, 1).flatten(1))
        return out

    def forward(self, x: Tensor) -> Tensor:
        # The cross entropy of a softmax over two outputs is the logistic loss of their difference.
        real, generated = self.outputs(x).unbind(1)
        return generated - real


# Brightness (ITU-R BT.601) and two colour differences, one a row.
OPPONENT = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
FLOOR = 1e-8  # far below what 8 bits leave (some 1e-6); without it the logarithm of a flat image would be minus infinity


def power_spectrum(planes: Tensor) -> Tensor:
    """[..., H, W] to the power at each frequency, [..., H, W], frequency 0 first; under a Hann window, without the mean.

    The window's mean square is allowed for, so that white noise of variance v has the power v everywhere.
    """
    down, across = (torch.hann_window(side, dtype=planes.dtype, device=planes.device) for side in planes.shape[-2:])
    window = torch.outer(down, across)
    spectrum: Tensor = torch.fft.fft2((planes - planes.mean((-2, -1), keepdim=True)) * window)
    power: Tensor = spectrum.abs().square() / window.square().sum().clamp_min(1e-12)
    return power


class Spectrum(LinearDetector):
    """Logistic regression on the log power spectrum of brightness and colour: seconds on a CPU.

    Powers are averaged over a grid of frequencies. Upsampling leaves peaks and a wrong fall-off at high frequencies (Durall et
    al. 2020). A Hann window keeps the image's borders out of it; frequencies that differ in sign alone are one, since a
    mirrored picture is as real.
    """

    opponent: Tensor

    def __init__(self, *, image_size_px: int = 128, bins: int = 16) -> None:
        if not 1 <= bins <= checked_size("spectrum", image_size_px) // 2 + 1:
            raise UsageError(f"detector spectrum, option bins: {bins} is not within 1 to {image_size_px // 2 + 1}")
        super().__init__(3 * bins**2)
        self.image_size_px = image_size_px
        self.bins = bins
        self.register_buffer("opponent", torch.tensor(OPPONENT), persistent=False)

    def power(self, x: Tensor) -> Tensor:
        """[N, 3, S, S] to the power at 0 to S/2 cycles an image down and across, [N, 3, S/2 + 1, S/2 + 1]."""
        half = self.image_size_px // 2
        power = power_spectrum(torch.einsum("dc,nchw->ndhw", self.opponent.to(x.dtype), x))[..., : half + 1]
        upwards = power[:, :, 1:half].flip(2)  # frequencies 1 .. S/2 - 1, largest first, as their negatives stand
        folded = (power[:, :, half + 1 :] + upwards) / 2
        return torch.cat([power[:, :, :1], folded.flip(2), power[:, :, half : half + 1]], dim=2)

    def features(self, x: Tensor) -> Tensor:
        means = F.adaptive_avg_pool2d(self.power(x), self.bins)
        return torch.log(means + FLOOR).flatten(1)


MULTIPLE_PX = 8
MINIMUM_PX = 16


def checked_size(name: str, image_size_px: int) -> int:
    """The side, if it can be halved three times and something is left.

    Raises:
        UsageError: it cannot.
    """
    if image_size_px < MINIMUM_PX or image_size_px % MULTIPLE_PX:
        near = max(MINIMUM_PX, round(image_size_px / MULTIPLE_PX) * MULTIPLE_PX)
        raise UsageError(
            f"detector {name}: {image_size_px} px is not {MINIMUM_PX} or more and a multiple of {MULTIPLE_PX}; "
            f"--image-size {near} would do"
        )
    return image_size_px
