"""PatchGAN discriminators: every logit judges one patch (Isola et al. 2017, section 3.2.2; Zhu et al. 2017, appendix 7.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fruitgan.models.contracts import Discriminator, SizeRule
from fruitgan.models.layers import InstanceNorm, biases_before_norm, initialise

# (channels as multiples of the width, stride): three halvings, then two layers at an eighth; each logit sees 70 x 70 px.
LAYERS = ((1, 2), (2, 2), (4, 2), (8, 1))
MINIMUM_PX = 24  # an eighth is 3 px, and each of the last two layers takes one away


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
        self.dead_parameters = biases_before_norm(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.layers(x),)


class MultiscalePatchDiscriminator(Discriminator):
    """A PatchGAN with spectral norm (Miyato et al. 2018, equation 8) at full size, another at half size, and so on.

    Wang et al. 2018 (pix2pixHD), section 3.2: the coarser ones see what a shape is, the finer ones its texture.
    """

    def __init__(self, base_channels: int, scales: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(patch_layers(base_channels, 0.2, None, bias=True) for _ in range(scales))
        initialise(self)
        for module in list(self.modules()):
            if isinstance(module, nn.Conv2d):
                spectral_norm(module)
        self.size_rule = SizeRule(minimum_px=MINIMUM_PX * 2 ** (scales - 1), multiple_of_px=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        logits = []
        for level, scale in enumerate(self.scales):
            x = F.avg_pool2d(x, 2) if level else x
            logits.append(scale(x))
        return tuple(logits)


def patch_70(*, base_channels: int = 64) -> PatchDiscriminator:
    """70 x 70 PatchGAN of the CycleGAN paper: instance norm without affine, slope 0.2."""
    return PatchDiscriminator(patch_layers(base_channels, 0.2, InstanceNorm, bias=True))


def patch_70_affine(*, base_channels: int = 64) -> PatchDiscriminator:
    """70 x 70 PatchGAN of the TensorFlow tutorial: affine instance norm, biases in the last layer alone, slope 0.3."""
    return PatchDiscriminator(patch_layers(base_channels, 0.3, lambda width: InstanceNorm(width, affine=True), bias=False))


def patch_multiscale(*, base_channels: int = 64, scales: int = 2) -> MultiscalePatchDiscriminator:
    """70 x 70 PatchGANs with spectral norm on the image and on the image averaged to half, a quarter, ..."""
    return MultiscalePatchDiscriminator(base_channels, scales)
