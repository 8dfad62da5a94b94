"""Sources: what --data means, and where a test split comes from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from fruitgan.data.finder import image_files, images_below, left_out
from fruitgan.data.sources import find_source, folder_source, loose_source
from fruitgan.errors import DataError, UsageError


def fill(folder: Path, count: int, prefix: str = "image", suffix: str = ".png") -> Path:
    """Files of different content that begin as pictures do; sources look at no pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{prefix}{number:03}{suffix}").write_text(f"GIF89a {folder.name} {prefix} {number}")
    return folder


def names(paths: tuple[Path, ...]) -> list[str]:
    return [path.name for path in paths]


def test_four_folders_are_four_splits(tmp_path: Path) -> None:
    for split, count in (("trainA", 3), ("trainB", 4), ("testA", 1), ("testB", 2)):
        fill(tmp_path / "apple2orange" / split, count)
    source = folder_source(tmp_path / "apple2orange")
    assert source.name == "apple2orange"
    assert (source.a.name, source.b.name) == ("apple", "orange")
    assert [len(part) for part in (source.a.train, source.b.train, source.a.test, source.b.test)] == [3, 4, 1, 2]
    assert names(source.a.train) == ["image000.png", "image001.png", "image002.png"]


def test_domains_can_be_named(tmp_path: Path) -> None:
    fill(tmp_path / "set" / "trainA", 2)
    fill(tmp_path / "set" / "trainB", 2)
    assert folder_source(tmp_path / "set").a.name == "a"
    assert folder_source(tmp_path / "set", ("day", "night")).b.name == "night"
    with pytest.raises(UsageError, match="two different names"):
        folder_source(tmp_path / "set", ("day", "day"))


def test_a_missing_test_split_is_a_tenth_by_content_which_survives_renaming_copies_and_added_files(tmp_path: Path) -> None:
    for split in ("trainA", "trainB"):
        fill(tmp_path / "set" / split, 400)
    fill(tmp_path / "set" / "testB", 5)
    source = folder_source(tmp_path / "set")
    assert 20 <= len(source.a.test) <= 60
    assert len(source.a.train) + len(source.a.test) == 400
    assert not set(source.a.train) & set(source.a.test)
    assert (len(source.b.train), len(source.b.test)) == (400, 5)
    before = {path.read_text() for path in source.a.test}
    for path in list((tmp_path / "set" / "trainA").iterdir()):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
        path.rename(path.with_name(f"z{path.name}"))
    fill(tmp_path / "set" / "trainA", 100, prefix="new")
    source = folder_source(tmp_path / "set")
    after = {path.read_text() for path in source.a.test}
    assert before < after
    assert not after & {path.read_text() for path in source.a.train}


def test_a_small_folder_has_both_splits_and_a_single_image_is_for_training(tmp_path: Path) -> None:
    for count in range(1, 12):
        source = loose_source(fill(tmp_path / f"{count}" / "a", count), fill(tmp_path / f"{count}" / "b", count))
        for domain in (source.a, source.b):
            assert domain.train
            assert bool(domain.test) == (count > 1)


def test_loose_folders_give_their_names(tmp_path: Path) -> None:
    source = loose_source(fill(tmp_path / "cats", 3), fill(tmp_path / "dogs", 3))
    assert (source.name, source.a.name, source.b.name) == ("cats2dogs", "cats", "dogs")
    same = loose_source(fill(tmp_path / "x" / "images", 3), fill(tmp_path / "y" / "images", 3))
    assert (same.a.name, same.b.name) == ("a", "b")
    with pytest.raises(DataError, match="the same folder"):
        loose_source(tmp_path / "cats", tmp_path / "dogs" / ".." / "cats")


def test_images_are_found_by_content_below_sorted_and_the_rest_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "data"
    fill(root / "b", 1)
    fill(root / "a" / "deep", 1, suffix=".JPEG")
    fill(root, 1, prefix=".hidden")
    fill(root / ".cache", 1)
    fill(root, 1, prefix="no suffix", suffix="")
    Image.new("RGB", (4, 4)).save(root / "d.jpe", "JPEG")
    Image.new("RGB", (4, 4)).save(root / "e.tga")
    for name in ("1.txt", "2.txt", "3.txt", "text.jpg"):
        (root / name).write_text("no picture")
    fill(tmp_path / "elsewhere", 1)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "deep" / "loop").symlink_to(root)
    (root / "again").symlink_to(root / "b")
    (root / "gone.png").symlink_to("nowhere.png")
    found, skipped = images_below(root)
    names = ["a/deep/image000.JPEG", "b/image000.png", "d.jpe", "e.tga", "gone.png", "linked/image000.png", "no suffix000"]
    assert [path.relative_to(root).as_posix() for path in found] == names
    assert left_out("data", skipped) == (
        "data: left out 4 not an image (1.txt, 2.txt, 3.txt, ...); 2 a folder that was visited already (loop, again)"
    )
    assert len(skipped) == 4 + 2 + 2  # the hidden ones are counted
    assert image_files(root) == found


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        folder_source(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file: not a folder"):
        folder_source(tmp_path / "file")
    fill(tmp_path / "set" / "trainA", 1)
    with pytest.raises(DataError, match="has no folder trainB"):
        folder_source(tmp_path / "set")
    (tmp_path / "set" / "trainB").mkdir()
    with pytest.raises(DataError, match="trainB: holds no images"):
        folder_source(tmp_path / "set")
    with pytest.raises(DataError, match="holds no images"):
        loose_source(tmp_path / "set" / "trainA", tmp_path / "set" / "trainB")


def test_a_path_that_exists_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(DataError, match="FRUITGAN_OFFLINE"):
        find_source("horse2zebra")
    with pytest.raises(DataError, match="horse2zebra: no such folder"):
        find_source("./horse2zebra")
    fill(tmp_path / "horse2zebra" / "trainA", 2)
    fill(tmp_path / "horse2zebra" / "trainB", 2)
    for data in ("horse2zebra", "./horse2zebra", str(tmp_path / "horse2zebra")):
        assert find_source(data).a.name == "horse"


def test_one_form_of_data_is_needed_and_only_one(tmp_path: Path) -> None:
    for data, data_a, data_b in ((None, None, None), ("x", tmp_path, tmp_path), (None, tmp_path, None), (None, None, tmp_path)):
        with pytest.raises(UsageError, match="--data-a DIR and --data-b DIR"):
            find_source(data, data_a, data_b)


def test_test_images_alone_are_a_source_for_what_trains_nothing(tmp_path: Path) -> None:
    for split in ("testA", "testB"):
        fill(tmp_path / "cats2dogs" / split, 3)
    source = folder_source(tmp_path / "cats2dogs")
    assert [len(part) for part in (source.a.train, source.b.train, source.a.test, source.b.test)] == [0, 0, 3, 3]
    (tmp_path / "cats2dogs" / "testB").rename(tmp_path / "cats2dogs" / "trainB")
    with pytest.raises(DataError, match="has no folder trainA"):
        folder_source(tmp_path / "cats2dogs")


def test_two_folders_are_cut_unless_a_generator_was_trained_on_others(tmp_path: Path) -> None:
    cats, dogs = fill(tmp_path / "cats", 30), fill(tmp_path / "dogs", 30)
    sources = {name: find_source(None, cats, dogs, trained_on=name) for name in (None, "cats2dogs", "apple2orange")}
    assert sources[None] == sources["cats2dogs"]
    assert 0 < len(sources[None].a.test) < 30
    assert (len(sources["apple2orange"].a.train), len(sources["apple2orange"].a.test)) == (0, 30)
