"""Published networks as features: the shipped backbone, torch-fidelity's networks, any classifier of torchvision or timm."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fruitgan.data.download import RemoteFile, fetch_file
from fruitgan.errors import DataError, UsageError, needing
from fruitgan.files import file_sha256
from fruitgan.measures.contracts import Features, SquashedFeatures
from fruitgan.networks.backbones import SHA256, EfficientNetLite1, efficientnet_lite1, pooled
from fruitgan.networks.classifiers import PublishedClassifier, timm_classifier, torchvision_classifier
from fruitgan.registry import suggestion


@torch.inference_mode()
def _width(features: Features, side_px: int) -> int:
    """How many numbers an image of this side gives."""
    return int(features(torch.zeros(1, 3, side_px, side_px)).shape[1])


class Pretrained(SquashedFeatures):
    """A network with its own size and scaling of the pixels; the picture is squashed to the size."""

    filter = Image.Resampling.BICUBIC

    def __init__(self, classifier: PublishedClassifier) -> None:
        self.size_px = classifier.size_px
        super().__init__()
        self.name = classifier.name
        self.version = classifier.version
        self.trained_on = classifier.trained_on
        self.network = classifier.network
        self.resize = f"squashed to {self.size_px} px (bicubic, antialiased, 8 bits); weights {self.version}"
        for name, values in (("mean", classifier.mean), ("spread", classifier.spread)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)
        self.network.eval()
        self.dimensions = _width(self, self.size_px)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network((images - self.get_buffer("mean")) / self.get_buffer("spread"))).flatten(1)


def torchvision(*, network: str = "resnet50", weights: str = "") -> Pretrained:
    """A classifier of torchvision (torchvision:resnet50), with its published weights or a file's; what its last layer is given.

    Raises:
        UsageError: no such classifier, or one that ends in no linear layer.
        DataError: the weights cannot be had, are not the published ones, or do not fit.
    """
    found = torchvision_classifier(network, weights)
    layers = [name for name, module in found.network.named_modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UsageError(f"torchvision's {network} ends in no linear layer, so it gives no features; take another")
    found.network.set_submodule(layers[-1], nn.Identity())  # the layer by which it answers
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


class ShippedBackbone(SquashedFeatures):
    """EfficientNet-Lite1 (ImageNet), which ships with fruitgan: means and deviations of its maps at strides 4, 8 and 16.

    With the weights of the whole network (timm's `tf_efficientnet_lite1`, as safetensors) also what its last layer is given.

    Raises:
        DataError: the installed file is not the right one, or the weights do not fit.
        EnvironmentProblem: weights were given, and timm is not installed.
    """

    name = "efficientnet-lite1"
    trained_on = EfficientNetLite1.trained_on
    version = SHA256[:16]
    size_px = 256
    strides = (4, 8, 16)

    def __init__(self, *, weights: str = "") -> None:
        super().__init__()
        self.backbone = efficientnet_lite1()
        self.dimensions = 2 * sum(self.backbone.channels[stride] for stride in self.strides)
        self.whole: Pretrained | None = None
        if weights:
            self.whole = timm(network="tf_efficientnet_lite1", weights=weights)
            self.version += f" and {self.whole.version}"
            self.dimensions += self.whole.dimensions

    def columns(self) -> dict[int, slice]:
        """Where each stride's numbers stand in a row of features."""
        ends = np.cumsum([2 * self.backbone.channels[stride] for stride in self.strides]).tolist()
        return {stride: slice(begin, end) for stride, begin, end in zip(self.strides, [0, *ends], ends, strict=False)}

    def forward(self, images: Tensor) -> Tensor:
        rows = pooled(self.backbone(images * 2 - 1, self.strides))
        return rows if self.whole is None else torch.cat([rows, self.whole(images)], dim=1)


INCEPTION = RemoteFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    address=("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"),
    size_bytes=95_628_359,
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
"""The TensorFlow network of 2015-12-05, converted by the authors of pytorch-fid; Apache-2.0."""


class FidelityFeatures(Features):
    """The pooled features of a network as torch-fidelity has it, which brings the pictures to its size itself."""

    def __init__(self, name: str, network: nn.Module, side_px: int, trained_on: str, version: str = "1") -> None:
        super().__init__()
        self.name, self.version, self.trained_on = name, version, trained_on
        self.network = network
        self.resize = f"resized to {side_px} px inside the network alone (bilinear, not antialiased, as TensorFlow 1 did)"
        self.dimensions = _width(self, side_px)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network((images * 255).round().to(torch.uint8))[0])


