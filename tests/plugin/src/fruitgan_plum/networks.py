"""The smallest networks that keep fruitgan's contracts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fruitgan.networks.contracts import Detector, Generator, SizeRule


class AffineGenerator(Generator):
    """Mixes the colours of each pixel: two 1 x 1 convolutions and a tanh."""

    size_rule = SizeRule(minimum_px=1, multiple_of_px=1)

    def __init__(self, *, base_channels: int = 8, slope: float = 0.2) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, base_channels, 1)
        self.activation = nn.LeakyReLU(slope)
        self.narrow = nn.Conv2d(base_channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.narrow(self.activation(self.widen(x))))


class BrightnessDetector(Detector):
    """Judges an image by its mean colour: a logistic regression on the mean of each."""

    image_size_px = 32

    def __init__(self, *, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.weigh = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.weigh(x.mean(dim=(2, 3))).squeeze(1) * self.gain
        return logit
