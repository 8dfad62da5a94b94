"""Random jitter and mirroring against numpy's slices: the same pixels, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fruitgan.data.augment.training import JitterMirror, NoAugmentation
from fruitgan.errors import UsageError


@pytest.mark.parametrize(("load_px", "image_px"), [(286, 256), (20, 16), (143, 128), (16, 16)])
def test_a_crop_and_a_mirror_image_are_slices_of_the_source(load_px: int, image_px: int) -> None:
    random = np.random.default_rng(load_px)
    images = random.random((6, 3, load_px, load_px), dtype=np.float32)
    draws = random.random((6, 3))
    draws[0], draws[1] = 0.0, 1 - 2**-53
    out = JitterMirror().apply(torch.from_numpy(images), torch.from_numpy(draws), image_px).numpy()
    for image, (along, down, mirrored), found in zip(images, draws, out, strict=True):
        left, top = int(along * (load_px - image_px + 1)), int(down * (load_px - image_px + 1))
        crop = image[:, top : top + image_px, left : left + image_px]
        assert crop.shape == found.shape
        assert np.array_equal(found, crop[:, :, ::-1] if mirrored < 0.5 else crop)


def test_without_mirroring_only_the_crop_is_left() -> None:
    images = torch.rand(3, 3, 20, 20)
    draws = torch.tensor([[0.0, 0.0, 0.1], [0.999, 0.0, 0.1], [0.0, 0.999, 0.9]], dtype=torch.float64)
    out = JitterMirror(mirror=False).apply(images, draws, 16)
    assert torch.equal(out[0], images[0, :, :16, :16])
    assert torch.equal(out[1], images[1, :, :16, 4:])
    assert torch.equal(out[2], images[2, :, 4:, :16])


def test_images_are_kept_at_286_px_for_256() -> None:
    assert [JitterMirror().load_size_px(side) for side in (256, 128, 64)] == [286, 143, 72]
    assert JitterMirror(load_ratio=1.0).load_size_px(100) == 100
    assert NoAugmentation().load_size_px(256) == 256


def test_a_load_ratio_outside_1_to_2_is_refused() -> None:
    for ratio in (0.9, 2.5):
        with pytest.raises(UsageError, match="load_ratio"):
            JitterMirror(load_ratio=ratio)