def inception(*, weights: str = "") -> FidelityFeatures:
    """InceptionV3 as torch-fidelity has it; `weights` is its file, else it is fetched into the cache.

    Raises:
        EnvironmentProblem: the extra is not installed.
        DataError: the file cannot be had, or is not the right one.
    """
    module = _fidelity("inception").feature_extractor_inceptionv3
    path = Path(weights) if weights else fetch_file(INCEPTION)
    _check_sum(path, INCEPTION.sha256, INCEPTION.address)
    # Another project's format; the sum is known to be right, and only tensors are let through.
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    with _replaced(module, "load_state_dict_from_url", lambda *_, **__: tensors):
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    return FidelityFeatures("inception", network, 299, "ImageNet")


def clip(*, network: str = "vit-b-32", weights: str = "") -> FidelityFeatures:
    """CLIP's image encoder as torch-fidelity has it (clip:vit-l-14); `weights` is OpenAI's file, else the one in torch's cache.

    Raises:
        EnvironmentProblem: the extra is not installed.
        UsageError: no such network.
        DataError: the file is not here, or not the right one.
    """
    module = _fidelity("clip").feature_extractor_clip
    name = _known("clip", network, module.MODEL_METADATA)
    sha256 = module.MODEL_METADATA[name]["hash"]
    path = Path(weights) if weights else Path(torch.hub.get_dir(), "checkpoints", f"{name}-{sha256}.pt")
    _check_sum(path, sha256, module.MODEL_URLS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenAI's file is of a kind that torch will not read for ever
        found = module.FeatureExtractorCLIP(name, ["clip"], feature_extractor_weights_path=str(path))
    return FidelityFeatures(f"clip:{network}", found, found.resolution, "400 million pictures of the web (CLIP)", sha256[:16])


def dinov2(*, network: str = "vit-s-14", weights: str = "") -> FidelityFeatures:
    """DINOv2 as torch-fidelity has it (dinov2:vit-b-14), by the code and weights in torch's cache; `weights` is another file.

    Raises:
        EnvironmentProblem: the extra is not installed.
        UsageError: no such network.
        DataError: its code or its weights are not here, or do not fit.
    """
    module = _fidelity("dinov2").feature_extractor_dinov2
    name = _known("dinov2", network, module.MODEL_METADATA)
    model = module.MODEL_METADATA[name]
    code = Path(torch.hub.get_dir(), "facebookresearch_dinov2_main")
    path = Path(weights) if weights else Path(torch.hub.get_dir(), "checkpoints", f"{model}_pretrain.pth")
    for needed in (code, path):
        if not needed.exists():
            raise DataError(
                f"the features dinov2:{network} need {needed}; where you trust facebookresearch/dinov2, fetch it by "
                f"""python -c "import torch; torch.hub.load('facebookresearch/dinov2', '{model}')\""""
            )
    load: Any = torch.hub.load

    def local(*_: object, **__: object) -> nn.Module:
        built = cast(nn.Module, load(str(code), model, source="local", pretrained=False))
        try:  # another project's format, whose sums are not published: only tensors are let through
            built.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch has many words for a file that is none
            raise DataError(f"{path}: is no file of weights of {model} ({' '.join(str(error).split())[:200]})") from error
        return built

    with _replaced(torch.hub, "load", local):
        found = module.FeatureExtractorDinoV2(name, ["dinov2"])
    return FidelityFeatures(
        f"dinov2:{network}", found, found.INPUT_IMAGE_SIZE, "LVD-142M, chosen by ImageNet and others", file_sha256(path)[:16]
    )


def _fidelity(features: str) -> Any:
    """The package torch-fidelity; Raises: EnvironmentProblem if it is not installed."""
    with needing("inception", f"the features {features}"):
        import torch_fidelity
    return torch_fidelity


def _known(family: str, network: str, known: Iterable[str]) -> str:
    """torch-fidelity's name of the network; Raises: UsageError if it has none."""
    if f"{family}-{network}" not in known:
        members = [name.removeprefix(f"{family}-") for name in known]
        raise UsageError(f"torch-fidelity has no {family}:{network}: {suggestion(network, members)}")
    return f"{family}-{network}"


def _check_sum(path: Path, sha256: str, address: str) -> None:
    if not path.is_file():
        raise DataError(f"{path}: no such file of weights; the right one is at {address}, give it with --weights NAME=FILE")
    if (found := file_sha256(path)) != sha256:
        raise DataError(f"--weights {path}: its sha256 is {found}, not {sha256}; the right file is {address}")


@contextmanager
def _replaced(owner: Any, name: str, by: Callable[..., Any]) -> Iterator[None]:
    """While it lasts, one function is another: constructors of torch-fidelity would fetch weights themselves, unchecked."""
    kept = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, kept)
