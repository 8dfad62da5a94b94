"""How a file becomes a square image of a data set, by one rule for all, and what the files of a set hold."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image, ImageColor

from fruitgan.data.colour import Colour, Range
from fruitgan.data.decode import Decoded, decode, is_deep
from fruitgan.data.finder import Remark
from fruitgan.data.groups import Look, look_of
from fruitgan.data.sources import Source
from fruitgan.errors import DataError, UsageError, shown
from fruitgan.images import Fit, Pixels, squared
from fruitgan.parallel import Cluster, in_order
from fruitgan.progress import OnProgress, Progress, silent
from fruitgan.settings import from_json, to_json

SQUARE = 1.01
"""Up to this ratio of the sides the median picture counts as square."""
GREY_DIFFERENCE = 3.0
"""Mean difference of the colour channels, of 255, up to which a picture is greyscale (JPEG adds about 1)."""


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


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is kept of a decoded file."""

    path: Path
    domain: str
    split: str
    """`train` or `test`."""
    look: Look
    width_px: int
    height_px: int
    """Both of the upright picture."""
    format: str
    mode: str
    """The file's colour mode in Pillow's words."""
    traits: Traits
    is_greyscale: bool


@dataclass(frozen=True)
class Split:
    """The files of one split of a domain, in their order."""

    pictures: Sequence[Picture]
    broken: Sequence[Remark]
    """What cannot be decoded, and why."""


Survey = Mapping[tuple[str, str], Split]
"""All files by domain and split (`train` or `test`)."""


def survey(source: Source, how: Preprocessing, tell: OnProgress = silent, cluster: Cluster | None = None) -> Survey:
    """Decode every file of both domains once, here or by the actors of a cluster.

    Raises:
        DataError: a file that was there is there no more.
    """
    found: dict[tuple[str, str], Split] = {}
    for split in ("train", "test"):
        for domain in (source.a, source.b):
            paths = domain.train if split == "train" else domain.test
            look = functools.partial(_look, how=how, domain=domain.name, split=split)
            what = f"looking at {split} {domain.name}"
            seen: list[Picture | Remark] = []
            if cluster is None:
                seen += (picture for _, picture in in_order(look, paths, what=what, tell=tell))
            else:
                for value in cluster.each(functools.partial(_looking, look), to_json(paths), on_gpus=False):
                    seen.append(from_json(cast(Any, Picture | Remark), value))
                    tell(Progress(what, len(seen), len(paths)))
            broken = [file for file in seen if isinstance(file, Remark)]
            found[domain.name, split] = Split([file for file in seen if isinstance(file, Picture)], broken)
    return found


def _looking(look: Callable[[Path], Picture | Remark], device: str) -> Callable[[str], Any]:
    """What an actor does for each path."""
    return lambda path: to_json(look(Path(path)))


def _look(path: Path, how: Preprocessing, domain: str, split: str) -> Picture | Remark:
    try:
        decoded = how.decode(path)
    except DataError as error:
        if not os.path.lexists(path):  # a drive that is gone must not become a smaller data set
            raise DataError(
                f"{path}: disappeared while the images were looked at; give the command again when it is back"
            ) from error
        return Remark(str(path), str(error).removeprefix(f"{path}: "))
    height, width = decoded.pixels.shape[:2]
    values = decoded.pixels.astype(np.int16)
    return Picture(
        path=path,
        domain=domain,
        split=split,
        look=look_of(decoded.pixels),
        width_px=width,
        height_px=height,
        format=decoded.format,
        mode=decoded.mode,
        traits=traits(decoded),
        is_greyscale=float((values.max(axis=2) - values.min(axis=2)).mean()) <= GREY_DIFFERENCE,
    )
