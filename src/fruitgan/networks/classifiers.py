"""Image classifiers of torchvision and timm: published ones as features and backbones, untrained ones as detectors.

A `.pth` file is read only if its sum is the one that torchvision publishes in the file's name, and then nothing but tensors
is let through; weights of your own come as safetensors.
"""

from __future__ import annotations

import collections
import functools
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fruitgan.errors import DataError, UsageError, is_out_of_memory, needing, reason_of
from fruitgan.files import file_sha256
from fruitgan.machine import cache_folder, is_offline
from fruitgan.networks.backbones import Backbone, freeze
from fruitgan.networks.contracts import Detector
from fruitgan.networks.detectors import checked_size
from fruitgan.registry import suggestion
from fruitgan.tensorfile import open_tensors

SAFETENSORS = ".safetensors"
IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET, NOT_KNOWN = "ImageNet", "not known"
IMAGENET_TAG = re.compile(r"in(1|12|21|22)k")
"""How timm names weights of ImageNet and its larger kin."""
AUXILIARY = ("googlenet", "inception_v3")
"""Networks of torchvision with a second output in training."""
STRIDES = (2, 4, 8, 16, 32)
PROBE_PX = 128


@dataclass(frozen=True)
class PublishedClassifier:
    """A network in evaluation mode, the name of its weights, and how it wants its pictures: side, mean and spread in [0, 1]."""

    name: str
    version: str
    """Of its weights: the beginning of their sha256, or the library's word for them."""
    network: nn.Module
    size_px: int
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    trained_on: str
    """The data of its weights."""


def torchvision_models(network: str) -> Any:
    """torchvision's module of classifiers; Raises: UsageError if it has none of this name."""
    from torchvision import models

    known = models.list_models(module=models)
    if network not in known:
        raise UsageError(f"torchvision has no classifier named {network!r}: {suggestion(network, known)}")
    return models


def torchvision_classifier(network: str, weights: str) -> PublishedClassifier:
    """A classifier of torchvision; without a file of weights with its published ones.

    Raises:
        UsageError: no such classifier.
        DataError: the weights cannot be had, are not the published ones, or do not fit.
    """
    models = torchvision_models(network)
    published = models.get_model_weights(network).DEFAULT
    model = models.get_model(network, weights=None, **({"init_weights": False} if network in AUXILIARY else {}))
    file = Path(weights) if weights else _published_file(published.url)
    _fill(model, file, [entry.url for entry in models.get_model_weights(network)])
    size_px = published.transforms(antialias=True).crop_size[0]
    version = file_sha256(file)[:16]
    trained_on = NOT_KNOWN if file.suffix == SAFETENSORS else IMAGENET
    return PublishedClassifier(
        f"torchvision:{network}", version, model.eval(), size_px, IMAGENET_MEAN, IMAGENET_SPREAD, trained_on
    )


def import_timm(what: str, network: str) -> Any:
    """The library timm; Raises: EnvironmentProblem if the extra is not installed, UsageError if it has no such network."""
    with needing("timm", what):
        import timm
    if not timm.is_model(network.split(".")[0]):
        raise UsageError(f"timm has no classifier named {network!r}: {suggestion(network, timm.list_models())}")
    return timm


def timm_classifier(network: str, weights: str) -> PublishedClassifier:
    """A classifier of timm, with a safetensors file's weights or those that timm fetches.

    Raises:
        EnvironmentProblem: the extra is not installed.
        UsageError: no such network.
        DataError: the weights cannot be had or do not fit.
    """
    library = import_timm(f"timm:{network}", network)
    if not weights and is_offline():
        raise DataError(f"timm:{network}: FRUITGAN_OFFLINE is set; give its weights with --weights FILE{SAFETENSORS}")
    if weights and Path(weights).suffix != SAFETENSORS:
        raise DataError(f"--weights {weights}: timm's weights are taken as safetensors alone")
    try:
        model: Any = library.create_model(network, pretrained=not weights)
    except (OSError, RuntimeError) as error:
        raise DataError(f"timm:{network}: its weights cannot be fetched ({reason_of(error)})") from error
    version = f"timm {library.__version__} {model.pretrained_cfg.get('tag') or ''}".strip()
    if weights:
        file = Path(weights)
        _fill(model, file, [])
        version = file_sha256(file)[:16]
    data = library.data.resolve_model_data_config(model)
    trained_on = IMAGENET if not weights and IMAGENET_TAG.search(version) else NOT_KNOWN
    return PublishedClassifier(
        f"timm:{network}", version, model.eval(), data["input_size"][-1], data["mean"], data["std"], trained_on
    )


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
        raise DataError(f"{url}: cannot be fetched ({reason_of(error)})") from error
    return path


def _published_sum(url: str) -> str:
    """The first digits of the file's sha256, which torchvision writes into its name."""
    return Path(url).stem.rpartition("-")[2]


def _fill(model: nn.Module, file: Path, urls: list[str]) -> None:
    """Load the weights: a safetensors file's, or a `.pth` file's that was published at one of the addresses."""
    if file.suffix == SAFETENSORS:
        arrays = open_tensors(file, "file of weights").arrays()
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    else:
        found, sums = file_sha256(file), [_published_sum(url) for url in urls]
        if not any(found.startswith(published) for published in sums):
            raise DataError(
                f"--weights {file}: its sha256 is {found}, and the published ones begin with {' or '.join(sums)}; "
                "weights of your own are taken as safetensors alone"
            )
        # Another project's format; the sum is known to be right, and only tensors are let through.
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(f"--weights {file}: does not fit the network ({' '.join(str(error).split())[:200]})") from error


