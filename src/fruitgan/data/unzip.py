"""Zip files unpacked as if a stranger had made them."""

from __future__ import annotations

import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from fruitgan.errors import DataError, shown
from fruitgan.images import SUFFIXES

LARGEST_GROWTH = 20
"""Photographs hardly shrink in a zip file; what grows more than this is a bomb."""
SMALL_BYTES = 50_000_000
"""Up to here the growth does not matter."""
MOST_ENTRIES = 1_000_000
CHUNK_BYTES = 1 << 20
DEEPEST = 16
LONGEST_NAME_BYTES = 240
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The others can ask for gigabytes of memory in a few bytes, and no set of images needs them."""
ENCRYPTED = 0x1 | 0x40 | 0x2000
ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What zipfile raises for one that is damaged or made to confuse it."""

Place = tuple[str, ...]


def unzip(zip_file: Path, root: str, folder: Path, on_progress: Callable[[str, int, int], None]) -> None:
    """Put the images below the zip file's folder `root` into `folder`, at the places they have below it.

    Raises:
        DataError: not a zip file, a damaged one, one without images there, or with an entry that leaves the folder, is a link
            or device, stands there twice, is encrypted, is packed in a rare way or has a name that not every system takes, or
            with more content than photographs can have. What was written by then is for the caller to remove.
    """
    try:
        with zipfile.ZipFile(zip_file) as archive:
            entries = _checked(archive, zip_file, root)
            for done, (place, entry) in enumerate(entries.items(), start=1):
                target = folder.joinpath(*place)
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(archive, entry, target)
                on_progress(f"unpacking {root}", done, len(entries))
    except ZIP_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{zip_file}: cannot be unpacked ({reason})") from error


def _checked(archive: zipfile.ZipFile, zip_file: Path, root: str) -> dict[Place, zipfile.ZipInfo]:
    """The images to write, by the parts of their places; every entry is looked at before the first is written."""
    infos = archive.infolist()
    limit = max(SMALL_BYTES, LARGEST_GROWTH * zip_file.stat().st_size)
    if len(infos) > MOST_ENTRIES or sum(info.file_size for info in infos) > limit:
        raise DataError(f"{zip_file}: unpacks to more than images can be ({len(infos):,} entries, over {limit:,} bytes)")
    found: dict[Place, zipfile.ZipInfo] = {}
    for info in infos:
        parts = PurePosixPath(info.filename).parts
        if problem := _problem(info, parts):
            raise DataError(f"{zip_file}: refused, since the entry {shown(info.filename)} {problem}")
        if not info.is_dir() and len(parts) > 1 and parts[0] == root and Path(parts[-1]).suffix.lower() in SUFFIXES:
            if parts[1:] in found:
                raise DataError(f"{zip_file}: refused, since the entry {shown(info.filename)} stands there twice")
            found[parts[1:]] = info
    if not found:
        raise DataError(f"{zip_file}: holds no images in a folder {root}")
    _refuse_collisions(found, zip_file)
    return found


def _problem(info: zipfile.ZipInfo, parts: Place) -> str | None:
    """What is wrong with an entry, whether it would be written or not."""
    if not parts:
        return "has no name"
    if info.filename.startswith("/") or any(part == ".." or "\\" in part or ":" in part for part in parts):
        return "leaves the folder"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or device"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in METHODS:
        return "is packed in a way that is not used for images"
    if len(parts) > DEEPEST or any(len(os.fsencode(part)) > LONGEST_NAME_BYTES for part in parts):
        return "has a name that not every system can hold"
    if not info.filename.isprintable():
        return "has a name with signs that cannot be seen"
    return None


def _refuse_collisions(entries: dict[Place, zipfile.ZipInfo], zip_file: Path) -> None:
    """Raises: DataError where two names are one file on some systems (A.jpg and a.jpg, or é in two spellings), or where one is
    a file and another's folder.
    """
    spelling: dict[Place, Place] = {}
    files = set()
    for place, info in entries.items():
        folded = tuple(unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold()) for part in place)
        files.add(folded)
        for end in range(1, len(place) + 1):
            if spelling.setdefault(folded[:end], place[:end]) != place[:end]:
                raise DataError(f"{zip_file}: refused, since the entry {shown(info.filename)} stands there twice")
    for folded, place in spelling.items():
        if folded[:-1] in files:
            raise DataError(f"{zip_file}: refused, since {shown('/'.join(place[:-1]))} is a file and a folder in it")


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Copy one entry; no more than its stated size is ever written."""
    with target.open("xb") as file:
        for chunk in _content(archive, entry):
            file.write(chunk)


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    left = entry.file_size
    try:
        with archive.open(entry) as source:
            while left > 0 and (chunk := source.read(min(CHUNK_BYTES, left))):
                yield chunk
                left -= len(chunk)
            if left or source.read(1):
                raise zipfile.BadZipFile("an entry has another size than stated")
    except OSError as error:  # an impossible place in the file
        raise zipfile.BadZipFile(str(error)) from error
