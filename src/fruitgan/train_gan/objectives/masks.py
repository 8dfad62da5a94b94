"""What a soft mask costs, so that it settles on something between nothing and everything."""

from __future__ import annotations

from torch import Tensor

from fruitgan.device import at_least_fp32


def roughness(mask: Tensor) -> Tensor:
    """Total variation, the mean over neighbours down plus the mean over neighbours across of |difference|; [N, 1, H, W].

    Rudin et al. 1992, equation 2.2, in its anisotropic form: edges cost their length, halos and speckles more.
    """
    mask = at_least_fp32(mask)
    return mask.diff(dim=-2).abs().mean() + mask.diff(dim=-1).abs().mean()


def area(mask: Tensor) -> Tensor:
    """The mean of a mask: what is the network's costs, so that the background stays the source's."""
    return at_least_fp32(mask).mean()
