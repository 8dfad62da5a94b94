"""The detector of the lab report that this project began with, in Keras' conventions."""

from __future__ import annotations

from torch import Tensor, nn

from fruitgan.networks.contracts import Detector
from fruitgan.networks.detectors.sizes import checked_size

# (channels, dropout behind the block); each block halves the side.
BLOCKS = ((32, 0.2), (64, 0.3), (128, 0.5))
DENSE = ((1024, 0.4), (512, 0.5))
EPSILON, MOMENTUM = 1e-3, 0.01  # of batch norm in Keras; its momentum of 0.99 is what stays, torch's is what is new


class SeedCnn(Detector):
    """Six convolutions in pairs, two dense layers, two outputs.

    Each layer is followed by ReLU and then by batch norm, in this order. At 256 px it has 135,035,554 parameters and 3,968
    statistics, 134,218,752 of the parameters in the first dense layer alone: with some 1,440 training images it learns them by
    heart, which is why it is kept for comparison and is not the default.
    """

    suggested_augmentation = "rotate-shift-mirror"

    def __init__(self, image_size_px: int) -> None:
        super().__init__()
        self.image_size_px = image_size_px
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
        self._initialise()

    def _initialise(self) -> None:
        """He et al. 2015 (uniform) before each ReLU, Glorot and Bengio 2010 (uniform) for the outputs, every bias 0."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                if module is self.dense[-1]:
                    nn.init.xavier_uniform_(module.weight)
                else:
                    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
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


def seed_cnn(*, image_size_px: int = 256) -> SeedCnn:
    """The lab report's network: six convolutions and three dense layers, 540 MB at 256 px; kept for comparison."""
    return SeedCnn(checked_size("seed-cnn", image_size_px))
