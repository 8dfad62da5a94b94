"""Decode image files: whatever their orientation, colour profile, depth and transparency, the result is uint8 sRGB."""

from __future__ import annotations

import ctypes
import functools
import io
import itertools
import logging
import os
import re
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from fruitgan.data import colour
from fruitgan.data.colour import SIDEWAYS, TURNS, WHITE, Colour, Range
from fruitgan.errors import DataError, reading, reason_of
from fruitgan.files import NotAFile, open_regular
from fruitgan.images import Pixels

MAX_PIXELS = 178_956_970
"""The size (half a gigabyte of RGB) above which Pillow itself refuses; it would warn from half of it on."""
MAX_BYTES = 1 << 31
"""Of a file; more than the pixels of the largest picture take with 64 bits each."""
LARGE_BYTES = 1 << 26
"""Of a file that is looked at before it is read."""
HEAD_BYTES = 512

# A file that starts so and still cannot be opened is a broken image, not something else.
SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"\x00\x00\x00\x0cjP  ", b"\xffO\xffQ", b"8BPS", b"qoif"),
    *(b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
)
HEIF = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}
"""Brands of pictures in MPEG boxes that pi-heif teaches Pillow to read."""
UNREAD = {b"avif": "AVIF", b"avis": "AVIF", **HEIF}
"""Such brands that Pillow may not read; AVIF where it was built without it."""

TEXT = bytes({7, 8, 9, 10, 12, 13, 27} | set(range(0x20, 0x100)) - {0x7F})
"""The bytes that texts are made of."""


class NotAnImage(DataError):
    """By its content the file is no image; callers skip it."""


class Undecodable(DataError):
    """An image that cannot be decoded, or a file that cannot be read; callers count it as failed."""


Read = TypeVar("Read")


@dataclass(frozen=True)
class Decoded:
    """One decoded picture."""

    pixels: Pixels
    """uint8 [H, W, 3], sRGB, upright, on the background that was asked for; without one the colour under transparent places is
    whatever the file holds there."""
    alpha: NDArray[np.uint8] | None
    """uint8 [H, W], 255 is opaque; None if the file has no transparency."""
    format: str = ""
    """The file format in Pillow's words, such as JPEG."""
    mode: str = ""
    """The colour mode of the file in Pillow's words, such as RGB, L, P or I;16."""
    values: Range | None = None
    """The lowest and the highest finite value of a grey picture of more than 8 bits; None of any other picture."""
    is_finite: bool = True
    """Whether a picture of floats is without NaN and infinities, which become the lowest value."""
    is_first_of_many: bool = False
    """Whether the file holds further frames or pages, of which nothing is read."""
    deep: NDArray[Any] | None = None
    """Upright, [H, W] of grey or [H, W, 3] of colour: the values of a picture of more than 8 bits, as the file has them."""
    lost: str | None = None
    """What of the file the pixels and the depth do not hold."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else the file says: `dpi`; `icc_profile` if it is sRGB; `duration` in milliseconds; `loop`; `exif` by tag, in which
    folders are mappings."""

    @property
    def is_grey(self) -> bool:
        return self.mode in ("1", "L", "LA", "La") or (self.deep is not None and self.deep.ndim == 2)


