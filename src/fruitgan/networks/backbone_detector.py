"""A detector on a pretrained backbone: logistic regression on the mean and the spread of its frozen feature maps."""

from __future__ import annotations

import torch
from torch import Tensor

from fruitgan.networks.backbones import Backbone, build_backbone, pooled
from fruitgan.networks.contracts import LinearDetector
from fruitgan.networks.detectors import checked_size
from fruitgan.networks.weights import not_in_weights

STRIDES = (4, 8, 16)
"""Colour, texture and parts of things."""


class BackboneDetector(LinearDetector):
    """Features are each channel's mean and standard deviation over the places of a map, at strides 4, 8 and 16.

    The backbone is not saved with it: its weights are those that ship, or a package's, whose sum stands on the detector's card.
    """

    def __init__(self, backbone: Backbone, image_size_px: int) -> None:
        strides = [stride for stride in STRIDES if stride in backbone.channels]
        super().__init__(2 * sum(backbone.channels[stride] for stride in strides))
        self.image_size_px = image_size_px
        self.strides = strides
        self.backbone = backbone
        self.trained_on = backbone.trained_on

    def features(self, x: Tensor) -> Tensor:
        """[N, 3, S, S] in [0, 1] to [N, 2 x the channels]."""
        return pooled(self.backbone(2 * x - 1, self.strides))


def backbone(*, network: str = "efficientnet-lite1", image_size_px: int = 128) -> BackboneDetector:
    """Logistic regression on a frozen, pretrained backbone (`backbone:torchvision:resnet18`): seconds to minutes on a CPU."""
    checked_size("backbone", image_size_px)
    with not_in_weights(), torch.device("cpu"):  # real weights, even where the detector is only sketched
        frozen = build_backbone(network, ())
    return BackboneDetector(frozen, image_size_px)
