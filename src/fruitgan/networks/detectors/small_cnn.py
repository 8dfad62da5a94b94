"""A small convolutional detector that cannot learn a data set by heart."""

from __future__ import annotations

from torch import Tensor, nn

from fruitgan.networks.contracts import Detector
from fruitgan.networks.detectors.sizes import checked_size

DROPOUT = 0.3


class SmallCnn(Detector):
    """Four pairs of convolutions with batch norm, then the mean over the whole image and one linear layer.

    The mean leaves no place for where a thing stands in the picture, and few weights (0.29 M): what remains to be learnt is
    texture, which is where generated images differ.
    """

    suggested_augmentation = "mirror"
    takes_any_size = True

    def __init__(self, image_size_px: int, base_channels: int) -> None:
        super().__init__()
        self.image_size_px = image_size_px
        layers: list[nn.Module] = []
        width = 3
        for level in range(4):
            channels = base_channels * 2**level
            for _ in range(2):
                layers += [
                    nn.Conv2d(width, channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                ]
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


def small_cnn(*, image_size_px: int = 128, base_channels: int = 16) -> SmallCnn:
    """Small convolutional network with global average pooling: the sensible default."""
    return SmallCnn(checked_size("small-cnn", image_size_px), base_channels)