def decode(
    source: Path | bytes,
    *,
    background: Colour | None = WHITE,
    value_range: Range | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode the first frame of an image file or of its bytes, whatever its colour mode and depth.

    Transparent pixels are composited onto `background`, in sRGB; None leaves them as they are. `value_range` are the values of
    a grey picture of more than 8 bits that become 0 and 255, what lies beyond is clipped; None: 0 to 65535 for integers, 0 to 1
    for floats that are no larger, else 0 to 255. `max_pixels` can lower the limit of 178,956,970 pixels, not raise it.

    Raises:
        NotAnImage: the content is no image, or the path is no regular file (a folder, a pipe, a device).
        Undecodable: truncated, damaged, too large, unreadable or missing.
    """
    with closing(decode_frames(source, background, value_range, max_pixels, still=True)) as frames:
        return next(frames)


def decode_frames(
    source: Path | bytes,
    background: Colour | None,
    value_range: Range | None = None,
    max_pixels: int = MAX_PIXELS,
    *,
    still: bool = False,
) -> Generator[Decoded]:
    """Every frame of an animation or page of a file, one by one; raises as `decode`.

    `still` begins with the picture that a PNG has for those who show no animation, and which is none of its frames.
    """
    name = str(source) if isinstance(source, Path) else "the given data"
    data = _content(source, name)
    with _opened(io.BytesIO(data), data[:HEAD_BYTES], name) as image:
        for number in itertools.count(0 if still or not image.info.get("default_image") else 1):
            with _in_our_words(name, lambda: has_signature(image.format)):
                if number:
                    if number >= (getattr(image, "n_frames", 1) if _has_many_frames(image) else 1):
                        return
                    image.seek(number)
                _must_have_at_most(max_pixels, image, name)
                is_packed = image.format == "PNG" and image.tile and not _has_many_frames(image)
                packed = str(image.tile[0].args) if is_packed else ""
                colour.stretch_key(image, packed)
                turned = _turn_of(image) if image.format == "TIFF" else None  # which is turned as it is loaded
                image.load()
                _must_have_at_most(max_pixels, image, name)  # an icon says how large it is only now
                frame = _frame(image, data, packed, background, value_range, turned)
            yield frame


def _frame(
    image: ImageFile.ImageFile,
    data: bytes,
    packed: str,
    background: Colour | None,
    value_range: Range | None,
    turned: Image.Transpose | None,
) -> Decoded:
    """The frame that is loaded, whose pixels were `packed` and have been `turned` so; raises nearly anything."""
    mode, about, alpha = image.mode, _about(image), _unless_broken(lambda: colour.alpha_of(image))
    values, is_finite, deep, lost = None, True, None, None
    is_foreign = "icc_profile" in image.info and "icc_profile" not in about
    if colour.is_deep(image):
        lost = "its colour profile is left out, as of all grey of more than 8 bits" if is_foreign else None
        deep = np.asarray(image)
        deep = deep.astype(deep.dtype.newbyteorder("="))
        grey, values, is_finite = colour.eight_bit_grey(deep, value_range)
        rgb = Image.fromarray(grey).convert("RGB")
    else:
        if packed in colour.SWAPPED and is_foreign:
            lost = "of its 16 bits a colour 8 are left, in which its colour profile is applied"
        elif packed in colour.SWAPPED:
            deep = colour.sixteen_bits(image, data, packed)
            mode = "LA" if deep.ndim == 2 else mode
        rgb = colour.to_srgb(image, is_transparent=alpha is not None)
    turn = _turn_of(image)
    if (turned or turn) in SIDEWAYS and "dpi" in about:
        about["dpi"] = about["dpi"][::-1]
    if turn is not None:
        rgb = rgb.transpose(turn)
        alpha = None if alpha is None else alpha.transpose(turn)
        deep = None if deep is None else colour.turned(deep, turn)
    pixels, opacity = np.array(rgb, dtype=np.uint8), None if alpha is None else np.array(alpha, dtype=np.uint8)
    if opacity is not None and background is not None:
        pixels = colour.composited(pixels, opacity, background)
    is_first_of_many = _has_many_frames(image)
    return Decoded(pixels, opacity, image.format or "", mode, values, is_finite, is_first_of_many, deep, lost, about)


def _turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns the picture upright, as far as it is not yet."""
    return _unless_broken(lambda: TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1)))


def _has_many_frames(image: Image.Image) -> bool:
    """Frames of an animation or pages; the previews that cameras put into a JPEG are none, nor are the layers of a PSD."""
    return image.format not in ("MPO", "PSD") and bool(_unless_broken(lambda: getattr(image, "is_animated", False)))


def _about(image: Image.Image) -> dict[str, Any]:
    """See `Decoded.about`; what is broken is left out."""
    about: dict[str, Any] = {key: image.info[key] for key in ("duration", "loop") if key in image.info}
    dpi = _unless_broken(lambda: tuple(float(value) for value in image.info.get("dpi", ())))
    if dpi and 1 < min(dpi) <= max(dpi) < 65536:  # 1 is Pillow's word for a TIFF that says nothing
        about["dpi"] = dpi
    profile = image.info.get("icc_profile")
    if profile and _unless_broken(lambda: colour.is_srgb(profile)):
        about["icc_profile"] = profile
    folders = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo
    exif = _unless_broken(lambda: {**(tags := image.getexif()), **{folder: tags.get_ifd(folder) for folder in folders}})
    return about if exif is None else {**about, "exif": exif}


