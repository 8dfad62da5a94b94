"""Augmentations of detectors: rotation, shift and mirroring against a naive loop, blur and JPEG against scipy and Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from picture_files import encoded
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fruitgan.data.augment.detectors import BlurJpeg, RotateShiftMirror
from fruitgan.errors import UsageError

SIDE = 12


def picture() -> Tensor:
    return torch.rand((1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def draws(angle: float = 0.0, across: float = 0.0, down: float = 0.0, mirrored: bool = False) -> Tensor:
    """The numbers in [0, 1) that stand for shares, -1 to 1, of the largest angle and shift."""
    shares = [(share + 1) / 2 for share in (angle, across, down)]
    return torch.tensor([[*shares, 0.25 if mirrored else 0.75]], dtype=torch.float64)


def naive(image: Tensor, degrees: float, across_px: float, down_px: float) -> Tensor:
    """Where does each pixel come from? Undo the shift, undo the turn, read there with repeated borders, bilinearly."""
    centre = (SIDE - 1) / 2
    angle = math.radians(degrees)
    out = torch.zeros_like(image)
    for y in range(SIDE):
        for x in range(SIDE):
            dx, dy = x - across_px - centre, y - down_px - centre
            # Counter-clockwise for a person, with y downwards: x' = x cos + y sin, y' = -x sin + y cos; here its inverse.
            u = min(max(dx * math.cos(angle) - dy * math.sin(angle) + centre, 0), SIDE - 1)
            v = min(max(dx * math.sin(angle) + dy * math.cos(angle) + centre, 0), SIDE - 1)
            left, top = min(math.floor(u), SIDE - 2), min(math.floor(v), SIDE - 2)
            a, b = u - left, v - top
            out[0, :, y, x] = (
                (1 - a) * (1 - b) * image[0, :, top, left]
                + a * (1 - b) * image[0, :, top, left + 1]
                + (1 - a) * b * image[0, :, top + 1, left]
                + a * b * image[0, :, top + 1, left + 1]
            )
    return out


@pytest.mark.parametrize(
    ("angle", "across", "down"), [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, 0, -1), (0.3, -0.7, 0.9), (-0.62, 0.41, 0.05)]
)
def test_a_turn_and_a_shift_equal_a_naive_loop(angle: float, across: float, down: float) -> None:
    image = picture()
    augmented = RotateShiftMirror().apply(image, draws(angle, across, down), SIDE)
    expected = naive(image, 15 * angle, 0.1 * SIDE * across, 0.1 * SIDE * down)
    torch.testing.assert_close(augmented, expected, rtol=0, atol=1e-9)


def test_a_quarter_turn_is_counter_clockwise() -> None:
    image = picture()
    turned = RotateShiftMirror(degrees=90).apply(image, draws(angle=1), SIDE)
    torch.testing.assert_close(turned, image.rot90(1, (2, 3)), rtol=0, atol=1e-9)


def test_half_the_draws_mirror_and_no_angle_changes_nothing() -> None:
    image = picture()
    same = RotateShiftMirror().apply(image, draws(), SIDE)
    torch.testing.assert_close(same, image, rtol=0, atol=1e-9)
    turned = RotateShiftMirror().apply(image, draws(mirrored=True), SIDE)
    torch.testing.assert_close(turned, image.flip(3), rtol=0, atol=1e-9)


def test_every_image_has_its_own_draws() -> None:
    images = picture().expand(2, -1, -1, -1)
    both = torch.cat([draws(0.5, 0.5, 0.5), draws(-0.5, 0.1, 0.2, mirrored=True)])
    together = RotateShiftMirror().apply(images, both, SIDE)
    apart = [RotateShiftMirror().apply(images[i : i + 1], both[i : i + 1], SIDE) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-12)


PHOTO_SIDE = 48


def photograph(seed: int = 0) -> Tensor:
    """Smooth shapes with some grain, as photographs have."""
    random = np.random.default_rng(seed)
    pixels = gaussian_filter(random.random((3, PHOTO_SIDE, PHOTO_SIDE)), (0, 4, 4), mode="wrap")
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) + random.normal(0, 0.02, pixels.shape)
    return torch.from_numpy(np.clip(pixels, 0, 1))[None]


def shares(blur: float | None = None, jpeg: float | None = None, mirrored: bool = False) -> Tensor:
    """What stands for these amounts, each a share of its range; None leaves the change out."""
    numbers = [0.9 if blur is None else 0.1, blur or 0.0, 0.9 if jpeg is None else 0.1, jpeg or 0.0, 0.2 if mirrored else 0.8]
    return torch.tensor([numbers], dtype=torch.float64)


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.6])
def test_the_blur_is_scipys_gaussian_of_the_drawn_width(share: float) -> None:
    blurred = BlurJpeg().apply(photograph(), shares(blur=share), PHOTO_SIDE)[0].numpy()
    sigma = 3 * share
    expected = gaussian_filter(photograph()[0].numpy(), (0, sigma, sigma), mode="mirror", radius=(0, 7, 7))
    np.testing.assert_allclose(blurred, expected, atol=1e-9)


@pytest.mark.parametrize(("share", "quality"), [(0.0, 30), (0.5, 65), (0.999, 100)])
def test_the_compression_is_near_pillows_at_the_drawn_quality(share: float, quality: int) -> None:
    coded = BlurJpeg().apply(photograph(), shares(jpeg=share), PHOTO_SIDE)[0].permute(1, 2, 0).numpy()
    pixels = np.rint(photograph()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    file = io.BytesIO(encoded(Image.fromarray(pixels), "JPEG", quality=quality, subsampling=2))
    expected = np.asarray(Image.open(file)) / 255
    loss = np.abs(expected - pixels / 255).mean()
    assert np.abs(coded - expected).mean() < 0.5 * loss + 0.003  # nearer to Pillow's result than that is to the picture


def test_each_picture_has_its_own_draw() -> None:
    pictures = torch.cat([photograph(seed) for seed in range(3)])
    drawn = torch.cat([shares(), shares(blur=0.5, jpeg=0.2), shares(mirrored=True)])
    changed = BlurJpeg().apply(pictures, drawn, PHOTO_SIDE)
    assert torch.equal(changed[0], pictures[0])
    torch.testing.assert_close(changed[1:2], BlurJpeg().apply(pictures[1:2], drawn[1:2], PHOTO_SIDE))
    assert torch.equal(changed[2], pictures[2].flip(-1))
    never = BlurJpeg(probability=0.0).apply(pictures, drawn, PHOTO_SIDE)
    assert torch.equal(never[1], pictures[1])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: RotateShiftMirror(degrees=200), "option degrees: 200 is not within 0 to 180"),
        (lambda: RotateShiftMirror(shift=-0.1), r"option shift: -0\.1 is not within 0 to 1"),
        (lambda: BlurJpeg(probability=1.5), "not within 0 to 1"),
    ],
)
def test_options_out_of_range_are_refused(build: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build()
