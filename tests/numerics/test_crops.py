"""Crops by jitter against numpy's slices and at scales against Pillow's resize; what discriminators are shown against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fruitgan.data.augment.training import MOVING_DRAWS, CropScales, JitterMirror, NoAugmentation, shifted_and_cut
from fruitgan.errors import UsageError

SIZE_PX = 16


@pytest.mark.parametrize(("load_px", "image_px", "mirror"), [(286, 256, True), (20, 16, True), (20, 16, False), (16, 16, True)])
def test_a_jittered_crop_and_its_mirror_image_are_slices_of_the_source(load_px: int, image_px: int, mirror: bool) -> None:
    random = np.random.default_rng(load_px)
    images = random.random((6, 3, load_px, load_px), dtype=np.float32)
    numbers = random.random((6, 3))
    numbers[0], numbers[1] = 0.0, 1 - 2**-53
    out = JitterMirror(mirror=mirror).apply(torch.from_numpy(images), torch.from_numpy(numbers), image_px).numpy()
    for image, (along, down, mirrored), found in zip(images, numbers, out, strict=True):
        left, top = int(along * (load_px - image_px + 1)), int(down * (load_px - image_px + 1))
        crop = image[:, top : top + image_px, left : left + image_px]
        assert crop.shape == found.shape
        assert np.array_equal(found, crop[:, :, ::-1] if mirror and mirrored < 0.5 else crop)


def test_images_are_kept_at_286_px_for_256() -> None:
    assert [JitterMirror().load_size_px(side) for side in (256, 128, 64)] == [286, 143, 72]
    assert JitterMirror(load_ratio=1.0).load_size_px(100) == 100
    assert NoAugmentation().load_size_px(256) == 256


def draws(ratio_share: float, left: float, top: float, mirror: float) -> torch.Tensor:
    return torch.tensor([[ratio_share, left, top, mirror]], dtype=torch.float64)


@pytest.mark.parametrize("ratio_share", [0.0, 0.4, 0.999])
@pytest.mark.parametrize(("left", "top"), [(0.0, 0.0), (0.3, 0.8)])
def test_a_crop_is_what_pillow_makes_of_that_part_of_the_picture(ratio_share: float, left: float, top: float) -> None:
    made = CropScales(smallest=1.1, largest=2.0)
    kept = made.load_size_px(SIZE_PX)
    picture = np.random.default_rng(1).random((kept, kept)).astype(np.float32) * 0.5 + 0.25  # Lanczos overshoots
    side = kept / (1.1 + 0.9 * ratio_share)
    x, y = left * (kept - side), top * (kept - side)
    expected = np.asarray(
        Image.fromarray(picture).resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS, box=(x, y, x + side, y + side))
    )
    images = torch.from_numpy(picture).expand(1, 3, kept, kept)
    inner = slice(3, -3)  # Pillow looks at nothing outside the part, we see what lies beside it
    found = made.apply(images, draws(ratio_share, left, top, 0.9), SIZE_PX)[0, 0].numpy()
    np.testing.assert_allclose(found[inner, inner], expected[inner, inner], atol=2e-5)
    mirrored = made.apply(images, draws(ratio_share, left, top, 0.1), SIZE_PX)[0, 0].numpy()
    np.testing.assert_array_equal(mirrored, found[:, ::-1])


def test_at_the_largest_scale_a_whole_pixel_crop_is_exact() -> None:
    made = CropScales(smallest=2.0, largest=2.0)
    images = torch.rand(1, 3, 32, 32)
    found = made.apply(images, draws(0.5, 0.25, 0.5, 0.9), SIZE_PX)
    torch.testing.assert_close(found, images[:, :, 8:24, 4:20], rtol=0, atol=1e-6)


def test_scales_that_cannot_be_are_refused() -> None:
    for smallest, largest in ((0.9, 2.0), (2.0, 1.5), (1.0, 5.0)):
        with pytest.raises(UsageError, match="crop-scales"):
            CropScales(smallest=smallest, largest=largest)
    for ratio in (0.9, 2.5):
        with pytest.raises(UsageError, match="load_ratio"):
            JitterMirror(load_ratio=ratio)


def naive(image: np.ndarray, numbers: np.ndarray, shift: float, cutout: float) -> np.ndarray:
    _, height, width = image.shape
    across, down = (round((2 * number - 1) * shift * side) for number, side in ((numbers[0], width), (numbers[1], height)))
    out = np.empty_like(image)
    for i in range(height):
        for j in range(width):
            row, column = abs(i + down), abs(j + across)
            row = 2 * (height - 1) - row if row >= height else row
            column = 2 * (width - 1) - column if column >= width else column
            out[:, i, j] = image[:, row, column]
            beside = abs(i - numbers[4] * height) > cutout * height / 2 or abs(j - numbers[3] * width) > cutout * width / 2
            if cutout and numbers[2] < 0.5 and not beside:
                out[:, i, j] = 0
    return out


@pytest.mark.parametrize(("shift", "cutout"), [(0.2, 0.0), (0.45, 0.0), (0.0, 0.5), (0.3, 0.4)])
def test_what_is_shown_is_moved_and_cut_as_a_loop_does_it(shift: float, cutout: float) -> None:
    random = np.random.default_rng(3)
    images, numbers = random.normal(size=(6, 3, 9, 12)), random.random((6, MOVING_DRAWS))
    shown = shifted_and_cut(torch.from_numpy(images), torch.from_numpy(numbers), shift, cutout).numpy()
    for image, row, found in zip(images, numbers, shown, strict=True):
        np.testing.assert_array_equal(found, naive(image, row, shift, cutout))


def test_gradients_pass_through_what_is_shown_to_every_pixel_that_is_seen() -> None:
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    numbers = torch.tensor([[0.9, 0.2, 0.1, 0.5, 0.5]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: shifted_and_cut(x, numbers, 0.2, 0.5), (images,))
