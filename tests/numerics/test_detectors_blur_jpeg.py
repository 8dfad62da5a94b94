"""Random blur and JPEG against scipy and Pillow, drawn by the caller alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fruitgan.data.augment.detectors import BlurJpeg
from fruitgan.errors import UsageError

SIDE = 48


def picture(seed: int = 0) -> Tensor:
    """Smooth shapes with some grain, as photographs have."""
    random = np.random.default_rng(seed)
    pixels = gaussian_filter(random.random((3, SIDE, SIDE)), (0, 4, 4), mode="wrap")
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) + random.normal(0, 0.02, pixels.shape)
    return torch.from_numpy(np.clip(pixels, 0, 1))[None]


def draws(blur: float | None = None, jpeg: float | None = None, mirrored: bool = False) -> Tensor:
    """What stands for these amounts, each a share of its range; None leaves the change out."""
    numbers = [0.9 if blur is None else 0.1, blur or 0.0, 0.9 if jpeg is None else 0.1, jpeg or 0.0, 0.2 if mirrored else 0.8]
    return torch.tensor([numbers], dtype=torch.float64)


def test_nothing_drawn_changes_nothing() -> None:
    assert torch.equal(BlurJpeg().apply(picture(), draws(), SIDE), picture())


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.6])
def test_the_blur_is_scipys_gaussian_of_the_drawn_width(share: float) -> None:
    blurred = BlurJpeg().apply(picture(), draws(blur=share), SIDE)[0].numpy()
    sigma = 3 * share
    expected = gaussian_filter(picture()[0].numpy(), (0, sigma, sigma), mode="mirror", radius=(0, 7, 7))
    np.testing.assert_allclose(blurred, expected, atol=1e-9)


@pytest.mark.parametrize(("share", "quality"), [(0.0, 30), (0.5, 65), (0.999, 100)])
def test_the_compression_is_near_pillows_at_the_drawn_quality(share: float, quality: int) -> None:
    coded = BlurJpeg().apply(picture(), draws(jpeg=share), SIDE)[0].permute(1, 2, 0).numpy()
    pixels = np.rint(picture()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=2)
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue()))) / 255
    loss = np.abs(expected - pixels / 255).mean()
    assert np.abs(coded - expected).mean() < 0.5 * loss + 0.003  # nearer to Pillow's result than that is to the picture


def test_each_picture_has_its_own_draw() -> None:
    pictures = torch.cat([picture(seed) for seed in range(3)])
    drawn = torch.cat([draws(), draws(blur=0.5, jpeg=0.2), draws(mirrored=True)])
    changed = BlurJpeg().apply(pictures, drawn, SIDE)
    assert torch.equal(changed[0], pictures[0])
    torch.testing.assert_close(changed[1:2], BlurJpeg().apply(pictures[1:2], drawn[1:2], SIDE))
    assert torch.equal(changed[2], pictures[2].flip(-1))


def test_a_probability_of_nothing_leaves_blur_and_compression_out() -> None:
    assert torch.equal(BlurJpeg(probability=0.0).apply(picture(), draws(blur=0.5, jpeg=0.2), SIDE), picture())
    with pytest.raises(UsageError, match="not within 0 to 1"):
        BlurJpeg(probability=1.5)
