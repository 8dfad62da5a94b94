"""The features `fruit-embed`: a small network of our own that tells apples from oranges by more than their colour.

Eight 3x3 convolutions, at 64, 32, 16 and 8 positions a side. `benchmarks/train_embedding.py` trained it on real photographs
alone, while hue, saturation, brightness and the channels' order changed from view to view, so that colour told it nothing.
Means and deviations over the maps of its two deepest stages are the features, brought to one scale; the three directions in
which a mere turn of hue moves them most are taken out (Solomonoff et al. 2005, nuisance attribute projection).
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.measures.contracts import SquashedFeatures
from fruitgan.networks.backbones import pooled, shipped_tensors

FILE = Path(__file__).with_name("fruit_embed.safetensors")
SHA256 = "16fead0bfc99d8a0656c4b01346f9a923b1aeb3e4bda2615a78773c8c6ded17f"
SIZE_PX = 128
BESIDE = ("mean", "spread", "hue")
"""What the file holds beside the network: two vectors of the features, and the directions [D, 3] of a turn of hue."""
CHANNELS = (24, 48, 80, 128)


class EmbedNetwork(nn.Module):
    """The network without its use: [N, 3, H, W] in [0, 1] to the maps of three stages, 1/4, 1/8 and 1/16 of the size.

    In training each convolution has a batch norm behind it, which was folded into it since (`benchmarks/train_embedding.py`).
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = CHANNELS
        self.stem = _conv(3, first, 2)
        self.down_1, self.block_1 = _conv(first, second, 2), _conv(second, second, 1)
        self.down_2 = _conv(second, third, 2)
        self.block_2a, self.block_2b = _conv(third, third, 1), _conv(third, third, 1)
        self.down_3, self.block_3 = _conv(third, fourth, 2), _conv(fourth, fourth, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.stem(images * 2 - 1))
        x = F.relu(self.down_1(x))
        one = F.relu(x + self.block_1(x))
        x = F.relu(self.down_2(one))
        two = F.relu(x + self.block_2b(F.relu(self.block_2a(x))))
        x = F.relu(self.down_3(two))
        three = F.relu(x + self.block_3(x))
        return one, two, three


def _conv(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


class FruitEmbed(SquashedFeatures):
    """A network of our own, trained on real apples and oranges in false colours: shape and texture. Its photographs are
    research only.

    The pooled maps, each number of mean 0 and deviation 1 over the photographs that taught the network, blind to hue.

    Raises:
        DataError: the installed file is not the one that belongs to this version.
    """

    name = "fruit-embed"
    trained_on = "photographs of apples and oranges (apple2orange)"
    version = SHA256[:16]
    dimensions = 2 * sum(CHANNELS[2:])
    size_px = SIZE_PX

    def __init__(self) -> None:
        super().__init__()
        tensors = shipped_tensors(FILE, SHA256)
        for name in BESIDE:
            self.register_buffer(name, tensors.pop(name), persistent=False)
        self.network = EmbedNetwork()
        self.network.load_state_dict(tensors)
        self.network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        scaled = (pooled(self.network(images)[1:]) - self.get_buffer("mean")) / self.get_buffer("spread")
        hue = self.get_buffer("hue")
        return scaled - scaled @ hue @ hue.T
