"""Pictures through a generator and back: from decoded frames to [0, 1], and to files of the depth, mode and kind that came in.

A result bears a mark of what made it. The mark is inside the file, not in a list beside it: so it is there exactly when the
image is, whatever is killed, moved, copied or run at the same time, and whoever meets the image elsewhere can see that it was
generated.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor

from fruitgan import __version__
from fruitgan.bundle import Card
from fruitgan.data.colour import usual_range
from fruitgan.data.decode import Decoded, decode
from fruitgan.errors import DataError, reason_of
from fruitgan.files import open_regular
from fruitgan.images import squared, unit_from_bytes

Format = Literal["png", "jpg", "webp", "tif", "gif"]
Kept = Literal["none", "basic", "all"]
OPENING = '{"fruitgan-translate": '
CONTACT_SHEET = "contact_sheet"
"""The entry of the mark by which a contact sheet is known."""
TRAINED_AGAINST = "trained_against"
"""The entry with the pretrained networks that the generator was trained against: information that makes no other result."""
ADDRESS = "address"
"""The entry with the address and commit of a bundle of the Hub, None for others: information too."""
SAVE_OPTIONS: Mapping[Format, Mapping[str, Any]] = {
    # Level 1 takes a third of the time of Pillow's own 6 on a drawn fruit, for 14% more bytes (docs/decisions.md).
    "png": {"format": "PNG", "compress_level": 1},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "quality": 95, "method": 4},
    "tif": {"format": "TIFF", "compression": "tiff_deflate"},
    "gif": {"format": "GIF"},
}
CONTAINERS: Mapping[str, Format] = {"GIF": "gif", "WEBP": "webp", "PNG": "png", "TIFF": "tif"}
"""The formats, in Pillow's words, that hold several frames or pages, and as what they are written."""
LARGEST_EXIF_BYTES = 60_000
"""JPEG has room for 65,533, our mark among them."""
PAIRS_A_ROW, PICTURE_PX = 4, 128
"""Of a contact sheet."""
DATES = ("DateTimeOriginal", "DateTimeDigitized", "OffsetTime", "OffsetTimeOriginal", "OffsetTimeDigitized")
CAMERA = ("DateTime", "Make", "Model", "Artist", "Copyright", "HostComputer")
GONE = ("MakerNote", "ExifImageWidth", "ExifImageHeight", "ColorSpace", "ExifInteroperabilityOffset")
"""What does not hold of a result, or may hold much of its source."""


def range_of(source: Decoded, card: Card) -> tuple[float, float]:
    """The values of a deep picture that are 0 and 1 for the generator: of grey those of the training images, else all."""
    assert source.deep is not None
    if source.deep.ndim == 2 and card.value_range is not None:
        return card.value_range
    return usual_range(source.deep.dtype, source.values)


def unit_of(source: Decoded, card: Card) -> Any:
    """A decoded picture as the generator is to see it: uint8 [H, W, 3], or float32 in [0, 1] where bytes would lose something.

    Transparent pixels lie on the background of the training images, so that what they hide does not bleed into the visible
    ones. Deep values are taken from the range of the training images.
    """
    if source.deep is None and source.alpha is None and not source.is_grey:
        return source.pixels
    unit = unit_from_bytes(source.pixels.astype(np.float32))
    if source.deep is not None:
        low, high = range_of(source, card)
        values = np.where(np.isfinite(source.deep), source.deep, low)
        unit = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
        unit = unit if unit.ndim == 3 else np.repeat(unit[..., np.newaxis], 3, axis=2)
    if source.alpha is not None:
        background, opacity = _seen_through(source.alpha, card)
        unit = background + (unit - background) * opacity
    return unit


def blended(source: Any, made: Any, strength: float) -> Any:
    """What lies between a picture and its translation, both [H, W, 3] of one type: `source + strength (made - source)`.

    In sRGB's own values, as the generator works in them; at 1 the translation itself.
    """
    if strength == 1:
        return made
    mixed = (1 - np.float32(strength)) * source.astype(np.float32) + np.float32(strength) * made.astype(np.float32)
    return np.rint(mixed).astype(np.uint8) if made.dtype == np.uint8 else mixed


