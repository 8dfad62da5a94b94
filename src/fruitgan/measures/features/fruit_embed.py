"""The features `fruit-embed`: a small network of our own that tells apples from oranges by more than their colour.

Eight 3x3 convolutions, at 64, 32, 16 and 8 positions a side. `benchmarks/train_embedding.py` trained it on real photographs
alone, while hue, saturation, brightness and the channels' order changed from view to view, so that colour told it nothing.
Means and deviations over the maps of its two deepest stages are the features, brought to one scale; the three directions in
which a mere turn of hue moves them most are taken out (Solomonoff et al. 2005, nuisance attribute projection).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.measures.contracts import SquashedFeatures
from fruitgan.networks.backbones import shipped_tensors

FILE = Path(__file__).with_name("fruit_embed.safetensors")
SHA256 = "16fead0bfc99d8a0656c4b01346f9a923b1aeb3e4bda2615a78773c8c6ded17f"
SIZE_PX = 128
BESIDE = ("mean", "spread", "hue")
"""What the file holds beside the network: two vectors of the features, and the directions [D, 3] of a turn of hue."""
CHANNELS = (24, 48, 80, 128)


class EmbedNetwork(nn.Module):
    """The network without its use: [N, 3, H, W] in [0, 1] to the maps of three stages, 1/4, 1/8 and 1/16 of the size.

    In training every convolution is followed by batch norm; `folded` has the same answers without them.
    """

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        first, second, third, fourth = CHANNELS
        self.stem = _unit(3, first, 2, norm)
        self.down_1, self.block_1 = _unit(first, second, 2, norm), _unit(second, second, 1, norm)
        self.down_2 = _unit(second, third, 2, norm)
        self.block_2a, self.block_2b = _unit(third, third, 1, norm), _unit(third, third, 1, norm)
        self.down_3, self.block_3 = _unit(third, fourth, 2, norm), _unit(fourth, fourth, 1, norm)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.stem(images * 2 - 1))
        x = F.relu(self.down_1(x))
        one = F.relu(x + self.block_1(x))
        x = F.relu(self.down_2(one))
        two = F.relu(x + self.block_2b(F.relu(self.block_2a(x))))
        x = F.relu(self.down_3(two))
        three = F.relu(x + self.block_3(x))
        return one, two, three

    def folded(self) -> EmbedNetwork:
        """The same function in eval mode, with every batch norm in its convolution."""
        plain = EmbedNetwork(norm=False)
        for name, unit in self.named_children():
            conv, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], unit)
            setattr(plain, name, torch.nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm.eval()))
        return plain.eval()


def _unit(inputs: int, outputs: int, stride: int, norm: bool) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if norm else conv


def pooled(maps: tuple[Tensor, ...]) -> Tensor:
    """[N, 2 x the channels]: each map's mean and standard deviation over the positions."""
    parts = []
    for x in maps:
        mean = x.mean((2, 3))
        parts += [mean, (x.square().mean((2, 3)) - mean.square()).clamp_min(0).sqrt()]
    return torch.cat(parts, dim=1)


class FruitEmbed(SquashedFeatures):
    """The pooled maps, each number of mean 0 and deviation 1 over the photographs that taught the network, blind to hue."""

    name = "fruit-embed"
    trained_on = "photographs of apples and oranges (apple2orange)"
    version = SHA256[:16]
    dimensions = 2 * sum(CHANNELS[2:])
    size_px = SIZE_PX

    def __init__(self) -> None:
        super().__init__()
        tensors = shipped_tensors(FILE, SHA256)
        self.network = _network(tensors)
        for name in BESIDE:
            self.register_buffer(name, tensors[name], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        scaled = (pooled(self.network(images)[1:]) - self.get_buffer("mean")) / self.get_buffer("spread")
        hue = self.get_buffer("hue")
        return scaled - scaled @ hue @ hue.T


def load_network() -> EmbedNetwork:
    """The trained network in eval mode, in float32.

    Raises:
        DataError: the installed file is not the one that belongs to this version.
    """
    return _network(shipped_tensors(FILE, SHA256))


def _network(tensors: dict[str, Tensor]) -> EmbedNetwork:
    network = EmbedNetwork(norm=False)
    network.load_state_dict({name: tensor for name, tensor in tensors.items() if name not in BESIDE})
    return network.eval().requires_grad_(False)


def fruit_embed() -> FruitEmbed:
    """A network of our own, trained on real apples and oranges in false colours: shape and texture. Its photographs are
    research only.
    """
    return FruitEmbed()
