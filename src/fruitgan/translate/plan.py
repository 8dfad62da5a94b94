"""Which image goes where, and which results are there already; all of it before the first image is translated."""

from __future__ import annotations

import hashlib
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, get_args

from PIL import Image

from fruitgan.addresses import Address, Listed, Place, listed, place_of
from fruitgan.data.finder import HIDDEN, Found, Remark, find_images, identity_of, reason_no_image
from fruitgan.data.remote import SUFFIX, is_shard, read_shard_mark
from fruitgan.errors import DataError, UsageError
from fruitgan.files import open_regular, remove_abandoned
from fruitgan.images import SUFFIXES
from fruitgan.translate.pictures import ADDRESS, CONTACT_SHEET, TRAINED_AGAINST, Format, container_of, read_mark

if TYPE_CHECKING:
    from fruitgan.translate.job import TranslateSettings

STREAM = "-"
FOLDER = "translated"
SHEET = "contact-sheet.png"
FORMAT_OF_SUFFIX: Mapping[str, Format] = {**{f".{form}": form for form in get_args(Format)}, ".jpeg": "jpg", ".tiff": "tif"}


@dataclass(frozen=True)
class Task:
    """One image, or a shard of them, and the place of its result."""

    path: Place | None
    """None is standard input."""
    output: Place | None
    """None is standard output."""
    form: Format
    data: bytes = b""
    """What came from standard input."""
    is_there: bool = field(default=False, compare=False)
    """Whether a file stands in the place of the result; whoever does the task sees whether it is the result."""

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
        if isinstance(self.path, Address):
            return self.path.read()
        with open_regular(self.path) as file:
            return file.read()


def is_folder(output: str | None) -> bool:
    """Whether `-o` means a folder: there is one, or its name does not end as an image's does."""
    if output is None or output.endswith(("/", "\\")):
        return True
    path = Path(output)
    return output != STREAM and (
        path.is_dir() or path.suffix.lower() not in {SUFFIX, *SUFFIXES, *Image.registered_extensions()}
    )


def _format_of(output: str | None, wanted: Format | None) -> Format | None:
    """The format of all results: what was asked for, else what the output file's name says; None leaves it to each source.

    Raises:
        UsageError: the two contradict each other, or the name says one that is not written.
    """
    if output is None or output == STREAM or is_folder(output):
        return wanted
    suffix = Path(output).suffix.lower()
    if suffix == SUFFIX:
        return wanted
    if suffix not in FORMAT_OF_SUFFIX:
        raise UsageError(f"{output}: no {suffix} is written; use one of {', '.join(FORMAT_OF_SUFFIX)}")
    if wanted not in (None, FORMAT_OF_SUFFIX[suffix]):
        raise UsageError(f"--format {wanted} contradicts the name {output}")
    return FORMAT_OF_SUFFIX[suffix]


def make_plan(settings: TranslateSettings, stdin: BinaryIO | None = None) -> tuple[list[Task], Found]:
    """Every image that is meant, with the place of its result, and what was found; `-` is the image on standard input.

    Raises:
        DataError: there is not a single file.
        UsageError: several images for one file; a result would replace a source; no standard input, as under a service.
    """
    sources, output = settings.sources, settings.output
    wanted = _format_of(output, settings.format)
    folder = place_of(output or FOLDER) if is_folder(output) else None
    place = place_of(output) if folder is None and output and output != STREAM else None

    def form_of(file: Any) -> Format:
        is_at_hand = settings.frames == "all" and not isinstance(file, Address)
        return wanted or (is_at_hand and container_of(file)) or "png"

    if sources == (STREAM,):
        if place is not None and is_shard(place):
            raise UsageError(f"-o {output}: the result of a picture is no shard")
        if stdin is None:
            raise UsageError("there is no standard input to read the image from")
        data = stdin.read()
        if reason := reason_no_image(data):
            return [], Found(skipped=[Remark(STREAM, reason)])
        form = form_of(io.BytesIO(data))
        return [Task(None, folder / f"stdin.{form}" if folder and output else place, form, data)], Found()
    found, images = _find(settings, folder)
    if not (images or found.skipped or found.failed):
        raise DataError(f"{', '.join(sources)}: no images found")
    if folder is None and len(images) > 1:
        raise UsageError(f"-o {output} takes one image, not {len(images)}; give a folder")
    forms = [form_of(image.path) for image in images]
    suffixes = [SUFFIX if is_shard(image.path) else f".{form}" for image, form in zip(images, forms, strict=True)]
    names = name_outputs(images, suffixes)
    tasks = [
        Task(image.path, place if folder is None else folder / name, form)
        for image, name, form in zip(images, names, forms, strict=True)
    ]
    if (shard := settings.shard) is not None:  # after the names, which all parts choose alike
        tasks = [task for task, image in zip(tasks, images, strict=True) if shard.has(image.relative.as_posix())]
        found.skipped, found.failed = (
            [remark for remark in remarks if shard.has(remark.path)] for remarks in (found.skipped, found.failed)
        )
    if place is not None and images and is_shard(place) != is_shard(images[0].path):
        raise UsageError(f"-o {output}: the result of {images[0].path} is {'a' if is_shard(images[0].path) else 'no'} shard")
    originals = {_identity(image.path) for image in images}
    for task in tasks:
        if task.output is not None and (there := _identity(task.output)) is not None and there in originals:
            raise UsageError(f"{task.output}: the result would replace a source; give another folder with -o")
    return tasks, found