def restored(made: Any, source: Decoded, card: Card, form: Format) -> Any:
    """What the generator made of `unit_of`, in the source's depth and mode as far as the format has them: [H, W, 1 to 4].

    Grey is the mean of the three colours. The colour of half transparent pixels is what gives the generator's picture once it
    lies on the background; PNG holds floats and values beyond 16 bits as 16 bits over their range.
    """
    if made.dtype == np.uint8:
        return made
    alpha = None if form == "jpg" else source.alpha
    if alpha is not None:
        background, opacity = _seen_through(alpha, card)
        colour = np.clip(background + (made - background) / np.maximum(opacity, 1 / 255), 0, 1)
        made = np.where(opacity > 0, colour, background)
    if source.is_grey and not (form == "gif" and alpha is not None):  # Pillow's GIF holds no grey with transparency
        made = made.mean(axis=2, keepdims=True)
    kind: np.dtype[Any] = np.dtype(np.uint8)
    low, high = 0.0, 255.0
    if source.deep is not None and (form == "png" or (form == "tif" and made.shape[2] == 1 and alpha is None)):
        kind, (low, high) = source.deep.dtype, range_of(source, card)
        if form == "png" and kind != np.uint16:
            kind, low, high = np.dtype(np.uint16), 0.0, 65535.0
    values: NDArray[Any] = low + made.astype(np.float64) * (high - low)
    if alpha is not None:
        values = np.dstack([values, alpha * (257.0 if kind == np.uint16 else 1.0)])
    if kind.kind == "f":
        return values.astype(kind)
    return np.rint(values).clip(np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def lacks(source: Decoded, result: NDArray[Any], card: Card, form: Format, with_all_frames: bool) -> list[str]:
    """What of its source a result does not hold, a sentence each."""
    found = []
    if source.is_first_of_many and not with_all_frames:
        all_of_them = "; --frames all translates all" if source.format in CONTAINERS else ""
        found.append(f"the first frame or page alone{all_of_them}")
    if source.lost is not None:
        found.append(source.lost)
    if source.deep is not None:
        low, high = range_of(source, card)
        if not source.is_finite:
            found.append(f"holds NaN or infinite values, which count as {low:g}")
        if source.values is not None and not low <= source.values[0] <= source.values[1] <= high:
            whose = "the range of the bundle" if card.value_range else "as the bundle says no range (--value-range)"
            held = " to ".join(f"{value:g}" for value in source.values)
            found.append(f"its values from {held} are cut off at {low:g} and {high:g}, {whose}")
        if result.dtype != source.deep.dtype:
            better = "png" if source.deep.dtype == np.uint16 else "tif"
            found.append(f"{form} holds {result.dtype}, not {source.deep.dtype}; --format {better} keeps the depth")
    return found


def _seen_through(alpha: NDArray[np.uint8], card: Card) -> tuple[Any, Any]:
    """The colour [3] that transparent training images lay on, and the opacity [H, W, 1] of a picture, in [0, 1]."""
    background = np.array(ImageColor.getrgb(card.background)[:3], dtype=np.float32) / 255
    return background, alpha[..., np.newaxis].astype(np.float32) / 255


def encode(
    frames: Sequence[NDArray[Any]], form: Format, mark: Mapping[str, Any], about: Mapping[str, Any], kept: Kept
) -> bytes:
    """The file of one image or of several frames, each [H, W, 1 to 4] as `restored` gives them; upright and sRGB.

    `about` is the source's `Decoded.about`, of which is kept what still holds: with `basic` dates, resolution and an sRGB
    profile, with `all` also what a camera says of itself and of the place. Durations are always kept.

    Raises:
        DataError: the format does not hold it: too many pixels, several frames.
    """
    if len(frames) > 1 and (form == "jpg" or (form == "png" and frames[0].dtype == np.uint16)):
        raise DataError(f"{form} holds no {len(frames)} frames of {frames[0].dtype}: use tif")
    if form != "tif" and len({frame.shape[:2] for frame in frames}) > 1:
        raise DataError(f"{form} holds no pages of several sizes: use tif")
    options: dict[str, Any] = dict(SAVE_OPTIONS[form])
    text = f"{OPENING}{json.dumps(mark, sort_keys=True)}}}"
    if form == "gif":
        options["comment"] = text.encode()
    else:
        options["exif"] = exif = _exif(about.get("exif", {}), kept, with_folders=form != "tif")
        exif[ExifTags.Base.ImageDescription] = text
        exif[ExifTags.Base.Software] = f"fruitgan {__version__}"
    if kept != "none":
        is_colour = frames[0].shape[2] > 2
        options |= {key: about[key] for key in ("dpi", "icc_profile") if key in about and (key == "dpi" or is_colour)}
    if frames[0].dtype == np.uint16 and form == "png":
        return _png_of_16_bits(frames[0], options["exif"].tobytes(), options.get("dpi"), options.get("icc_profile"))
    images = [Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame) for frame in frames]
    if len(images) > 1:
        times = {key: about[key] for key in ("duration", "loop") if key in about}
        if form == "gif" and any(frame.shape[2] in (2, 4) for frame in frames):
            times["disposal"] = 2  # else the frame before shows through
        elif form in ("png", "webp"):
            times.setdefault("loop", 1)  # what says nothing, as a GIF may, plays once; these would play for ever
        options |= {"save_all": True, "append_images": images[1:], **times}
    file = io.BytesIO()
    try:
        images[0].save(file, **options)
    except MemoryError:
        raise
    except Exception as error:  # too many pixels a side, or a stranger's odd duration or resolution
        raise DataError(f"cannot be written as {form}, use png ({reason_of(error)})") from error
    return file.getvalue()


