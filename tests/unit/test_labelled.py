"""Reading a dataset of real and generated pictures, with its manifest and without."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from picture_files import pixels_of, save_noise
from PIL import Image

from fruitgan.data.groups import content_sha256
from fruitgan.data.labelled import (
    HEADER,
    MANIFEST,
    UNFINISHED,
    ManifestRow,
    manifest_bytes,
    read_dataset,
    read_folders,
    read_manifest,
)
from fruitgan.errors import DataError
from fruitgan.files import file_sha256


def row(root: Path, file: str, label: str) -> ManifestRow:
    bundle = "b" if label == "generated" else ""
    return ManifestRow(file, label, f"testA/{file[-5:]}", "test", f"group {file[-5]}", file_sha256(root / file), bundle)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two generated and two real pictures, with a manifest."""
    root = tmp_path / "dataset"
    for number in range(2):
        save_noise(root / f"predicted/{number}.png", seed=number)
        save_noise(root / f"origins/{number}.png", seed=10 + number)
    write_manifest(root)
    return root


def rows_of(root: Path) -> list[ManifestRow]:
    labels = {"predicted": "generated", "origins": "real"}
    return [row(root, f"{folder}/{number}.png", label) for folder, label in labels.items() for number in range(2)]


def write_manifest(root: Path, rows: list[ManifestRow] | None = None) -> None:
    (root / MANIFEST).write_bytes(manifest_bytes(rows_of(root) if rows is None else rows))


def test_a_dataset_with_a_manifest_has_its_groups_splits_and_sources(dataset: Path) -> None:
    found = read_dataset(dataset)
    assert found.has_manifest
    assert found.warnings == ()
    assert [(image.path.relative_to(dataset).as_posix(), image.generated) for image in found.images] == [
        ("predicted/0.png", True),
        ("predicted/1.png", True),
        ("origins/0.png", False),
        ("origins/1.png", False),
    ]
    assert {(image.group, image.split, image.source) for image in found.images} == {
        ("group 0", "test", "testA/0.png"),
        ("group 1", "test", "testA/1.png"),
    }


def test_a_manifest_survives_the_round_trip_whatever_names_there_are(tmp_path: Path) -> None:
    sources = ['a,"b".jpg', "line\nbreak.jpg", "café.jpg", os.fsdecode(b"not utf-8 \xff.jpg"), " "]
    rows = tuple(ManifestRow(f"predicted/{n}.png", "real", source, "train", "g", "s", "") for n, source in enumerate(sources))
    (tmp_path / MANIFEST).write_bytes(manifest_bytes(rows))
    assert read_manifest(tmp_path / MANIFEST) == rows
    assert (tmp_path / MANIFEST).read_bytes().startswith(b"file,label,source,split,group,sha256,bundle\n")


def test_a_manifest_that_went_through_a_spreadsheet_is_read(dataset: Path) -> None:
    path = dataset / MANIFEST
    lines = path.read_text().splitlines()
    path.write_bytes(("\ufeff" + "\r\n".join(f"{line},note" for line in lines) + "\r\n\r\n").encode())
    assert read_manifest(path) == tuple(rows_of(dataset))


def test_bare_folders_are_grouped_by_their_own_pixels_and_the_rest_is_said(dataset: Path) -> None:
    (dataset / MANIFEST).unlink()
    found = read_dataset(dataset)
    assert not found.has_manifest
    assert found.images[0].group == content_sha256(pixels_of(dataset / "predicted/0.png"))
    assert len({image.group for image in found.images}) == 4
    assert {(image.split, image.source) for image in found.images} == {("", "")}
    assert len(found.warnings) == 1
    assert "cannot be checked" in found.warnings[0]


def test_the_same_and_nearly_the_same_pictures_of_bare_folders_are_one_group_and_it_is_said(dataset: Path) -> None:
    (dataset / MANIFEST).unlink()
    save_noise(dataset / "origins/other.bmp", seed=0)
    brighter = np.clip(pixels_of(dataset / "origins/0.png").astype(int) + 2, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).save(dataset / "origins/brighter.png")
    found = read_dataset(dataset)
    assert "nearly alike or of one source: 1" in found.warnings[-1]
    assert len({image.group for image in found.images}) == 4
    groups = {image.path.name: image.group for image in found.images if not image.generated}
    least = min(content_sha256(brighter), content_sha256(pixels_of(dataset / "origins/0.png")))
    assert groups["brighter.png"] == groups["0.png"] == least