def _unless_broken(read: Callable[[], Read]) -> Read | None:
    """What is read beside the pixels; None where it is broken, in whatever way: that is no reason to lose the picture."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception:
        return None


@contextmanager
def _in_our_words(name: str, is_one: Callable[[], bool]) -> Iterator[None]:
    """Decoders meet hostile bytes and raise nearly anything; of what `is_one`, the image is to blame, else it is none."""
    try:
        yield
    except (MemoryError, DataError):
        raise
    except Image.DecompressionBombError as error:
        raise Undecodable(f"{name}: more pixels than the limit of {MAX_PIXELS:,}") from error
    except Exception as error:
        if not is_one():
            raise NotAnImage(f"{name}: not an image") from error
        raise Undecodable(f"{name}: cannot be decoded ({reason_of(error)})") from error


def _content(source: Path | bytes, name: str) -> bytes:
    """All bytes; a large file is read only if Pillow takes its beginning for an image's, and is within the limit."""
    if isinstance(source, Path):
        try:
            with open_regular(source) as file:
                size_bytes = os.fstat(file.fileno()).st_size
                if size_bytes > LARGE_BYTES:
                    with _opened(file, file.read(HEAD_BYTES), name):
                        pass
                    file.seek(0)
                data = file.read() if size_bytes <= MAX_BYTES else b""
        except NotAFile as error:
            raise NotAnImage(str(error)) from error
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise Undecodable(f"{name}: cannot be read ({reason_of(error)})") from error
    else:
        data, size_bytes = source, len(source)
    if size_bytes > MAX_BYTES:
        raise Undecodable(f"{name}: larger than the limit of {MAX_BYTES:,} bytes")
    if not data:
        raise NotAnImage(f"{name}: is empty")
    return data


def _must_have_at_most(max_pixels: int, image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise Undecodable(f"{name}: {width} x {height} pixels are more than the limit of {max_pixels:,}")


@contextmanager
def _opened(stream: BinaryIO, head: bytes, name: str) -> Iterator[ImageFile.ImageFile]:
    """The image at the beginning of a stream, its pixels not yet read; `head` are the stream's first bytes."""
    _ignore_warnings_of_pillow()
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in HEIF:
        _learn_heif()
    stream.seek(0)
    # A text may begin as pictures do: "P5 is ...", or C that defines a width.
    with _in_our_words(name, lambda: bool(head.strip(TEXT))):
        try:
            image = Image.open(stream, formats=formats())
        except UnidentifiedImageError as error:
            if brand in UNREAD:
                extra = 'pip install "fruitgan[heif]", or ' if brand in HEIF and "HEIF" not in Image.OPEN else ""
                what = f"{UNREAD[brand]} that Pillow cannot read here, or a damaged one"
                raise Undecodable(f"{name}: {what}; {extra}convert it to JPEG or PNG first") from error
            if head.startswith(SIGNATURES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
                raise Undecodable(f"{name}: a damaged or truncated image") from error
            raise NotAnImage(f"{name}: not an image") from error
    with image:
        yield image


def is_deep(path: Path) -> bool:
    """Whether a file is a grey picture of more than 8 bits, by its header. Raises: DataError."""
    with reading(path), open_regular(path) as file, _opened(file, file.read(HEAD_BYTES), str(path)) as image:
        return colour.is_deep(image)


LEFT_OUT = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"})
"""What Pillow opens and cannot decode by itself; for the first it would start another program."""

IGNORED = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
"""All warnings that arise in Pillow's modules, as `warnings.filters` holds it."""


@functools.cache
def formats() -> tuple[str, ...]:
    """Every format that this Pillow decodes; also those that others have taught it."""
    Image.init()
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else what it logs goes to standard error
    _silence_libtiff()
    return tuple(name for name in Image.OPEN if name not in LEFT_OUT)


@functools.cache
def _learn_heif() -> None:
    """Have Pillow read HEIC, the photographs of many phones, where pi-heif is installed."""
    try:
        import pi_heif  # fruitgan[heif]
    except ImportError:
        return
    pi_heif.register_heif_opener()
    formats.cache_clear()


def has_signature(name: str | None) -> bool:
    """Whether files of this format begin as no others do; where they don't, what cannot be decoded was none of them."""
    return Image.OPEN.get(name or "", (None, True))[1] is not None


def _ignore_warnings_of_pillow() -> None:
    """On odd files: the number of pixels has its own limit here, and odd metadata are ignored.

    For good: `warnings.catch_warnings` exchanges all filters, and threads that overlap would bring back each other's.
    """
    if IGNORED not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def _silence_libtiff() -> None:
    """libtiff writes its errors to standard error by itself; Pillow turns only its warnings off.

    Found where Pillow's wheels have it; elsewhere it goes on talking, which harms nothing but the looks.
    """
    package = Path(PIL.__file__).parent
    for folder in (package.parent / "pillow.libs", package / ".dylibs"):
        for library in folder.glob("libtiff*"):
            with suppress(OSError, AttributeError):
                set_handler = ctypes.CDLL(str(library)).TIFFSetErrorHandler
                set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                set_handler(None)
