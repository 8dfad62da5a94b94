"""The image dataset: every training image decoded once, as squares of the size that training crops from; and its cache.

<cache>/decoded/<key>/pixels.bin   the images' bytes in order
<cache>/decoded/<key>/about.json   counts, reasons, fingerprint

The key is a hash of the files' names, sizes and times, in order, and of how they are brought to size: the second training on
the same images starts at once. A folder is whole or absent, and as old as its last use. The least recently used make
room for new ones; all may be deleted at any time.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from fruitgan.cache import make_room
from fruitgan.data.preprocessing import AS_USUAL, NOTHING, Preprocessing, Tally, Traits, traits
from fruitgan.errors import DataError, FruitganError, Stopped, UsageError, reason_of
from fruitgan.files import make_once, remove_folder
from fruitgan.images import Pixels
from fruitgan.machine import cache_folder
from fruitgan.parallel import in_order
from fruitgan.progress import OnProgress, silent
from fruitgan.settings import from_json, read_json, to_json


@dataclass(eq=False)
class ImageDataset:
    """Square images in one array, in the order of the paths; use `ImageDataset.build` or `cached_dataset`."""

    pixels: Pixels
    """uint8 [N, S, S, 3]"""
    names: tuple[Path, ...]
    broken: tuple[tuple[Path, str], ...]
    """The files that could not be decoded, with the reasons."""
    tally: Tally = NOTHING
    """Of the others."""
    fingerprint: str = ""
    """sha256, in hex, over the number of images, their sizes and their pixels; names do not matter."""

    @classmethod
    def build(
        cls,
        paths: Sequence[Path],
        *,
        load_size_px: int,
        how: Preprocessing = AS_USUAL,
        resample: Image.Resampling = Image.Resampling.BICUBIC,
        workers: int | None = None,
        memory_map: Path | None = None,
        what: str = "decoding",
        tell: OnProgress = silent,
    ) -> ImageDataset:
        """Decode every file and make it a square of `load_size_px`.

        With `memory_map` the bytes go to that file, which is then mapped, instead of into memory; it is overwritten, and
        belongs to the dataset for as long as that lives.

        Raises:
            DataError: no paths, or not one file could be decoded. Fewer broken files are listed in `broken`.
            FruitganError: the file for the memory map cannot be written.
        """
        if not paths:
            raise DataError("no images to load")

        def load(path: Path) -> tuple[Pixels, Traits] | str:
            try:
                picture = how.decode(path)
            except DataError as error:
                return str(error).removeprefix(f"{path}: ")
            return how.squared(picture.pixels, load_size_px, resample), traits(picture)

        names: list[Path] = []
        found: list[Traits] = []
        broken: list[tuple[Path, str]] = []
        try:
            with nullcontext(io.BytesIO()) if memory_map is None else memory_map.open("wb") as file:
                for path, result in in_order(load, paths, workers, what=what, tell=tell):
                    if isinstance(result, str):
                        broken.append((path, result))
                    else:
                        file.write(np.ascontiguousarray(result[0]).data)
                        found.append(result[1])
                        names.append(path)
        except OSError as error:
            raise FruitganError(f"{memory_map}: cannot be written ({reason_of(error)})") from error
        if not names:
            raise DataError(f"none of {len(paths)} files is an image that can be decoded; {broken[0][0]}: {broken[0][1]}")
        flat = (
            np.frombuffer(file.getbuffer(), np.uint8) if isinstance(file, io.BytesIO) else np.memmap(file.name, np.uint8, "r")
        )
        pixels = flat.reshape(len(names), load_size_px, load_size_px, 3)
        digest = hashlib.sha256(f"{len(names)} images\n".encode())
        digest.update(np.full((len(names), 2), load_size_px, dtype="<i8").tobytes())
        digest.update(pixels.data)
        return cls(pixels, tuple(names), tuple(broken), Tally.of(found), digest.hexdigest())

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def load_size_px(self) -> int:
        return int(self.pixels.shape[1])


FORMAT = 3
"""Of the folder."""
EDITION = 2
"""Counts the changes of how files become pixels, so that an old version's are not taken for ours."""


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How files become the images of a dataset."""

    load_size_px: int
    resample: Image.Resampling
    how: Preprocessing = AS_USUAL

    @property
    def words(self) -> str:
        return f"edition {EDITION}, Pillow {PIL.__version__}, {self.load_size_px} px, {self.how}, {self.resample.name}"


@dataclass(frozen=True, kw_only=True)
class _About:
    """What `about.json` holds."""

    format: int
    files: int
    broken: dict[str, str]
    """Why a file could not be decoded, by its number."""
    tally: Tally
    fingerprint: str


PIXELS, ABOUT = "pixels.bin", "about.json"


def decoded_folder() -> Path:
    return cache_folder() / "decoded"


def cached_dataset(
    paths: Sequence[Path], settings: DecodeSettings, *, what: str = "decoding", tell: OnProgress = silent
) -> tuple[ImageDataset, str | None]:
    """The dataset of these files, mapped from the cache, and a sentence if something about the cache should be known.

    Where the cache cannot be written, the dataset lies in memory.

    Raises:
        As `ImageDataset.build`.
    """
    build = functools.partial(ImageDataset.build, paths, **vars(settings), what=what, tell=tell)
    if (key := _key(paths, settings)) is None:  # a file cannot be read, of which the dataset tells
        return build(), None
    folder = decoded_folder() / key
    try:
        return _opened(folder, paths, settings) or _made(folder, paths, settings, build), None
    except (DataError, UsageError, Stopped):
        raise
    except FruitganError as error:
        return build(), f"{error}; the decoded images are not kept, and are decoded again next time"


def _made(folder: Path, paths: Sequence[Path], settings: DecodeSettings, build: Callable[..., ImageDataset]) -> ImageDataset:
    """Decode into the cache, and open what is then there."""

    def fill(part: Path) -> None:
        need, free = len(paths) * settings.load_size_px**2 * 3, shutil.disk_usage(part).free
        if free < need:  # said before the disk is full
            sizes = f"{need / 2**30:.1f} GiB of decoded images do not fit into the {free / 2**30:.1f} GiB free"
            raise FruitganError(f"{folder.parent}: {sizes}")
        dataset = build(memory_map=part / PIXELS)
        reasons = dict(dataset.broken)
        about = _About(
            format=FORMAT,
            files=len(paths),
            broken={str(n): reasons[path] for n, path in enumerate(paths) if path in reasons},
            tally=dataset.tally,
            fingerprint=dataset.fingerprint,
        )
        (part / ABOUT).write_text(json.dumps(to_json(about)), encoding="utf-8")

    make_once(folder, fill)
    opened = _opened(folder, paths, settings)
    if opened is None:
        raise FruitganError(f"{folder}: cannot be read back")
    make_room(folder)
    return opened


def _opened(folder: Path, paths: Sequence[Path], settings: DecodeSettings) -> ImageDataset | None:
    """The dataset in this folder; None where there is none, or a damaged one, which is then removed."""
    if not folder.is_dir():
        return None
    try:
        about = from_json(_About, read_json(folder / ABOUT), str(folder / ABOUT))
        reasons = {int(number): reason for number, reason in about.broken.items()}
        side, count = settings.load_size_px, about.files - len(reasons)
        size = (folder / PIXELS).stat().st_size
        if about.format != FORMAT or about.files != len(paths) or size != count * side**2 * 3:
            raise DataError(f"{folder}: not what it was")
        dataset = ImageDataset(
            np.memmap(folder / PIXELS, dtype=np.uint8, mode="r", shape=(count, side, side, 3)),
            tuple(path for n, path in enumerate(paths) if n not in reasons),
            tuple((paths[n], reason) for n, reason in reasons.items()),
            about.tally,
            about.fingerprint,
        )
    except (DataError, UsageError, OSError, ValueError, IndexError):
        with suppress(FruitganError):
            remove_folder(folder)
        return None
    with suppress(OSError):  # a cache that can only be read is one all the same
        os.utime(folder)
    return dataset


def _key(paths: Sequence[Path], settings: DecodeSettings) -> str | None:
    """sha256 over the files' names, sizes and times and how they are brought to size; None where one is no file."""
    digest = hashlib.sha256(settings.words.encode())
    for path in paths:
        try:
            about = path.stat()
        except (OSError, ValueError):  # ValueError: a null byte in the path
            return None
        if not stat.S_ISREG(about.st_mode):
            return None
        words = f"\n{os.path.abspath(path)} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
        digest.update(words.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
