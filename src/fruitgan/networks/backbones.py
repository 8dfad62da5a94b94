"""Backbones: pretrained feature networks with frozen weights, read at several strides.

Discriminators, features of `evaluate` and detectors share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from fruitgan.errors import UsageError
from fruitgan.registry import Registry


class Backbone(nn.Module, ABC):
    """[N, 3, H, W] in [-1, 1] to feature maps [N, C, about H / stride, about W / stride] at the strides asked for.

    Its weights are non-persistent buffers, so they are in no checkpoint, bundle, optimiser or gradient; it stays in evaluation
    mode, also inside a network that trains. Gradients pass through to the image.
    """

    channels: Mapping[int, int]
    """The number of channels at each stride that it offers."""
    sha256: str
    """Of the weights, so that a run never goes on with others."""
    trained_on: str
    """The network and its training data, for model cards: what trained a generator must not be its only judge."""

    @abstractmethod
    def forward(self, x: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """The maps at the given strides, in ascending order; computes no further than the last."""

    def train(self, mode: bool = True) -> Backbone:
        return super().train(False)


backbones: Registry[Callable[..., Backbone]] = Registry("backbones")


def build_backbone(name: str, strides: Sequence[int]) -> Backbone:
    """The registered backbone, which offers all of the strides.

    Raises:
        UsageError: unknown name, or a stride that it does not have.
        EnvironmentProblem, DataError: a missing package, or weights that cannot be had.
    """
    made = cast(Backbone, backbones.build(backbones.choose(name)))
    if unknown := sorted(set(strides) - set(made.channels)):
        raise UsageError(f"backbone {name} has no stride {unknown[0]}; it has {', '.join(map(str, made.channels))}")
    return made


def freeze(network: nn.Module) -> None:
    """Turn every parameter and buffer into a non-persistent buffer."""
    for module in network.modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in own:
            delattr(module, name)
            module.register_buffer(name, tensor.detach(), persistent=False)


def trained_against(networks: nn.Module) -> tuple[str, ...]:
    """Which pretrained networks a training's gradients came through, with what they were trained on."""
    return tuple(sorted({module.trained_on for module in networks.modules() if isinstance(module, Backbone)}))


def frozen_sums(network: nn.Module) -> dict[str, str]:
    """The sha256 of each backbone inside a network, by its path with `.sha256` behind it."""
    return {f"{path}.sha256": module.sha256 for path, module in network.named_modules() if isinstance(module, Backbone)}
