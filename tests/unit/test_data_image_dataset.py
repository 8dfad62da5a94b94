"""The image dataset: every image decoded once, the same bytes whatever decodes them; its cache is that or not there."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from picture_files import pixels_of, write_noise
from PIL import Image

from fruitgan import cache, files, machine
from fruitgan.data import image_dataset
from fruitgan.data.image_dataset import DecodeSettings, ImageDataset, cached_dataset, decoded_folder
from fruitgan.data.preprocessing import Preprocessing
from fruitgan.errors import DataError, Stopped
from fruitgan.progress import Event, Progress

SQUARES = DecodeSettings(load_size_px=9, resample=Image.Resampling.LANCZOS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.NEAREST])
def test_squash_makes_every_image_a_square_with_the_filter_asked_for(tmp_path: Path, resample: Image.Resampling) -> None:
    paths = write_noise(tmp_path, [(20, 30), (8, 8), (64, 10)])
    dataset = ImageDataset.build(paths, load_size_px=16, resample=resample)
    assert len(dataset) == 3
    assert dataset.names == tuple(paths)
    for number, path in enumerate(paths):
        assert np.array_equal(dataset.pixels[number], np.asarray(Image.open(path).resize((16, 16), resample)))


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
    pixels = pixels_of(paths[1])
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(paths[1])
    assert ImageDataset.build([renamed, paths[1]], load_size_px=9).fingerprint != first


def test_a_broken_file_is_named_and_counted_and_nothing_else_is_an_error(tmp_path: Path) -> None:
    paths = write_noise(tmp_path, [(9, 9), (9, 9), (9, 9)])
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    dataset = ImageDataset.build([*paths, text], load_size_px=9)
    assert dataset.names == (paths[0], paths[2])
    assert [path for path, _ in dataset.broken] == [paths[1], text]
    assert dataset.broken[1][1] == "not an image"
    assert np.array_equal(dataset.pixels[1], pixels_of(paths[2]))
    with pytest.raises(DataError, match=r"none of 1 files .*text\.jpg: not an image"):
        ImageDataset.build([text], load_size_px=9)
    with pytest.raises(DataError, match="no images"):
        ImageDataset.build([], load_size_px=9)


# The cache


def write_pictures(folder: Path) -> list[Path]:
    return write_noise(folder, [(12, 10 + number) for number in range(4)], seed=1)


def plain(paths: list[Path], making: DecodeSettings = SQUARES) -> ImageDataset:
    return ImageDataset.build(paths, load_size_px=making.load_size_px, how=making.how, resample=making.resample)


class Counting:
    """How many images were decoded."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, event: Event) -> None:
        assert isinstance(event, Progress)
        self.done = event.done

    def load(self, paths: list[Path], making: DecodeSettings = SQUARES, **more: Any) -> ImageDataset:
        self.done = 0
        dataset, note = cached_dataset(paths, making, tell=self, **more)
        assert note is None
        return dataset


def same(one: ImageDataset, other: ImageDataset) -> bool:
    about = [(dataset.names, dataset.broken, dataset.tally, dataset.fingerprint) for dataset in (one, other)]
    return np.array_equal(one.pixels, other.pixels) and about[0] == about[1]


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_the_second_time_nothing_is_decoded_and_the_dataset_is_the_same(tmp_path: Path, fit: Any) -> None:
    making = DecodeSettings(load_size_px=9, how=Preprocessing(fit=fit), resample=SQUARES.resample)
    paths, counting = write_pictures(tmp_path / "a"), Counting()
    first = counting.load(paths, making)
    assert counting.done == 4
    second = counting.load(paths, making)
    assert counting.done == 0
    assert same(first, plain(paths, making))
    assert same(second, plain(paths, making))
    assert isinstance(second.pixels, np.memmap)


def test_another_content_order_or_size_is_another_dataset(tmp_path: Path) -> None:
    paths, counting = write_pictures(tmp_path / "a"), Counting()
    counting.load(paths)
    about = paths[0].stat()
    pixels = pixels_of(paths[0])
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(paths[0])
    os.utime(paths[0], ns=(about.st_atime_ns, about.st_mtime_ns))  # the old time is no excuse
    assert same(counting.load(paths), plain(paths))
    assert counting.done == 4
    assert same(counting.load(paths[::-1]), plain(paths[::-1]))
    assert counting.done == 4
    for making in (
        DecodeSettings(load_size_px=8, resample=SQUARES.resample),
        DecodeSettings(load_size_px=9, how=Preprocessing(fit="crop"), resample=SQUARES.resample),
        DecodeSettings(load_size_px=9, resample=Image.Resampling.NEAREST),
    ):
        assert same(counting.load(paths, making), plain(paths, making))
        assert counting.done == 4


