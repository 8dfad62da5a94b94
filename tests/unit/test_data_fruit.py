"""Drawn fruit: seeded, of any size, and such that apples are apples and oranges are orange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_files import pixels_of
from PIL import Image

from fruitgan.demo.dataset import DrawSettings, draw
from fruitgan.demo.fruit import KINDS, Kind, Shape, seen
from fruitgan.demo.fruit import draw as draw_one
from fruitgan.errors import UsageError
from fruitgan.images import Pixels, resize
from fruitgan.progress import Event, Progress

APPLE_SHAPE = Shape(hollow_depth=0.5, hollow_width=0.09, base_depth=0.2, base_width=0.05, taper=0.1, stretch=0.05)
BALL = Shape(hollow_depth=0, hollow_width=0.1, base_depth=0, base_width=0.1, taper=0, stretch=0)
UP = np.array((0.2, 0.9, 0.3)) / np.sqrt(0.94)


def orange_share(pixels: Pixels) -> float:
    """The share of strongly coloured pixels whose hue is an orange's, 15 to 45 degrees."""
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(pixels).convert("HSV")).astype(float), -1, 0)
    strong = (saturation > 150) & (value > 90)
    degrees = hue / 255 * 360
    return float((strong & (degrees > 15) & (degrees < 45)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_seed_index_and_kind_decide_the_picture(kind: Kind) -> None:
    first = draw_one(kind, 32, 0, 0)
    assert np.array_equal(first, draw_one(kind, 32, 0, 0))
    other: Kind = "apple" if kind == "orange" else "orange"
    for changed in (draw_one(kind, 32, 1, 0), draw_one(kind, 32, 0, 1), draw_one(other, 32, 0, 0)):
        assert np.abs(first.astype(int) - changed).mean() > 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_scene_is_the_same_at_every_size(kind: Kind) -> None:
    for index in range(2):
        large = draw_one(kind, 128, 0, index)
        for size_px in (16, 33, 48):
            small = draw_one(kind, size_px, 0, index)
            assert (small.shape, small.dtype) == ((size_px, size_px, 3), np.uint8)
            assert np.abs(resize(large, size_px, size_px, Image.Resampling.BOX).astype(int) - small).mean() < 6
            assert small.std() > 5


def test_oranges_are_orange_apples_are_not_and_backgrounds_vary() -> None:
    drawn = {kind: [draw_one(kind, 32, 0, index) for index in range(12)] for kind in KINDS}
    shares = {kind: [orange_share(pixels) for pixels in pictures] for kind, pictures in drawn.items()}
    assert np.median(shares["orange"]) > 2 * np.median(shares["apple"])
    assert np.mean(shares["orange"]) > np.mean(shares["apple"]) + 0.1
    assert np.array([pixels[0, 0] for pixels in drawn["apple"]], dtype=float).std(axis=0).min() > 25


@pytest.mark.parametrize("shape", [BALL, APPLE_SHAPE])
def test_normals_are_across_the_surface(shape: Shape) -> None:
    count = 401
    x = ((np.arange(count) - count // 2) / 200).astype(np.float32)[None, :]
    surface = seen(shape, UP, x, -x.T, 1 / 200)
    nx, ny, nz = np.moveaxis(surface.normal, -1, 0)
    assert np.allclose(nx**2 + ny**2 + nz**2, 1, atol=1e-4)
    # Where the surface faces the viewer its depth changes as the normal says.
    down, right = np.gradient(surface.depth, 1 / 200)
    facing = (nz > 0.5) & (surface.share > 0.99)
    assert facing.sum() > 20_000
    assert np.median(np.abs(right[facing] + nx[facing] / nz[facing])) < 0.02
    assert np.median(np.abs(-down[facing] + ny[facing] / nz[facing])) < 0.02


def test_a_drawn_folder_is_whole_and_its_test_images_do_not_depend_on_the_others(tmp_path: Path) -> None:
    for name, count in (("one", 2), ("two", 1)):
        result = draw(DrawSettings(out=tmp_path / name, train_count=count, test_count=1, size_px=16, seed=5))
        assert result.images == {"trainA": count, "trainB": count, "testA": 1, "testB": 1}
    found = {path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*.png")}
    train = {
        f"train{letter}/{kind}-0000{number}.png" for letter, kind in (("A", "apple"), ("B", "orange")) for number in (0, 1)
    }
    assert found == {"testA/apple-00000.png", "testB/orange-00000.png", *train}
    for file in ("testA/apple-00000.png", "trainB/orange-00000.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert np.array_equal(pixels_of(tmp_path / "one/trainB/orange-00001.png"), draw_one("orange", 16, 5, 1))
    assert (tmp_path / "one/testA/apple-00000.png").read_bytes() != (tmp_path / "one/trainA/apple-00000.png").read_bytes()


def test_an_interrupted_drawing_leaves_nothing_and_a_folder_in_the_way_is_left_alone(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 2:
            raise KeyboardInterrupt

    settings = DrawSettings(out=tmp_path / "out", train_count=2, test_count=0, size_px=16)
    with pytest.raises(KeyboardInterrupt):
        draw(settings, stop)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(UsageError, match="out"):
        draw(settings)
    assert (tmp_path / "out" / "mine").read_text() == "precious"
