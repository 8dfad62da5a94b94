"""Zip files unpacked as if a stranger had made them."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from fruitgan.errors import DataError
from fruitgan.images import SUFFIXES

LARGEST_GROWTH = 20
"""Photographs hardly shrink in a zip file; what grows more than this is a bomb."""
SMALL_BYTES = 50_000_000
"""Up to here the growth does not matter."""
MOST_ENTRIES = 1_000_000
CHUNK_BYTES = 1 << 20


def unzip(zip_file: Path, root: str, folder: Path, on_progress: Callable[[str, int, int], None]) -> None:
    """Put the images below the zip file's folder `root` into `folder`, at the places they have below it.

    Raises:
        DataError: not a zip file, a damaged one, one without images there, or with an entry that leaves the folder, is a
            link, stands there twice, is encrypted, or with more content than photographs can have.
    """
    try:
        with zipfile.ZipFile(zip_file) as archive:
            entries = _checked(archive, zip_file, root)
            for done, (place, entry) in enumerate(entries.items(), start=1):
                target = folder.joinpath(*place)
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(archive, entry, target)
                on_progress(f"unpacking {root}", done, len(entries))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise DataError(f"{zip_file}: cannot be unpacked ({error})") from error


def _checked(archive: zipfile.ZipFile, zip_file: Path, root: str) -> dict[tuple[str, ...], zipfile.ZipInfo]:
    """The images to write, by the parts of their places; every entry is looked at before the first is written."""
    found: dict[tuple[str, ...], zipfile.ZipInfo] = {}
    infos = archive.infolist()
    limit = max(SMALL_BYTES, LARGEST_GROWTH * zip_file.stat().st_size)
    if len(infos) > MOST_ENTRIES or sum(info.file_size for info in infos) > limit:
        raise DataError(f"{zip_file}: unpacks to more than images can be ({len(infos):,} entries, over {limit:,} bytes)")
    seen: set[str] = set()
    for info in infos:
        parts = PurePosixPath(info.filename).parts
        mode = info.external_attr >> 16
        is_odd = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
        leaves = info.filename.startswith("/") or any(part == ".." or "\\" in part or ":" in part for part in parts)
        if leaves or is_odd or info.flag_bits & 0x1:
            what = "leaves the folder" if leaves else "is a link or device" if is_odd else "is encrypted"
            raise DataError(f"{zip_file}: refused, since the entry {info.filename!r} {what}")
        place = parts[1:]
        if info.is_dir() or parts[:1] != (root,) or not place or Path(place[-1]).suffix.lower() not in SUFFIXES:
            continue
        # Some file systems take A.jpg and a.jpg for one file.
        if "/".join(place).lower() in seen:
            raise DataError(f"{zip_file}: refused, since the entry {info.filename!r} stands there twice")
        seen.add("/".join(place).lower())
        found[place] = info
    if not found:
        raise DataError(f"{zip_file}: holds no images in a folder {root}")
    return found


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Copy one entry; no more than its stated size is ever written."""
    left = entry.file_size
    with archive.open(entry) as source, target.open("xb") as file:
        while left > 0 and (chunk := source.read(min(CHUNK_BYTES, left))):
            file.write(chunk)
            left -= len(chunk)
        if left or source.read(1):
            raise zipfile.BadZipFile(f"{entry.filename} has another size than stated")
