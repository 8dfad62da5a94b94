"""Any classifier of torchvision or timm as features: what its last layer is given.

A `.pth` file is read only if its sum is the one that torchvision publishes in the file's name, and even then nothing but
tensors
is let through; weights of your own come as safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

from fruitgan.atomic import file_sha256
from fruitgan.data.download import is_offline
from fruitgan.errors import DataError, EnvironmentProblem, UsageError
from fruitgan.evaluation.contracts import Features
from fruitgan.images import Pixels, resize
from fruitgan.machine import cache_folder
from fruitgan.registry import suggestion
from fruitgan.tensorfile import open_tensors

SAFETENSORS = ".safetensors"
TIMM_INSTALL = 'pip install "fruitgan[timm]"'
IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pretrained(Features):
    """A network with its own size and scaling of the pixels; the picture is squashed to the size."""

    def __init__(self, name: str, version: str, network: nn.Module, size_px: int, mean: Any, spread: Any) -> None:
        super().__init__()
        self.name = name
        self.version = version
        self.network = network
        self.size_px = size_px
        self.resize = f"squashed to {size_px} px (bicubic, antialiased, 8 bits); weights {version}"
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(spread).reshape(1, 3, 1, 1), persistent=False)
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
    from torchvision import models

    known = models.list_models(module=models)
    if network not in known:
        raise UsageError(f"torchvision has no classifier named {network!r}: {suggestion(network, known)}")
    published = models.get_model_weights(network).DEFAULT
    model = models.get_model(
        network, weights=None, **({"init_weights": False} if network in ("googlenet", "inception_v3") else {})
    )
    file = Path(weights) if weights else _published_file(published.url)
    _fill(model, file, [entry.url for entry in models.get_model_weights(network)])
    sizes = published.transforms(antialias=True).crop_size
    version = file_sha256(file)[:16]
    return Pretrained(f"torchvision:{network}", version, _headless(model, network), sizes[0], IMAGENET_MEAN, IMAGENET_SPREAD)


def _published_file(url: str) -> Path:
    """The published weights in the cache's folder `downloads`, fetched if they are not here yet."""
    path = cache_folder() / "downloads" / url.rsplit("/", 1)[1]
    if path.is_file():
        return path
    if is_offline():
        raise DataError(f"{path.name} is not here and FRUITGAN_OFFLINE is set; put it from {url} into {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=_published_sum(url), progress=False)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{url}: cannot be fetched ({str(error).splitlines()[0]})") from error
    return path


def _published_sum(url: str) -> str:
    """The first digits of the file's sha256, which torchvision writes into its name."""
    return url.rsplit("/", 1)[1].rsplit(".", 1)[0].rsplit("-", 1)[-1]


def _fill(model: nn.Module, file: Path, urls: list[str]) -> None:
    if file.suffix == SAFETENSORS:
        with open_tensors(file, "file of weights") as opened:
            tensors = {name: torch.from_numpy(array.copy()) for name, array in opened.arrays().items()}
    else:
        tensors = _published_tensors(file, [_published_sum(url) for url in urls])
    _load(model, tensors, file)


def _published_tensors(file: Path, sums: list[str]) -> dict[str, Tensor]:
    try:
        found = file_sha256(file)
    except OSError as error:
        raise DataError(f"--weights {file}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    if not any(found.startswith(published) for published in sums):
        raise DataError(
            f"--weights {file}: its sha256 is {found}, and the published ones begin with {' or '.join(sums)}; "
            "weights of your own are taken as safetensors alone"
        )
    # Another project's format; the sum is known to be right, and only tensors are let through.
    return cast(dict[str, Tensor], torch.load(file, map_location="cpu", weights_only=True))


def _load(model: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(f"--weights {file}: does not fit the network ({' '.join(str(error).split())[:200]})") from error


def _headless(model: nn.Module, network: str) -> nn.Module:
    """The model with its last linear layer, by which it answers, taken out."""
    name = next((name for name, module in reversed(list(model.named_modules())) if isinstance(module, nn.Linear)), None)
    if name is None:
        raise UsageError(f"torchvision's {network} ends in no linear layer, so it gives no features; take another")
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Identity())
    return model.eval()


def timm(*, network: str = "resnet50", weights: str = "") -> Pretrained:
    """A network of timm (timm:convnext_tiny) by the extra of that name, with a safetensors file's weights or those timm
    fetches.

    Raises:
        EnvironmentProblem: the extra is not installed.
        UsageError: no such network.
        DataError: the weights cannot be had or do not fit.
    """
    try:
        import timm as library
    except ImportError as error:
        raise EnvironmentProblem(f"the features timm need the package timm: {TIMM_INSTALL}") from error
    if not library.is_model(network.split(".")[0]):
        raise UsageError(f"timm has no network named {network!r}: {suggestion(network, library.list_models())}")
    if not weights and is_offline():
        raise DataError(f"timm:{network}: FRUITGAN_OFFLINE is set; give its weights with --weights FILE{SAFETENSORS}")
    if weights and Path(weights).suffix != SAFETENSORS:
        raise DataError(f"--weights {weights}: timm's weights are taken as safetensors alone")
    try:
        model: Any = library.create_model(network, pretrained=not weights)
    except (OSError, RuntimeError) as error:
        raise DataError(f"timm:{network}: its weights cannot be fetched ({str(error).splitlines()[0]})") from error
    version = f"timm {library.__version__} {model.pretrained_cfg.get('tag') or ''}".strip()
    if weights:
        file = Path(weights)
        _fill(model, file, [])
        version = file_sha256(file)[:16]
    model.reset_classifier(0)
    settings: Any = library.data
    data = settings.resolve_model_data_config(model)
    return Pretrained(f"timm:{network}", version, model.eval(), data["input_size"][-1], data["mean"], data["std"])
