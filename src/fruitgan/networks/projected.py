"""Projected discriminator: light heads on a frozen backbone's features (Sauer et al. 2021, Projected GANs Converge Faster)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan import randomness
from fruitgan.errors import UsageError
from fruitgan.networks.backbones import Backbone, build_backbone
from fruitgan.networks.contracts import Discriminator, SizeRule
from fruitgan.networks.layers import initialise, spectral_norm

SLOPE = 0.2
PIXEL_SCALE = 4  # each pixel discriminator sees the image averaged to a quarter of the one before
MIXING_SEED = 0


class ProjectedDiscriminator(Discriminator):
    """A head of patch logits on the backbone's map at each stride, and plain discriminators of pixels beside them.

    The heads see texture, parts and objects, as ImageNet taught the backbone; the pixel discriminators have no norm that would
    hide absolute colour from them. Spectral norm (Miyato et al. 2018) throughout, so that hinge loss stays in its range.
    With `mix`, each map first goes through a fixed random 1 x 1 convolution, so that no few channels decide (Sauer et al. 2021,
    section 3.2, cross-channel mixing). One logit map a stride, then one a pixel scale.
    """

    def __init__(self, backbone: Backbone, strides: tuple[int, ...], base_channels: int, pixel_scales: int, mix: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.strides = strides
        self.heads = nn.ModuleList(_head(backbone.channels[stride], base_channels) for stride in strides)
        self.pixels = nn.ModuleList(_pixel_layers(max(1, base_channels // 2)) for _ in range(pixel_scales))
        self.mixes = mix
        if mix:
            for stride in strides:
                self.register_buffer(f"mixing_{stride}", _mixing(backbone.channels[stride], stride), persistent=False)
        for part in (self.heads, self.pixels):
            initialise(part)
            for convolution in [module for module in part.modules() if isinstance(module, nn.Conv2d)]:
                spectral_norm(convolution)
        minimum = max(max(strides), 8 * PIXEL_SCALE ** max(0, pixel_scales - 1))
        self.size_rule = SizeRule(minimum_px=minimum, multiple_of_px=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        logits = []
        for stride, head, features in zip(self.strides, self.heads, self.backbone(x, self.strides), strict=True):
            mixed = F.conv2d(features, self.get_buffer(f"mixing_{stride}")) if self.mixes else features
            logits.append(head(mixed))
        for level, layers in enumerate(self.pixels):
            x = F.avg_pool2d(x, PIXEL_SCALE) if level else x
            logits.append(layers(x))
        return tuple(logits)


def _head(channels_in: int, channels: int) -> nn.Sequential:
    """[N, C, h, w] to [N, 1, h, w]: each logit sees 3 x 3 places of the map."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 1),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Conv2d(channels, 1, 1),
    )


def _pixel_layers(channels: int) -> nn.Sequential:
    """[N, 3, H, W] to [N, 1, H/8, W/8]: each logit sees 22 x 22 px."""
    layers: list[nn.Module] = []
    channels_in = 3
    for multiple in (1, 2, 4):
        layers += [nn.Conv2d(channels_in, channels * multiple, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE, inplace=True)]
        channels_in = channels * multiple
    return nn.Sequential(*layers, nn.Conv2d(channels_in, 1, 1))


def _mixing(channels: int, stride: int) -> Tensor:
    """Fixed random weights [C, C, 1, 1] of deviation 1 / sqrt(C), the same everywhere and always."""
    numbers = randomness.generator(MIXING_SEED, stride, "channel mixing").standard_normal((channels, channels, 1, 1))
    return torch.from_numpy(numbers / math.sqrt(channels)).float()


def projected(
    *,
    backbone: str = "efficientnet-lite1",
    strides: str = "4,8,16",
    base_channels: int = 64,
    pixel_scales: int = 2,
    mix: bool = False,
) -> ProjectedDiscriminator:
    """Spectral heads on a frozen, pretrained backbone at several strides, and two small pixel discriminators that see colour.

    `backbone` is `efficientnet-lite1`, `torchvision:NAME` or `timm:NAME`; `pixel_scales` counts the pixel discriminators, each
    at a quarter of the size before it (0: none); `mix` mixes each map's channels by fixed random weights. For hinge loss.
    """
    try:
        wanted = tuple(sorted({int(stride) for stride in strides.split(",")}))
    except ValueError:
        raise UsageError(f"discriminator projected, option strides: {strides!r} is not a list such as 4,8,16") from None
    if base_channels < 1 or pixel_scales < 0:
        raise UsageError("discriminator projected: base_channels must be 1 or more, pixel_scales 0 or more")
    return ProjectedDiscriminator(build_backbone(backbone, wanted), wanted, base_channels, pixel_scales, mix)
