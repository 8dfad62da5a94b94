"""Images that are known to be real or generated: the dataset folder of export-dataset, or two bare folders.

dataset/predicted/000000.png ...   generated
dataset/origins/000000.png ...     real
dataset/manifest.csv               a line a picture, see `ManifestRow`
dataset/dataset.json               what made it; read by people and by the next export alone
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path, PurePosixPath

from fruitgan.data.decode import decode
from fruitgan.data.finder import NAMED_FILES, images_below, left_out
from fruitgan.data.groups import Look, look_of, near_groups
from fruitgan.data.sources import must_be_folder
from fruitgan.errors import DataError, reading
from fruitgan.files import file_sha256
from fruitgan.parallel import in_order

PREDICTED = "predicted"
ORIGINS = "origins"
MANIFEST = "manifest.csv"
UNFINISHED = "dataset.unfinished.json"
"""Stands in the folder while an export is at work, and stays if it was stopped."""
LABELS: Mapping[bool, str] = {True: "generated", False: "real"}
SPLITS = ("train", "test")

Draw = Callable[[Sequence[Path], bool], Sequence[Path]]


@dataclass(frozen=True)
class LabelledImage:
    """One picture with its label and what must not be forgotten about it."""

    path: Path
    generated: bool
    group: str
    """Pictures of one group show one thing (a fake and its source, near-duplicates) and belong on one side of a split."""
    split: str
    """`train` or `test`: where its source lay when the generator was trained; empty if that is not known."""
    source: str
    """The file that it was made of, relative to the data; empty if that is not known."""


@dataclass(frozen=True)
class LabelledSet:
    """Both classes, the generated first, each sorted by path."""

    images: tuple[LabelledImage, ...]
    has_manifest: bool
    """Whether the groups and splits of all of them come from a manifest."""
    warnings: tuple[str, ...]
    """What a person should know, a sentence each."""


@dataclass(frozen=True)
class ManifestRow:
    """One line of the manifest; the columns are these, in this order."""

    file: str
    """Relative to the dataset folder, with `/`."""
    label: str
    """`generated` or `real`."""
    source: str
    """The source picture, relative to the data that were exported, with `/`."""
    split: str
    """`train` or `test`: which of the data's splits the source is of."""
    group: str
    """sha256 of the source's decoded pixels; near-duplicates have the smallest of theirs in common."""
    sha256: str
    """Of the file's bytes."""
    bundle: str
    """The hash of the weights that made it; empty for a real picture."""


HEADER = tuple(field.name for field in fields(ManifestRow))


