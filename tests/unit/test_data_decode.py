"""Decoding: whatever a file is, upright sRGB bytes come out, or an error that names the file."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fruitgan.data.decode import NotAnImage, Undecodable, decode, formats
from fruitgan.demo.fruit import draw

WIDTH, HEIGHT = 12, 7


def picture() -> Image.Image:
    """Different at every pixel, so that no turn of it equals another."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([x * 20, y * 30, x * y + 40], axis=-1).astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, data: bytes, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def swapping_profile() -> bytes:
    """An sRGB profile whose red and green primaries have changed places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ", 128), profile.index(b"gXYZ", 128)
    profile[red : red + 4], profile[green : green + 4] = profile[green : green + 4], profile[red : red + 4]
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_embedded_profile_is_converted_to_srgb() -> None:
    image = Image.new("RGB", (4, 4), (200, 30, 60))
    decoded = decode(saved(image, icc_profile=swapping_profile()))
    assert np.abs(decoded.pixels[0, 0].astype(int) - (30, 200, 60)).max() <= 2


def test_grey_picture_with_a_profile_for_rgb_is_converted_too() -> None:
    decoded = decode(saved(Image.new("L", (4, 4), 130), icc_profile=swapping_profile()))
    assert np.abs(decoded.pixels.astype(int) - 130).max() <= 2


def test_picture_that_is_srgb_already_keeps_its_bytes() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode(saved(picture(), icc_profile=profile)).pixels, np.asarray(picture()))


@pytest.mark.parametrize("profile", [b"nonsense", b"\x00" * 200, swapping_profile()[:300]])
def test_broken_profile_is_ignored(profile: bytes) -> None:
    assert np.array_equal(decode(saved(picture(), icc_profile=profile)).pixels, np.asarray(picture()))


def test_profile_of_another_colour_space_is_ignored() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(decode(saved(picture(), icc_profile=lab)).pixels, np.asarray(picture()))


def test_grey_with_alpha_keeps_both() -> None:
    grey = np.arange(WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(255 - grey)])
    decoded = decode(saved(image), background=None)
    assert np.array_equal(decoded.pixels[..., 1], grey)
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha, 255 - grey)


def test_colour_under_transparency_is_kept() -> None:
    image = picture()
    image.putalpha(0)
    decoded = decode(saved(image), background=None)
    assert np.array_equal(decoded.pixels, np.asarray(picture()))
    assert decoded.alpha is not None
    assert not decoded.alpha.any()


def test_palette_with_transparency_gives_alpha() -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2, 1])
    decoded = decode(saved(image, transparency=bytes([255, 0, 128])), background=None)
    assert decoded.alpha is not None
    assert decoded.alpha.tolist() == [[255, 0], [128, 0]]
    assert decoded.pixels[1, 0].tolist() == [0, 0, 255]


def test_transparent_colour_gives_alpha() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    decoded = decode(saved(image, transparency=(9, 9, 9)), background=None)
    assert decoded.alpha is not None
    assert decoded.alpha.tolist() == [[255, 0]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    decoded = decode(saved(image, kind))
    assert np.abs(decoded.pixels.reshape(-1, 3).astype(int) - (255, 0, 0)).max() <= 3


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 257, 128 * 257, 65535, 1000, 64000]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = decode(saved(Image.fromarray(values), kind))
        assert decoded.pixels[0, :, 0].tolist() == np.rint(values[0] / 257).astype(int).tolist()


def test_sixteen_bit_colour_is_scaled() -> None:
    row = struct.pack(">6H", 65535, 0, 32896, 257, 514, 771)
    decoded = decode(png(2, 1, 16, 2, zlib.compress(b"\x00" + row)))
    assert decoded.pixels.tolist() == [[[255, 0, 128], [1, 2, 3]]]


def test_sixteen_bit_grey_with_a_transparent_value_gives_alpha() -> None:
    row = struct.pack(">2H", 1000, 2000)
    data = png(2, 1, 16, 0, zlib.compress(b"\x00" + row), chunk(b"tRNS", struct.pack(">H", 2000)))
    decoded = decode(data)
    assert decoded.alpha is not None
    assert decoded.alpha.tolist() == [[255, 0]]


def test_lab_becomes_srgb() -> None:
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (4, 4), (200, 100, 50)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert lab is not None
    decoded = decode(saved(lab, "TIFF"))
    assert np.abs(decoded.pixels[0, 0].astype(int) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data).pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_path_bytes_and_stream_give_the_same(kind: str, tmp_path: Path) -> None:
    data = saved(picture(), kind)
    path = tmp_path / "picture.wrong-suffix"
    path.write_bytes(data)
    first = decode(path)
    assert first.format == kind
    for source in (data, io.BytesIO(data)):
        assert np.array_equal(decode(source).pixels, first.pixels)


@pytest.mark.parametrize("data", [b"", b"hello, world", b"%PDF-1.7 and more", b"\x00" * 100, b"<svg/>", b"%!PS-Adobe-3.0"])
def test_what_is_no_picture_by_content_is_not_an_image(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(NotAnImage, match=r"photo\.jpg: "):
        decode(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(NotAnImage, match="not a regular file"):
        decode(tmp_path / "pipe.jpg")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Undecodable, match=r"gone\.png: cannot be read \(no such file"):
        decode(tmp_path / "gone.png")


def test_lower_limit_is_held() -> None:
    decode(saved(picture()), max_pixels=WIDTH * HEIGHT)
    with pytest.raises(Undecodable, match="12 x 7 pixels are more than the limit of 83"):
        decode(saved(picture()), max_pixels=WIDTH * HEIGHT - 1)


@pytest.mark.parametrize(
    ("head", "size_bytes", "kind", "reason"),
    [
        (b"", 1 << 34, NotAnImage, "not an image"),
        (b"a note of some length" * 50, 1 << 34, NotAnImage, "not an image"),
        (b"\x89PNG\r\n\x1a\n", 1 << 34, Undecodable, "huge"),
        (saved(picture()), 1 << 34, Undecodable, "larger than the limit"),
    ],
)
def test_a_huge_file_is_refused_before_it_is_read(
    head: bytes, size_bytes: int, kind: type[Exception], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:  # a file of holes, which takes no room
        file.write(head)
        file.truncate(size_bytes)
    tracemalloc.start()
    try:
        with pytest.raises(kind, match=reason):
            decode(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_a_large_picture_is_read_after_a_look_at_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(saved(picture()))
    monkeypatch.setattr("fruitgan.data.decode.LARGE_BYTES", 8)
    assert np.array_equal(decode(tmp_path / "a.png").pixels, np.asarray(picture()))
    (tmp_path / "b.png").write_bytes(b"no picture at all")
    with pytest.raises(NotAnImage, match="not an image"):
        decode(tmp_path / "b.png")


HEIC = Path(__file__).parent / "fruit.heic"
"""A drawn apple of 64 x 48 px, which its orientation turns by a quarter."""


def test_a_photograph_of_a_phone_is_read_upright_where_pi_heif_is_installed() -> None:
    pytest.importorskip("pi_heif", reason="fruitgan[heif] is absent")
    apple = draw("apple", 64, 0, 0)[:48]
    found = decode(HEIC)
    assert (found.format, found.pixels.shape, found.alpha) == ("HEIF", (64, 48, 3), None)
    assert np.abs(found.pixels.astype(int) - np.rot90(apple, -1)).mean() < 8
    with pytest.raises(Undecodable, match="damaged HEIC"):
        decode(HEIC.read_bytes()[:600])


def test_without_pi_heif_a_heic_names_what_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fruitgan.data.decode._learn_heif", lambda: None)
    monkeypatch.setattr(Image, "OPEN", {name: entry for name, entry in Image.OPEN.items() if name != "HEIF"})
    formats.cache_clear()
    try:
        with pytest.raises(Undecodable, match=r'pip install "fruitgan\[heif\]"'):
            decode(HEIC)
    finally:
        formats.cache_clear()
