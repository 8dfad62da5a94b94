"""How files become data: transparency on a background, deep values from one range, rectangles to squares."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import encoded, noise
from PIL import Image

from fruitgan.data.decode import decode
from fruitgan.data.groups import content_sha256
from fruitgan.data.preprocessing import AS_USUAL, Preprocessing, Tally, traits, with_found_range
from fruitgan.errors import UsageError
from fruitgan.evaluate.settings import EvaluateSettings
from fruitgan.evaluate.sources import preprocessing_of
from fruitgan.images import Pixels, squared
from fruitgan.measures.features import FeatureCache, Pictures

RED = (255, 0, 0)


def cut_out(seed: int, hidden: int) -> Image.Image:
    """A picture that is transparent outside a circle, with a soft edge; `hidden` decides the colours that nobody sees."""
    y, x = np.mgrid[:24, :24]
    alpha = np.clip((10 - np.hypot(x - 11.5, y - 11.5)) * 128, 0, 255).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, noise(24, 24, seed), noise(24, 24, 1000 + hidden))
    return Image.fromarray(np.dstack([pixels, alpha]))


def naively_composited(image: Image.Image, colour: tuple[int, int, int]) -> Pixels:
    rgba = np.asarray(image.convert("RGBA"), dtype=np.float64)
    opacity = rgba[..., 3:] / 255
    return np.floor(rgba[..., :3] * opacity + np.array(colour) * (1 - opacity) + 0.5).astype(np.uint8)


PALETTE = Image.fromarray(noise(6, 6, 3)).quantize(4)
TRANSPARENT: dict[str, bytes] = {
    "RGBA": encoded(cut_out(0, 0)),
    "LA": encoded(cut_out(0, 0).convert("LA")),
    "palette": encoded(PALETTE, transparency=bytes([0, 90, 180, 255])),
    "palette, one colour": encoded(PALETTE, "GIF", transparency=2),
    "colour": encoded(Image.fromarray(noise(6, 6, 3, high=2)), transparency=(1, 1, 1)),
    "WebP": encoded(cut_out(0, 0), "WEBP", lossless=True, exact=True),
    "TIFF": encoded(cut_out(0, 0), "TIFF"),
}


@pytest.mark.parametrize("colour", [(255, 255, 255), (16, 32, 48)])
@pytest.mark.parametrize("kind", TRANSPARENT)
def test_every_kind_of_transparency_is_composited(kind: str, colour: tuple[int, int, int]) -> None:
    with Image.open(io.BytesIO(TRANSPARENT[kind])) as image:
        expected = naively_composited(image, colour)
    found = decode(TRANSPARENT[kind], background=colour)
    assert found.alpha is not None
    assert found.alpha.min() < 255
    np.testing.assert_array_equal(found.pixels, expected)


def test_premultiplied_colours_are_not_darkened_twice() -> None:
    """A TIFF whose alpha is "associated" stores colour times alpha: 100 at half opacity on white is 100 + 127."""
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, 4)]
    entries += [(278, 3, 1, 1), (279, 4, 1, 4), (338, 3, 1, 1)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", *entry) for entry in entries) + bytes(4)
    data = b"II*\0" + struct.pack("<L", 12) + bytes([100, 50, 0, 128]) + directory
    np.testing.assert_allclose(decode(data).pixels[0, 0].astype(int), [227, 177, 127], atol=1)


def test_what_nobody_sees_is_not_data() -> None:
    one, other = (decode(encoded(cut_out(7, hidden))) for hidden in (1, 2))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert content_sha256(one.pixels) == content_sha256(other.pixels)
    kept = [decode(encoded(cut_out(7, hidden)), background=None).pixels for hidden in (1, 2)]
    assert not np.array_equal(*kept)  # but a translation keeps the file's own


def scans(folder: Path, form: str) -> dict[str, Path]:
    """Three scans of 12 bits each, of which only the second holds the highest value; 1064 stands for 40 HU in all of them."""
    held = {"low": [0, 1064, 1200], "high": [500, 1064, 4095], "narrow": [1060, 1064, 1070]}
    kinds = {"png16": np.uint16, "tiff32": np.int32, "float": np.float32}
    paths = {}
    for name, values in held.items():
        paths[name] = folder / f"{name}.{'png' if form == 'png16' else 'tiff'}"
        Image.fromarray(np.array([values], dtype=kinds[form])).save(paths[name])
    return paths


@pytest.mark.parametrize("form", ["png16", "tiff32", "float"])
def test_one_range_maps_all_files_alike(form: str, tmp_path: Path) -> None:
    paths = scans(tmp_path, form)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(noise(4, 4)).save(tmp_path / "eight bits.png")
    how = with_found_range(AS_USUAL, [*paths.values(), tmp_path / "broken.png", tmp_path / "eight bits.png"])
    assert how == Preprocessing(value_range=(0, 4095))
    assert [int(how.decode(path).pixels[0, 1, 0]) for path in paths.values()] == [round(1064 / 4095 * 255)] * 3
    assert how.decode(paths["high"]).pixels[0, 2].tolist() == [255] * 3
    window = Preprocessing(value_range=(1060, 1068))
    assert window.decode(paths["narrow"]).pixels[0, :, 0].tolist() == [0, 128, 255]
    assert with_found_range(window, list(paths.values())) == window
    assert with_found_range(AS_USUAL, [tmp_path / "eight bits.png"]) == AS_USUAL


def test_numbers_that_are_none_are_the_lowest_value_and_are_counted(tmp_path: Path) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, -3, 5, 0]], dtype=np.float32)
    values.view(np.uint32)[0, 5] = 0x7FA00000  # a NaN at which numpy would warn
    Image.fromarray(values).save(tmp_path / "a.tiff")
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "none.tiff")  # which says nothing of the range
    how = with_found_range(AS_USUAL, [tmp_path / "none.tiff", tmp_path / "a.tiff"])
    assert with_found_range(AS_USUAL, [tmp_path / "none.tiff"]) == AS_USUAL
    assert how.decode(tmp_path / "none.tiff").pixels.max() == 0
    picture = how.decode(tmp_path / "a.tiff")
    assert how.value_range == (-3, 5)
    assert picture.pixels[0, :, 0].tolist() == [0, 0, 0, 0, 255, 0]
    assert not picture.is_finite
    assert any("1 of 1 images hold NaN" in note for note in Tally.of([traits(picture)]).notes("x", how))


def test_crop_takes_the_middle_and_pad_adds_borders() -> None:
    wide = np.arange(4 * 8, dtype=np.uint8).reshape(4, 8, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(squared(wide, 4, "crop"), wide[:, 2:6])
    padded = squared(wide, 8, "pad", border=RED)
    np.testing.assert_array_equal(padded[2:6], wide)
    assert (padded[[0, 1, 6, 7]] == RED).all()
    tall = wide.swapaxes(0, 1)
    np.testing.assert_array_equal(squared(tall, 8, "pad", border=RED), padded.swapaxes(0, 1))
    assert squared(wide[:1, :1].repeat(1000, axis=1), 4, "pad").shape == (4, 4, 3)  # a side never vanishes


def test_what_is_odd_is_said_with_the_option_that_changes_it() -> None:
    frames = [Image.fromarray(noise(20, 30, seed)) for seed in range(2)]
    odd = [
        encoded(cut_out(0, 0).resize((30, 20))),
        encoded(Image.fromarray(np.full((20, 30), 900, dtype=np.uint16))),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        encoded(frames[0], "JPEG"),
    ]
    tally = Tally.of([traits(decode(data)) for data in odd])
    assert list(tally.notes("cats", Preprocessing(background="#ff0000", value_range=(0, 4095)))) == [
        "cats: 1 of 4 images have transparent parts; these lie on #ff0000 (--background)",
        "cats: 1 of 4 images have more than 8 bits; 0 to 4095 become 0 to 255 (--value-range)",
        "cats: 1 of 4 images have further frames or pages, which are not used",
        "cats: the median image is 1.50 times as wide as high and is squashed to a square "
        "(--fit crop and --fit pad keep its shape)",
    ]
    assert list(Tally.of([traits(decode(encoded(Image.new("RGB", (9, 9)))))]).notes("dogs", AS_USUAL)) == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("pearl-ish", None, None), "--background 'pearl-ish': no colour"),
        (("#11223344", None, None), "no colour"),
        ((None, "a,b", None), "--value-range a,b: give auto, or two numbers"),
        ((None, "5", None), "--value-range 5: give auto"),
        ((None, "5,5", None), "--value-range 5,5: two finite numbers"),
        ((None, "0,inf", None), "--value-range 0,inf: two finite numbers"),
    ],
)
def test_what_cannot_be_is_refused(asked: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AS_USUAL.asked(*asked)


def test_an_evaluation_reads_images_as_the_dataset_was_made(tmp_path: Path) -> None:
    (fakes := tmp_path / "predicted").mkdir()
    Image.fromarray(np.full((2, 6), 4095, dtype=np.uint16)).save(tmp_path / "wide.png")
    settings = EvaluateSettings(fake_dir=fakes)
    assert preprocessing_of(settings, fakes, []) == AS_USUAL
    made_with = {"count": 3, "background": "#ff0000", "value_range": [0, 8190], "fit": "pad"}
    (tmp_path / "dataset.json").write_text(json.dumps({"settings": made_with}))
    how = preprocessing_of(settings, fakes, [])
    assert how == Preprocessing(background="#ff0000", value_range=(0, 8190), fit="pad")
    pixels = Pictures(how)(tmp_path / "wide.png")
    assert pixels[:, 0].tolist() == [[255, 0, 0]] * 2 + [[128] * 3] * 2 + [[255, 0, 0]] * 2
    asked = preprocessing_of(replace(settings, fit="squash", value_range="auto"), fakes, [tmp_path / "wide.png"])
    assert asked == Preprocessing(background="#ff0000", value_range=(4095, 4096))
    (tmp_path / "dataset.json").write_text('{"settings": {"fit": "stretch"}}')  # as a stranger may have written it
    assert preprocessing_of(settings, fakes, []) == AS_USUAL


def test_the_features_of_images_that_are_read_differently_are_kept_apart() -> None:
    from fruitgan.measures.contracts import features

    backend = features.build(features.choose("colour", {}))
    folders = {FeatureCache(backend, "cpu", how).folder for how in (AS_USUAL, Preprocessing(fit="crop"))}
    assert len(folders) == 2