def test_broken_files_in_bare_folders_are_named_and_left_out(dataset: Path) -> None:
    (dataset / MANIFEST).unlink()
    for number in range(5):
        (dataset / f"origins/torn{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = read_dataset(dataset)
    assert len(found.images) == 4
    assert "5 of 7 files left out" in found.warnings[0]
    assert "torn0.png" in found.warnings[0]
    assert "and 2 more" in found.warnings[0]


def test_two_folders_find_the_manifest_beside_them(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_folders(dataset / "predicted", dataset / "origins") == read_dataset(dataset)
    monkeypatch.chdir(dataset / "predicted")
    found = read_folders(Path(), Path("../origins"))
    assert found.has_manifest
    assert {image.group for image in found.images} == {"group 0", "group 1"}


def test_one_folder_may_be_known_and_the_other_bare(dataset: Path, tmp_path: Path) -> None:
    save_noise(tmp_path / "elsewhere/photo.png", seed=20)
    found = read_folders(dataset / "predicted", tmp_path / "elsewhere")
    assert not found.has_manifest
    assert [image.split for image in found.images] == ["test", "test", ""]
    assert found.images[0].group == "group 0"
    assert str(tmp_path / "elsewhere") in found.warnings[0]
    assert str(dataset / "predicted") not in found.warnings[0]
    save_noise(dataset / "more/x.png", seed=30)  # beside a manifest that does not speak of it
    found = read_folders(dataset / "predicted", dataset / "more")
    assert [image.split for image in found.images] == ["test", "test", ""]


def test_a_linked_folder_is_known_by_where_the_link_stands(dataset: Path, tmp_path: Path) -> None:
    (dataset / "predicted").rename(tmp_path / "store")
    (dataset / "predicted").symlink_to(tmp_path / "store", target_is_directory=True)
    assert read_dataset(dataset).has_manifest


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "predicted/1.png").unlink(), "predicted/1.png is missing"),
        (lambda root: save_noise(root / "origins/sub/0.png"), "sub/0.png is not named in it"),
        (lambda root: save_noise(root / "origins/1.png", seed=50), "another sha256"),
        (lambda root: (root / MANIFEST).write_text(""), "has no column 'file'"),
        (lambda root: (root / MANIFEST).write_text("file,label,source,split,sha256,bundle\n"), "has no column 'group'"),
        (lambda root: (root / MANIFEST).write_text(",".join(HEADER) + "\na,b\n"), "line 2: has not one cell for each column"),
        (lambda root: (root / MANIFEST).write_text(",".join(HEADER) + '\n"a'), "is no CSV file"),
    ],
)
def test_a_manifest_that_disagrees_with_the_folder_is_refused(dataset: Path, damage: object, message: str) -> None:
    assert callable(damage)
    damage(dataset)
    with pytest.raises(DataError, match=message):
        read_dataset(dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "fake"}, "the label 'fake' is neither generated nor real"),
        ({"split": ""}, "the split '' is neither train nor test"),
        ({"group": ""}, "the group is missing"),
        ({"file": "../0.png"}, "'../0.png' is no file of the dataset"),
        ({"file": "/0.png"}, "'/0.png' is no file of the dataset"),
        ({"file": "elsewhere/0.png"}, "predicted/0.png is not named in it"),
        ({"file": "predicted/1.png"}, "predicted/1.png stands there twice"),
        ({"label": "real"}, "calls predicted/0.png real"),
    ],
)
def test_a_line_that_cannot_be_is_refused(dataset: Path, change: dict[str, str], message: str) -> None:
    rows = rows_of(dataset)
    write_manifest(dataset, [replace(rows[0], **change), *rows[1:]])
    with pytest.raises(DataError, match=message):
        read_dataset(dataset)


def test_an_unfinished_export_is_refused_until_the_user_says_otherwise(dataset: Path) -> None:
    (dataset / MANIFEST).unlink()
    (dataset / UNFINISHED).write_text("{}")
    with pytest.raises(DataError, match="not finished"):
        read_dataset(dataset)
    (dataset / UNFINISHED).unlink()
    assert len(read_dataset(dataset).images) == 4


def test_missing_and_empty_folders_and_one_class_alone_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="not a folder"):
        read_dataset(dataset / MANIFEST)
    with pytest.raises(DataError, match="no such folder"):
        read_folders(dataset / "predicted", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no folder predicted"):
        read_dataset(tmp_path / "empty")
    with pytest.raises(DataError, match="holds no images, so there are no real ones"):
        read_folders(dataset / "predicted", tmp_path / "empty")
    with pytest.raises(DataError, match="holds no images, so there are no generated ones"):
        read_folders(tmp_path / "empty", dataset / "origins")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"none of 1 files .*a\.png"):
        read_folders(dataset / "predicted", tmp_path / "broken")


def test_swapped_folders_one_for_both_and_one_within_the_other_are_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"taken for generated images, but .* calls origins/0.png real"):
        read_folders(dataset / "origins", dataset / "predicted")
    with pytest.raises(DataError, match="the same folder"):
        read_folders(dataset / "predicted", dataset / "origins/../predicted")
    (tmp_path / "link").symlink_to(dataset / "predicted", target_is_directory=True)
    with pytest.raises(DataError, match="the same folder"):
        read_folders(tmp_path / "link", dataset / "predicted")
    with pytest.raises(DataError, match="lies in the other"):
        read_folders(dataset / "predicted", dataset)
