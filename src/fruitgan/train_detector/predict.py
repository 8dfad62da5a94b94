"""What a detector says of images, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fruitgan.data.decode import decode
from fruitgan.data.parallel import in_order
from fruitgan.images import Pixels
from fruitgan.networks.contracts import Detector
from fruitgan.train_detector.image_dataset import Album, squashed, unit_images
from fruitgan.train_detector.protocols import Indices

BATCH_SIZE = 64


def predict(
    detector: Detector,
    paths: Sequence[Path],
    *,
    device: torch.device,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Logits [n], above 0 for generated, of images from the disk, each squashed to the detector's size, a batch at a time.

    Raises:
        DataError: an image cannot be decoded.
    """
    size_px = detector.image_size_px
    detector.eval().to(device)
    logits = np.empty(len(paths))
    waiting: list[Pixels] = []

    def load(path: Path) -> Pixels:
        return squashed(decode(path).pixels, size_px)

    for done, (_, pixels) in enumerate(in_order(load, paths), start=1):
        waiting.append(pixels)
        if len(waiting) == batch_size or done == len(paths):
            logits[done - len(waiting) : done] = _answers(detector, unit_images(np.stack(waiting), device))
            waiting = []
            if on_progress is not None:
                on_progress(done, len(paths))
    return logits


def album_logits(
    detector: Detector, album: Album, indices: Indices, device: torch.device, batch_size: int
) -> NDArray[np.float64]:
    """Logits [n] of the album's images with these numbers."""
    detector.eval()
    logits = np.empty(len(indices))
    for start in range(0, len(indices), batch_size):
        piece = indices[start : start + batch_size]
        logits[start : start + len(piece)] = _answers(detector, album.batch(piece, device))
    return logits


def answers(detector: Detector, pictures: Sequence[Pixels], device: torch.device) -> NDArray[np.float64]:
    """Logits [n] of pictures that are as the detector wants them; those of several sizes one by one."""
    if len({picture.shape for picture in pictures}) > 1:
        return np.concatenate([answers(detector, [picture], device) for picture in pictures])
    return _answers(detector, unit_images(np.stack(pictures), device))


@torch.no_grad()
def _answers(detector: Detector, images: Tensor) -> NDArray[np.float64]:
    return np.asarray(detector(images).double().cpu().numpy())
