"""`fruitgan data split`: a test split by content, near-duplicates on one side, links or copies, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from picture_files import pixels_of, save_picture, smooth
from PIL import Image

from fruitgan.cli import main
from fruitgan.data.sources import folder_source
from fruitgan.data_job import SplitSettings, split
from fruitgan.errors import DataError, FruitganError, UsageError

COUNT = 24


@pytest.fixture
def fruit(tmp_path: Path) -> Path:
    """Apples and oranges in two folders, and of each apple 0 to 3 a smaller copy as JPEG."""
    for number in range(2 * COUNT):
        domain, index = divmod(number, COUNT)
        path = tmp_path / "fruit" / ("apples", "oranges")[domain] / f"{index // 10}" / f"{index}.png"
        save_picture(path, smooth(number))
        if number < 4:
            Image.open(path).resize((48, 48)).save(path.with_name(f"copy-{index}.jpg"), quality=90)
    return tmp_path / "fruit"


def placed(out: Path) -> dict[str, str]:
    """The part of the split in which each image of the first domain lies, by its place in it."""
    parts = {part: list((out / part).rglob("*.*")) for part in ("trainA", "testA")}
    return {str(path.relative_to(out / part)): part for part, paths in parts.items() for path in paths}


def test_every_image_is_linked_to_once_and_near_duplicates_lie_together(fruit: Path) -> None:
    (fruit / "apples" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = split(SplitSettings(folder=fruit, out=fruit.parent / "out", test_fraction=0.4))
    apples = placed(result.out)
    assert result.domains == ("apples", "oranges")
    assert len(apples) == COUNT + 4
    assert result.images == {part: sum(1 for path in (result.out / part).rglob("*.*")) for part in result.images}
    assert sum(result.images.values()) == 2 * COUNT + 4
    assert 3 <= result.images["testA"] <= 20
    assert (result.groups, result.grouped) == (4, 8)
    for index in range(4):
        assert apples[str(Path("0", f"{index}.png"))] == apples[str(Path("0", f"copy-{index}.jpg"))]
    assert [Path(broken.path).name for broken in result.broken] == ["broken.png"]
    link = result.out / apples["0/5.png"] / "0" / "5.png"
    assert link.is_symlink()
    assert np.array_equal(pixels_of(link), smooth(5))
    source = folder_source(result.out)
    assert (len(source.a.train), len(source.b.test)) == (result.images["trainA"], result.images["testB"])


def test_the_split_hangs_on_the_pixels_alone(fruit: Path) -> None:
    one = placed(split(SplitSettings(folder=fruit, out=fruit.parent / "one")).out)
    for number, path in enumerate(sorted((fruit / "apples").rglob("*.*"))):
        path.rename(path.with_name(f"{path.stem}-{number}{path.suffix}"))
    other = placed(split(SplitSettings(data_a=fruit / "apples", data_b=fruit / "oranges", out=fruit.parent / "other")).out)
    tested = {Path(place).stem.rpartition("-")[0] for place, part in other.items() if part == "testA"}
    assert tested == {Path(place).stem for place, part in one.items() if part == "testA"}


def test_a_picture_of_both_domains_is_on_one_side_and_each_domain_has_both_sides(tmp_path: Path) -> None:
    for domain, indices in (("a", range(4)), ("b", range(2, 6))):
        for index in indices:
            save_picture(tmp_path / "data" / domain / f"{index}.png", smooth(index))
    for number, fraction in enumerate((0.001, 0.3, 0.7, 0.999)):
        result = split(SplitSettings(folder=tmp_path / "data", out=tmp_path / str(number), test_fraction=fraction, copy=True))
        assert all(result.images.values()), fraction
        for index in (2, 3):
            parts = {path.relative_to(result.out).parts[0][:-1] for path in result.out.rglob(f"{index}.png")}
            assert len(parts) == 1
        assert not any(path.is_symlink() for path in result.out.rglob("*"))


def test_frames_of_one_scene_stay_together_and_large_groups_are_no_likelier_tested(tmp_path: Path) -> None:
    tested = 0
    for scene in range(8):
        folder, frame = tmp_path / f"{scene}", smooth(scene, 64, 64, 40, 210)
        for number in range(15):
            save_picture(folder / "a" / f"{number}.png", frame + np.uint8(number))
        for index in range(6):
            save_picture(folder / "a" / f"other-{index}.png", smooth(100 + index))
            save_picture(folder / "b" / f"{index}.png", smooth(200 + index))
        result = split(SplitSettings(folder=folder, out=tmp_path / f"out-{scene}"))
        frames = [path for path in result.out.rglob("*.png") if path.stem.isdigit() and path.parent.name.endswith("A")]
        parts = {path.parent.name for path in frames}
        assert len(parts) == 1
        tested += parts == {"testA"}
    assert tested <= 3  # by the least hash of 15 frames it would be seven


def test_what_cannot_be_split_is_refused_and_leaves_nothing(fruit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = fruit.parent / "out"
    with pytest.raises(UsageError, match="between 0 and 1"):
        SplitSettings(folder=fruit, out=out, test_fraction=1.0)
    with pytest.raises(UsageError, match="not both"):
        SplitSettings(folder=fruit, data_a=fruit, out=out)
    with pytest.raises(UsageError, match="is there already"):
        split(SplitSettings(folder=fruit, out=fruit))
    with pytest.raises(DataError, match="0 folders"):
        split(SplitSettings(folder=fruit / "apples" / "0", out=out))
    done = split(SplitSettings(folder=fruit, out=fruit.parent / "done"))
    with pytest.raises(DataError, match="a test split already"):
        split(SplitSettings(folder=done.out, out=out))
    save_picture(fruit.parent / "alike" / "a" / "only.png", smooth(0))
    (fruit / "oranges").rename(fruit.parent / "alike" / "b")
    with pytest.raises(DataError, match="nearly alike"):
        split(SplitSettings(folder=fruit.parent / "alike", out=out))
    (fruit.parent / "alike" / "b").rename(fruit / "oranges")

    def without_privilege(*_: object) -> None:
        raise OSError(22, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", without_privilege)
    with pytest.raises(FruitganError, match="--copy"):
        split(SplitSettings(folder=fruit, out=out))
    assert sorted(path.name for path in fruit.parent.iterdir()) == ["alike", "done", "fruit"]


def test_the_command_says_what_it_did_and_its_folder_is_data(fruit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = fruit.parent / "pear2plum"
    out.mkdir()  # an empty folder is in nobody's way
    assert main(["data", "split", str(fruit), "--out", str(out), "--copy", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value.keys() == {"out", "domains", "images", "groups", "grouped", "broken", "seconds"}
    assert main(["data", "check", str(out), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["leaks"] == 0
    assert [part["images"] for part in checked["splits"]] == list(value["images"].values())
    assert main(["data", "split", str(fruit), "--out", str(out)]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["data", "split", "--out", str(out / "x")]) == 2
    assert main(["data", "split", str(fruit), "--out", str(fruit.parent / "again")]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines()[1].split() == ["split", "domain", "images"]
    assert "8 images are in 4 groups" in output.err
