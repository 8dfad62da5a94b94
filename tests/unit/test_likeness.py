"""Which pictures count as the same, and which as nearly the same."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from picture_files import encoded, smooth
from PIL import Image

from fruitgan.data.groups import NEAR_BITS, content_sha256, near_groups, perceptual_hash
from fruitgan.images import Pixels, resize


def distance(one: Pixels, other: Pixels) -> int:
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


def through_jpeg(pixels: Pixels) -> Pixels:
    return np.array(Image.open(io.BytesIO(encoded(Image.fromarray(pixels), "JPEG", quality=60))))


def test_the_content_hash_knows_the_shape_and_every_pixel() -> None:
    pixels = smooth(0, 64, 64)
    assert content_sha256(pixels) == content_sha256(pixels.copy())
    assert content_sha256(pixels) == content_sha256(np.asfortranarray(pixels))
    assert content_sha256(pixels) != content_sha256(pixels.reshape(32, 128, 3))
    changed = pixels.copy()
    changed[5, 5, 1] ^= 1
    assert content_sha256(pixels) != content_sha256(changed)


@pytest.mark.parametrize("seed", range(5))
def test_scaling_encoding_and_brightness_leave_the_perceptual_hash_nearly_as_it_is(seed: int) -> None:
    pixels = smooth(seed, 64, 64)
    darker = (pixels * 0.8).astype(np.uint8)
    for like in (resize(pixels, 40, 50), through_jpeg(pixels), darker):
        assert distance(pixels, like) <= NEAR_BITS


def test_unlike_pictures_differ_in_about_half_of_the_bits() -> None:
    distances = [distance(smooth(one), smooth(other)) for one in range(12) for other in range(one)]
    assert min(distances) > 2 * NEAR_BITS
    assert 25 < np.mean(distances) < 39


def test_the_perceptual_hash_is_the_cosine_transforms_lowest_frequencies() -> None:
    """Against the definition, written as a matrix."""
    pixels = smooth(3, 32, 32)
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)
    place = np.arange(32)
    cosines: NDArray[np.float64] = np.cos(np.pi * np.outer(place, 2 * place + 1) / 64)
    cosines *= np.where(place == 0, np.sqrt(1 / 32), np.sqrt(2 / 32))[:, None]
    low = (cosines @ grey @ cosines.T)[:8, :8]
    low[0, 0] = 0
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert perceptual_hash(pixels) == int(bits, 2)


def test_a_flat_picture_has_a_hash_too() -> None:
    assert perceptual_hash(np.full((9, 7, 3), 40, np.uint8)) == perceptual_hash(np.full((300, 20, 3), 41, np.uint8))


def test_near_pictures_share_the_smallest_name_along_a_chain() -> None:
    hashes = {"d": 0b0, "c": 0b1111, "b": 0b1111_1111, "a": 2**63 - 1, "e": 0b1_1111_1111_1111}
    groups = near_groups(hashes.items())
    assert groups == {"d": "b", "c": "b", "b": "b", "a": "a", "e": "e"}


def test_groups_do_not_depend_on_the_order_and_one_content_may_come_twice() -> None:
    looks = [("x", 7), ("y", 0), ("z", 2**40 - 1), ("x", 7)]
    expected = {"x": "x", "y": "x", "z": "z"}
    assert near_groups(looks) == near_groups(looks[::-1]) == expected
    assert near_groups([]) == {}
