"""The check of data: what a set holds, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from picture_files import noise
from PIL import Image

from fruitgan.data_job import CheckSettings, check
from fruitgan.errors import DataError
from fruitgan.progress import Event, Progress


def put(path: Path, index: int, size: tuple[int, int] = (80, 80), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(size[1], size[0], index)).convert(mode).save(path)
    return path


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    """A folder in the CycleGAN layout with nothing wrong but that it is small."""
    for number, split in enumerate(("trainA", "trainB", "testA", "testB")):
        for index in range(20 if split.startswith("train") else 3):
            put(tmp_path / "set" / split / f"{index}.png", 100 * number + index)
    return tmp_path / "set"


def test_healthy_data_have_no_problems(healthy: Path) -> None:
    seen: list[Event] = []
    result = check(CheckSettings(data=str(healthy)), seen.append)
    assert result.problems == ()
    assert result.duplicates == ()
    assert [(report.split, report.domain, report.images) for report in result.splits] == [
        ("train", "a", 20),
        ("train", "b", 20),
        ("test", "a", 3),
        ("test", "b", 3),
    ]
    report = result.splits[0]
    assert (report.width_px, report.height_px, report.distinct) == ((80, 80), (80, 80), 20)
    assert (report.formats, report.modes) == ({"PNG": 20}, {"RGB": 20})
    assert Progress("looking at train a", 20, 20) in seen


def test_broken_files_are_named(healthy: Path) -> None:
    broken = healthy / "trainA" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 cut")
    (healthy / "trainA" / "text.png").write_text("no picture")
    result = check(CheckSettings(data=str(healthy)))
    report = result.splits[0]
    assert (report.files, report.images) == (21, 20)
    assert [Path(file.path).name for file in report.broken] == ["broken.jpg"]
    assert [(Path(remark.path).name, remark.reason) for remark in result.skipped] == [("text.png", "not an image")]
    assert result.problems[0] == "a: left out 1 not an image (text.png)"


def test_copies_are_counted_and_those_of_a_test_image_in_training_are_leaks(healthy: Path) -> None:
    put(healthy / "trainA" / "same.bmp", 200)  # the content of testA/0.png in another format
    put(healthy / "trainA" / "again.png", 5)
    put(healthy / "trainB" / "other.png", 7)
    result = check(CheckSettings(data=str(healthy)))
    assert (result.leaks, result.in_both_domains) == (1, 1)
    assert (result.splits[0].images, result.splits[0].distinct) == (22, 21)
    copies = {tuple(sorted(path.name for path in duplicates.files)): duplicates.splits for duplicates in result.duplicates}
    assert copies == {
        ("0.png", "same.bmp"): ("train a", "test a"),
        ("5.png", "again.png"): ("train a", "train a"),
        ("7.png", "other.png"): ("train a", "train b"),
    }
    assert any("copies of training images" in problem for problem in result.problems)


def test_tiny_grey_and_transparent_images_are_found(healthy: Path) -> None:
    put(healthy / "trainA" / "tiny.png", 50, size=(20, 90))
    put(healthy / "trainA" / "grey.png", 51, mode="L")
    put(healthy / "trainA" / "clear.png", 52, mode="RGBA")
    result = check(CheckSettings(data=str(healthy)))
    report = result.splits[0]
    assert [path.name for path in report.tiny] == ["tiny.png"]
    assert [path.name for path in report.greyscale] == ["grey.png"]
    assert any("greyscale" in note for note in result.notes)
    assert not any("greyscale" in problem for problem in result.problems)
    assert report.tally.transparent == 1
    assert report.modes == {"RGB": 21, "L": 1, "RGBA": 1}
    assert (report.width_px, report.height_px) == ((20, 80), (80, 90))


def test_a_domain_without_a_readable_image_is_an_error(healthy: Path) -> None:
    for path in (healthy / "trainB").iterdir():
        path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"the domain 'b' has no image that can be decoded; .*: a damaged or truncated image"):
        check(CheckSettings(data=str(healthy)))