class ClassifierBackbone(Backbone):
    """The inner maps of a published classifier: at each stride the last that any of its layers gives."""

    def __init__(self, classifier: PublishedClassifier) -> None:
        super().__init__()
        self.network = classifier.network
        self.sha256 = classifier.version
        self.trained_on = f"{classifier.name} ({classifier.trained_on})"
        for name, values in (("mean", classifier.mean), ("spread", classifier.spread)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        freeze(self)
        self._maps: dict[int, Tensor] = {}
        self._calls: collections.Counter[int] = collections.Counter()
        layers = self._last_layers()
        self.channels = {stride: channels for stride, (_, _, channels) in layers.items()}
        for stride, (layer, call, _) in layers.items():
            layer.register_forward_hook(functools.partial(self._keep, stride, call))

    def forward(self, x: Tensor, strides: Sequence[int]) -> list[Tensor]:
        self.network(((x + 1) / 2 - self.get_buffer("mean")) / self.get_buffer("spread"))
        maps, self._maps = self._maps, {}
        self._calls.clear()
        return [maps[stride] for stride in sorted(strides)]

    def _keep(self, stride: int, call: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._calls[stride] += 1
        if self._calls[stride] == call:
            self._maps[stride] = output

    @torch.no_grad()
    def _last_layers(self) -> dict[int, tuple[nn.Module, int, int]]:
        """The last layer, which of its calls it is, and its channels, by stride: found by sending an image through.

        A ResNet's block calls one activation several times, at two strides where it halves the size.
        """
        found: dict[int, tuple[nn.Module, int, int]] = {}
        calls: collections.Counter[nn.Module] = collections.Counter()

        def look(module: nn.Module, _inputs: Any, output: Any) -> None:
            calls[module] += 1
            if isinstance(output, Tensor) and output.ndim == 4 and PROBE_PX // output.shape[-1] in STRIDES:
                found[PROBE_PX // output.shape[-1]] = (module, calls[module], output.shape[1])

        handles = [leaf.register_forward_hook(look) for leaf in self.network.modules() if not any(leaf.children())]
        self.network(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
        for handle in handles:
            handle.remove()
        return dict(sorted(found.items()))


def torchvision_backbone(*, network: str = "mobilenet_v3_large", weights: str = "") -> ClassifierBackbone:
    """Any classifier of torchvision, torchvision:NAME, with its published weights or a file's."""
    return ClassifierBackbone(torchvision_classifier(network, weights))


def timm_backbone(*, network: str = "mobilenetv3_large_100", weights: str = "") -> ClassifierBackbone:
    """Any classifier of timm, timm:NAME, by the extra of that name, with the weights that it fetches or a file's."""
    return ClassifierBackbone(timm_classifier(network, weights))


class ClassifierDetector(Detector):
    """A network [N, 3, S, S] -> [N, 1] on images scaled as it expects them, trained as CNNDetection is (Wang et al. 2020)."""

    suggested_augmentation = "blur-jpeg"

    def __init__(self, network: nn.Module, image_size_px: int) -> None:
        super().__init__()
        self.image_size_px = image_size_px
        self.network = network
        for name, values in (("mean", IMAGENET_MEAN), ("spread", IMAGENET_SPREAD)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.network((x - self.get_buffer("mean")) / self.get_buffer("spread"))
        return logit.squeeze(1)


def torchvision_detector(*, network: str = "resnet18", image_size_px: int = 128) -> ClassifierDetector:
    """Any classifier of torchvision, from scratch: `torchvision:efficientnet_b0`."""
    models = torchvision_models(network)
    options: dict[str, object] = {}
    if network in AUXILIARY:
        options = {"aux_logits": False, "init_weights": False}  # else two outputs, and minutes of drawing weights
    elif network.startswith("vit_"):
        options = {"image_size": image_size_px}
    elif network.startswith("maxvit"):
        options = {"input_size": (image_size_px, image_size_px)}
    build = functools.partial(models.get_model, network, weights=None, num_classes=1, **options)
    return _tried(f"torchvision:{network}", build, image_size_px)


def resnet18(*, image_size_px: int = 128) -> ClassifierDetector:
    """ResNet-18 (torchvision), from scratch, trained with random blur and JPEG: 11 million weights, for a GPU or patience."""
    return torchvision_detector(network="resnet18", image_size_px=image_size_px)


def resnet50(*, image_size_px: int = 128) -> ClassifierDetector:
    """ResNet-50 (torchvision), from scratch, trained with random blur and JPEG: CNNDetection's network, for a GPU."""
    return torchvision_detector(network="resnet50", image_size_px=image_size_px)


def timm_detector(*, network: str = "mobilenetv3_small_050", image_size_px: int = 128) -> ClassifierDetector:
    """Any classifier of timm, from scratch: `timm:convnext_tiny`; needs `pip install "fruitgan[timm]"`."""
    create = functools.partial(import_timm("the detector timm", network).create_model, network, pretrained=False, num_classes=1)

    def build() -> Any:
        try:
            return create(img_size=image_size_px)
        except TypeError:  # convolutional networks take any size, and no such option
            return create()

    return _tried(f"timm:{network}", build, image_size_px)


def _tried(name: str, build: Callable[[], Any], image_size_px: int) -> ClassifierDetector:
    """The network as a detector, after it has looked at one image: some take few sizes, and say so only then.

    Raises:
        UsageError: it cannot take images of this size.
    """
    checked_size(name.partition(":")[0], image_size_px)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of coming changes in packages that are not ours
            classifier = ClassifierDetector(build(), image_size_px).eval()
            answer = classifier(torch.zeros(1, 3, image_size_px, image_size_px))
        if answer.shape != (1,):
            raise ValueError(f"it gives {list(answer.shape)} numbers instead of one an image")
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise UsageError(
            f"detector {name} cannot look at images of {image_size_px} px ({reason_of(error)}); try --image-size 224"
        ) from error
    return classifier.train()
