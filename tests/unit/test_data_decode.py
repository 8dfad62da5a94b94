"""Decoding: whatever a file is, upright sRGB bytes come out, or an error that names the file."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_files import encoded
from PIL import Image, ImageCms

from fruitgan.data import colour
from fruitgan.data.decode import NotAnImage, Undecodable, decode, formats
from fruitgan.demo.fruit import draw

WIDTH, HEIGHT = 12, 7


def picture() -> Image.Image:
    """Different at every pixel, so that no turn of it equals another."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([x * 20, y * 30, x * y + 40], axis=-1).astype(np.uint8))


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
    decoded = decode(encoded(image, icc_profile=swapping_profile()))
    assert np.abs(decoded.pixels[0, 0].astype(int) - (30, 200, 60)).max() <= 2


def test_grey_picture_with_a_profile_for_rgb_is_converted_too() -> None:
    decoded = decode(encoded(Image.new("L", (4, 4), 130), icc_profile=swapping_profile()))
    assert np.abs(decoded.pixels.astype(int) - 130).max() <= 2


SRGB, LAB = (ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes() for space in ("sRGB", "LAB"))


@pytest.mark.parametrize("profile", [SRGB, LAB, b"nonsense", swapping_profile()[:300]])
def test_the_profile_of_srgb_one_of_another_space_and_a_broken_one_change_nothing(profile: bytes) -> None:
    assert np.array_equal(decode(encoded(picture(), icc_profile=profile)).pixels, np.asarray(picture()))


def test_a_linear_profile_that_calls_itself_srgb_is_applied() -> None:
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert colour.is_srgb(bytes(srgb))
    count = int.from_bytes(srgb[128:132], "big")
    tags = {bytes(srgb[at : at + 4]): srgb[at + 4 : at + 12] for at in range(132, 132 + 12 * count, 12)}
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        start = int.from_bytes(tags[name][:4], "big")
        srgb[start : start + 12] = b"curv\0\0\0\0\0\0\0\0"  # of no points: as it is
    linear = bytes(srgb)
    assert not colour.is_srgb(linear)
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 55, np.uint8)).save(file, "PNG", icc_profile=linear)
    found = decode(file.getvalue())
    assert abs(int(found.pixels[0, 0, 0]) - 128) <= 2  # 55 of 255 in light is 128 in sRGB
    assert "icc_profile" not in found.about


@pytest.mark.parametrize("bits", [2, 4])
def test_the_transparent_grey_of_few_bits_is_found(bits: int) -> None:
    last = 2**bits - 1
    row = bytes([0]) + bytes([last << (8 - bits)])  # one row: the last grey, then black
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", last)),
        (b"IDAT", zlib.compress(row)),
        (b"IEND", b""),
    ]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    found = decode(file, background=None)
    assert found.alpha is not None
    assert found.alpha.tolist() == [[0, 255]]


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 257, 128 * 257, 65535, 1000, 64000]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = decode(encoded(Image.fromarray(values), kind))
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
    decoded = decode(encoded(lab, "TIFF"))
    assert np.abs(decoded.pixels[0, 0].astype(int) - (200, 100, 50)).max() <= 3


def test_a_file_is_what_its_bytes_are_and_a_missing_one_is_named(tmp_path: Path) -> None:
    data = encoded(picture(), "JPEG")
    path = tmp_path / "picture.wrong-suffix"
    path.write_bytes(data)
    assert decode(path).format == "JPEG"
    assert np.array_equal(decode(path).pixels, decode(data).pixels)
    with pytest.raises(Undecodable, match=r"gone\.png: cannot be read \(no such file"):
        decode(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("head", "size_bytes", "kind", "reason"),
    [
        (b"", 1 << 34, NotAnImage, "not an image"),
        (b"a note of some length" * 50, 1 << 34, NotAnImage, "not an image"),
        (b"\x89PNG\r\n\x1a\n", 1 << 34, Undecodable, "huge"),
        (encoded(picture()), 1 << 34, Undecodable, "larger than the limit"),
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
    (tmp_path / "a.png").write_bytes(encoded(picture()))
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
    with pytest.raises(Undecodable, match=r"HEIC that .* or a damaged one; convert"):
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
