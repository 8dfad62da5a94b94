"""Any classifier of torchvision or timm as features: what its last layer is given."""

from __future__ import annotations

from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from fruitgan.errors import UsageError
from fruitgan.images import Pixels, resize
from fruitgan.measures.contracts import Features
from fruitgan.networks.pretrained import Classifier, timm_classifier, torchvision_classifier


class Pretrained(Features):
    """A network with its own size and scaling of the pixels; the picture is squashed to the size."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.name = classifier.name
        self.version = classifier.version
        self.network = classifier.network
        self.size_px = classifier.size_px
        self.resize = f"squashed to {self.size_px} px (bicubic, antialiased, 8 bits); weights {self.version}"
        for name, values in (("mean", classifier.mean), ("spread", classifier.spread)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)
        self.dimensions = self._dimensions()

    @torch.inference_mode()
    def _dimensions(self) -> int:
        self.network.eval()
        return int(self(torch.zeros(1, 3, self.size_px, self.size_px)).shape[1])

    def prepare(self, pixels: Pixels) -> Pixels:
        return resize(pixels, self.size_px, self.size_px, Image.Resampling.BICUBIC)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network((images - self.get_buffer("mean")) / self.get_buffer("spread"))).flatten(1)


def torchvision(*, network: str = "resnet50", weights: str = "") -> Pretrained:
    """A classifier of torchvision (torchvision:resnet50), with its published weights or a file's; what its last layer is given.

    Raises:
        UsageError: no such classifier, or one that ends in no linear layer.
        DataError: the weights cannot be had, are not the published ones, or do not fit.
    """
    found = torchvision_classifier(network, weights)
    _take_head_off(found.network, network)
    return Pretrained(found)


def timm(*, network: str = "resnet50", weights: str = "") -> Pretrained:
    """A network of timm (timm:convnext_tiny) by the extra of that name, with a safetensors file's weights or those timm
    fetches.

    Raises:
        EnvironmentProblem: the extra is not installed.
        UsageError: no such network.
        DataError: the weights cannot be had or do not fit.
    """
    found = timm_classifier(network, weights)
    cast(Any, found.network).reset_classifier(0)
    return Pretrained(found)


def _take_head_off(model: nn.Module, network: str) -> None:
    """Put nothing in the place of the model's last linear layer, by which it answers."""
    name = next((name for name, module in reversed(list(model.named_modules())) if isinstance(module, nn.Linear)), None)
    if name is None:
        raise UsageError(f"torchvision's {network} ends in no linear layer, so it gives no features; take another")
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Identity())
