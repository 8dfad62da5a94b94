"""Pictures from strangers: what Pillow decodes is decoded to the same pixels, and all else is refused in one line."""

from __future__ import annotations

import io
import itertools
import random
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hostile import examples
from hypothesis import given
from hypothesis import strategies as st
from picture_files import encoded
from PIL import ExifTags, Image, ImageCms

from fruitgan.data.decode import Decoded, NotAnImage, Undecodable, decode, formats

LIMIT = 1 << 18
"""Pixels, for both sides: a spoilt header must not cost the tests a gigabyte."""
HEIGHT, WIDTH = 9, 14


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "orchard"
    return exif


KINDS = (
    *("AVIF", "BLP", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "MSP", "PCX", "PNG", "PPM", "QOI", "SGI"),
    *("SPIDER", "TGA", "TIFF", "WEBP", "XBM"),
)


def whole_pictures() -> dict[str, bytes]:
    """A small file of every format and colour mode that Pillow writes, by real encoders, and of what else a file may hold."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = Image.fromarray(np.stack([x * 18, y * 28, (x * y * 2) % 256], axis=-1).astype(np.uint8))
    rgba, deep = rgb.copy(), Image.fromarray((x * 4000 + y * 9).astype(np.uint16))
    rgba.putalpha(rgb.convert("L"))
    images = {mode: rgb.convert(mode) for mode in ("1", "L", "RGB", "CMYK", "LAB")} | {"P": rgb.quantize(8)}
    images |= {"RGBA": rgba, "LA": rgba.convert("LA"), "I;16": deep, "I": deep.convert("I"), "F": deep.convert("F")}
    found = {}
    for kind, (mode, image) in itertools.product(KINDS, images.items()):
        with suppress(OSError, ValueError):  # a mode that the format does not have
            found[f"{kind} {mode}"] = encoded(image, kind)
    told = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), "exif": exif_of(6)}
    several: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(180), rgb.rotate(90)]}
    others: list[tuple[str, str, dict[str, Any]]] = [
        *((kind, "RGB", told) for kind in ("AVIF", "JPEG", "PNG", "TIFF", "WEBP")),
        *((kind, "RGB", several) for kind in ("MPO", "PNG", "TIFF", "WEBP")),
        *(("TIFF", "RGB", {"compression": way}) for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        *(("TIFF", "1", {"compression": "group4"}), ("TIFF", "RGB", {"big_tiff": True})),
        *(("JPEG", "RGB", {"progressive": True, "comment": b"hello"}), ("JPEG2000", "RGBA", {"no_jp2": True})),
        *(("PNG", "L", {"transparency": 3}), ("PNG", "RGB", {"transparency": (0, 0, 0)})),
        ("PNG", "P", {"transparency": bytes(range(0, 240, 30))}),
        ("GIF", "P", {"transparency": 2, "comment": b"hello", "save_all": True, "append_images": [images["P"].rotate(180)]}),
        ("WEBP", "RGBA", {"lossless": True}),
    ]
    for number, (kind, mode, options) in enumerate(others):
        found[f"{kind} {mode} {number}"] = encoded(images[mode], kind, **options)
    return found


WHOLE = whole_pictures()
UPRIGHT: dict[Any, Callable[[Any], Any]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
"""What the EXIF standard says of its orientations, of an array whose first axis is the rows."""
CONVERTED = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "RGBX")
"""Modes in which Pillow's own conversion to RGB is all that there is to do, as long as there is no profile."""


