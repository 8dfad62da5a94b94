"""Files of images: what a person named to the files that are images, names for their results, and results as files.

A result is PNG, JPEG or WebP and bears a mark of what made it. The mark is inside the file, not in a list beside it: so it is
there exactly when the image is, whatever is killed, moved, copied or run at the same time, and whoever meets the image
elsewhere can see that it was generated.
"""

from __future__ import annotations

import glob
import io
import json
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from fruitgan import __version__
from fruitgan.data.decode import NotAnImage, Undecodable, decode
from fruitgan.errors import DataError, reason_of
from fruitgan.files import PART_PREFIX, NotAFile, open_regular
from fruitgan.images import Pixels

Format = Literal["png", "jpg", "webp"]
OPENING = '{"fruitgan-translate": '
TRAINED_AGAINST = "trained_against"
"""The entry with the pretrained networks that the generator was trained against: information that makes no other result."""
SEARCHED_BYTES = 4096  # PNG and JPEG hold the mark near their beginning, WebP at its end
HEAD_BYTES = 1 << 16
LARGEST_SNIFFED_BYTES = 1 << 26  # a film among the images must not be read whole to learn that it is none
SAVE_OPTIONS: Mapping[Format, Mapping[str, Any]] = {
    # Level 1 takes a third of the time of Pillow's own 6 on a drawn fruit, for 14% more bytes (docs/decisions.md).
    "png": {"format": "PNG", "compress_level": 1},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "quality": 95, "method": 4},
}
SIDE_LIMITS_PX: Mapping[Format, int] = {"png": 2**31 - 1, "jpg": 65_500, "webp": 16_383}


def encode(pixels: Pixels, alpha: NDArray[np.uint8] | None, form: Format, mark: Mapping[str, Any]) -> bytes:
    """The file of an image, uint8 [H, W, 3] and perhaps [H, W]; upright, sRGB, and with no other metadata than the mark.

    JPEG has no transparency: there the image lies on white.

    Raises:
        DataError: a side is longer than the format allows.
    """
    if max(pixels.shape[:2]) > SIDE_LIMITS_PX[form]:
        raise DataError(
            f"{pixels.shape[1]} x {pixels.shape[0]} px are too many for {form} ({SIDE_LIMITS_PX[form]} a side): use png"
        )
    if alpha is not None and form == "jpg":
        opacity = alpha[..., np.newaxis].astype(np.float32) / 255
        pixels = np.rint(pixels * opacity + 255 * (1 - opacity)).astype(np.uint8)
        alpha = None
    image = Image.fromarray(pixels if alpha is None else np.dstack([pixels, alpha]))
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = f"{OPENING}{json.dumps(mark, sort_keys=True)}}}"
    exif[ExifTags.Base.Software] = f"fruitgan {__version__}"
    file = io.BytesIO()
    image.save(file, exif=exif, **SAVE_OPTIONS[form])
    return file.getvalue()


def read_mark(path: Path) -> dict[str, Any] | None:
    """The mark of a result; None for any other file. Reads a few kilobytes and decodes nothing."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            parts = [file.read(SEARCHED_BYTES)]
            if len(parts[0]) == SEARCHED_BYTES:
                file.seek(-SEARCHED_BYTES, os.SEEK_END)
                parts.append(file.read())
    except OSError:
        return None
    for part in parts:
        start = part.find(OPENING.encode())
        if start >= 0:
            try:
                mark, _ = json.JSONDecoder().raw_decode(part[start + len(OPENING) :].decode("latin-1"))
            except (ValueError, RecursionError):
                return None
            return mark if isinstance(mark, dict) else None
    return None


@dataclass(frozen=True)
class Remark:
    """A path that became no image, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Source:
    """One image to work on."""

    path: Path
    relative: PurePath
    """Where it lies below the folder that was named; its bare name if it was named itself."""


@dataclass
class Found:
    """Every file that was named, each in one of the three lists."""

    sources: list[Source] = field(default_factory=list)
    skipped: list[Remark] = field(default_factory=list)
    """Not images, by their content."""
    failed: list[Remark] = field(default_factory=list)
    """Not to be had: missing, not allowed, a link to nowhere."""