def test_broken_files_are_remembered_with_their_reasons_and_what_cannot_be_read_is_not(tmp_path: Path) -> None:
    paths, counting = write_pictures(tmp_path / "a"), Counting()
    paths[1].write_text("no picture")
    unread = [*paths, tmp_path / "missing.png"]
    assert counting.load(unread).broken == plain(unread).broken
    assert not decoded_folder().exists()
    assert counting.load(paths).broken == ((paths[1], "not an image"),)
    again = counting.load(paths)
    assert counting.done == 0
    assert same(again, plain(paths))
    assert again.names == (paths[0], *paths[2:])
    with pytest.raises(DataError, match=r"none of 1 files"):
        cached_dataset([paths[1]], SQUARES)
    assert len(list(decoded_folder().iterdir())) == 1


@pytest.mark.parametrize("name", ["pixels.bin", "about.json"])
def test_a_damaged_dataset_is_made_anew(tmp_path: Path, name: str) -> None:
    paths, counting = write_pictures(tmp_path / "a"), Counting()
    counting.load(paths)
    (file,) = decoded_folder().glob(f"*/{name}")
    file.write_bytes(file.read_bytes()[:-1])
    assert same(counting.load(paths), plain(paths))
    assert counting.done == 4
    counting.load(paths)
    assert counting.done == 0


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), Stopped("asked to", 143)])
def test_a_dataset_whose_making_was_interrupted_is_not_there(tmp_path: Path, reason: BaseException) -> None:
    paths = write_pictures(tmp_path / "a")

    def stop(event: Event) -> None:
        raise reason

    with pytest.raises(type(reason)):
        cached_dataset(paths, SQUARES, tell=stop)
    assert list(decoded_folder().iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_a_note_and_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_pictures(tmp_path / "a")
    (tmp_path / "cache").write_text("a file where the folder is to be")
    dataset, note = cached_dataset(paths, SQUARES)
    assert same(dataset, plain(paths))
    assert note is not None
    assert "cannot be written" in note
    assert "decoded again next time" in note


def test_a_full_disk_is_noticed_before_and_during_the_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_pictures(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
        dataset, note = cached_dataset(paths, SQUARES)
    assert same(dataset, plain(paths))
    assert note is not None
    assert "do not fit into" in note

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(image_dataset, "to_json", full)
        dataset, note = cached_dataset(paths, SQUARES)
    assert same(dataset, plain(paths))
    assert note is not None
    assert "no space left" in note
    assert list(decoded_folder().iterdir()) == []


def test_the_datasets_that_were_not_used_for_longest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_day = 24 * 3600  # what is younger stays on systems where folders cannot be locked
    paths, counting = write_pictures(tmp_path / "a"), Counting()
    orders = [paths, paths[::-1], [paths[1], paths[0], *paths[2:]]]
    for age, order in ((3 * a_day, orders[0]), (2 * a_day, orders[1])):
        before = set(decoded_folder().glob("*"))
        counting.load(order)
        (new,) = set(decoded_folder().glob("*")) - before
        os.utime(new, (new.stat().st_mtime - age,) * 2)
    monkeypatch.setitem(cache.CACHE_LIMITS_BYTES, "decoded", 5 * files.size_bytes(new) // 2)
    counting.load(orders[0])  # used again: now the other is the oldest
    counting.load(orders[2])
    assert len(list(decoded_folder().glob("*"))) == 2
    assert [counting.load(order).names and counting.done for order in (orders[0], orders[2])] == [0, 0]


def test_two_that_make_the_same_dataset_at_once_both_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_pictures(tmp_path / "a")

    def meanwhile(event: Event) -> None:
        if event == Progress("decoding", 1, 4):
            Counting().load(paths)

    dataset, note = cached_dataset(paths, SQUARES, tell=meanwhile)
    assert note is None
    assert same(dataset, plain(paths))
    assert len(list(decoded_folder().glob("*"))) == 1


def test_a_containers_limit_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    free = machine.spare_memory_bytes()
    assert free > 0
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 300\n")
    assert machine.spare_memory_bytes() > 1000
    (tmp_path / "memory.max").write_text("1000\n")
    assert machine.spare_memory_bytes() == 1000 - 500 + 300
    (tmp_path / "memory").mkdir()  # where version 1 of the limits keeps them
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("2000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("700\n")
    (tmp_path / "memory" / "memory.stat").write_text("cache 100\ninactive_file 40\n")
    assert machine.spare_memory_bytes() == 2000 - 700 + 40
