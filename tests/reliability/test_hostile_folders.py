"""A folder of horrors through every job that reads pictures: each entry becomes a result or a reason, and that is all."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import encoded, noise, pixels_of
from PIL import ExifTags, Image
from toy_bundles import Negative, save_toy

from fruitgan.cli import main
from fruitgan.data.decode import formats
from fruitgan.data.finder import images_below
from fruitgan.data.image_dataset import DecodeSettings, ImageDataset, cached_dataset
from fruitgan.data.preprocessing import AS_USUAL, survey
from fruitgan.data.sources import loose_source
from fruitgan.data_job import CheckSettings, check
from fruitgan.engines.contracts import engines
from fruitgan.errors import DataError
from fruitgan.evaluate.facts import inspect
from fruitgan.files import file_sha256
from fruitgan.translate.job import TranslateSettings, translate

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are any bytes here, and pipes are files")

ODD_NAMES = (
    *(b"a b.png", b"a\nb.png", b"a\tb.png", b"\xff\xfe.png", b"-rf.png", b"--help.png", b" .png", b"~.png", b"*.png"),
    *(b"[a].png", b"$HOME.png", b"`ls`.png", b"'.png", b'".png', b"\\.png", b"%s.png", b"\x1b[2J.png", b".hidden.png"),
    *("\u202egnp.exe.png".encode(), "é.png".encode(), "e\u0301.png".encode(), b"CON.png", b"a..png", b"noending", b".png"),
)


def picture(seed: int, height: int = 6, width: int = 8) -> Image.Image:
    return Image.fromarray(noise(height, width, seed))


def png_header(side: int) -> bytes:
    content = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return struct.pack(">I", 13) + content + struct.pack(">I", zlib.crc32(content))


def write_pictures(root: Path) -> None:
    """Whole ones of many kinds, and of each some that are cut or have flipped bits."""
    root.mkdir()
    rgb, grey = picture(0, 20, 30), picture(1, 20, 30).convert("L")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    whole = {
        "jpeg": encoded(rgb, "JPEG", exif=exif),
        "png": encoded(rgb),
        "deep": encoded(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)),
        "float": encoded(grey.convert("F"), "TIFF"),
        "alpha": encoded(Image.merge("LA", [grey, grey])),
        "webp": encoded(rgb, "WEBP", exif=exif),
        "fax": encoded(grey.convert("1"), "TIFF", compression="group4"),
        "animated-png": encoded(rgb, save_all=True, append_images=[picture(2, 20, 30)]),
        "profile": encoded(rgb, "JPEG", icc_profile=b"no profile" * 40),
        "one": encoded(picture(3, 1, 1)),
        "long": encoded(picture(4, 1, 20_000)),
    }
    for name, data in whole.items():
        (root / f"{name}.jpg").write_bytes(data)  # whatever it is
        rng = random.Random(name)
        (root / f"{name} cut.jpg").write_bytes(data[: rng.randrange(len(data))])
        for n in range(3):
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            (root / f"{name} flipped {n}.jpg").write_bytes(flipped)
    for name, size in (("bomb", 60_000), ("zeros", 0)):
        (root / f"{name}.png").write_bytes(encoded(rgb)[:8] + png_header(size) + encoded(rgb)[33:])
    (root / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    (root / "empty.png").write_bytes(b"")
    (root / "text.jpg").write_text("P5 is how this text begins")
    (root / "one stem.png").write_bytes(whole["png"])
    (root / "one stem.jpg").write_bytes(whole["jpeg"])


def write_odd_names(folder: Path) -> None:
    folder.mkdir()
    for n, name in enumerate(ODD_NAMES):
        (folder / os.fsdecode(name)).write_bytes(encoded(picture(100 + n)))


def write_horrors(root: Path) -> None:
    """Pictures, broken ones, and all that a folder can hold that is no file."""
    write_pictures(root)
    write_odd_names(root / "odd")
    links = root / "links"
    links.mkdir()
    for name, target in {
        "a.png": "../png.jpg",
        "dangling.png": "nowhere.png",
        "self.png": "self.png",
        "there.png": "back.png",
        "back.png": "there.png",
        "zero.png": "/dev/zero",
        "null.png": "/dev/null",
        "up": "..",
        "deeper": "deeper",
    }.items():
        (links / name).symlink_to(target)
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "odd" / "pipe")
    here = Path.cwd()
    os.chdir(root)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
    os.chdir(here)


def pillow_size(path: Path) -> tuple[int, int] | None:
    """Width and height of the upright picture, as Pillow alone decodes it, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = path.read_bytes() if path.is_file() else b""
            with Image.open(io.BytesIO(data), formats=formats()) as image:
                image.load()
                turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
                return image.size[::-1] if turned else image.size
        except Exception:
            return None


