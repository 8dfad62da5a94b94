"""How a file becomes a square image of a data set: one rule for training, export and evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor

from fruitgan.data.colour import Colour, Range
from fruitgan.data.decode import Decoded, decode, is_deep
from fruitgan.data.parallel import in_order
from fruitgan.errors import DataError, UsageError, shown
from fruitgan.images import Fit, Pixels, squared
from fruitgan.progress import OnProgress, silent

SQUARE = 1.01
"""Up to this ratio of the sides the median picture counts as square."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What transparent pixels lie on, which values of deep greys become 0 and 255, and how a rectangle becomes a square."""

    background: str = "white"
    """A colour by its CSS name or as #rrggbb."""
    value_range: Range | None = None
    """Of grey pictures of more than 8 bits; None: see `decode`."""
    fit: Fit = "squash"

    def __post_init__(self) -> None:
        self.colour()
        if self.value_range is not None:
            low, high = self.value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(f"--value-range {low:g},{high:g}: two finite numbers are needed, the second the larger")

    def asked(self, background: str | None, value_range: str | None, fit: Fit | None) -> Preprocessing:
        """With what the options `--background`, `--value-range` and `--fit` say, as far as they are given.

        Raises:
            UsageError: one has a value that cannot be.
        """
        return Preprocessing(
            background=background or self.background,
            value_range=self.value_range if value_range is None else parse_value_range(value_range),
            fit=fit or self.fit,
        )

    def colour(self) -> Colour:
        """Red, green and blue of the background. Raises: UsageError if it is no colour."""
        try:
            red, green, blue, *opacity = ImageColor.getrgb(self.background)
        except ValueError:
            opacity = [0]
        if opacity:
            raise UsageError(f"--background {shown(self.background)}: no colour; give a name such as white, or #rrggbb")
        return red, green, blue

    def decode(self, source: Path) -> Decoded:
        """The picture, of any shape. Raises: as `fruitgan.data.decode.decode`."""
        return decode(source, background=self.colour(), value_range=self.value_range)

    def squared(self, pixels: Pixels, side_px: int, resample: Image.Resampling = Image.Resampling.LANCZOS) -> Pixels:
        """[H, W, 3] to [side_px, side_px, 3]."""
        return squared(pixels, side_px, self.fit, resample, border=self.colour())


AS_USUAL = Preprocessing()


def parse_value_range(text: str | None) -> Range | None:
    """What `--value-range LOW,HIGH|auto` means; None is auto.

    Raises:
        UsageError: it is neither.
    """
    if text is None or text == "auto":
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--value-range {text}: give auto, or two numbers such as 0,4095") from None
    return low, high


def with_found_range(how: Preprocessing, paths: Sequence[Path], tell: OnProgress = silent) -> Preprocessing:
    """With the lowest and the highest value in all grey pictures of more than 8 bits, unless a range was given.

    Files that cannot be decoded are passed over: whoever decodes them next says so.
    """
    if how.value_range is not None:
        return how
    found = [held for _, held in in_order(_held, paths, what="looking at the values", tell=tell) if held is not None]
    if not found:
        return how
    low, high = min(held[0] for held in found), max(held[1] for held in found)
    return replace(how, value_range=(low, high if high > low else low + 1))


def _held(path: Path) -> Range | None:
    try:
        return decode(path).values if is_deep(path) else None
    except DataError:
        return None


class Traits(NamedTuple):
    """What may be odd about one picture, see `Tally`."""

    aspect: float
    transparent: bool
    deep: bool
    not_finite: bool
    first_of_many: bool


def traits(picture: Decoded) -> Traits:
    height, width = picture.pixels.shape[:2]
    odd = (picture.alpha is not None, picture.values is not None, not picture.is_finite, picture.is_first_of_many)
    return Traits(width / height, *odd)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What is odd about some pictures, counted."""

    images: int = 0
    aspect: float = 1.0
    """The median of width by height."""
    transparent: int = 0
    deep: int = 0
    """Grey with more than 8 bits."""
    not_finite: int = 0
    """With NaN or infinities."""
    first_of_many: int = 0
    """Files that hold further frames or pages."""

    @classmethod
    def of(cls, pictures: Sequence[Traits]) -> Tally:
        if not pictures:
            return cls()
        aspects, *odd = zip(*pictures, strict=True)
        counts = dict(zip(Traits._fields[1:], map(sum, odd), strict=True))
        return cls(images=len(pictures), aspect=float(np.median(aspects)), **counts)

    def notes(self, where: str, how: Preprocessing) -> Iterator[str]:
        """What a person should know, a sentence each."""

        def share(count: int) -> str:
            return f"{where}: {count} of {self.images} images"

        if self.transparent:
            yield f"{share(self.transparent)} have transparent parts; these lie on {how.background} (--background)"
        if self.deep and how.value_range is not None:
            low, high = how.value_range
            yield f"{share(self.deep)} have more than 8 bits; {low:g} to {high:g} become 0 to 255 (--value-range)"
        if self.not_finite:
            yield f"{share(self.not_finite)} hold NaN or infinite values, which become the lowest value"
        if self.first_of_many:
            yield f"{share(self.first_of_many)} have further frames or pages, which are not used"
        if max(self.aspect, 1 / self.aspect) > SQUARE:
            yield (
                f"{where}: the median image is {self.aspect:.2f} times as wide as high and "
                + {
                    "squash": "is squashed to a square (--fit crop and --fit pad keep its shape)",
                    "crop": "is cropped to the square in its middle (--fit crop)",
                    "pad": f"is made a square with borders of {how.background} (--fit pad)",
                }[how.fit]
            )


NOTHING = Tally()
