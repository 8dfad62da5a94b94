"""Backbones: pretrained feature networks with frozen weights, read at several strides.

Discriminators, features of `evaluate` and detectors share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.errors import DataError, UsageError
from fruitgan.files import file_sha256
from fruitgan.registry import Registry
from fruitgan.tensorfile import open_tensors


class Backbone(nn.Module, ABC):
    """[N, 3, H, W] in [-1, 1] to feature maps [N, C, about H / stride, about W / stride] at the strides asked for.

    Its weights are non-persistent buffers, so they are in no checkpoint, bundle, optimiser or gradient; it stays in evaluation
    mode, also inside a network that trains. Gradients pass through to the image.
    """

    channels: Mapping[int, int]
    """The number of channels at each stride that it offers."""
    sha256: str
    """Of the weights, so that a run never goes on with others."""
    trained_on: str
    """The network and its training data, for model cards: what trained a generator must not be its only judge."""

    @abstractmethod
    def forward(self, x: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """The maps at the given strides, in ascending order."""

    def train(self, mode: bool = True) -> Backbone:
        return super().train(False)


backbones: Registry[Callable[..., Backbone]] = Registry("backbones")


def build_backbone(name: str, strides: Sequence[int]) -> Backbone:
    """The registered backbone, which offers all of the strides.

    Raises:
        UsageError: unknown name, or a stride that it does not have.
        EnvironmentProblem, DataError: a missing package, or weights that cannot be had.
    """
    made = cast(Backbone, backbones.build(backbones.choose(name)))
    if unknown := sorted(set(strides) - set(made.channels)):
        raise UsageError(f"backbone {name} has no stride {unknown[0]}; it has {', '.join(map(str, made.channels))}")
    return made


def shipped_tensors(file: Path, sha256: str) -> dict[str, Tensor]:
    """The weights in a file that comes with fruitgan, in float32.

    Raises:
        DataError: the installed file is not the one that belongs to this version.
    """
    if (found := file_sha256(file)) != sha256:
        raise DataError(f"{file}: its sha256 is {found}, not {sha256}; install fruitgan anew")
    arrays = open_tensors(file, "file of weights").arrays()
    return {name: torch.from_numpy(array.astype("float32")) for name, array in arrays.items()}


def pooled(maps: Sequence[Tensor]) -> Tensor:
    """[N, 2 x the channels]: each map's mean and standard deviation over the positions."""
    parts = []
    for x in maps:
        mean = x.mean((2, 3))
        # By the second moment: torch.std takes longer than the convolutions.
        parts += [mean, (x.square().mean((2, 3)) - mean.square()).clamp_min(0).sqrt()]
    return torch.cat(parts, dim=1)


def freeze(network: nn.Module) -> None:
    """Turn every parameter and buffer into a non-persistent buffer."""
    for module in network.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            delattr(module, name)
            module.register_buffer(name, tensor.detach(), persistent=False)


def trained_against(networks: nn.Module) -> tuple[str, ...]:
    """Which pretrained networks a training's gradients came through, with what they were trained on."""
    return tuple(sorted({module.trained_on for module in networks.modules() if isinstance(module, Backbone)}))


def frozen_sums(network: nn.Module) -> dict[str, str]:
    """The sha256 of each backbone inside a network, by its path with `.sha256` behind it."""
    return {f"{path}.sha256": module.sha256 for path, module in network.named_modules() if isinstance(module, Backbone)}


FILE = Path(__file__).with_name("efficientnet_lite1.safetensors")
SHA256 = "70571ee48a21f41c6969c9877670afc665000ca6d34907600de4ccfacda257fa"
STEM_CHANNELS = 32
# (blocks, channels, kernel in px, stride of the first block, expansion); those at stride 32 are cut off.
STAGES = ((1, 16, 3, 1, 1), (3, 24, 3, 2, 6), (3, 40, 5, 2, 6), (4, 80, 3, 2, 6), (4, 112, 5, 1, 6))
MEAN, DEVIATION = 127.0, 128.0  # of pixels in 0 to 255


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: [N, C, H, W] to [N, C', ceil(H / stride), ceil(W / stride)].

    With stride 2 the border is asymmetric: what cannot be halved is put to the right and below.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel_px: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel_px // 2 if stride == 1 else 0
        super().__init__(channels_in, channels_out, kernel_px, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            down, across = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:])
            x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand by 1 x 1, filter each channel, project by 1 x 1 without a ReLU (Sandler et al. 2018, section 3.3)."""

    def __init__(self, channels_in: int, channels_out: int, kernel_px: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.expand = SameConv2d(channels_in, inner, 1) if expansion > 1 else None
        self.filter = SameConv2d(inner, inner, kernel_px, stride, groups=inner)
        self.project = SameConv2d(inner, channels_out, 1)
        self.adds_input = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.filter(inner)))
        return x + out if self.adds_input else out


class EfficientNetLite1(Backbone):
    """The stem and five stages; the map at a stride is what its last block gives, before any ReLU."""

    channels: Mapping[int, int] = {2: 16, 4: 24, 8: 40, 16: 112}
    sha256 = SHA256
    trained_on = "EfficientNet-Lite1 (ImageNet)"

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, 2)
        self.stages = nn.ModuleDict()
        channels, stride = STEM_CHANNELS, 2
        blocks: list[nn.Module] = []
        for count, width, kernel_px, first_stride, expansion in STAGES:
            if first_stride > 1:
                self.stages[str(stride)] = nn.Sequential(*blocks)
                stride, blocks = stride * first_stride, []
            for number in range(count):
                blocks.append(InvertedResidual(channels, width, kernel_px, 1 if number else first_stride, expansion))
                channels = width
        self.stages[str(stride)] = nn.Sequential(*blocks)

    def forward(self, x: Tensor, strides: Sequence[int]) -> list[Tensor]:
        x = ((x + 1) * 127.5 - MEAN) / DEVIATION
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)))  # strided depthwise filters are faster so
        maps = []
        for stride, stage in self.stages.items():
            x = stage(x)
            if int(stride) in strides:
                maps.append(x)
            if int(stride) == max(strides):
                break
        return maps


def efficientnet_lite1() -> EfficientNetLite1:
    """EfficientNet-Lite1 up to stride 16 (1.0 M weights) with the ImageNet weights that ship with fruitgan.

    Raises:
        DataError: the installed file is not the one that belongs to this version.
    """
    network = EfficientNetLite1()
    tensors = shipped_tensors(FILE, SHA256)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(tensors[name])
    freeze(network)
    return network.to(memory_format=torch.channels_last)
