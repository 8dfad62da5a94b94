"""Grids of pictures, and the sample sheets of a run, which are such grids."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fruitgan.data.decode import decode
from fruitgan.errors import DataError
from fruitgan.images import Pixels, to_pillow
from fruitgan.report.page import inline_images

GAP_PX = 2
SHOWN_SHEETS = 7
NEWEST_LIMIT_BYTES, EARLIER_LIMIT_BYTES = 1_500_000, 700_000


def grid(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Pictures of one size, uint8 [H, W, 3], row by row on white, with a small gap."""
    height, width = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    sheet: NDArray[np.uint8] = np.full(
        (len(rows) * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, 3), 255, dtype=np.uint8
    )
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = r * (height + GAP_PX), c * (width + GAP_PX)
            sheet[top : top + height, left : left + width] = picture
    return sheet


def png_bytes(pixels: Pixels) -> bytes:
    """The picture as a PNG file's bytes, without metadata."""
    buffer = io.BytesIO()
    to_pillow(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Sheet:
    """A sample sheet for a page."""

    step: int
    uri: str


def sample_files(folder: Path) -> dict[int, Path]:
    """The sheets in a run's `samples/` by step, in order."""
    steps = {path: re.fullmatch(r"step-(\d+)\.png", path.name) for path in folder.glob("step-*.png")}
    return dict(sorted((int(match[1]), path) for path, match in steps.items() if match))


def sample_sheets(folder: Path) -> list[Sheet]:
    """At most `SHOWN_SHEETS` of a run's sample sheets, spread evenly over its steps from the first to the newest."""
    sheets: dict[int, Pixels] = {}
    files = sample_files(folder)
    steps = list(files)
    places = np.linspace(0, len(steps) - 1, min(SHOWN_SHEETS, len(steps)))
    for step in [steps[round(place)] for place in places]:
        try:
            sheets[step] = decode(files[step]).pixels
        except DataError:  # torn, or not a picture
            continue
    pictures = list(sheets.values())
    uris = inline_images(pictures[:-1], EARLIER_LIMIT_BYTES) + inline_images(pictures[-1:], NEWEST_LIMIT_BYTES)
    return [Sheet(step, uri) for step, uri in zip(sheets, uris, strict=True)]
