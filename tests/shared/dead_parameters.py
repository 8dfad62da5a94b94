"""Parameters of the built-in networks that cannot change an output, kept because the references have them."""

from __future__ import annotations

import itertools

from torch import nn

from fruitgan.networks.layers import InstanceNorm
from fruitgan.networks.resnet import AntialiasedGenerator
from fruitgan.networks.unet import UNetGenerator


def dead_parameters(network: nn.Module) -> frozenset[str]:
    """Names of the parameters that no image of the smallest size can make matter."""
    found = set()
    for path, module in network.named_modules():
        children = list(module.named_children()) if isinstance(module, nn.Sequential) else []
        for (name, child), (_, follower) in itertools.pairwise(children):
            if isinstance(child, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(follower, InstanceNorm):
                # The norm takes away the bias of the convolution before it.
                found |= {f"{path}.{name}.bias".lstrip(".")} if child.bias is not None else set()
    if isinstance(network, UNetGenerator):  # the innermost map is 1 x 1, and an instance norm makes it its offset
        found |= {f"downs.{len(network.downs) - 1}.{layer}.weight" for layer in (0, 1)}
    if isinstance(network, AntialiasedGenerator):
        # A block's last offset shifts a channel as a whole; the reflected convolutions and norms behind take that away.
        found |= {f"encoder.{n}.layers.4.bias" for n in range(3, len(network.encoder))}
    return frozenset(found)
