"""Grids of pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fruitgan.images import Pixels, to_pillow

GAP_PX = 2


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


def fit_square(pixels: Pixels, side_px: int) -> Pixels:
    """The picture squashed to a square."""
    return np.array(to_pillow(pixels).resize((side_px, side_px), Image.Resampling.LANCZOS))
