"""Properties of an image file beside its content: size, format, metadata, and traces of how it was stored."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fruitgan.data.decode import decode
from fruitgan.data.finder import bare_reason
from fruitgan.data.groups import Look, look_of
from fruitgan.errors import DataError, reading
from fruitgan.files import open_regular
from fruitgan.images import Pixels
from fruitgan.parallel import in_order
from fruitgan.progress import OnProgress, silent

THIN_VALUES = 8
THIN_SHARE = 2e-4
BLOCK_PX = 8
LEAST_BLOCKS = 3
DIGITS = re.compile(r"\d+")
DULL = frozenset({"dpi", "jfif", "jfif_version", "jfif_unit", "jfif_density", "progression", "progressive", "transparency"})
"""Entries that Pillow gives for any file of its kind."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Properties of one file."""

    path: Path
    generated: bool
    file_sha256: str
    look: Look
    width_px: int
    height_px: int
    format: str
    mode: str
    quantisation: str
    """Of a JPEG: a hash of its quantisation tables and of how its colours are sampled; else empty."""
    metadata: tuple[str, ...]
    """Further entries of its header, such as `exif`, `icc_profile` or `Software=...`; sorted."""
    name: str
    """The file's name with each number in it as `0`, padded numbers as `00`, without its suffix."""
    suffix: str
    blockiness: float
    """Log of how much larger steps are across the borders of JPEG's blocks of 8 px than elsewhere; 0 for no JPEG."""
    darkest: int
    brightest: int
    full_range: bool
    """Whether its darkest value is 0 and its brightest 255."""
    thin_ends: bool
    """Whether it just reaches them, as after a stretch, while most pictures that reach both ends are clipped there."""


def inspect(paths: Sequence[Path], generated: Sequence[bool], tell: OnProgress = silent) -> list[Facts]:
    """The facts of each file, in order; one picture is in memory at a time and thread.

    Raises:
        DataError: an image cannot be read or decoded (named).
    """
    looked = in_order(_facts, list(zip(paths, generated, strict=True)), what="looking for leaks", tell=tell)
    return [facts for _, facts in looked]


def _facts(item: tuple[Path, bool]) -> Facts:
    path, generated = item
    with reading(path), open_regular(path) as file:
        data = file.read()
    try:
        picture = decode(data)
    except DataError as error:
        raise DataError(f"{path}: {bare_reason(error)}") from error
    pixels = picture.pixels
    height, width = pixels.shape[:2]
    ends = min(int((pixels == 0).sum()), int((pixels == 255).sum()))
    quantisation, metadata = _header(data)
    return Facts(
        path=path,
        generated=generated,
        file_sha256=hashlib.sha256(data).hexdigest(),
        look=look_of(pixels),
        width_px=width,
        height_px=height,
        format=picture.format,
        mode=picture.mode,
        quantisation=quantisation,
        metadata=metadata,
        name=DIGITS.sub(lambda found: "00" if found[0].startswith("0") and len(found[0]) > 1 else "0", path.stem),
        suffix=path.suffix,
        blockiness=blockiness(pixels),
        darkest=int(pixels.min()),
        brightest=int(pixels.max()),
        full_range=ends > 0,
        thin_ends=0 < ends <= max(THIN_VALUES, THIN_SHARE * pixels.size),
    )


def _header(data: bytes) -> tuple[str, tuple[str, ...]]:
    """The quantisation of a JPEG and the metadata of any file; a header that cannot be read has neither."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            tables = getattr(image, "quantization", None) or {}
            layers = getattr(image, "layer", None) or []
            found = {key for key in map(str, image.info) if key.lower() not in DULL}
            if software := image.info.get("Software"):
                found = found - {"Software"} | {f"Software={software}"}
            if image.info.get("progressive"):
                found.add("progressive")
    except Exception:  # odd metadata are no reason to lose the picture, which could be decoded
        return "", ()
    if not tables:
        return "", tuple(sorted(found))
    text = repr(([(number, list(table)) for number, table in sorted(tables.items())], [tuple(layer) for layer in layers]))
    return hashlib.sha256(text.encode()).hexdigest()[:12], tuple(sorted(found))


def blockiness(pixels: Pixels) -> float:
    """How far steps across the borders of aligned blocks of 8 x 8 px outdo those elsewhere, as a log; 0 for small pictures.

    A step is what the difference of two neighbours has beyond the mean of the differences beside it (after Fan and de Queiroz
    2003), in brightness. Of the eight places that a grid of 8 px may have, the file's own is held against the median of the
    others.
    """
    luma = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float64)
    if min(luma.shape) < LEAST_BLOCKS * BLOCK_PX:
        return 0.0
    steps = _steps(luma) + _steps(luma.T)  # [8]
    floor = 1e-3  # of a grey level: a flat picture has no steps at all
    return float(np.log((steps[0] + floor) / (np.median(steps[1:]) + floor)))


def _steps(luma: NDArray[np.float64]) -> NDArray[np.float64]:
    """[8]: the mean size of the steps between column j - 1 and j, by j mod 8."""
    difference = np.diff(luma, axis=1)
    step = np.abs(difference[:, 1:-1] - (difference[:, :-2] + difference[:, 2:]) / 2).mean(axis=0)
    places = np.arange(2, 2 + len(step)) % BLOCK_PX
    return np.array([step[places == place].mean() for place in range(BLOCK_PX)])
