"""Spectral norm: a layer's weights divided by the most that they enlarge anything."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from fruitgan.device import without_autocast

FIRST_ITERATIONS = 15
EPSILON = 1e-12


class SpectralNorm(nn.Module):
    """W / sigma(W), with W as a matrix of a row an output channel: Miyato et al. 2018, equation 8 and algorithm 1.

    One power iteration a call in training, none otherwise. In full precision whatever the autocast around it: a GPU's would
    have sigma in bf16, and with it every weight off by up to 0.4%. Names and numbers are those of torch's own.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            matrix = weight.flatten(1)
            self.register_buffer("_u", F.normalize(matrix.new_empty(matrix.shape[0]).normal_(), dim=0, eps=EPSILON))
            self.register_buffer("_v", F.normalize(matrix.new_empty(matrix.shape[1]).normal_(), dim=0, eps=EPSILON))
            for _ in range(FIRST_ITERATIONS):
                self._iterate(matrix)

    def forward(self, weight: Tensor) -> Tensor:
        with without_autocast(weight.device):
            matrix = weight.flatten(1)
            if self.training:
                with torch.no_grad():
                    self._iterate(matrix)
            # Copies, since the next call moves the vectors before this one's gradient is taken.
            sigma = torch.dot(self._u.clone(), torch.mv(matrix, self._v.clone()))
            return weight / sigma

    def _iterate(self, matrix: Tensor) -> None:
        self._u.copy_(F.normalize(torch.mv(matrix, self._v), dim=0, eps=EPSILON))
        self._v.copy_(F.normalize(torch.mv(matrix.t(), self._u), dim=0, eps=EPSILON))


def spectral_norm(convolution: nn.Conv2d) -> None:
    """Let the convolution's weight be divided by its largest singular value from here on."""
    register_parametrization(convolution, "weight", SpectralNorm(convolution.weight))