def find_sources(wanted: Sequence[str], recursive: bool, results: Path | None = None) -> Found:
    """All that the names, folders and glob patterns mean, each file once, in their order and by name within a folder.

    A path that exists is never read as a pattern. Links are followed, each folder is visited once. `results` is the folder
    where the results go: below a named folder it is left out, and if it is a named folder itself, what bears our mark is.
    """
    found = Found()
    folders: set[tuple[int, int] | None] = set()
    files: set[str] = set()
    results_at = None if results is None else identity_of(results)
    for named in _named(wanted, found):
        waiting = [(named, False)]  # not by recursion: a path may be deeper than Python's stack
        while waiting:
            path, is_with_results = waiting.pop()
            reason = None
            if _is_folder(path):
                at = identity_of(path)
                if path != named and at is not None and at == results_at:
                    reason = "the folder of the results"
                elif path != named and not recursive:
                    reason = "a folder; -r goes into it"
                elif at in folders:
                    reason = "a folder that was visited already"
                else:
                    folders.add(at)
                    waiting += [(entry, at is not None and at == results_at) for entry in reversed(_entries(path, found))]
            elif is_with_results and read_mark(path) is not None:
                reason = "a result, in the folder of the results"
            elif (key := os.path.abspath(path)) not in files:
                files.add(key)
                try:
                    reason = _reason_no_picture(path)
                except OSError as error:
                    found.failed.append(Remark(str(path), f"cannot be read ({reason_of(error)})"))
                    continue
                if reason is None:
                    found.sources.append(Source(path, PurePath(path.name) if path == named else path.relative_to(named)))
            if reason is not None:
                found.skipped.append(Remark(str(path), reason))
    return found


def _named(wanted: Sequence[str], found: Found) -> Iterator[Path]:
    for text in wanted:
        matches = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
        yield from map(Path, matches)
        if not matches:
            reason = "no file matches this pattern" if glob.has_magic(text) else "no such file or folder"
            found.failed.append(Remark(text, reason))


def _entries(folder: Path, found: Found) -> list[Path]:
    """What is in a folder, files before folders, each by name."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(PART_PREFIX)]
    except OSError as error:
        found.failed.append(Remark(str(folder), f"cannot be listed ({reason_of(error)})"))
        return []
    return sorted(entries, key=lambda entry: (_is_folder(entry), entry.name))


def _reason_no_picture(path: Path) -> str | None:
    """Why the file is no image, from its beginning if that suffices. Raises: OSError."""
    for count in (HEAD_BYTES, LARGEST_SNIFFED_BYTES):
        try:
            with open_regular(path) as file:
                data, is_whole = file.read(count), not file.read(1)
        except NotAFile:
            return "not a regular file"
        reason = reason_no_picture(data)
        if reason is None or is_whole:
            break
    return reason


def reason_no_picture(data: bytes) -> str | None:
    """Why a file that begins so is no image; None if it is one, broken or not."""
    try:
        decode(data, max_pixels=0)
    except NotAnImage as error:
        return bare_reason(error)
    except Undecodable:
        pass  # an image, at the least too large for no pixels at all
    return None


def bare_reason(error: Exception) -> str:
    """What is wrong with bytes, without the words that stand for their name."""
    return str(error).removeprefix("the given data: ")


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode, links followed; None where nothing can be seen. Unlike pathlib's questions it never raises."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def name_outputs(sources: Sequence[Source], suffix: str) -> list[PurePath]:
    """A relative path for each source's result, all different also where upper and lower case are the same.

    The first that is free of: `photo.png`, `photo.jpg.png`, then with as many of the source's folders before it as it takes.
    All sources that want one name move on together, so that the names do not hang on their order.
    """
    forms = [list(_forms(source, suffix)) for source in sources]
    level = [0] * len(sources)
    while True:
        names = [form[at] for form, at in zip(forms, level, strict=True)]
        uses = Counter(_key(name) for name in names)
        clashing = [i for i, name in enumerate(names) if uses[_key(name)] > 1 and level[i] + 1 < len(forms[i])]
        if not clashing:
            return _numbered(names)
        for i in clashing:
            level[i] += 1


def _forms(source: Source, suffix: str) -> Iterator[PurePath]:
    folder = source.relative.parent
    name = source.relative.name
    yield folder / (source.relative.stem + suffix)
    yield folder / (name + suffix)
    folders = Path(os.path.abspath(source.path)).parent.parts[1:]  # without the root
    for count in range(len(folder.parts) + 1, len(folders) + 1):
        yield PurePath(*folders[len(folders) - count :], name + suffix)


def _numbered(names: Sequence[PurePath]) -> list[PurePath]:
    """What still clashes differs in case alone and lies in one folder: `Photo.jpg.png`, `photo.jpg-2.png`."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 1
        while _key(candidate) in taken:
            number += 1
            candidate = name.with_name(f"{name.stem}-{number}{name.suffix}")
        taken.add(_key(candidate))
        result.append(candidate)
    return result


def _key(name: PurePath) -> str:
    return unicodedata.normalize("NFC", str(name)).casefold()
