"""Files of images: what a person named to the files that are images, names for their results, and results as files.

A result is PNG, JPEG or WebP and bears a mark of what made it. The mark is inside the file, not in a list beside it: so it is
there exactly when the image is, whatever is killed, moved, copied or run at the same time, and whoever meets the image
elsewhere can see that it was generated.
"""

from __future__ import annotations

import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from fruitgan import __version__
from fruitgan.data.finder import ImageFile
from fruitgan.errors import DataError
from fruitgan.images import Pixels

Format = Literal["png", "jpg", "webp"]
OPENING = '{"fruitgan-translate": '
TRAINED_AGAINST = "trained_against"
"""The entry with the pretrained networks that the generator was trained against: information that makes no other result."""
SEARCHED_BYTES = 4096  # PNG and JPEG hold the mark near their beginning, WebP at its end
SAVE_OPTIONS: Mapping[Format, Mapping[str, Any]] = {
    # Level 1 takes a third of the time of Pillow's own 6 on a drawn fruit, for 14% more bytes (docs/decisions.md).
    "png": {"format": "PNG", "compress_level": 1},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "quality": 95, "method": 4},
}
SIDE_LIMITS_PX: Mapping[Format, int] = {"png": 2**31 - 1, "jpg": 65_500, "webp": 16_383}


def encode(pixels: Pixels, alpha: NDArray[np.uint8] | None, form: Format, mark: Mapping[str, Any]) -> bytes:
    """The file of an image, uint8 [H, W, 3] and perhaps [H, W]; upright, sRGB, and with no other metadata than the mark.

    JPEG has no transparency: there the image lies on white.

    Raises:
        DataError: a side is longer than the format allows.
    """
    if max(pixels.shape[:2]) > SIDE_LIMITS_PX[form]:
        raise DataError(
            f"{pixels.shape[1]} x {pixels.shape[0]} px are too many for {form} ({SIDE_LIMITS_PX[form]} a side): use png"
        )
    if alpha is not None and form == "jpg":
        opacity = alpha[..., np.newaxis].astype(np.float32) / 255
        pixels = np.rint(pixels * opacity + 255 * (1 - opacity)).astype(np.uint8)
        alpha = None
    image = Image.fromarray(pixels if alpha is None else np.dstack([pixels, alpha]))
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = f"{OPENING}{json.dumps(mark, sort_keys=True)}}}"
    exif[ExifTags.Base.Software] = f"fruitgan {__version__}"
    file = io.BytesIO()
    image.save(file, exif=exif, **SAVE_OPTIONS[form])
    return file.getvalue()


def read_mark(path: Path) -> dict[str, Any] | None:
    """The mark of a result; None for any other file. Reads a few kilobytes and decodes nothing."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            parts = [file.read(SEARCHED_BYTES)]
            if len(parts[0]) == SEARCHED_BYTES:
                file.seek(-SEARCHED_BYTES, os.SEEK_END)
                parts.append(file.read())
    except OSError:
        return None
    for part in parts:
        start = part.find(OPENING.encode())
        if start >= 0:
            try:
                mark, _ = json.JSONDecoder().raw_decode(part[start + len(OPENING) :].decode("latin-1"))
            except (ValueError, RecursionError):
                return None
            return mark if isinstance(mark, dict) else None
    return None


def name_outputs(sources: Sequence[ImageFile], suffix: str) -> list[PurePath]:
    """A relative path for each source's result, all different also where upper and lower case are the same.

    The first that is free of: `photo.png`, `photo.jpg.png`, then with as many of the source's folders before it as it takes.
    All sources that want one name move on together, so that the names do not hang on their order.
    """
    forms = [list(_forms(source, suffix)) for source in sources]
    level = [0] * len(sources)
    while True:
        names = [form[at] for form, at in zip(forms, level, strict=True)]
        uses = Counter(_key(name) for name in names)
        clashing = [i for i, name in enumerate(names) if uses[_key(name)] > 1 and level[i] + 1 < len(forms[i])]
        if not clashing:
            return _numbered(names)
        for i in clashing:
            level[i] += 1


def _forms(source: ImageFile, suffix: str) -> Iterator[PurePath]:
    folder = source.relative.parent
    name = source.relative.name
    yield folder / (source.relative.stem + suffix)
    yield folder / (name + suffix)
    folders = Path(os.path.abspath(source.path)).parent.parts[1:]  # without the root
    for count in range(len(folder.parts) + 1, len(folders) + 1):
        yield PurePath(*folders[len(folders) - count :], name + suffix)


def _numbered(names: Sequence[PurePath]) -> list[PurePath]:
    """What still clashes differs in case alone and lies in one folder: `Photo.jpg.png`, `photo.jpg-2.png`."""
    taken: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 1
        while _key(candidate) in taken:
            number += 1
            candidate = name.with_name(f"{name.stem}-{number}{name.suffix}")
        taken.add(_key(candidate))
        result.append(candidate)
    return result


def _key(name: PurePath) -> str:
    return unicodedata.normalize("NFC", str(name)).casefold()
