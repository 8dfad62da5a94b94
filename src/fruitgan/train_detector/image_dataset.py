"""Labelled images at the size of a detector, as bytes: in memory while they are few, else in a file that is mapped into it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fruitgan.data.image_dataset import Bank
from fruitgan.data.labelled import LabelledImage
from fruitgan.images import Pixels, resize, unit_from_bytes

MEMORY_LIMIT_BYTES = 256 * 2**20
"""Above it the bytes lie in a file, of which the system keeps in memory what it can spare."""
RESAMPLE = Image.Resampling.LANCZOS  # for both classes alike; an image that has the size already is taken as it is


class Album:
    """The images that can be decoded, in the order given; float only a batch at a time."""

    def __init__(self, images: Sequence[LabelledImage], bank: Bank) -> None:
        """Use `open_album`."""
        by_path = {image.path: image for image in images}
        self.images = tuple(by_path[path] for path in bank.names)
        self.broken = bank.broken
        self.size_px = bank.load_size_px
        self.generated: NDArray[np.bool_] = np.array([image.generated for image in self.images], dtype=np.bool_)
        self._bank = bank

    def __len__(self) -> int:
        return len(self.images)

    def labelled(self, generated: NDArray[np.bool_]) -> Album:
        """The same pictures with other labels, [N]; `images` keeps the labels that they came with."""
        other = copy.copy(self)
        other.generated = generated
        return other

    @property
    def fingerprint(self) -> str:
        """sha256 over the pixels of all images in their order."""
        return self._bank.fingerprint

    def pixels(self, index: int) -> Pixels:
        """uint8 [S, S, 3] of one image, a copy."""
        return self._bank.image(index).copy()

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> Tensor:
        """[n, 3, S, S] float32 in [0, 1] of the images with these numbers."""
        pixels = self._bank.gather(indices, np.zeros((len(indices), 2)))
        return unit_images(pixels, device)

    def labels(self, indices: NDArray[np.int64], device: torch.device) -> Tensor:
        """[n] float32: 1 for a generated image, 0 for a real one."""
        return torch.from_numpy(self.generated[indices].astype(np.float32)).to(device)


def squashed(pixels: Pixels, side_px: int) -> Pixels:
    """One picture as an album of this size holds it."""
    return resize(pixels, side_px, side_px, RESAMPLE)


def unit_images(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [n, S, S, 3] to float32 [n, 3, S, S] in [0, 1] on the device."""
    return unit_from_bytes(torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float())


@contextmanager
def open_album(
    images: Sequence[LabelledImage],
    size_px: int,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> Iterator[Album]:
    """Decode every image once and squash it to `size_px`; what cannot be decoded is left out and listed in `broken`.

    Raises:
        DataError: no images, or none can be decoded.
    """
    paths = [image.path for image in images]
    in_memory = len(paths) * size_px**2 * 3 <= memory_limit_bytes
    # ignore_cleanup_errors: Windows cannot delete a file that is still mapped.
    with tempfile.TemporaryDirectory(prefix="fruitgan-", ignore_cleanup_errors=True) as folder:
        yield Album(
            images,
            Bank.build(
                paths,
                load_size_px=size_px,
                resample=RESAMPLE,
                on_progress=on_progress,
                memory_map=None if in_memory else Path(folder, "album"),
            ),
        )
