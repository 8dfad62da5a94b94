"""The decoded image cache on the disk, so that the second training on the same images starts at once.

<cache>/decoded/<key>/   pixels.bin   the images' bytes in order     shapes.bin   height and width of each, int32, little-endian
                         about.json   counts, reasons, fingerprint   used         empty, and as old as the last use
<cache>/decoded/stamps/  which key files of these names, sizes and times had, so that they need not be read to know it

The key is a hash of what the files hold, in order, and of how they are brought to size: another place, or another name, is the
same dataset; one changed byte is another one. A folder is whole or absent. The least recently used go when all take more than
`LIMIT_BYTES`; the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from fruitgan.data.image_dataset import Fit, ImageDataset
from fruitgan.data.parallel import in_order
from fruitgan.errors import DataError, FruitganError, Stopped, UsageError
from fruitgan.files import PART_PREFIX, file_sha256, new_folder, remove_abandoned, remove_folder, write_atomically
from fruitgan.machine import cache_folder, spare_memory_bytes
from fruitgan.settings import from_json, read_json, to_json

EDITION = 1
"""Counts the changes of how files become pixels, so that an old version's are not taken for ours."""
LIMIT_BYTES = 32 * 2**30
MEMORY_SHARE = 0.5
"""Of the spare memory a dataset may take; a larger one is mapped from its file, of which the system keeps what it can."""
RACY_SECONDS = 2.0
"""A file written so shortly ago may be written again without its times telling."""


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How files become the images of a dataset."""

    load_size_px: int
    fit: Fit
    resample: Image.Resampling

    @property
    def words(self) -> str:
        return f"edition {EDITION}, Pillow {PIL.__version__}, {self.load_size_px} px, {self.fit}, {self.resample.name}"


@dataclass(frozen=True, kw_only=True)
class _About:
    """What `about.json` holds."""

    format: int
    load_size_px: int
    files: int
    broken: dict[str, str]
    """Why a file could not be decoded, by its number."""
    fingerprint: str


PIXELS, SHAPES, ABOUT, USED, STAMPS = "pixels.bin", "shapes.bin", "about.json", "used", "stamps"


def decoded_folder() -> Path:
    return cache_folder() / "decoded"


def cached_dataset(
    paths: Sequence[Path],
    settings: DecodeSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    memory_bytes: int | None = None,
) -> tuple[ImageDataset, str | None]:
    """The dataset of these files, from the cache if it is there, and a sentence if something about the cache should be known.

    It lies in memory if it takes no more than `memory_bytes` (None: half of what is spare), else it is mapped from its file.

    Raises:
        As `ImageDataset.build`. FruitganError too where it neither fits into memory nor can be written to the cache.
    """
    room = int(spare_memory_bytes() * MEMORY_SHARE) if memory_bytes is None else memory_bytes
    note = None
    if (key := _key(paths, settings)) is not None:  # else a file cannot be read, of which the dataset tells
        kept = _opened(decoded_folder() / key, paths, settings, room)
        if kept is not None:
            return kept, None
        try:
            return _made(key, paths, settings, room, on_progress), None
        except (DataError, UsageError, Stopped):
            raise
        except FruitganError as error:
            if _expected_bytes(paths, settings) > room:
                raise
            note = f"{error}; the decoded images are not kept, and are decoded again next time"
    return _decoded(paths, settings, on_progress, None), note


def _decoded(
    paths: Sequence[Path], settings: DecodeSettings, on_progress: Callable[[int, int], None] | None, memory_map: Path | None
) -> ImageDataset:
    return ImageDataset.build(
        paths,
        load_size_px=settings.load_size_px,
        fit=settings.fit,
        resample=settings.resample,
        on_progress=on_progress,
        memory_map=memory_map,
    )


def _made(
    key: str, paths: Sequence[Path], settings: DecodeSettings, room: int, on_progress: Callable[[int, int], None] | None
) -> ImageDataset:
    """Decode into the cache, and open what is then there."""
    folder = decoded_folder() / key
    try:
        with new_folder(folder) as part:
            _refuse_full_disk(part, _expected_bytes(paths, settings))
            _fill(part, _decoded(paths, settings, on_progress, part / PIXELS), paths)
    except FruitganError:
        if not folder.is_dir():  # else another process was faster
            raise
    dataset = _opened(folder, paths, settings, room)
    if dataset is None:
        raise FruitganError(f"{folder}: cannot be read back")
    remove_abandoned(folder.parent)
    _make_room(folder)
    return dataset


def _fill(part: Path, dataset: ImageDataset, paths: Sequence[Path]) -> None:
    """Write what belongs to a dataset beside its pixels, which are there."""
    shapes = np.stack([dataset.heights, dataset.widths], axis=1)
    (part / SHAPES).write_bytes(shapes.astype("<i4").tobytes())
    reasons = dict(dataset.broken)
    about = _About(
        format=1,
        load_size_px=dataset.load_size_px,
        files=len(paths),
        broken={str(n): reasons[path] for n, path in enumerate(paths) if path in reasons},
        fingerprint=dataset.fingerprint,
    )
    (part / ABOUT).write_text(json.dumps(to_json(about)), encoding="utf-8")
    (part / USED).touch()


def _opened(folder: Path, paths: Sequence[Path], settings: DecodeSettings, room: int) -> ImageDataset | None:
    """The dataset in this folder; None where there is none, or a damaged one, which is then removed."""
    if not folder.is_dir():
        return None
    try:
        about = from_json(_About, read_json(folder / ABOUT), str(folder / ABOUT))
        shapes = np.fromfile(folder / SHAPES, dtype="<i4").reshape(-1, 2).astype(np.int64)
        reasons = {int(number): reason for number, reason in about.broken.items()}
        size = (folder / PIXELS).stat().st_size
        counted = len(paths) == about.files == len(shapes) + len(reasons) and int(shapes.prod(axis=1).sum()) * 3 == size
        if about.format != 1 or about.load_size_px != settings.load_size_px or not counted:
            raise DataError(f"{folder}: not what it was")
        fits = size <= room
        pixels = np.fromfile(folder / PIXELS, dtype=np.uint8) if fits else np.memmap(folder / PIXELS, dtype=np.uint8, mode="r")
        dataset = ImageDataset(
            pixels,
            shapes,
            tuple(path for n, path in enumerate(paths) if n not in reasons),
            tuple((paths[n], reason) for n, reason in reasons.items()),
            settings.load_size_px,
            # What is mapped is not read through: that would take as long as decoding does elsewhere.
            fingerprint=None if fits else about.fingerprint,
        )
        if dataset.fingerprint != about.fingerprint:
            raise DataError(f"{folder}: other pixels than those written")
    except (DataError, UsageError, OSError, ValueError, IndexError):
        with suppress(FruitganError):
            remove_folder(folder)
        return None
    with suppress(OSError):  # a cache that can only be read is one all the same
        os.utime(folder / USED)
    return dataset


def _make_room(newest: Path) -> None:
    """Remove the datasets that were not used for longest until all take no more than the limit; the newest one stays."""

    def last_use(folder: Path) -> float:
        return (folder / USED).stat().st_mtime if (folder / USED).exists() else 0.0

    folders = [path.parent for path in newest.parent.glob(f"*/{PIXELS}") if not path.parent.name.startswith(PART_PREFIX)]
    taken = 0
    with suppress(OSError, FruitganError):  # another process may be at the same work
        for folder in sorted(folders, key=lambda folder: (folder == newest, last_use(folder)), reverse=True):
            taken += (folder / PIXELS).stat().st_size
            if taken > LIMIT_BYTES and folder != newest:
                remove_folder(folder)
        for stamp in (newest.parent / STAMPS).glob("*"):
            if not (newest.parent / stamp.read_text(encoding="ascii")).is_dir():
                stamp.unlink()


def _expected_bytes(paths: Sequence[Path], settings: DecodeSettings) -> int:
    """Of all decoded images; with the fit `cover` the least that it can be."""
    return len(paths) * settings.load_size_px**2 * 3


def _refuse_full_disk(folder: Path, expected_bytes: int) -> None:
    """Raises: FruitganError if so much does not fit there, before the first byte is written."""
    free = shutil.disk_usage(folder).free
    if free < expected_bytes:
        need, there_is = expected_bytes / 2**30, free / 2**30
        raise FruitganError(f"{folder.parent}: {need:.1f} GiB of decoded images do not fit into the {there_is:.1f} GiB free")


def _key(paths: Sequence[Path], settings: DecodeSettings) -> str | None:
    """sha256 over what the files hold, in order, and how it is brought to size; None where one is no file that can be read."""
    abouts = [_about_file(path) for path in paths]
    if None in abouts:
        return None
    stamp = hashlib.sha256(f"{settings.words}\n{abouts}".encode("utf-8", "surrogateescape")).hexdigest()
    remembered = decoded_folder() / STAMPS / stamp
    with suppress(OSError, ValueError):
        key = remembered.read_text(encoding="ascii")
        if len(key) == 64 and set(key) <= set("0123456789abcdef"):
            return key
    digest = hashlib.sha256(f"{settings.words}\n".encode())
    for _, found in in_order(_content, paths):
        if found is None:
            return None
        digest.update(found)
    key = digest.hexdigest()
    newest = max((max(about[2:4]) for about in abouts if about is not None), default=0)
    if time.time() - newest / 1e9 > RACY_SECONDS:
        with suppress(FruitganError):  # it is a shortcut and no more
            write_atomically(remembered, key.encode())
    return key


def _about_file(path: Path) -> tuple[str, int, int, int, int] | None:
    """Name, size, both times in ns and number of a file: while these stay, so does what it holds."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(about.st_mode):
        return None
    return os.path.abspath(path), about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _content(path: Path) -> bytes | None:
    try:
        return bytes.fromhex(file_sha256(path))
    except DataError:
        return None
