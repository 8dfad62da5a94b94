"""Pictures of any size through an engine that takes only some: scaling, padding, and carrying a change over to another size.

Pictures are [H, W, 3], of uint8 or, where 8 bits would lose something, float32 in [0, 1]; what comes out is of the same type.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from PIL import Image

from fruitgan.engines.contracts import Engine, Images
from fruitgan.images import Array, bytes_from_unit, resize, unit_from_bytes

LARGE = 1.5
"""How many times the training size a shorter side may be before `auto` scales it down; up to here a generator copes."""
LONGEST = 16
"""How many squares of the shorter side the engine is given at most, but for `native`: 1 x 20000 px must not need a gigabyte."""


class Fit(Protocol):
    """What must be known of a generator; a bundle's card says it."""

    @property
    def image_size_px(self) -> int: ...  # side of the square images that it was trained on

    def padded(self, side_px: int) -> int: ...  # the smallest side that it takes and that is no shorter


def network_size(height_px: int, width_px: int, fit: Fit, scale: str | int = "auto") -> tuple[int, int]:
    """Height and width at which the generator sees a picture; `scale` is `auto`, `native` or the shorter side in px.

    `auto` brings the shorter side of a picture that is LARGE to the training size and leaves any other. With `auto` and with
    a number, a very long picture is squeezed along its longer side to LONGEST squares.
    """
    if scale == "native":
        return height_px, width_px
    shorter = min(height_px, width_px)
    if isinstance(scale, int):
        square = target = scale
    else:
        square = fit.image_size_px
        target = square if shorter > LARGE * square else shorter
    limit = LONGEST * max(square, fit.padded(1)) ** 2 // fit.padded(target)
    height, width = (
        target if side == shorter else min(round(side * target / shorter), limit) for side in (height_px, width_px)
    )
    return height, width


def translate_pixels(engine: Engine, fit: Fit, pixels: Array, scale: str | int = "auto") -> Array:
    """A picture [H, W, 3] of any size, uint8 or float32 in [0, 1], to the same, seen by the generator at `network_size`.

    It is padded on both sides alike to what the engine takes: mirrored, or where it is too short for that, its edge repeated.
    Where the generator saw another size, its change is added to the original, so that it stays sharp.

    Raises:
        FruitganError: as `Engine.translate`.
    """
    height, width = network_size(pixels.shape[0], pixels.shape[1], fit, scale)
    seen: Any = resize(pixels, height, width)
    padded: Any = seen
    margins = [fit.padded(side) - side for side in (height, width)]
    for axis, margin in enumerate(margins):
        widths = [(0, 0), (0, 0), (0, 0)]
        widths[axis] = (margin // 2, margin - margin // 2)
        padded = np.pad(padded, widths, mode="reflect" if max(widths[axis]) < seen.shape[axis] else "edge")
    made = engine.translate(_unit(padded)[np.newaxis])[0]
    top, left = margins[0] // 2, margins[1] // 2
    own = made[top : top + height, left : left + width]
    result: Array = _like(pixels, own) if seen.shape == pixels.shape else _with_change(pixels, seen, own)
    return result


def _with_change(pixels: Any, before: Any, after: Images) -> Any:
    """The picture [H, W, 3] with the change from `before` to `after`, both [h, w, 3], brought to its size and added."""
    height, width = pixels.shape[:2]
    result: Any = np.empty_like(pixels)
    for channel in range(3):  # one at a time: a large photograph's change in floats is four times its bytes
        change = after[..., channel] - _unit(before[..., channel])
        # Bicubic, since Lanczos would ring at the edges of a change.
        large = np.asarray(Image.fromarray(change).resize((width, height), Image.Resampling.BICUBIC))
        result[..., channel] = _like(pixels, _unit(pixels[..., channel]) + large)
    return result


def _unit(pixels: Any) -> Any:
    """uint8 or float32 in [0, 1] to the latter."""
    return unit_from_bytes(pixels.astype(np.float32)) if pixels.dtype == np.uint8 else pixels


def _like(pixels: Any, unit: Any) -> Any:
    """[0, 1] to the type of these pixels."""
    return bytes_from_unit(unit) if pixels.dtype == np.uint8 else np.clip(unit, 0, 1)
