"""Random convolutional networks as features: no weights to fetch, no training set whose taste they inherit.

Each of five networks is four times [3x3 convolution, stride 2, reflected border -> ReLU] with 16, 32, 64 and 128 channels and
no bias. Every filter sums to zero, so that even grey gives nothing and what is seen is contrast: edges, texture, and colour
against colour. Of each layer's maps the mean and the standard deviation over the image are kept: 5 x 2 x 240 = 2,400 numbers.
Their square roots are the features: else a few pictures of strong contrast outweigh all others, and the kernel distance of two
sets of real photographs scatters thirteen times as much (measured; apples against oranges then stand out half as far).
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fruitgan.images import Pixels, resize
from fruitgan.measures.contracts import Features
from fruitgan.randomness import generator

NETWORKS = 5
CHANNELS = (16, 32, 64, 128)
SIZE_PX = 256
STREAM = "evaluation/random-networks/1"
"""Names the weights; another name would be other features."""

GAINS = (3.0, 1.5, 1.375, 1.125)
"""What each layer's filters are multiplied by: photographs of fruit then give numbers near 1 in all layers, so that none
outweighs the others and the cubic kernel is not just a line. Chosen once, on photographs; part of the features' definition."""


def random_filters(network: int, layer: int) -> NDArray[np.float64]:
    """[out, in, 3, 3]: uniform, each filter summing to zero, variance 2 / fan-in (He et al. 2015).

    Made of the counter's raw 64-bit words and exact arithmetic, without a logarithm or a cosine: numpy promises that the words
    never change (and that its distributions may), and no platform's mathematical library has a say.
    """
    inputs = (3, *CHANNELS)[layer]
    shape = (CHANNELS[layer], inputs * 9)
    bits = generator(0, layer, f"{STREAM}/{network}").bit_generator
    assert isinstance(bits, np.random.Philox)
    words = bits.random_raw(shape[0] * shape[1])
    uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53  # [0, 1)
    filters = uniform.reshape(shape) - 0.5  # variance 1/12
    # Filter by filter, in float64 and in one order: numpy's own sum may group its terms as the processor likes.
    for row in filters:
        row -= sum(row.tolist()) / len(row)
    scaled: NDArray[np.float64] = filters * np.sqrt(12 * 2 / shape[1])
    return scaled.reshape(CHANNELS[layer], inputs, 3, 3)


def weights_sha256() -> str:
    """Of all filters as float32, network by network and layer by layer."""
    digest = hashlib.sha256()
    for network in range(NETWORKS):
        for layer in range(len(CHANNELS)):
            digest.update(random_filters(network, layer).astype("<f4").tobytes())
    return digest.hexdigest()


class RandomNetworks(Features):
    """The ensemble; the features of its networks stand side by side."""

    name = "random"
    dimensions = NETWORKS * 2 * sum(CHANNELS)
    resize = f"squashed to {SIZE_PX} px (Lanczos, antialiased, 8 bits)"

    def __init__(self) -> None:
        super().__init__()
        for layer, gain in enumerate(GAINS):
            # The networks side by side: one convolution with five groups is thrice as fast as five.
            filters = np.concatenate([gain * random_filters(network, layer) for network in range(NETWORKS)])
            tensor = torch.from_numpy(filters.astype(np.float32)).contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"filters_{layer}", tensor, persistent=False)

    def prepare(self, pixels: Pixels) -> Pixels:
        return resize(pixels, SIZE_PX, SIZE_PX, Image.Resampling.LANCZOS)

    def forward(self, images: Tensor) -> Tensor:
        x = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        parts = []
        for layer in range(len(CHANNELS)):
            filters = self.get_buffer(f"filters_{layer}")
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), filters, stride=2, groups=NETWORKS if layer else 1)
            x = F.relu(x)  # [N, networks * C, h, w]
            mean = x.mean((2, 3))
            # By the second moment: torch.std takes longer than the convolutions.
            spread = (x.square().mean((2, 3)) - mean.square()).clamp_min(0).sqrt()
            parts += [mean, spread]
        return torch.cat(parts, dim=1).sqrt()


def random() -> RandomNetworks:
    """Five fixed random networks: texture and colour contrast."""
    return RandomNetworks()
