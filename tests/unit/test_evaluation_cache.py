"""Features are computed once for a file's content, and only what is sound comes out of the cache."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from picture_files import write_noise
from PIL import Image
from torch import Tensor

from fruitgan.cache import CACHE_LIMITS_BYTES
from fruitgan.errors import DataError
from fruitgan.images import Pixels
from fruitgan.measures.contracts import Features
from fruitgan.measures.features import extract
from fruitgan.progress import Event


class Counting(Features):
    """The mean of each channel, and how many pictures it was asked for."""

    name = "counting"
    dimensions = 3
    resize = "none"

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def prepare(self, pixels: Pixels) -> Pixels:
        return pixels

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.mean((2, 3))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    return write_noise(tmp_path, [(9, 11)] * 6)


def test_a_content_is_computed_once_whatever_its_name_and_folder(pictures: list[Path], tmp_path: Path) -> None:
    backend = Counting()
    first = extract(backend, pictures[:4])
    moved = tmp_path / "elsewhere.png"
    moved.write_bytes(pictures[1].read_bytes())
    told: list[Event] = []
    again = extract(backend, [*pictures, moved, pictures[0]], tell=told.append)
    assert backend.seen == 6
    assert (told[-1].done, told[-1].total) == (8, 8)
    assert np.array_equal(again.values[:4], first.values)
    assert np.array_equal(again.values[6], first.values[1])
    assert np.array_equal(again.values[7], first.values[0])
    means = [np.array(Image.open(path)).mean((0, 1)) / 255 for path in pictures]
    assert np.allclose(again.values[:6], means, atol=1e-6)


@pytest.mark.parametrize(("field", "value"), [("version", "2"), ("resize", "other"), ("name", "another")])
def test_another_version_resize_or_name_is_computed_anew(pictures: list[Path], field: str, value: str) -> None:
    extract(Counting(), pictures)
    other = Counting()
    setattr(other, field, value)
    extract(other, pictures)
    assert other.seen == 6


def test_a_damaged_file_counts_as_absent_and_is_replaced(pictures: list[Path], own_cache: Path) -> None:
    true = extract(Counting(), pictures)
    (file,) = own_cache.rglob("*.safetensors")
    damaged = bytearray(file.read_bytes())
    damaged[-40] ^= 1
    file.write_bytes(bytes(damaged))
    backend, repaired = Counting(), Counting()
    assert np.array_equal(extract(backend, pictures).values, true.values)
    extract(repaired, pictures)
    assert (backend.seen, repaired.seen) == (6, 0)


def test_a_cache_that_cannot_be_written_is_no_failure_and_without_pictures_there_is_none(
    pictures: list[Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract(Counting(), []).values.shape == (0, 3)
    assert not own_cache.exists()
    monkeypatch.setenv("FRUITGAN_CACHE", str(pictures[0]))
    assert len(extract(Counting(), pictures)) == 6


def test_an_image_that_cannot_be_read_or_decoded_is_named(pictures: list[Path], tmp_path: Path) -> None:
    pictures[3].write_bytes(pictures[3].read_bytes()[:60])
    with pytest.raises(DataError, match=r"3\.png"):
        extract(Counting(), pictures)
    with pytest.raises(DataError, match="absent"):
        extract(Counting(), [tmp_path / "absent.png"])


def test_above_the_limit_the_files_used_longest_ago_go_first_whatever_the_backend(
    pictures: list[Path], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(Counting(), pictures[:1])
    (old,) = own_cache.rglob("*.safetensors")
    os.utime(old, (1e9, 1e9))
    extract(Counting(), pictures[1:2])  # which reads the old one, and so uses it
    assert old.stat().st_mtime > 1e9
    kept = set(own_cache.rglob("*.safetensors"))
    for age, file in enumerate(sorted(kept, key=lambda file: file == old)):
        os.utime(file, (1e9 + age, 1e9 + age))
    monkeypatch.setitem(CACHE_LIMITS_BYTES, "features", 2 * old.stat().st_size)
    other = Counting()
    other.name = "another"
    extract(other, pictures[:1])
    assert len(kept & set(own_cache.rglob("*.safetensors"))) == 1
    assert old.exists()
