"""The registries of networks. A builder takes keyword options alone and gives the network, freshly initialised."""

from __future__ import annotations

from collections.abc import Callable

from fruitgan.networks.contracts import Detector, Discriminator, Generator
from fruitgan.registry import Registry

generators: Registry[Callable[..., Generator]] = Registry("generators")
discriminators: Registry[Callable[..., Discriminator]] = Registry("discriminators")
detectors: Registry[Callable[..., Detector]] = Registry("detectors")
