"""Features of the images in a list of files, read in batches, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from fruitgan.data.decode import decode
from fruitgan.data.parallel import in_order
from fruitgan.evaluation.contracts import Features, FeatureSet
from fruitgan.images import Pixels, unit_from_bytes

BATCH_IMAGES = 16


def extract(
    features: Features,
    paths: Sequence[Path],
    device: torch.device | str = "cpu",
    on_image: Callable[[int], None] | None = None,
    batch_images: int = BATCH_IMAGES,
) -> FeatureSet:
    """The features [N, D] of the images, in the order of the paths.

    Raises:
        DataError: an image cannot be decoded (named).
    """
    features = features.to(device).eval()
    rows: list[np.ndarray[tuple[int, int], np.dtype[np.float64]]] = []
    done = 0
    with torch.inference_mode():
        for batch in _batches(features, paths, batch_images):
            images = torch.from_numpy(np.stack(batch)).to(device).permute(0, 3, 1, 2).contiguous().float()
            rows.append(features(unit_from_bytes(images)).double().cpu().numpy())
            done += len(batch)
            if on_image is not None:
                on_image(done)
    values = np.concatenate(rows) if rows else np.zeros((0, features.dimensions))
    return FeatureSet(values, features.name, features.resize)


def _batches(features: Features, paths: Sequence[Path], batch_images: int) -> Iterator[list[Pixels]]:
    """Prepared images, never more than `batch_images` and all of one size, in the order of the paths."""
    batch: list[Pixels] = []
    for _, pixels in in_order(lambda path: features.prepare(decode(path).pixels), paths):
        if batch and (len(batch) == batch_images or batch[0].shape != pixels.shape):
            yield batch
            batch = []
        batch.append(pixels)
    if batch:
        yield batch
