"""Rotation, shift and mirroring against a naive loop over pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fruitgan.data.augment.detectors import RotateShiftMirror
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


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="option degrees: 200 is not within 0 to 180"):
        RotateShiftMirror(degrees=200)
    with pytest.raises(UsageError, match=r"option shift: -0\.1 is not within 0 to 1"):
        RotateShiftMirror(shift=-0.1)
