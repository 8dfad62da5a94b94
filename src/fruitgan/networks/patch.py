"""PatchGAN discriminators: every logit judges one patch (Isola et al. 2017, section 3.2.2; Zhu et al. 2017, appendix 7.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.errors import UsageError
from fruitgan.networks.contracts import Discriminator, SizeRule
from fruitgan.networks.layers import InstanceNorm, initialise, spectral_norm

# (channels as multiples of the width, stride): three halvings, then two layers at an eighth; each logit sees 70 x 70 px.
LAYERS = ((1, 2), (2, 2), (4, 2), (8, 1))
NORMS = ("spectral", "instance", "spectral-instance", "mixed", "none")
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

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.layers(x),)


class MultiscalePatchDiscriminator(Discriminator):
    """A PatchGAN at full size, another at half size, and so on.

    Wang et al. 2018 (pix2pixHD), section 3.2: the coarser ones see what a shape is, the finer ones its texture. With spectral
    norm (Miyato et al. 2018, equation 8; one power iteration a forward in training) no layer enlarges its input; alone, no
    instance norm hides colour, and every layer makes its input smaller, so that it learns slowly. With `mixed` all scales but
    the coarsest have instance norm: fine texture is learned soon, and colour is seen by one. A single scale has it too.
    """

    def __init__(self, base_channels: int, scales: int, norm: str) -> None:
        super().__init__()
        normed_scales = {"instance": scales, "spectral-instance": scales, "mixed": max(1, scales - 1)}.get(norm, 0)
        self.scales = nn.ModuleList(
            patch_layers(base_channels, 0.2, InstanceNorm if level < normed_scales else None, bias=True)
            for level in range(scales)
        )
        initialise(self)
        if norm.startswith("spectral"):
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


def patch_multiscale(*, base_channels: int = 64, scales: int = 2, norm: str = "spectral") -> MultiscalePatchDiscriminator:
    """70 x 70 PatchGANs on the image and on the image averaged to half, a quarter, ..., with spectral norm.

    `norm` is `spectral`, `instance`, `spectral-instance` (both), `mixed` (instance, but for the coarsest of several scales) or
    `none`.
    """
    if norm not in NORMS:
        raise UsageError(f"discriminator patch-multiscale, option norm: {norm!r} is not one of {', '.join(NORMS)}")
    return MultiscalePatchDiscriminator(base_channels, scales, norm)
