"""The dataset: every image decoded once, the same bytes whatever decodes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import write_noise
from PIL import Image

from fruitgan.data.image_dataset import ImageDataset
from fruitgan.errors import DataError, FruitganError
from fruitgan.progress import Progress


def test_squash_makes_every_image_a_square(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(20, 30), (8, 8), (64, 10)])
    dataset = ImageDataset.build(paths, load_size_px=16)
    assert len(dataset) == 3
    assert dataset.names == tuple(paths)
    for number, path in enumerate(paths):
        expected = np.asarray(Image.open(path).resize((16, 16), Image.Resampling.BICUBIC))
        assert np.array_equal(dataset.image(number), expected)


def test_the_filter_asked_for_is_used(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(20, 30)])
    dataset = ImageDataset.build(paths, load_size_px=16, resample=Image.Resampling.NEAREST)
    assert np.array_equal(dataset.image(0), np.asarray(Image.open(paths[0]).resize((16, 16), Image.Resampling.NEAREST)))


def test_cover_keeps_the_aspect(tmp_path: Path) -> None:
    dataset = ImageDataset.build(write_noise(tmp_path, [(20, 30), (60, 20), (5, 5), (7, 1000)]), load_size_px=10, fit="cover")
    assert [dataset.image(number).shape[:2] for number in range(4)] == [(10, 15), (30, 10), (10, 10), (10, 1429)]


def test_bytes_and_order_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(10 + number, 40 - number) for number in range(30)])
    datasets = [ImageDataset.build(paths, load_size_px=12, fit="cover", workers=workers) for workers in (1, 7)]
    assert np.array_equal(datasets[0].flat, datasets[1].flat)
    assert datasets[0].fingerprint == datasets[1].fingerprint


def test_memory_map_holds_the_same(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(20, 30), (9, 9)])
    mapped = ImageDataset.build(paths, load_size_px=8, fit="cover", memory_map=tmp_path / "bank.bin")
    assert isinstance(mapped.flat, np.memmap)
    assert mapped.fingerprint == ImageDataset.build(paths, load_size_px=8, fit="cover").fingerprint
    assert mapped.gather(np.array([0]), np.zeros((1, 2))).shape == (1, 8, 8, 3)


def test_memory_map_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FruitganError, match=r"nowhere.bank\.bin: cannot be written"):
        ImageDataset.build(write_noise(tmp_path, [(9, 9)]), load_size_px=8, memory_map=tmp_path / "nowhere" / "bank.bin")


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
    assert np.array_equal(dataset.image(1), np.asarray(Image.open(paths[2])))


def test_nothing_but_broken_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"none of 1 files .*a\.png: not an image"):
        ImageDataset.build([tmp_path / "a.png"], load_size_px=9)
    with pytest.raises(DataError, match="no images"):
        ImageDataset.build([], load_size_px=9)


def test_gather_takes_squares_where_the_window_says(tmp_path: Path) -> None:
    dataset = ImageDataset.build(write_noise(tmp_path, [(10, 30), (25, 10), (10, 10)]), load_size_px=10, fit="cover")
    indices = np.array([0, 1, 2, 0, 0])
    window = np.array([[0.5, 0.0], [0.999, 0.5], [0.7, 0.7], [0.0, 0.999], [0.0, 0.5]])
    batch = dataset.gather(indices, window)
    assert batch.dtype == np.uint8
    assert np.array_equal(batch[0], dataset.image(0)[:, :10])
    assert np.array_equal(batch[1], dataset.image(1)[-10:])
    assert np.array_equal(batch[2], dataset.image(2))
    assert np.array_equal(batch[3], dataset.image(0)[:, -10:])
    assert np.array_equal(batch[4], dataset.image(0)[:, 10:20])


def test_every_place_of_a_window_is_as_likely(tmp_path: Path) -> None:
    dataset = ImageDataset.build(write_noise(tmp_path, [(4, 7)]), load_size_px=4, fit="cover")
    draws = (np.arange(400) + 0.5) / 400
    batch = dataset.gather(np.zeros(400, dtype=np.int64), np.stack([draws, draws], axis=1))
    lefts = [next(left for left in range(4) if np.array_equal(one, dataset.image(0)[:, left : left + 4])) for one in batch]
    assert np.bincount(lefts).tolist() == [100, 100, 100, 100]


def test_gather_of_squares_ignores_the_window_and_copies(tmp_path: Path) -> None:
    dataset = ImageDataset.build(write_noise(tmp_path, [(9, 20), (20, 9)]), load_size_px=8)
    batch = dataset.gather(np.array([1, 0, 1]), np.full((3, 2), 0.9))
    assert np.array_equal(batch, np.stack([dataset.image(1), dataset.image(0), dataset.image(1)]))
    batch[:] = 0
    assert dataset.flat.any()


def test_progress_counts_every_file(tmp_path: Path) -> None:
    seen: list[Any] = []
    ImageDataset.build(write_noise(tmp_path, [(9, 9)] * 4), load_size_px=8, tell=seen.append)
    assert seen == [Progress("decoding", done, 4) for done in (1, 2, 3, 4)]