def manifest_bytes(rows: Iterable[ManifestRow]) -> bytes:
    """The manifest as a file: UTF-8, a comma between the columns, one line feed after each line."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")  # a file's name need not be valid UTF-8


def read_manifest(path: Path) -> tuple[ManifestRow, ...]:
    """The lines of a manifest, in its order; further columns are ignored.

    Raises:
        DataError: it cannot be read, lacks a column, or has a line that cannot be (named by its number).
    """
    with reading(path):
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    rows: dict[str, ManifestRow] = {}
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if missing := [name for name in HEADER if name not in (reader.fieldnames or ())]:
            raise DataError(f"{path}: has no column {missing[0]!r}; its first line must name {','.join(HEADER)}")
        for cells in reader:
            if None in cells or None in cells.values():
                raise DataError(f"{path}, line {reader.line_num}: has not one cell for each column")
            row = ManifestRow(*(cells[name] for name in HEADER))
            if problem := _problem(row, rows):
                raise DataError(f"{path}, line {reader.line_num}: {problem}")
            rows[row.file] = row
    except csv.Error as error:
        raise DataError(f"{path}: is no CSV file ({error})") from error
    return tuple(rows.values())


def _problem(row: ManifestRow, before: Mapping[str, ManifestRow]) -> str | None:
    if row.file in before:
        return f"{row.file} stands there twice"
    parts = PurePosixPath(row.file).parts
    if not parts or PurePosixPath(row.file).is_absolute() or ".." in parts or "\\" in row.file or "\0" in row.file:
        return f"{row.file!r} is no file of the dataset"
    if row.label not in LABELS.values():
        return f"the label {row.label!r} is neither {' nor '.join(LABELS.values())}"
    if row.split not in SPLITS:
        return f"the split {row.split!r} is neither {' nor '.join(SPLITS)}"
    return None if row.group else "the group is missing"


def read_dataset(folder: Path) -> LabelledSet:
    """What `export-dataset` wrote, or any folder with `predicted/` and `origins/` in it; see `read_folders`.

    Raises:
        DataError: as `read_folders`, or the export is not finished.
    """
    must_be_folder(folder)
    if (folder / UNFINISHED).exists() and not (folder / MANIFEST).exists():
        raise DataError(
            f"{folder}: the export is not finished; give the same export-dataset command again "
            f"(or delete {UNFINISHED} to take the folders as they are)"
        )
    for name in (PREDICTED, ORIGINS):
        if not (folder / name).is_dir():
            raise DataError(f"{folder}: has no folder {name}; expected {PREDICTED} (generated) and {ORIGINS} (real)")
    return read_folders(folder / PREDICTED, folder / ORIGINS)


def read_folders(fake_dir: Path, real_dir: Path, drawn: Draw = lambda files, generated: files) -> LabelledSet:
    """Generated pictures in one folder, real ones in another; a `manifest.csv` beside either folder is made use of.

    `drawn` chooses among the files of a folder, and whether they are the generated ones, before any of them is opened.

    With a manifest every file must be there, be named in it, and have the bytes that it says. Without one
    near-duplicates are one group, fakes and their sources are not known to belong together, and files that cannot be decoded
    are left out; the warnings say so.

    Raises:
        DataError: a folder is missing or without images, both are one or lie in each other, or a manifest disagrees with a
            folder that it speaks of.
    """
    sides = ((True, fake_dir), (False, real_dir))
    for _, folder in sides:
        must_be_folder(folder)
    fake, real = fake_dir.resolve(), real_dir.resolve()
    if fake == real:
        raise DataError(f"{fake_dir}: the generated and the real images are the same folder; give two")
    if fake in real.parents or real in fake.parents:
        raise DataError(f"{fake_dir} and {real_dir}: one folder lies in the other; give two that do not")
    files: dict[bool, tuple[Path, ...]] = {}
    warnings: list[str] = []
    for generated, folder in sides:
        files[generated], skipped = images_below(folder)
        warnings += filter(None, [left_out(str(folder), skipped)])
        if not files[generated]:
            raise DataError(f"{folder}: holds no images, so there are no {LABELS[generated]} ones to tell from the others")
    looks: dict[str, int] = {}
    images: list[LabelledImage] = []
    bare: list[str] = []
    for generated, folder in sides:
        place = _place(folder)
        manifest = place.parent / MANIFEST
        listed = read_manifest(manifest) if manifest.is_file() else ()
        rows = {place.parent / row.file: row for row in listed if row.file.startswith(f"{place.name}/")}
        if rows:
            _must_agree(folder, files[generated], generated, rows, manifest)
            images += _listed(drawn(files[generated], generated), generated, rows, manifest)
        else:
            images += _unlisted(folder, drawn(files[generated], generated), generated, looks, warnings)
            bare.append(str(folder))
    near = near_groups(looks.items())
    images = [replace(image, group=near.get(image.group, image.group)) for image in images]
    if bare:
        warnings.append(
            f"{' and '.join(bare)}: no {MANIFEST} beside it, so it cannot be checked whether a fake and its source are kept on "
            "one side of a split, and which pictures the generator was trained on"
        )
        fakes, reals = ({image.group for image in images if image.generated == generated} for generated in (True, False))
        if shared := len(fakes & reals):
            warnings.append(f"pictures that may be in both folders, nearly alike or of one source: {shared}")
    return LabelledSet(tuple(images), not bare, tuple(warnings))


def _must_agree(folder: Path, files: Sequence[Path], generated: bool, rows: Mapping[Path, ManifestRow], manifest: Path) -> None:
    """Raises: DataError if the manifest, whose rows are given by the place of their file, has other names or another label."""
    wrong = next((row for row in rows.values() if row.label != LABELS[generated]), None)
    if wrong is not None:
        raise DataError(f"{folder}: taken for {LABELS[generated]} images, but {manifest} calls {wrong.file} {wrong.label}")
    there = {_place(path) for path in files}
    for what, odd in (("is missing", rows.keys() - there), ("is not named in it", there - rows.keys())):
        if odd:
            names = _some([f"{path.parent.name}/{path.name}" for path in sorted(odd)], ", ")
            raise DataError(f"{manifest}: disagrees with the folder: {names} {what}; export it again")


def _listed(files: Sequence[Path], generated: bool, rows: Mapping[Path, ManifestRow], manifest: Path) -> list[LabelledImage]:
    """Files of one class as the manifest has them."""
    images = []
    for path, digest in in_order(file_sha256, files):
        row = rows[_place(path)]
        if digest != row.sha256:
            raise DataError(f"{path}: is not the file that {manifest} speaks of (another sha256); export it again")
        images.append(LabelledImage(path, generated, row.group, row.split, row.source))
    return images


def _place(path: Path) -> Path:
    """Where a file or folder stands; links are not followed, since their own places are what a manifest speaks of."""
    return Path(os.path.abspath(path))


def _unlisted(
    folder: Path, files: Sequence[Path], generated: bool, looks: dict[str, int], warnings: list[str]
) -> list[LabelledImage]:
    """One class of which nothing is known; `looks` gets what its pictures look like, `warnings` which cannot be decoded."""
    images, broken = [], []
    for path, look in in_order(_look, files):
        if isinstance(look, DataError):
            broken.append(str(look))
        else:
            looks[look.content] = look.code
            images.append(LabelledImage(path, generated, look.content, "", ""))
    if not images:
        raise DataError(f"{folder}: none of {len(files)} files is an image that can be decoded; {broken[0]}")
    if broken:
        warnings.append(f"{len(broken)} of {len(files)} files left out: {_some(broken, '; ')}")
    return images


def _look(path: Path) -> Look | DataError:
    try:
        return look_of(decode(path).pixels)
    except DataError as error:
        return error


def _some(names: Sequence[str], between: str) -> str:
    more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
    return between.join(names[:NAMED_FILES]) + more
