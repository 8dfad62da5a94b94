"""Random changes of training images: each is drawn on the host and applied on the device (detectors' by kornia)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from fruitgan.registry import Registry


class Augmentation(ABC):
    """Applies what was drawn; draws nothing itself, so that a step is a function of (seed, step)."""

    draws: int
    """How many random numbers an image it wants."""

    def load_size_px(self, image_size_px: int) -> int:
        """The side at which images are kept so that `apply` can give `image_size_px`: that, unless it crops."""
        return image_size_px

    def picture_size_px(self, image_size_px: int) -> int:
        """The side at which whole pictures are translated by what was trained on `image_size_px`: its finest scale."""
        return image_size_px

    def gives_size_px(self, image_size_px: int) -> int:
        """The side of what `apply` gives: `image_size_px`, but for those that show a detector parts of the picture."""
        return image_size_px

    @abstractmethod
    def apply(self, images: Tensor, draws: Tensor, image_size_px: int) -> Tensor:
        """[N, 3, L, L] in [0, 1] and [N, draws], uniform in [0, 1), to [N, 3, S, S] in [0, 1].

        S is what `gives_size_px` says. On a GPU it is captured with the step, unless it waits for the device (`.item()`,
        `if tensor:`), which makes all slower.
        """


augmentations: Registry[Callable[..., Augmentation]] = Registry("augmentations")
