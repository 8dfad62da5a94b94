"""Features that need no weights from anywhere: `random`, an ensemble of random convolutional networks, `colour`, and `npr`.

Each of five networks is four times [3x3 convolution, stride 2, reflected border -> ReLU] with 16, 32, 64 and 128 channels and
no bias. Every filter sums to zero, so that even grey gives nothing and what is seen is contrast: edges, texture, and colour
against colour. Of each layer's maps the mean and the standard deviation over the image are kept: 5 x 2 x 240 = 2,400 numbers.
Their square roots are the features: else a few pictures of strong contrast outweigh all others, and the kernel distance of two
sets of real photographs scatters thirteen times as much (measured; apples against oranges then stand out half as far).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fruitgan.images import Pixels
from fruitgan.measures.contracts import Features, SquashedFeatures
from fruitgan.networks.backbones import pooled
from fruitgan.randomness import generator

NETWORKS = 5
CHANNELS = (16, 32, 64, 128)
RANDOM_SIZE_PX = 256
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


class RandomNetworks(SquashedFeatures):
    """Five fixed random networks: texture and colour contrast."""

    name = "random"
    trained_on = ""
    dimensions = NETWORKS * 2 * sum(CHANNELS)
    size_px = RANDOM_SIZE_PX

    def __init__(self) -> None:
        super().__init__()
        for layer, gain in enumerate(GAINS):
            # The networks side by side: one convolution with five groups is thrice as fast as five.
            filters = np.concatenate([gain * random_filters(network, layer) for network in range(NETWORKS)])
            tensor = torch.from_numpy(filters.astype(np.float32)).contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"filters_{layer}", tensor, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        maps = []
        for layer in range(len(CHANNELS)):
            filters = self.get_buffer(f"filters_{layer}")
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), filters, stride=2, groups=NETWORKS if layer else 1)
            x = F.relu(x)  # [N, networks * C, h, w]
            maps.append(x)
        return pooled(maps).sqrt()


COLOUR_SIZE_PX = 128
LIGHTNESS_BINS = 16
CHROMA_BINS = 24
JOINT_BINS = 12
CHROMA_END = 96.0
"""a and b are counted in [-96, 96]; the few colours of sRGB beyond it go into the outermost bins."""
MOMENT_SCALE = 25.0

# sRGB's primaries to CIE XYZ under D65 (IEC 61966-2-1), and that light's own XYZ.
_XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)


def lab_of_srgb(images: Tensor) -> Tensor:
    """[N, 3, H, W] in [0, 1] to CIE Lab under D65: L in [0, 100], a and b about [-128, 127] (CIE 15:2004, section 8.2.1)."""
    linear = torch.where(images > 0.04045, ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, images / 12.92)
    matrix = torch.tensor(_XYZ_OF_RGB, dtype=images.dtype, device=images.device)
    white = torch.tensor(_WHITE, dtype=images.dtype, device=images.device)
    xyz = torch.einsum("ij,njhw->nihw", matrix / white[:, None], linear)
    bent = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min((6 / 29) ** 3) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = bent.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


class Colour(SquashedFeatures):
    """Lab histograms and moments: which colours, and how much of each.

    Square roots of histograms of L, a, b and of a with b, and the pixels' mean, spread, skewness and correlations.
    """

    trained_on = ""
    name = "colour"
    dimensions = LIGHTNESS_BINS + 2 * CHROMA_BINS + JOINT_BINS**2 + 12
    size_px = COLOUR_SIZE_PX

    def forward(self, images: Tensor) -> Tensor:
        lab = lab_of_srgb(images.float()).flatten(2)  # [N, 3, P]
        lightness, a, b = lab.unbind(1)
        joint = _bin(a, JOINT_BINS, -CHROMA_END, CHROMA_END) * JOINT_BINS + _bin(b, JOINT_BINS, -CHROMA_END, CHROMA_END)
        return torch.cat(
            [
                _histogram(_bin(lightness, LIGHTNESS_BINS, 0.0, 100.0), LIGHTNESS_BINS),
                _histogram(_bin(a, CHROMA_BINS, -CHROMA_END, CHROMA_END), CHROMA_BINS),
                _histogram(_bin(b, CHROMA_BINS, -CHROMA_END, CHROMA_END), CHROMA_BINS),
                _histogram(joint, JOINT_BINS**2),
                _moments(lab),
            ],
            dim=1,
        )


def _bin(values: Tensor, bins: int, low: float, high: float) -> Tensor:
    """[N, P] of bin numbers; what lies beyond an end goes into the bin there."""
    return ((values - low) * (bins / (high - low))).floor().clamp(0, bins - 1).long()


def _histogram(numbers: Tensor, bins: int) -> Tensor:
    """[N, bins]: square roots of shares (Hellinger's distance between shares is the Euclidean one between these).

    Multiplied by the root of `bins`, so that the mean square of the entries is 1.
    """
    counts = torch.zeros(len(numbers), bins, device=numbers.device)
    counts.scatter_add_(1, numbers, torch.ones_like(numbers, dtype=counts.dtype))
    return (counts * (bins / numbers.shape[1])).sqrt()


def _moments(lab: Tensor) -> Tensor:
    """[N, 12]: per channel mean, standard deviation and cube root of the third moment, in units of 25; three correlations."""
    mean = lab.mean(2, keepdim=True)
    centred = lab - mean
    spread = (centred**2).mean(2).sqrt()
    third = (centred**3).mean(2)
    skew = third.sign() * third.abs() ** (1 / 3)
    unit = centred / spread.clamp_min(1e-3)[:, :, None]
    pairs = torch.stack([(unit[:, i] * unit[:, j]).mean(1) for i, j in ((0, 1), (0, 2), (1, 2))], dim=1)
    lightness = torch.tensor([50.0, 0.0, 0.0], device=lab.device)
    return torch.cat([(mean[:, :, 0] - lightness) / MOMENT_SCALE, spread / MOMENT_SCALE, skew / MOMENT_SCALE, pairs], dim=1)


NPR_SIZE_PX = 256
NPR_PLACES = ((0, 1), (1, 0), (1, 1))
NPR_EDGES = (0.5, 1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 64.5)
"""Of 255 levels: shares of differences below these are counted."""


def neighbour_relations(images: Tensor) -> Tensor:
    """[N, C, H, W] of even sides, less itself downsampled and upsampled by 2, nearest neighbours (Tan et al. 2024)."""
    return images - F.interpolate(images[..., ::2, ::2], scale_factor=2, mode="nearest")


class NeighbourRelations(Features):
    """Neighbouring pixel relations (Tan et al. 2024): how three pixels of each 2 x 2 block differ from its first one.

    Upsampling layers leave their mark there, and resizing would remove it. Of the nine maps (three places, three colours) the
    logarithms of the mean and the mean square, shares of small differences, and the maps' correlations.
    """

    trained_on = ""
    name = "npr"
    dimensions = 9 * (2 + len(NPR_EDGES)) + 9 * 8 // 2
    resize = f"cut to the middle {NPR_SIZE_PX} px, not resized (smaller pictures repeated)"

    def prepare(self, pixels: Pixels) -> Pixels:
        top, left = ((max(side - NPR_SIZE_PX, 0) // 2 & ~1) for side in pixels.shape[:2])  # even, so that blocks stay blocks
        middle = pixels[top : top + NPR_SIZE_PX, left : left + NPR_SIZE_PX]
        missing = [(0, NPR_SIZE_PX - side) for side in middle.shape[:2]]
        return np.pad(middle, (*missing, (0, 0)), mode="wrap")

    def forward(self, images: Tensor) -> Tensor:
        relations = neighbour_relations(images) * 255
        maps = torch.cat([relations[..., y::2, x::2].flatten(2) for y, x in NPR_PLACES], dim=1)  # [N, 9, P]
        size = maps.abs()
        unit = maps - maps.mean(2, keepdim=True)
        unit = unit / (unit.square().mean(2, keepdim=True).sqrt() + 1e-3)
        correlations = unit @ unit.transpose(1, 2) / maps.shape[2]
        first, second = torch.triu_indices(9, 9, 1)
        shares = [(size < edge).float().mean(2) for edge in NPR_EDGES]
        sizes = [size.mean(2).log1p(), maps.square().mean(2).log1p()]
        return torch.cat([*sizes, *shares, correlations[:, first, second]], dim=1)