def _find(settings: TranslateSettings, folder: Place | None) -> tuple[Found, list[Listed[Any]]]:
    """The sources; at an address no file is opened, so that there the name tells what is an image."""
    places = {text: place_of(text) for text in settings.sources}
    here = [
        str(place) if text.lower().startswith("file:") else text for text, place in places.items() if isinstance(place, Path)
    ]
    results = folder if isinstance(folder, Path) else None
    found = find_images(here, settings.recursive, results, lambda path: read_mark(path) is not None, {SUFFIX})
    images: list[Listed[Any]] = [*found.images]
    for place in (place for place in places.values() if isinstance(place, Address)):
        if place == folder:
            raise UsageError(f"-o {folder}: the results would replace their sources; give another folder")
        files = listed(place, settings.recursive)
        if not files:
            found.failed.append(Remark(str(place), "no such file or folder"))
        for file in files:
            reason = None
            if isinstance(folder, Address) and str(file.path).startswith(f"{folder}/"):
                reason = "in the folder of the results"
            elif any(part.startswith(".") for part in file.relative.parts):
                reason = HIDDEN
            elif file.path.suffix.lower() not in (SUFFIX, *SUFFIXES) or (is_shard(file.path) and not is_shard(place)):
                reason = "not named as an image is"
            if reason is None:
                images.append(file)
            else:
                found.skipped.append(Remark(str(file.path), reason))
    return found, images


def _identity(place: Place) -> object:
    return place if isinstance(place, Address) else identity_of(place)


def without_results(tasks: Sequence[Task], mark: Mapping[str, Any], settings: TranslateSettings) -> list[Task]:
    """The tasks that are to be done: all with `overwrite`, else those whose results are not there.

    Results at an address, shards and what a cluster does are not opened here: who does the task sees what is there.
    What runs that were killed left half-written beside the results is removed.

    Raises:
        UsageError: something else is where a result should go.
    """
    missing, in_the_way = [], []
    top, overwrite = place_of(settings.output or FOLDER), settings.overwrite
    there = {file.path for file in listed(top, recursive=True)} if isinstance(top, Address) and not overwrite else set()
    for task in tasks:
        if isinstance(task.output, Address):
            missing.append(replace(task, is_there=task.output in there))
        elif task.output is None or identity_of(task.output) is None:
            missing.append(task)
        elif not task.output.is_file():
            raise UsageError(f"{task.output}: is in the way and is no file; give another place with -o")
        elif overwrite or settings.ray or is_shard(task.path):
            missing.append(replace(task, is_there=not overwrite))
        elif reason := _difference(task, read_mark(task.output), mark):
            in_the_way.append(f"{task.output} ({reason})")
    if in_the_way:
        more = f" and {len(in_the_way) - 1} more are" if len(in_the_way) > 1 else " is"
        raise UsageError(f"{in_the_way[0]}{more} in the way: --overwrite replaces, -o writes elsewhere")
    for folder in {task.output.parent for task in tasks if isinstance(task.output, Path)}:
        remove_abandoned(folder)
    return missing


