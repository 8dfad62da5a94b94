"""What a detector has seen: which images trained it, and of what sizes, formats and compression their files were."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fruitgan.data.decode import decode
from fruitgan.data.groups import Look, look_of
from fruitgan.parallel import in_order
from fruitgan.progress import OnProgress, silent
from fruitgan.train_detector.protocols import Split

QUALITY_MARGIN = 5
"""JPEG qualities so near to those of the training images do not count as others: the estimate is of that order."""
SAME_FORMAT = {"MPO": "JPEG"}


class Header(NamedTuple):
    """Of a file that was not decoded."""

    width_px: int
    height_px: int
    format: str
    quality: int | None
    """Of a JPEG, 1 to 100, estimated."""


def looks_of(paths: Sequence[Path], tell: OnProgress = silent) -> list[Look]:
    """Raises: DataError if an image cannot be decoded."""
    found = in_order(lambda path: look_of(decode(path).pixels), paths, what="comparing images", tell=tell)
    return [look for _, look in found]


def seen_by(paths: Sequence[Path], split: Split, tell: OnProgress) -> dict[str, Any]:
    """What a detector that is trained by this split has seen, as fields of its card; Raises: as `looks_of`."""
    looks = looks_of(paths, tell)
    train, val, test = (tuple(looks[i].content for i in part) for part in (split.train, split.val, split.test))
    taught = np.setdiff1d(np.union1d(split.train, split.val), split.test)
    used = np.union1d(taught, split.test)
    return {
        "train_sha256": train,
        "val_sha256": val,
        "test_sha256": test,
        "taught_looks": tuple(f"{looks[i].code:016x}" for i in taught),
        "files": FilesSeen.of([header for i in used if (header := header_of(paths[i])) is not None]),
    }


def header_of(path: Path) -> Header | None:
    """None where it cannot be read: what is wrong with the file is said where it is decoded."""
    with suppress(Exception), Image.open(path) as image:
        tables = getattr(image, "quantization", None)
        form = image.format or ""
        return Header(*image.size, SAME_FORMAT.get(form, form), jpeg_quality(tables[0]) if tables else None)
    return None


def jpeg_quality(table: Sequence[int]) -> int:
    """The quality, 1 to 100 as libjpeg counts, whose luminance table is nearest to this one, in any order."""
    return 1 + int(np.abs(_luminance_tables() - np.sort(table)).sum(axis=1).argmin())


@functools.cache
def _luminance_tables() -> NDArray[np.int64]:
    """[100, 64]: what libjpeg writes at each quality, in ascending order."""
    files = [io.BytesIO() for _ in range(100)]
    for quality, file in enumerate(files, start=1):
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
    return np.sort([getattr(Image.open(file), "quantization")[0] for file in files])  # noqa: B009 - of JPEGs alone


@dataclass(frozen=True, kw_only=True)
class FilesSeen:
    """Sizes, formats and compression of the files that trained a detector."""

    sides_px: tuple[int, int]
    """The shortest and the longest side of them all."""
    formats: tuple[str, ...]
    qualities: tuple[int, int] | None = None
    """The lowest and the highest quality of the JPEGs among them."""

    @classmethod
    def of(cls, headers: Sequence[Header]) -> FilesSeen:
        sides = [side for header in headers for side in header[:2]]
        qualities = [header.quality for header in headers if header.quality is not None]
        return cls(
            sides_px=(min(sides), max(sides)),
            formats=tuple(sorted({header.format for header in headers})),
            qualities=(min(qualities), max(qualities)) if qualities else None,
        )

    def outside(self, header: Header) -> list[str]:
        """In what a file is unlike all of them, in words."""
        found, sides = [], " to ".join(map(str, dict.fromkeys(self.sides_px)))
        if min(header[:2]) < self.sides_px[0] or max(header[:2]) > self.sides_px[1]:
            found.append(f"size: {header.width_px} x {header.height_px} px, trained on sides of {sides} px")
        if header.format not in self.formats:
            found.append(f"format: {header.format}, trained on {' and '.join(self.formats)}")
        if header.quality is not None and self.qualities is not None:
            low, high = self.qualities
            if not low - QUALITY_MARGIN <= header.quality <= high + QUALITY_MARGIN:
                known = " to ".join(map(str, dict.fromkeys(self.qualities)))
                found.append(f"compression: JPEG quality {header.quality}, trained on {known}")
        return found
