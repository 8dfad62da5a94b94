"""The dataset: every image decoded once, the same bytes whatever decodes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_files import write_noise
from PIL import Image

from fruitgan.data.image_dataset import ImageDataset
from fruitgan.errors import DataError


def test_squash_makes_every_image_a_square(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(20, 30), (8, 8), (64, 10)])
    dataset = ImageDataset.build(paths, load_size_px=16)
    assert len(dataset) == 3
    assert dataset.names == tuple(paths)
    for number, path in enumerate(paths):
        expected = np.asarray(Image.open(path).resize((16, 16), Image.Resampling.BICUBIC))
        assert np.array_equal(dataset.pixels[number], expected)


def test_the_filter_asked_for_is_used(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(20, 30)])
    dataset = ImageDataset.build(paths, load_size_px=16, resample=Image.Resampling.NEAREST)
    assert np.array_equal(dataset.pixels[0], np.asarray(Image.open(paths[0]).resize((16, 16), Image.Resampling.NEAREST)))


def test_bytes_and_order_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(10 + number, 40 - number) for number in range(30)])
    datasets = [ImageDataset.build(paths, load_size_px=12, workers=workers) for workers in (1, 7)]
    assert np.array_equal(datasets[0].pixels, datasets[1].pixels)
    assert datasets[0].fingerprint == datasets[1].fingerprint


def test_fingerprint_is_of_pixels_and_not_of_names(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(9, 9), (9, 9)])
    first = ImageDataset.build(paths, load_size_px=9).fingerprint
    renamed = paths[0].rename(tmp_path / "other.png")
    assert ImageDataset.build([renamed, paths[1]], load_size_px=9).fingerprint == first
    assert ImageDataset.build([paths[1], renamed], load_size_px=9).fingerprint != first
    assert ImageDataset.build([renamed], load_size_px=9).fingerprint != first
    assert ImageDataset.build([renamed, paths[1]], load_size_px=8).fingerprint != first
    with Image.open(paths[1]) as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(paths[1])
    assert ImageDataset.build([renamed, paths[1]], load_size_px=9).fingerprint != first


def test_a_broken_file_is_named_and_counted(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(9, 9), (9, 9), (9, 9)])
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: len(whole) // 2])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    dataset = ImageDataset.build([*paths, text], load_size_px=9)
    assert dataset.names == (paths[0], paths[2])
    assert [path for path, _ in dataset.broken] == [paths[1], text]
    assert dataset.broken[1][1] == "not an image"
    assert np.array_equal(dataset.pixels[1], np.asarray(Image.open(paths[2])))


def test_nothing_but_broken_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"none of 1 files .*a\.png: not an image"):
        ImageDataset.build([tmp_path / "a.png"], load_size_px=9)
    with pytest.raises(DataError, match="no images"):
        ImageDataset.build([], load_size_px=9)