def place_of_sheet(tasks: Sequence[Task], overwrite: bool) -> Path:
    """Where the contact sheet of these results goes; a sheet that is there gives way.

    Raises:
        UsageError: there is no folder of results, or something else stands there.
    """
    outputs = [task.output for task in tasks if isinstance(task.output, Path) and not is_shard(task.path)]
    if len(outputs) < len(tasks):
        raise UsageError("--contact-sheet stands beside the results: give a folder for them with -o")
    folder = Path(os.path.commonpath([str(output.parent) for output in outputs] or ["."]))
    place = folder / SHEET
    if place in outputs or (os.path.lexists(place) and not overwrite and CONTACT_SHEET not in (read_mark(place) or {})):
        raise UsageError(f"{place}: where the contact sheet goes is something else; give another folder with -o")
    return place


def place_of_failures(settings: TranslateSettings) -> Place | None:
    """The file with a row for each picture that failed, beside the folder of a batch job's results and named after it.

    Such is the work of a cluster, of an array (each part has a file of its own), and on what lies elsewhere; None for others.
    """
    places = [place_of(text) for text in (settings.output or FOLDER, *settings.sources)]
    is_batch = settings.shard or settings.ray or any(isinstance(place, Address) for place in places)
    if not (is_batch and is_folder(settings.output)):
        return None
    folder, shard = places[0], settings.shard
    part = "" if shard is None else f"-{shard.index}-of-{shard.count}"
    folder = folder if isinstance(folder, Address) else folder.absolute()
    return folder.parent / f"{PurePath(str(folder)).name}.failed{part}.jsonl"


def kept_mark(task: Task, mark: Mapping[str, Any]) -> dict[str, Any]:
    """The mark of the result that is there.

    Raises:
        UsageError: something else is in its place.
    """
    assert task.output is not None
    there: dict[str, Any] | None
    if is_shard(task.path):
        there = read_shard_mark(task.output)
    else:
        there = read_mark(io.BytesIO(task.output.read()) if isinstance(task.output, Address) else task.output)
    if reason := _difference(task, there, mark):
        raise UsageError(f"{task.output} ({reason}) is in the way: --overwrite replaces, -o writes elsewhere")
    return there or {}


def _difference(task: Task, there: Mapping[str, Any] | None, mark: Mapping[str, Any]) -> str | None:
    """Why the file in the result's place, of which this is the mark, is not the result; None if it is."""
    if there is None:
        return "not made by fruitgan translate"
    if there.get("bundle") != mark["bundle"]:
        return "made by another bundle"
    made = {**mark, "format": task.form}
    other = next((key for key in made if there.get(key) != made[key] and key not in (TRAINED_AGAINST, ADDRESS)), None)
    if other is not None:
        return f"made with another {other}"
    try:
        is_same = there.get("source") == hashlib.sha256(task.read()).hexdigest()
    except (OSError, DataError):
        is_same = False
    return None if is_same else "made from another image"


def name_outputs(sources: Sequence[Listed[Any]], suffixes: Sequence[str]) -> list[PurePath]:
    """A relative path for each source's result, all different also where upper and lower case are the same.

    The first that is free of: `photo.png`, `photo.jpg.png`, then both with as many of the source's folders before as it takes.
    All sources that want one name move on together, so that the names do not hang on their order.
    """
    names = [source.relative.parent / (source.relative.stem + suffix) for source, suffix in zip(sources, suffixes, strict=True)]
    further: dict[int, Iterator[PurePath]] = {}  # of a million names few clash
    is_moving = True
    while is_moving:
        is_moving = False
        keys = [unicodedata.normalize("NFC", str(name)).casefold() for name in names]
        uses = Counter(keys)
        for i in (i for i, key in enumerate(keys) if uses[key] > 1):
            following = further.setdefault(i, _further_names(sources[i], suffixes[i]))
            if (name := next(following, None)) is not None:
                names[i], is_moving = name, True
    return names


def _further_names(source: Listed[Any], suffix: str) -> Iterator[PurePath]:
    folder, name = source.relative.parent, source.relative.name
    above = Path(os.path.abspath(str(source.path))).parent.parts[1:]  # without the root
    yield folder / (name + suffix)
    for n in range(len(folder.parts) + 1, len(above) + 1):
        for own in (source.relative.stem + suffix, name + suffix):
            yield PurePath(*above[-n:], own)
    unlike = hashlib.sha256(os.fsencode(str(source.relative))).hexdigest()[:6]
    yield folder / f"{name}-{unlike}{suffix}"  # what still clashes differs in case alone and lies in one folder