def contact_sheet(pairs: Sequence[tuple[bytes, Path]], mark: Mapping[str, Any]) -> bytes:
    """A PNG file of sources, given as their files' bytes, each beside its result, row by row on white."""
    from fruitgan.report.page import grid  # whose page kit no translation needs

    shown = [squared(decode(file).pixels, PICTURE_PX, "pad") for pair in pairs for file in pair]
    rows = [shown[start : start + 2 * PAIRS_A_ROW] for start in range(0, len(shown), 2 * PAIRS_A_ROW)]
    return encode([grid(rows)], "png", {**mark, CONTACT_SHEET: len(pairs)}, {}, "none")


def _exif(source: Mapping[int, Any], kept: Kept, with_folders: bool) -> Image.Exif:
    """What is kept of a source's tags: `source` holds the folders Exif and GPSInfo, where there are any, as mappings."""
    exif = Image.Exif()
    tags = {"none": (), "basic": ("DateTime",), "all": CAMERA}[kept]
    exif.update({tag: source[tag] for name in tags if (tag := ExifTags.Base[name]) in source})
    if with_folders and kept != "none":
        dates, gone = ({ExifTags.Base[name] for name in names} for names in (DATES, GONE))
        inner = source.get(ExifTags.IFD.Exif, {}).items()
        exif[ExifTags.IFD.Exif] = {tag: value for tag, value in inner if tag in dates or (kept == "all" and tag not in gone)}
        if kept == "all" and ExifTags.IFD.GPSInfo in source:
            exif[ExifTags.IFD.GPSInfo] = source[ExifTags.IFD.GPSInfo]
    try:
        is_writable = len(exif.tobytes()) < LARGEST_EXIF_BYTES
    except Exception:  # a stranger's tags may hold what cannot be written
        is_writable = False
    return exif if is_writable else Image.Exif()


def _png_of_16_bits(values: NDArray[np.uint16], exif: bytes, dpi: tuple[float, float] | None, profile: bytes | None) -> bytes:
    """[H, W, 1 to 4] as PNG, which Pillow writes with 8 bits alone; each row is stored as its difference from the one above."""
    height, width, channels = values.shape
    rows = values.astype(">u2").view(np.uint8).reshape(height, -1)
    lines = np.pad(np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1])), ((0, 0), (1, 0)), constant_values=2)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0))]
    chunks += [(b"eXIf", exif.removeprefix(b"Exif\0\0")), (b"IDAT", zlib.compress(lines.tobytes(), 1)), (b"IEND", b"")]
    if dpi is not None:
        chunks.insert(1, (b"pHYs", struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)))
    if profile is not None:
        chunks.insert(1, (b"iCCP", b"icc\0\0" + zlib.compress(profile)))
    packed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def container_of(file: Any) -> Format | None:
    """What several frames or pages of a file are written as; None where there is one alone."""
    try:
        with Image.open(file, formats=tuple(CONTAINERS)) as image:
            return CONTAINERS[image.format or ""] if getattr(image, "is_animated", False) else None
    except Exception:  # as below; whoever decodes it says what is wrong
        return None


def read_mark(source: Path | BinaryIO) -> dict[str, Any] | None:
    """The mark of a result; None for any other file. Decodes no pixels."""
    try:
        opened = open_regular(source) if isinstance(source, Path) else source
        with opened as file, Image.open(file, formats=("JPEG", *CONTAINERS)) as image:
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
            tags = getattr(image, "tag_v2", exif)
            text = image.info.get("comment", b"").decode("latin-1") or tags.get(ExifTags.Base.ImageDescription, "")
            mark, _ = json.JSONDecoder().raw_decode(text.partition(OPENING)[2])
    except Exception:  # what is no image, or a damaged one, bears no mark; decoders raise nearly anything
        return None
    return mark if isinstance(mark, dict) else None
