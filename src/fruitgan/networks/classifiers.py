"""Image classifiers of torchvision and timm as detectors, with one output instead of a thousand, untrained."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from fruitgan.errors import UsageError, is_out_of_memory
from fruitgan.networks.contracts import Detector
from fruitgan.networks.detectors import checked_size
from fruitgan.networks.pretrained import AUXILIARY, IMAGENET_MEAN, IMAGENET_SPREAD, import_timm, torchvision_models


class Classifier(Detector):
    """A network [N, 3, S, S] -> [N, 1] on images scaled as it expects them, trained as CNNDetection is (Wang et al. 2020)."""

    suggested_augmentation = "blur-jpeg"

    def __init__(self, network: nn.Module, image_size_px: int) -> None:
        super().__init__()
        self.image_size_px = image_size_px
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(IMAGENET_SPREAD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.network((x - self.get_buffer("mean").to(x.dtype)) / self.get_buffer("spread").to(x.dtype))
        return logit.squeeze(1)


def resnet18(*, image_size_px: int = 128) -> Classifier:
    """ResNet-18 (torchvision), from scratch, trained with random blur and JPEG: 11 million weights, for a GPU or patience."""
    return _torchvision("resnet18", "resnet18", image_size_px)


def resnet50(*, image_size_px: int = 128) -> Classifier:
    """ResNet-50 (torchvision), from scratch, trained with random blur and JPEG: CNNDetection's network, for a GPU."""
    return _torchvision("resnet50", "resnet50", image_size_px)


def torchvision(*, network: str = "resnet18", image_size_px: int = 128) -> Classifier:
    """Any classifier of torchvision, from scratch: `torchvision:efficientnet_b0`."""
    return _torchvision(network, f"torchvision:{network}", image_size_px)


def timm(*, network: str = "mobilenetv3_small_050", image_size_px: int = 128) -> Classifier:
    """Any classifier of timm, from scratch: `timm:convnext_tiny`; needs `pip install "fruitgan[timm]"`."""
    package = import_timm("the detector timm", network)

    def built() -> nn.Module:
        create = functools.partial(package.create_model, network, pretrained=False, num_classes=1)
        try:
            return cast(nn.Module, create(img_size=image_size_px))
        except TypeError:  # convolutional networks take any size, and no such option
            return cast(nn.Module, create())

    return _tried(f"timm:{network}", built, image_size_px)


def _torchvision(network: str, name: str, image_size_px: int) -> Classifier:
    models = torchvision_models(network)
    options: dict[str, object] = {}
    if network in AUXILIARY:
        options = {"aux_logits": False, "init_weights": False}  # else two outputs, and minutes of drawing weights
    elif network.startswith("vit_"):
        options = {"image_size": image_size_px}
    elif network.startswith("maxvit"):
        options = {"input_size": (image_size_px, image_size_px)}
    return _tried(name, lambda: models.get_model(network, weights=None, num_classes=1, **options), image_size_px)


def _tried(name: str, build: Callable[[], nn.Module], image_size_px: int) -> Classifier:
    """The network as a detector, after it has looked at one image: some take few sizes, and say so only then.

    Raises:
        UsageError: it cannot take images of this size.
    """
    checked_size(name.partition(":")[0], image_size_px)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of coming changes in packages that are not ours
            classifier = Classifier(build(), image_size_px).eval()
            answer = classifier(torch.zeros(1, 3, image_size_px, image_size_px))
        if answer.shape != (1,):
            raise ValueError(f"it gives {list(answer.shape)} numbers instead of one an image")
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"detector {name} cannot look at images of {image_size_px} px ({reason}); try --image-size 224"
        ) from error
    return classifier.train()
