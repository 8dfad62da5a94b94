"""Which image goes where, and which results are there already; all of it before the first image is translated."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fruitgan.data.finder import Remark, find_images, identity_of, reason_no_image
from fruitgan.errors import DataError, UsageError
from fruitgan.files import file_sha256, open_regular, remove_abandoned
from fruitgan.images import SUFFIXES
from fruitgan.translate.picture_files import TRAINED_AGAINST, Format, name_outputs, read_mark

STREAM = "-"
FOLDER = "translated"
FORMAT_OF_SUFFIX: Mapping[str, Format] = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}


@dataclass(frozen=True)
class Task:
    """One image and the place of its result."""

    path: Path | None
    """None is standard input."""
    output: Path | None
    """None is standard output."""
    data: bytes = b""
    """What came from standard input."""

    @property
    def source_name(self) -> str:
        return STREAM if self.path is None else str(self.path)

    @property
    def output_name(self) -> str:
        return STREAM if self.output is None else str(self.output)

    def read(self) -> bytes:
        """The bytes of the source; raises OSError, or NotAFile where something else has taken its place."""
        if self.path is None:
            return self.data
        with open_regular(self.path) as file:
            return file.read()

    def sha256(self) -> str | None:
        """Of the source's bytes; None if they cannot be read."""
        try:
            return hashlib.sha256(self.data).hexdigest() if self.path is None else file_sha256(self.path)
        except DataError:
            return None


@dataclass(frozen=True)
class Plan:
    """What is to be done, and what cannot be."""

    tasks: Sequence[Task]
    skipped: Sequence[Remark] = ()
    failed: Sequence[Remark] = ()


def is_folder(output: str | None) -> bool:
    """Whether `-o` means a folder: there is one, or its name does not end as an image's does."""
    if output is None or output.endswith(("/", "\\")):
        return True
    path = Path(output)
    return output != STREAM and (path.is_dir() or path.suffix.lower() not in SUFFIXES)


def format_of(output: str | None, wanted: Format | None) -> Format:
    """The format of the results: what was asked for, else what the output file's name says, else png.

    Raises:
        UsageError: the two contradict each other, or the name says one that is not written.
    """
    if output is None or output == STREAM or is_folder(output):
        return wanted or "png"
    suffix = Path(output).suffix.lower()
    if suffix not in FORMAT_OF_SUFFIX:
        raise UsageError(f"{output}: no {suffix} is written; use one of {', '.join(FORMAT_OF_SUFFIX)}")
    if wanted not in (None, FORMAT_OF_SUFFIX[suffix]):
        raise UsageError(f"--format {wanted} contradicts the name {output}")
    return FORMAT_OF_SUFFIX[suffix]


def make_plan(sources: Sequence[str], recursive: bool, output: str | None, form: Format, stdin: BinaryIO | None = None) -> Plan:
    """Every image that is meant, with the place of its result; the source `-` is the image on standard input.

    Raises:
        DataError: there is not a single file.
        UsageError: several images for one file; a result would replace a source; no standard input, as under a service.
    """
    folder = Path(output or FOLDER) if is_folder(output) else None
    place = Path(output) if folder is None and output and output != STREAM else None
    if list(sources) == [STREAM]:
        if stdin is None:
            raise UsageError("there is no standard input to read the image from")
        data = stdin.read()
        if reason := reason_no_image(data):
            return Plan([], skipped=[Remark(STREAM, reason)])
        return Plan([Task(None, folder / f"stdin.{form}" if folder and output else place, data)])
    found = find_images(sources, recursive, folder, lambda path: read_mark(path) is not None)
    if not (found.images or found.skipped or found.failed):
        raise DataError(f"{', '.join(sources)}: no images found")
    if folder is not None:
        names = name_outputs(found.images, f".{form}")
        tasks = [Task(source.path, folder / name) for source, name in zip(found.images, names, strict=True)]
    elif len(found.images) > 1:
        raise UsageError(f"-o {output} takes one image, not {len(found.images)}; give a folder")
    else:
        tasks = [Task(source.path, place) for source in found.images]
    originals = {identity_of(source.path) for source in found.images}
    for task in tasks:
        if task.output is not None and (there := identity_of(task.output)) is not None and there in originals:
            raise UsageError(f"{task.output}: the result would replace a source; give another folder with -o")
    return Plan(tasks, found.skipped, found.failed)


def without_results(tasks: Sequence[Task], mark: Mapping[str, Any], overwrite: bool) -> list[Task]:
    """The tasks that are to be done: all with `overwrite`, else those whose results are not there.

    What runs that were killed left half-written beside the results is removed.

    Raises:
        UsageError: something else is where a result should go.
    """
    missing, in_the_way = [], []
    for task in tasks:
        if task.output is None or identity_of(task.output) is None:
            missing.append(task)
        elif not task.output.is_file():
            raise UsageError(f"{task.output}: is in the way and is no file; give another place with -o")
        elif overwrite:
            missing.append(task)
        elif reason := _difference(task, task.output, mark):
            in_the_way.append(f"{task.output} ({reason})")
    if in_the_way:
        more = f" and {len(in_the_way) - 1} more are" if len(in_the_way) > 1 else " is"
        raise UsageError(f"{in_the_way[0]}{more} in the way: --overwrite replaces, -o writes elsewhere")
    for folder in {task.output.parent for task in tasks if task.output is not None}:
        remove_abandoned(folder)
    return missing


def _difference(task: Task, output: Path, mark: Mapping[str, Any]) -> str | None:
    """Why the file in the result's place is not the result; None if it is."""
    there = read_mark(output)
    if there is None:
        return "not made by fruitgan translate"
    if there.get("bundle") != mark["bundle"]:
        return "made by another bundle"
    other = next((key for key, value in mark.items() if key != TRAINED_AGAINST and there.get(key) != value), None)
    if other is not None:
        return f"made with another {other}"
    return None if there.get("source") == task.sha256() else "made from another image"
