"""Published networks as features: InceptionV3 as torch-fidelity has it, and any classifier of torchvision or timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from fruitgan.data.download import RemoteFile, fetch_file
from fruitgan.errors import DataError, EnvironmentProblem, UsageError
from fruitgan.files import file_sha256
from fruitgan.images import Pixels
from fruitgan.measures.contracts import Features, SquashedFeatures
from fruitgan.networks.pretrained import Classifier, timm_classifier, torchvision_classifier


class Pretrained(SquashedFeatures):
    """A network with its own size and scaling of the pixels; the picture is squashed to the size."""

    filter = Image.Resampling.BICUBIC

    def __init__(self, classifier: Classifier) -> None:
        self.size_px = classifier.size_px
        super().__init__()
        self.name = classifier.name
        self.version = classifier.version
        self.trained_on = classifier.trained_on
        self.network = classifier.network
        self.resize = f"squashed to {self.size_px} px (bicubic, antialiased, 8 bits); weights {self.version}"
        for name, values in (("mean", classifier.mean), ("spread", classifier.spread)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)
        self.dimensions = self._dimensions()

    @torch.inference_mode()
    def _dimensions(self) -> int:
        self.network.eval()
        return int(self(torch.zeros(1, 3, self.size_px, self.size_px)).shape[1])

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


LAYER = "2048"

WEIGHTS = RemoteFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    address=("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"),
    size_bytes=95_628_359,
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
"""The TensorFlow network of 2015-12-05, converted by the authors of pytorch-fid; Apache-2.0."""

INSTALL = 'pip install "fruitgan[inception]"'


class Inception(Features):
    """The last pooled layer."""

    name = "inception"
    trained_on = "ImageNet"
    dimensions = 2048
    resize = "to 299 px inside the network (bilinear, not antialiased, as TensorFlow 1 did), no other resize"

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def prepare(self, pixels: Pixels) -> Pixels:
        return pixels

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network((images * 255).round().to(torch.uint8))[0])


def inception(*, weights: str = "") -> Inception:
    """InceptionV3 as torch-fidelity has it; `weights` is its file, else it is fetched into the cache.

    Raises:
        EnvironmentProblem: the extra is not installed.
        DataError: the file cannot be had, or is not the right one.
    """
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as module
    except ImportError as error:
        raise EnvironmentProblem(f"the features inception need the package torch-fidelity: {INSTALL}") from error
    path = Path(weights) if weights else fetch_file(WEIGHTS)
    if weights and (found := file_sha256(path)) != WEIGHTS.sha256:
        raise DataError(
            f"--weights {path}: its sha256 is {found}, not {WEIGHTS.sha256}; the right file is {WEIGHTS.name} "
            f"({WEIGHTS.size_bytes:,} bytes) from {WEIGHTS.address}"
        )
    # Another project's format; the sum is known to be right, and only tensors are let through.
    return Inception(_network(module, torch.load(path, map_location="cpu", weights_only=True)))


def _network(module: Any, tensors: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's network with weights that are here already.

    Its constructor would fetch them itself, unchecked, or unpickle a file without a guard; so the function that it fetches with
    is replaced meanwhile.
    """
    fetch = module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda *arguments, **options: tensors
    try:
        return cast(nn.Module, module.FeatureExtractorInceptionV3("inception-v3-compat", [LAYER]))
    finally:
        module.load_state_dict_from_url = fetch