def pillow_alone(data: bytes, limit: int = LIMIT) -> Any:
    """What Pillow makes of the bytes: None if it does not decode them, uint8 [H, W, 3] upright, or, where colours are more
    than one conversion, [H, W] of zeros for the size alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=formats())
            if image.width * image.height > limit:
                return None
            image.load()
            assert image.width * image.height <= limit
        except Exception:
            return None
        try:
            upright = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation), np.copy)
        except Exception:
            upright = np.copy
        if image.mode not in CONVERTED or "icc_profile" in image.info:
            return upright(np.zeros((image.height, image.width)))
        flat = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
        return upright(np.asarray(flat.convert("RGB")))


def fate(data: bytes, limit: int = LIMIT) -> Decoded | str:
    """What is decoded, or the reason in one short line; any other exception is a failure of the test."""
    try:
        return decode(data, background=None, max_pixels=limit)
    except (NotAnImage, Undecodable) as error:
        said = str(error)
    assert said.startswith("the given data: ")
    assert len(said.splitlines()) == 1, said
    assert len(said) < 300, said
    return said


def must_agree(data: bytes, limit: int = LIMIT) -> Decoded | str:
    wanted, found = pillow_alone(data, limit), fate(data, limit)
    if wanted is None:
        assert isinstance(found, str), "decoded what Pillow does not"
        return found
    assert isinstance(found, Decoded), f"{found}; Pillow decodes it"
    assert found.pixels.dtype == np.uint8
    assert found.pixels.shape == (*wanted.shape[:2], 3)
    assert found.alpha is None or found.alpha.shape == wanted.shape[:2]
    if wanted.ndim == 3:
        np.testing.assert_array_equal(found.pixels, wanted)
    return found


# Whatever a stranger may have done to a good file


def chunks_of(data: bytes) -> list[bytes]:
    """The parts of a PNG, or pieces of twelve bytes; joined they are the file."""
    ends = list(range(12, len(data), 12))
    if data.startswith(b"\x89PNG"):
        ends = [8]
        while ends[-1] + 12 <= len(data):
            ends.append(ends[-1] + 12 + int.from_bytes(data[ends[-1] : ends[-1] + 4], "big"))
    return [data[a:b] for a, b in itertools.pairwise([0, *ends, len(data)]) if a < b]


def with_true_sum(part: bytes) -> bytes:
    """A PNG chunk whose checksum is right for what is in it."""
    return part[:-4] + struct.pack(">I", zlib.crc32(part[4:-4])) if len(part) >= 12 else part


def spoilt(draw: Callable[..., Any], hostile: SimpleNamespace, data: bytes) -> bytes:
    """One of many ways to make a hostile picture of a good one."""
    way = draw(st.sampled_from(["bytes", "bytes", "chunks", "chunks", "swap"]))
    if way == "bytes":
        return bytes(hostile.bytes(draw, data))
    if way == "swap":  # two files that begin and end differently
        other = WHOLE[draw(st.sampled_from(sorted(WHOLE)))]
        return data[: draw(st.integers(0, len(data)))] + other[draw(st.integers(0, len(other))) :]
    parts = chunks_of(data)
    at, to = draw(st.integers(0, len(parts) - 1)), draw(st.integers(0, len(parts) - 1))
    part = hostile.bytes(draw, parts[at])
    match draw(st.sampled_from(["change", "drop", "double", "swap"])):
        case "change":
            parts[at] = with_true_sum(part) if data.startswith(b"\x89PNG") and draw(st.booleans()) else part
        case "drop":
            del parts[at]
        case "double":
            parts.insert(to, parts[at])
        case "swap":
            parts[at], parts[to] = parts[to], parts[at]
    return b"".join(parts)


@pytest.fixture(scope="module")
def ready() -> Iterator[None]:
    """Pillow with all that it loads on first use, before memory is short."""
    for data in WHOLE.values():
        must_agree(data)
    return


@examples(200)
@given(st.data())
def test_any_spoilt_picture_is_what_pillow_makes_of_it_or_refused_in_one_line(
    ready: None, hostile: SimpleNamespace, capfd: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(WHOLE)))
    content = spoilt(data.draw, hostile, WHOLE[name])
    with hostile.little_memory():
        must_agree(content)
    assert capfd.readouterr() == ("", "")


def test_all_that_pillow_opens_is_read_but_what_it_does_not_decode_by_itself() -> None:
    assert set(Image.OPEN) - set(formats()) == {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_every_format_and_colour_mode_is_decoded_as_pillow_does(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = must_agree(WHOLE[name])
    assert isinstance(found, Decoded)
    assert sorted(found.pixels.shape[:2]) == [HEIGHT, WIDTH]
    assert capfd.readouterr() == ("", "")


# Turned, deep, large


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "AVIF"])
def test_each_orientation_is_the_turn_that_the_standard_says(kind: str) -> None:
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGB" if kind == "JPEG" else "RGBA")
    lying = decode(encoded(image, kind, **options), background=None)
    if kind in ("PNG", "WEBP", "TIFF"):
        np.testing.assert_array_equal(lying.pixels, pixels[..., :3])
    for orientation in range(1, 9):
        found = decode(encoded(image, kind, exif=exif_of(orientation), **options), background=None)
        turned = UPRIGHT.get(orientation, np.copy)
        np.testing.assert_array_equal(found.pixels, turned(lying.pixels))
        if lying.alpha is not None:
            np.testing.assert_array_equal(found.alpha, turned(lying.alpha))


@pytest.mark.parametrize(
    ("kind", "count", "value"),
    [
        (3, 1, b"\x09\0\0\0"),
        (9, 1, b"\xff\xff\xff\xff"),
        (3, 0, bytes(4)),
        (2, 4, b"six\0"),
        (99, 1, bytes(4)),
        (2, 2**31, bytes(4)),
    ],
)
def test_an_orientation_that_is_none_turns_nothing(kind: int, count: int, value: bytes) -> None:
    entry = struct.pack("<HHL", ExifTags.Base.Orientation, kind, count) + value
    block = b"II*\0" + struct.pack("<LH", 8, 1) + entry + bytes(4)
    found = must_agree(png_with((b"eXIf", block)))
    assert isinstance(found, Decoded)
    assert found.pixels.shape == (HEIGHT, WIDTH, 3)


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """The whole PNG with chunks put in before its picture."""
    signature, header, *rest = chunks_of(WHOLE["PNG LA"])
    return signature + header + b"".join(with_true_sum(chunk_of(*named)) for named in chunks) + b"".join(rest)


def chunk_of(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + bytes(4)


def tags_that_claim(length: int, count: int) -> bytes:
    """A directory of TIFF tags, each of which claims the same bytes: all that there are."""
    entries = b"".join(struct.pack("<HHLL", 1000 + tag, 7, length, 0) for tag in range(count))
    content = b"II*\0" + struct.pack("<LH", 8, count) + entries + bytes(4)
    return content + bytes(max(0, length - len(content)))


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (13_378, 13_378), (2**31 - 1, 1), (1, 178_956_971)])
def test_more_pixels_than_the_limit_are_refused_with_the_limit_and_without_memory(
    width: int, height: int, hostile: SimpleNamespace
) -> None:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(with_true_sum(chunk_of(*named)) for named in ((b"IHDR", header), (b"IDAT", b"")))
    with hostile.little_memory(16 << 20), pytest.raises(Undecodable, match=r"pixels .*than the limit of 178,956,970"):
        decode(data)
    icon = struct.pack("<HHHBBBBHHLL", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(data), 22) + data
    with hostile.little_memory(16 << 20), pytest.raises(Undecodable, match=r"pixels .*than the limit of 178,956,970"):
        decode(icon)


def test_a_picture_of_which_pillow_warns_is_decoded_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(WHOLE["PNG RGB"]))
    assert decode(WHOLE["PNG RGB"]).pixels.shape == (HEIGHT, WIDTH, 3)
    assert capfd.readouterr() == ("", "")


MEGABYTE = zlib.compress(bytes(1_000_000))
ZEROS = zlib.compress(bytes(100 << 20), 1)
METADATA_BOMBS: dict[str, Callable[[], bytes]] = {
    "zTXt": lambda: png_with((b"zTXt", b"Comment\0\0" + ZEROS)),
    "iCCP": lambda: png_with((b"iCCP", b"profile\0\0" + ZEROS)),
    "many texts": lambda: png_with(*[(b"zTXt", b"%d\0\0" % n + MEGABYTE) for n in range(200)]),
    "TIFF tags": lambda: tags_that_claim(4 << 20, 5_000),
    "EXIF": lambda: exif_in_jpeg(tags_that_claim(2 << 20, 5_000)),
    "XMP": lambda: png_with((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x" * (1 << 20))),
}


def exif_in_jpeg(block: bytes) -> bytes:
    """A JPEG whose EXIF goes on over many segments, as Pillow reads it."""
    data, size = WHOLE["JPEG L"], 65_000
    parts = [b"Exif\0\0" + block[at : at + size] for at in range(0, len(block), size)]
    return data[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts) + data[2:]


@pytest.mark.parametrize("name", METADATA_BOMBS)
def test_metadata_cannot_fill_the_memory(name: str, ready: None, hostile: SimpleNamespace) -> None:
    data = METADATA_BOMBS[name]()
    with hostile.little_memory(96 << 20):
        must_agree(data)


def test_broken_profiles_and_exif_lose_no_picture(hostile: SimpleNamespace) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image, rng = Image.open(io.BytesIO(WHOLE["PNG RGB"])).convert("RGB"), random.Random(0)
    for mode in ("RGB", "L", "CMYK"):
        for _ in range(20):
            spoilt_profile, spoilt_exif = bytearray(profile), bytearray(exif_of(3).tobytes())
            for content in (spoilt_profile, spoilt_exif):
                for _ in range(rng.randrange(1, 30)):
                    content[rng.randrange(len(content))] = rng.randrange(256)
            cut = rng.choice((len(profile), rng.randrange(len(profile))))
            options = {"icc_profile": bytes(spoilt_profile[:cut]), "exif": bytes(spoilt_exif)}
            data = encoded(image.convert(mode), "JPEG" if mode == "CMYK" else rng.choice(("PNG", "JPEG")), **options)
            with hostile.little_memory():
                assert isinstance(must_agree(data), Decoded)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0", b"\0" * 1000, b"\xff" * 1000, b"P5 is how this text begins\n", b"BMW makes cars and texts may name them"),
        *(b"#define plum_width 3px\n#define plum_height {}\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>"),
        *(b"PK\3\4" + bytes(90), b"%PDF-1.7\n", b"\x7fELF" + bytes(90), b"GIF is no picture", b"{}", b"II is a Roman number"),
    ],
    ids=lambda content: ascii(content[:12]),
)
def test_what_is_no_picture_by_its_content_is_not_called_a_broken_one(content: bytes) -> None:
    with pytest.raises(NotAnImage, match=r"not an image|is empty"):
        decode(content)
    assert pillow_alone(content) is None


@pytest.mark.parametrize(("brand", "kind"), [(b"heic", "HEIC"), (b"mif1", "HEIF"), (b"avif", "AVIF")])
def test_a_picture_that_pillow_cannot_read_says_what_it_is(brand: bytes, kind: str) -> None:
    with pytest.raises(Undecodable, match=f"{kind}.* convert it to JPEG or PNG first"):
        decode(b"\0\0\0\x18ftyp" + brand + bytes(4) + brand + b"mdat" + bytes(100))
