"""Pictures as arrays: their size, and uint8 [H, W, 3] to [0, 1] to [-1, 1] and back.

`unit` means [0, 1], `signed` means [-1, 1]. The arithmetic is the same for numpy arrays and torch tensors.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Array = TypeVar("Array", bound=Any)
Fit = Literal["squash", "crop", "pad"]
"""How a picture becomes a square."""

SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".jp2", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"),
        *(".heic", ".heif"),  # which Pillow does not read by itself: so that they are spoken of and not passed over
    }
)
"""How the names of pictures end, where a folder of data is searched by name."""


def resize(pixels: Array, height_px: int, width_px: int, resample: Image.Resampling = Image.Resampling.LANCZOS) -> Array:
    """[H, W, 3] of uint8, or of float32 in [0, 1], to [height_px, width_px, 3], antialiased (but for NEAREST)."""
    if pixels.shape[:2] == (height_px, width_px):
        return pixels
    parts = [pixels] if pixels.dtype == np.uint8 else [np.ascontiguousarray(pixels[..., channel]) for channel in range(3)]
    resized: Any = [np.array(Image.fromarray(part).resize((width_px, height_px), resample)) for part in parts]
    # Lanczos and bicubic go past the ends of the range at edges, as bytes cannot.
    whole: Any = resized[0] if len(parts) == 1 else np.stack(resized, axis=-1).clip(0, 1)
    result: Array = whole
    return result


def squared(
    pixels: Pixels,
    side_px: int,
    fit: Fit = "squash",
    resample: Image.Resampling = Image.Resampling.LANCZOS,
    border: tuple[int, int, int] = (255, 255, 255),
) -> Pixels:
    """[H, W, 3] to [side_px, side_px, 3]: squeezed to a square, the square in the middle, or with borders of a colour."""
    height, width = pixels.shape[:2]
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    elif fit == "pad" and height != width:
        longer = max(height, width)
        # Rounded in integers, half up, so that no platform's floats decide.
        inner_height, inner_width = (max(1, (2 * side * side_px + longer) // (2 * longer)) for side in (height, width))
        top, left = (side_px - inner_height) // 2, (side_px - inner_width) // 2
        square = np.empty((side_px, side_px, 3), dtype=np.uint8)
        square[:] = border
        square[top : top + inner_height, left : left + inner_width] = resize(pixels, inner_height, inner_width, resample)
        return square
    return resize(pixels, side_px, side_px, resample)


def unit_from_bytes(pixels: Array) -> Array:
    """0..255 to [0, 1]; give floats or get numpy's float64."""
    unit: Array = pixels / 255
    return unit


def signed_from_unit(images: Array) -> Array:
    """[0, 1] to [-1, 1]."""
    signed: Array = images * 2 - 1
    return signed


def unit_from_signed(images: Array) -> Array:
    """[-1, 1] to [0, 1]."""
    unit: Array = (images + 1) / 2
    return unit


def bytes_from_unit(images: NDArray[np.floating[Any]]) -> Pixels:
    """[0, 1] to 0..255: clipped, then rounded, never truncated."""
    pixels: Pixels = np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
    return pixels
