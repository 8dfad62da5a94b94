"""Discriminators: PatchGANs, every logit of which judges one patch, and heads on the features of a pretrained network.

PatchGAN: Isola et al. 2017, section 3.2.2; Zhu et al. 2017, appendix 7.2. On features: Sauer et al. 2021, Projected GANs
Converge Faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan import randomness
from fruitgan.errors import UsageError
from fruitgan.networks.backbones import build_backbone
from fruitgan.networks.contracts import Discriminator, SizeRule
from fruitgan.networks.layers import InstanceNorm, initialise, spectral_norm

# (channels as multiples of the width, stride): three halvings, then two layers at an eighth; each logit sees 70 x 70 px.
LAYERS = ((1, 2), (2, 2), (4, 2), (8, 1))
NORMS = ("spectral", "instance", "spectral-instance", "mixed", "none")
MINIMUM_PX = 24  # an eighth is 3 px, and each of the last two layers takes one away
SLOPE = 0.2
PIXEL_SCALE = 4  # each pixel discriminator sees the image averaged to a quarter of the one before
MIXING_SEED = 0


def patch_layers(base_channels: int, slope: float, norm: Callable[[int], nn.Module] | None, *, bias: bool) -> nn.Sequential:
    """The 70 x 70 PatchGAN: [N, 3, H, W] to [N, 1, H/8 - 2, W/8 - 2]; `norm` behind layers 2 to 4; the last has a bias."""
    layers: list[nn.Module] = []
    channels = 3
    for level, (multiple, stride) in enumerate(LAYERS):
        width = base_channels * multiple
        layers.append(nn.Conv2d(channels, width, 4, stride=stride, padding=1, bias=bias))
        if norm is not None and level > 0:
            layers.append(norm(width))
        layers.append(nn.LeakyReLU(slope, inplace=True))
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, padding=1))


class PatchDiscriminator(Discriminator):
    """One PatchGAN at the images' own size."""

    size_rule = SizeRule(minimum_px=MINIMUM_PX, multiple_of_px=1)

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.layers(x),)


class MultiscalePatchDiscriminator(Discriminator):
    """70 x 70 PatchGANs on the image and on the image averaged to half, a quarter, ..., with spectral norm.

    `norm` is `spectral`, `instance`, `spectral-instance` (both), `mixed` (instance, but for the coarsest of several scales) or
    `none`. Wang et al. 2018 (pix2pixHD), section 3.2: the coarser ones see what a shape is, the finer ones its texture. With
    spectral norm (Miyato et al. 2018, equation 8; one power iteration a forward in training) no layer enlarges its input;
    alone, no instance norm hides colour, and every layer makes its input smaller, so that it learns slowly. With `mixed` all
    scales but the coarsest have instance norm: fine texture is learned soon, and colour is seen by one. A single scale has it
    too.
    """

    def __init__(self, *, base_channels: int = 64, scales: int = 2, norm: str = "spectral") -> None:
        super().__init__()
        if norm not in NORMS:
            raise UsageError(f"discriminator patch-multiscale, option norm: {norm!r} is not one of {', '.join(NORMS)}")
        if scales < 1:
            raise ValueError("scales is 1 or more")
        normed_scales = {"instance": scales, "spectral-instance": scales, "mixed": max(1, scales - 1)}.get(norm, 0)
        self.scales = nn.ModuleList(
            patch_layers(base_channels, 0.2, InstanceNorm if level < normed_scales else None, bias=True)
            for level in range(scales)
        )
        initialise(self)
        if norm.startswith("spectral"):
            spectral_norm(self)
        self.size_rule = SizeRule(minimum_px=MINIMUM_PX * 2 ** (scales - 1), multiple_of_px=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        logits = []
        for level, scale in enumerate(self.scales):
            x = F.avg_pool2d(x, 2) if level else x
            logits.append(scale(x))
        return tuple(logits)


class ProjectedDiscriminator(Discriminator):
    """Spectral heads on a frozen, pretrained backbone at several strides, and two small pixel discriminators that see colour.

    `backbone` is `efficientnet-lite1`, `torchvision:NAME` or `timm:NAME`; `pixel_scales` counts the pixel discriminators, each
    at a quarter of the size before it (0: none). The heads see texture, parts and objects, as ImageNet taught the backbone; the
    pixel discriminators have no norm that would hide absolute colour from them. Spectral norm (Miyato et al. 2018) throughout,
    so that hinge loss, which it is for, stays in its range. With `mix`, each map first goes through a fixed random 1 x 1
    convolution, so that no few channels decide (Sauer et al. 2021, section 3.2, cross-channel mixing). One logit map a stride,
    then one a pixel scale.
    """

    def __init__(
        self,
        *,
        backbone: str = "efficientnet-lite1",
        strides: str = "4,8,16",
        base_channels: int = 64,
        pixel_scales: int = 2,
        mix: bool = False,
    ) -> None:
        super().__init__()
        try:
            self.strides = tuple(sorted({int(stride) for stride in strides.split(",")}))
        except ValueError:
            raise UsageError(f"discriminator projected, option strides: {strides!r} is not a list such as 4,8,16") from None
        if base_channels < 1 or pixel_scales < 0:
            raise UsageError("discriminator projected: base_channels must be 1 or more, pixel_scales 0 or more")
        self.backbone = build_backbone(backbone, self.strides)
        channels = {stride: self.backbone.channels[stride] for stride in self.strides}
        self.heads = nn.ModuleList(_head(width, base_channels) for width in channels.values())
        self.pixels = nn.ModuleList(_pixel_layers(max(1, base_channels // 2)) for _ in range(pixel_scales))
        self.mixes = mix
        if mix:
            for stride, width in channels.items():
                self.register_buffer(f"mixing_{stride}", _mixing(width, stride), persistent=False)
        for part in (self.heads, self.pixels):
            initialise(part)
            spectral_norm(part)
        minimum = max(*self.strides, 8 * PIXEL_SCALE ** max(0, pixel_scales - 1))
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


def patch_70(*, base_channels: int = 64) -> PatchDiscriminator:
    """70 x 70 PatchGAN of the CycleGAN paper: instance norm without affine, slope 0.2."""
    return PatchDiscriminator(patch_layers(base_channels, 0.2, InstanceNorm, bias=True))


def patch_70_affine(*, base_channels: int = 64) -> PatchDiscriminator:
    """70 x 70 PatchGAN of the TensorFlow tutorial: affine instance norm, biases in the last layer alone, slope 0.3."""
    return PatchDiscriminator(patch_layers(base_channels, 0.3, lambda width: InstanceNorm(width, affine=True), bias=False))
