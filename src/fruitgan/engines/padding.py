"""Pictures of any size through an engine that takes only some: scaling, padding, and carrying a change over to another size.

Pictures are uint8 [H, W, 3]; here they become the engine's float32 in [0, 1], and its result 8 bits again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from fruitgan.engines.contracts import Engine, Images
from fruitgan.images import Pixels, bytes_from_unit, resize, unit_from_bytes

LARGE = 1.5
"""How many times the training size a shorter side may be before `auto` scales it down; up to here a generator copes."""
LONGEST = 16
"""How many squares of the shorter side the engine is given at most, but for `native`: 1 x 20000 px must not need a gigabyte."""


class Fit(Protocol):
    """What must be known of a generator; a bundle's card says it."""

    @property
    def image_size_px(self) -> int:
        """Side of the square images that it was trained on."""
        ...

    def padded(self, side_px: int) -> int:
        """The smallest side that it takes and that is no shorter than `side_px`."""
        ...


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


@dataclass(frozen=True)
class Canvas:
    """A picture laid out for the engine."""

    original: Pixels
    seen: Pixels
    """The picture at the size at which the generator sees it."""
    padded: Pixels
    """The same on the ground that the engine takes: on both sides alike mirrored, or where that is too short its edge."""
    top: int
    left: int

    def finished(self, translated: Images) -> Pixels:
        """The result in the original's size, from what the engine made of `padded`: float32 [H, W, 3] in [0, 1].

        Where the generator saw another size, its change is added to the original, so that it stays sharp.
        """
        own = translated[self.top : self.top + self.seen.shape[0], self.left : self.left + self.seen.shape[1]]
        return bytes_from_unit(own) if self.seen.shape == self.original.shape else with_change(self.original, self.seen, own)


def lay_out(pixels: Pixels, fit: Fit, scale: str | int = "auto") -> Canvas:
    """A picture of any size as the generator is to see it, at `network_size`."""
    height, width = network_size(pixels.shape[0], pixels.shape[1], fit, scale)
    seen = resize(pixels, height, width)
    margins = [fit.padded(side) - side for side in seen.shape[:2]]
    padded = seen
    for axis, margin in enumerate(margins):
        widths = [(0, 0), (0, 0), (0, 0)]
        widths[axis] = (margin // 2, margin - margin // 2)
        padded = np.pad(padded, widths, mode="reflect" if max(widths[axis]) < seen.shape[axis] else "edge")
    return Canvas(pixels, seen, padded, margins[0] // 2, margins[1] // 2)


def translate_canvases(engine: Engine, canvases: Sequence[Canvas]) -> list[Pixels]:
    """The results of pictures whose `padded` have one size, by one call of the engine.

    Raises:
        FruitganError: as `Engine.translate`.
    """
    images = unit_from_bytes(np.stack([canvas.padded for canvas in canvases]).astype(np.float32))
    return [canvas.finished(made) for canvas, made in zip(canvases, engine.translate(images), strict=True)]


def translate_pixels(engine: Engine, fit: Fit, pixels: Pixels, scale: str | int = "auto") -> Pixels:
    """A picture of any size to the same size, seen by the generator at `network_size`; raises as `translate_canvases`."""
    return translate_canvases(engine, [lay_out(pixels, fit, scale)])[0]


def with_change(pixels: Pixels, before: Pixels, after: Images) -> Pixels:
    """The picture [H, W, 3] with the change from `before` to `after`, both [h, w, 3], brought to its size and added."""
    height, width = pixels.shape[:2]
    result = np.empty_like(pixels)
    for channel in range(3):  # one at a time: a large photograph's change in floats is four times its bytes
        change = after[..., channel] - unit_from_bytes(before[..., channel].astype(np.float32))
        # Bicubic, since Lanczos would ring at the edges of a change.
        large = np.asarray(Image.fromarray(change).resize((width, height), Image.Resampling.BICUBIC))
        result[..., channel] = bytes_from_unit(unit_from_bytes(pixels[..., channel].astype(np.float32)) + large)
    return result