def entries(root: Path) -> dict[str, tuple[int, ...]]:
    """Everything below, links not followed, with what tells whether it was touched."""
    found = {}
    for base, folders, files in os.walk(root):
        for name in (*folders, *files):
            about = os.lstat(Path(base, name))
            found[str(Path(base, name))] = (about.st_mode, about.st_size, about.st_mtime_ns, about.st_ino)
    return found


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and beside it a bundle, whose engine costs nothing."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(engines, "get", lambda name: Negative)
    save_toy(tmp_path / "toy.safetensors", directions=("a2b",))
    return folder


@pytest.fixture
def here(empty: Path) -> Path:
    """The current folder, with the horrors in it."""
    write_horrors(empty / "horrors")
    return empty


def test_every_entry_becomes_a_picture_or_a_reason_and_nothing_else_happens(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = entries(here)
    result = translate(TranslateSettings(sources=("horrors",), recursive=True, bundle="../toy.safetensors"))
    assert capfd.readouterr() == ("", "")
    after = entries(here)
    assert {path: after[path] for path in before} == before
    assert all(path.startswith(str(here / "translated")) for path in after.keys() - before.keys())

    remarks = [*result.skipped, *result.failed]
    told = {remark.path for remark in remarks}
    assert len(told) == len(remarks)
    assert all(remark.reason and len(remark.reason.splitlines()) == 1 and len(remark.reason) < 250 for remark in remarks)
    named = {str(Path(path).relative_to(here)) for path in before} - {"horrors", "horrors/odd", "horrors/links"}
    sizes_by_name = {name: pillow_size(here / name) for name in named}
    decodable = {name for name, size in sizes_by_name.items() if size and not Path(name).name.startswith(".")}
    assert told == named - decodable
    assert result.translated == len(result.outputs) == len(decodable) > 45
    assert len(result.failed) > 15
    written = {str(path) for path in Path("translated").rglob("*") if path.is_file()}
    assert written == set(result.outputs)

    sizes = sorted(size for path in result.outputs if (size := pillow_size(Path(path))))
    assert sizes == sorted(sizes_by_name[name] for name in decodable)
    for name in ("png", "long", "one", "animated-png"):
        np.testing.assert_array_equal(255 - pixels_of(f"horrors/{name}.jpg"), pixels_of(f"translated/{name}.png"))
    outputs = {pixels_of(path).tobytes() for path in result.outputs}
    assert outputs >= {(255 - np.asarray(picture(100 + n))).tobytes() for n, name in enumerate(ODD_NAMES) if name[:1] != b"."}
    assert Path("translated/one stem.png.png").exists()
    assert Path("translated/one stem.jpg.png").exists()

    reasons = {remark.path.removeprefix("horrors/"): remark.reason for remark in (*result.skipped, *result.failed)}
    skipped = {remark.path.removeprefix("horrors/") for remark in result.skipped}
    expected = {
        "bomb.png": "more pixels than the limit of 178,956,970",
        "empty.png": "is empty",
        "text.jpg": "not an image",
        "pipe.png": "not a regular file",
        "odd/pipe": "not a regular file",
        "socket.png": "not a regular file",
        "links/zero.png": "not a regular file",
        "links/null.png": "not a regular file",
        "links/up": "a folder that was visited already",
        "links/dangling.png": "cannot be read (no such file or directory)",
        "links/self.png": "cannot be read (too many levels of symbolic links)",
        "links/back.png": "cannot be read (too many levels of symbolic links)",
    }
    assert {name: reasons[name] for name in expected} == expected
    assert "HEIC" in reasons["photo.heic"]
    broken = {"bomb.png", "photo.heic", "links/dangling.png", "links/self.png", "links/back.png"}
    assert skipped & expected.keys() == expected.keys() - broken


def test_the_command_prints_a_line_for_each_and_exits_with_3(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["translate", "horrors", "-r", "--bundle", "../toy.safetensors", "--engine", "torch"]
    assert main(arguments) == 3
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == len(set(out.splitlines())) > 45
    _, *lines = err.splitlines()  # the first says which bundle
    assert lines[-1].startswith("error: ")
    assert all(line.startswith(("note: ", "skipped: ", "warning: ")) for line in lines[:-1])


def test_a_picture_of_any_name_can_be_named(empty: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_odd_names(empty / "odd")
    os.chdir("odd")
    for n, name in [*enumerate(ODD_NAMES)][::3]:  # all of them lie in the folder of horrors
        folder = empty / f"{n}"
        assert main(["translate", "--bundle", "../../toy.safetensors", "-o", str(folder), "--", os.fsdecode(name)]) == 0, name
        (output,) = folder.iterdir()
        np.testing.assert_array_equal(255 - np.asarray(picture(100 + n)), pixels_of(output))


def test_a_folder_of_horrors_can_be_checked_and_held_in_a_bank(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files, skipped = images_below(here / "horrors")
    decodable = [path for path in files if pillow_size(path)]
    (here / "fine").mkdir()
    for n in range(12):
        (here / "fine" / f"{n}.png").write_bytes(encoded(picture(n)))
    before = entries(here)

    result = check(CheckSettings(data_a=here / "horrors", data_b=here / "fine"))
    reports = [report for report in result.splits if report.domain == "horrors"]
    assert sum(report.files for report in reports) == len(files)
    assert sum(report.images for report in reports) == len(decodable)
    broken = {file.path: file.reason for report in reports for file in report.broken}
    assert set(map(Path, broken)) == set(files) - set(decodable)
    assert {Path(remark.path).name: remark.reason for remark in skipped}["pipe.png"] == "not a regular file"
    assert broken[str(here / "horrors/bomb.png")] == "more pixels than the limit of 178,956,970"
    assert broken[str(here / "horrors/links/self.png")] == "cannot be read (too many levels of symbolic links)"

    bank = ImageDataset.build(files, load_size_px=16)
    assert bank.names == tuple(decodable)
    assert {str(path): reason for path, reason in bank.broken} == broken

    cached, note = cached_dataset(files, DecodeSettings(load_size_px=16, resample=Image.Resampling.BICUBIC))
    assert (cached.names, cached.broken, cached.fingerprint, note) == (bank.names, bank.broken, bank.fingerprint, None)

    looked = survey(loose_source(here / "horrors", here / "fine"), AS_USUAL)
    assert sum(len(looked["fine", split].pictures) for split in ("train", "test")) == 12
    assert entries(here) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("read", [lambda path: inspect([path], [True]), file_sha256])
def test_a_pipe_among_what_is_evaluated_or_learnt_from_is_named_and_not_waited_for(read: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: not a regular file"):
        read(tmp_path / "pipe.png")


def test_a_domain_of_nothing_but_pipes_is_an_error_and_no_wait(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        os.mkfifo(tmp_path / name / "pipe.png")
    with pytest.raises(DataError, match=r"a: holds no images"):
        check(CheckSettings(data_a=tmp_path / "a", data_b=tmp_path / "b"))
