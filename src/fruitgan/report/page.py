"""What every report shares: templates, pictures and grids of them, words for numbers. No request leaves a page."""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

import fruitgan
from fruitgan.data.decode import decode
from fruitgan.errors import DataError
from fruitgan.images import Pixels
from fruitgan.progress import duration

GAP_PX = 2
SHOWN_SHEETS = 7
NEWEST_LIMIT_BYTES, EARLIER_LIMIT_BYTES = 1_500_000, 700_000

# (format, quality, longest side in px), from exact to small; the last is taken whatever it weighs.
_ENCODINGS: tuple[tuple[str, int, int], ...] = (
    ("PNG", 0, 4096),
    ("JPEG", 95, 4096),
    ("JPEG", 88, 384),
    ("JPEG", 85, 256),
    ("JPEG", 80, 128),
    ("JPEG", 75, 64),
)


# Controls, but for tabs and line ends; what turns the direction of the text around it, or takes no place; halves of characters,
# such as the bytes of a file name that is not UTF-8. None of them can be seen, and some are no HTML or no UTF-8.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ufeff\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def render(template: str, **context: Any) -> str:
    """The template of this name as HTML text; what is not `markupsafe.Markup` is made visible and escaped, what is missing is
    an error.
    """
    return _environment().get_template(template).render(fruitgan_version=fruitgan.__version__, **context)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fruitgan.report"),
        autoescape=True,
        finalize=_finalised,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"thousands": thousands, "duration": duration, "number": number, "percent": percent}
    return environment


def _finalised(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def visible(text: str) -> str:
    """A name for a page: signs that cannot be seen stand as Python's escapes, so that no name hides or turns a part of it."""
    return _UNSEEN.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def inline_images(pictures: Sequence[Pixels], limit_bytes: int) -> list[str]:
    """Pictures, uint8 [H, W, 3], as data URIs; all encoded alike, as faithfully as keeps them together below the limit.

    PNG first, since JPEG hides the very grids and noise that one looks for in generated pictures.
    """
    uris: list[str] = []
    for encoding in _ENCODINGS:
        uris, weight = [], 0
        for picture in pictures:
            uris.append(_data_uri(picture, *encoding))
            weight += len(uris[-1])
            if weight > limit_bytes and encoding != _ENCODINGS[-1]:
                break
        else:
            break
    return uris


def _data_uri(pixels: Pixels, kind: str, quality: int, side_px: int) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if kind == "PNG":
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=quality, subsampling=0)  # not optimize: Pillow fails on noise larger than its buffer
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def grid(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Pictures of one size, uint8 [H, W, 3], row by row on white, with a small gap."""
    height, width = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    sheet: Pixels = np.full(
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
    Image.fromarray(pixels).save(buffer, "PNG")
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


def thousands(value: int) -> str:
    """12,345."""
    return f"{value:,}"


def percent(share: float) -> str:
    """91.7%; without a decimal, 0% and 100%, only where it is none or all."""
    return f"{100 * share:.1f}%" if share not in (0, 1) else f"{share:.0%}"


def number(value: float, digits: int = 3) -> str:
    """Significant digits without padding: 0.0289, 3.72, 1,240."""
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if abs(float(text)) >= 10**digits else text  # 999.6 is 1,000
