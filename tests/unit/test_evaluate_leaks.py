"""What gives real and generated images away, and what only seems to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fruitgan.errors import DataError
from fruitgan.evaluation.leaks import Leak, find_leaks, inspect

Make = Callable[[int], Image.Image]


def photograph(seed: int, side_px: int = 32) -> Image.Image:
    random = np.random.default_rng(seed)
    pixels = random.normal(random.uniform(110, 140), random.uniform(18, 28), (side_px, side_px, 3))
    return Image.fromarray(np.clip(pixels, 1, 254).astype(np.uint8))


def stretched(seed: int) -> Image.Image:
    pixels = np.asarray(photograph(seed)).astype(float)
    pixels -= pixels.min()
    return Image.fromarray((pixels / pixels.max() * 255).astype(np.uint8))


def clipped(seed: int) -> Image.Image:
    pixels = np.asarray(photograph(seed)).astype(float)
    return Image.fromarray(np.clip((pixels - 128) * 5 + 128, 0, 255).astype(np.uint8))


def leaks(folder: Path, fake: Make, real: Make, count: int = 20, suffixes: tuple[str, str] = (".png", ".png")) -> list[Leak]:
    paths, generated = [], []
    for kind, make, suffix, first in (("fake", fake, suffixes[0], 0), ("real", real, suffixes[1], 1000)):
        (folder / kind).mkdir()
        for i in range(count):
            paths.append(folder / kind / f"{i}{suffix}")
            make(first + i).save(paths[-1])
            generated.append(kind == "fake")
    return list(find_leaks(list(inspect(paths, generated))))


def test_two_kinds_made_alike_have_no_leaks(tmp_path: Path) -> None:
    assert leaks(tmp_path, photograph, photograph) == []


@pytest.mark.parametrize(
    ("fake", "kind", "words"),
    [
        (lambda seed: photograph(seed, 40), "size", "40 x 40 px, real ones 32 x 32 px"),
        (lambda seed: photograph(seed).convert("L"), "mode", "generated images are L, real ones RGB"),
        (stretched, "stretch", "100% of the generated images reach from 0 to 255"),
    ],
)
def test_what_one_kind_alone_has_is_a_leak(tmp_path: Path, fake: Make, kind: str, words: str) -> None:
    found = leaks(tmp_path, fake, photograph)
    assert [leak.kind for leak in found] == [kind]
    assert words in found[0].detail
    assert found[0].spoils_detector


def test_stretched_real_images_are_told_as_such(tmp_path: Path) -> None:
    (found,) = leaks(tmp_path, photograph, stretched)
    assert "of the real images reach" in found.detail


def test_pictures_full_of_black_and_white_are_not_taken_for_stretched(tmp_path: Path) -> None:
    assert leaks(tmp_path, clipped, photograph) == []


def test_another_format_is_a_leak(tmp_path: Path) -> None:
    (found,) = leaks(tmp_path, photograph, photograph, suffixes=(".png", ".jpg"))
    assert (found.kind, found.spoils_detector) == ("format", True)
    assert "PNG" in found.detail
    assert "JPEG" in found.detail


def test_sizes_of_one_mixture_are_no_leak(tmp_path: Path) -> None:
    def mixed(seed: int) -> Image.Image:
        return photograph(seed, 30 + seed % 7)

    assert leaks(tmp_path, mixed, mixed) == []


def test_copies_across_are_named_and_few_of_them_spoil_nothing(tmp_path: Path) -> None:
    (found,) = leaks(tmp_path, lambda seed: photograph(1000 if seed == 3 else seed), photograph, count=30)
    assert (found.kind, found.spoils_detector) == ("identical-files", False)
    assert "1 of 30 generated images is the very same file as a real one, such as 3.png and 0.png" in found.detail


def test_many_copies_spoil_the_detector_and_other_bytes_are_seen_through(tmp_path: Path) -> None:
    def copy(seed: int) -> Image.Image:
        picture = photograph(1000 + seed if seed < 5 else seed)
        picture.info["dpi"] = (72, 72)
        return picture

    found = leaks(tmp_path, copy, photograph, suffixes=(".bmp", ".png"))
    assert [(leak.kind, leak.spoils_detector) for leak in found if leak.kind != "format"] == [("identical-pixels", True)]


def test_repeated_images_of_one_kind_are_told_but_spoil_nothing(tmp_path: Path) -> None:
    (found,) = leaks(tmp_path, lambda seed: photograph(min(seed, 17)), photograph)
    assert (found.kind, found.spoils_detector) == ("repeated-images", False)
    assert "2 of 20 generated images repeat another one" in found.detail


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "torn.png"
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"torn\.png: a damaged"):
        list(inspect([path], [True]))
