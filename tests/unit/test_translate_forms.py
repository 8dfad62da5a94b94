"""Pictures of every form: depth, grey, transparency, frames and metadata come back as they came in."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import noise, pixels_of
from PIL import Image, ImageCms
from toy_bundles import Negative, save_toy

from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage
from fruitgan.engines.contracts import Images, engines
from fruitgan.evaluate.sources import find_sources
from fruitgan.translate.job import TranslateResult, TranslateSettings, translate
from fruitgan.translate.pictures import encode

Run = Callable[..., TranslateResult]
RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 65536, (9, 7, 4), dtype=np.uint16)


class Same(Negative):
    """Gives back what it gets, and remembers it."""

    seen: Images

    def translate(self, images: Images) -> Images:
        Same.seen = images
        return images


class Blurred(Negative):
    """Every pixel is the mean of the picture."""

    def translate(self, images: Images) -> Images:
        return np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)


class Blue(Negative):
    """Only blue comes through."""

    def translate(self, images: Images) -> Images:
        return images * np.array((0, 0, 1), np.float32)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Translates a file with an engine and with changes of the bundle's card."""
    monkeypatch.chdir(tmp_path)

    def run(source: str, engine: Any = Negative, card: Any = None, on_progress: Any = None, **settings: Any) -> TranslateResult:
        monkeypatch.setattr(engines, "get", lambda name: engine)
        save_toy(Path("toy.safetensors"), **(card or {}))
        given: dict[str, Any] = {"bundle": "toy.safetensors", "engine": "torch", "output": "out", "overwrite": True, **settings}
        return translate(TranslateSettings(sources=(source,), **given), on_progress)

    return run


def notes(result: TranslateResult) -> list[str]:
    return [note.reason for note in result.notes]


@pytest.mark.parametrize("value_range", [None, (0.0, 4095.0)])
@pytest.mark.parametrize("form", ["png", "tif"])
def test_16_bits_stay_16_bits_over_the_bundles_range(run: Run, form: str, value_range: Any) -> None:
    high = 65535 if value_range is None else 4095
    values = (DEEP[..., 0].astype(int) % (high + 1)).astype(np.uint16)
    Image.fromarray(values).save(f"a.{form}")
    result = run(f"a.{form}", card={"value_range": value_range}, format=form)
    assert notes(result) == []
    assert pixels_of(f"out/a.{form}").dtype == np.uint16
    assert np.array_equal(pixels_of(f"out/a.{form}"), high - values)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_of_every_mode_go_through_float_and_not_through_bytes(run: Run, channels: int) -> None:
    values = DEEP[..., :channels].copy()
    if channels in (2, 4):
        values[..., -1] = values[..., -1] // 257 * 257  # of alpha the higher byte is kept
        values[:2, ..., -1] = 65535
    Path("a.png").write_bytes(encode([values], "png", {}, {}, "none"))
    run("a.png", Same)
    back = decode(Path("out/a.png"), background=None)
    assert back.deep is not None
    opaque = slice(0, 2)
    assert np.array_equal(np.atleast_3d(back.deep)[opaque], values[opaque, :, : 1 if channels < 3 else 3])
    if channels in (2, 4):
        assert np.array_equal(back.alpha, values[..., -1] // 257)  # type: ignore[arg-type]


def test_16_bits_keep_the_profile_of_srgb_and_grey_gif_its_transparency(run: Run) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = encode([DEEP[..., :3].copy()], "png", {}, {"icc_profile": profile}, "basic")
    Path("a.png").write_bytes(deep)
    run("a.png")
    with Image.open("out/a.png") as image:
        assert image.info["icc_profile"] == profile
    assert decode(Path("out/a.png")).deep is not None
    alpha = np.where(np.arange(8) < 4, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([np.full((8, 8), 90, np.uint8), np.tile(alpha, (8, 1))]), "LA").save("grey.png")
    run("grey.png", format="gif")
    assert np.array_equal(decode(Path("out/grey.gif"), background=None).alpha, np.tile(alpha, (8, 1)))  # type: ignore[arg-type]


def test_what_moves_on_nothing_leaves_no_trail_and_plays_as_often(run: Run) -> None:
    frames = []
    for left in (0, 10, 20):
        pixels = np.zeros((10, 30, 4), np.uint8)
        pixels[:, left : left + 8] = (200, 30, 30, 255)
        pixels[0, left, 3] = 0  # of a part without a hole WebP does not say that the rest is transparent
        frames.append(Image.fromarray(pixels))
    frames[0].save("bar.gif", save_all=True, append_images=frames[1:], duration=80, disposal=2)
    for form in ("gif", "webp", "png"):
        run("bar.gif", frames="all", format=form)
        with Image.open(f"out/bar.{form}") as image:
            assert getattr(image, "n_frames", 1) == 3
            assert image.info.get("loop", 1) == 1  # once, as a GIF that says nothing
            image.seek(2)
            seen = np.asarray(image.convert("RGBA"))[5, :, 3]
        assert np.array_equal(np.flatnonzero(seen), np.arange(20, 28))


def test_pages_of_several_sizes_are_refused_but_by_tiff(run: Run) -> None:
    first, *others = (Image.fromarray(noise(height, 20)) for height in (12, 9, 15))
    first.save("m.tif", save_all=True, append_images=others)
    assert run("m.tif", frames="all", format="tif").translated == 1
    for form in ("png", "gif", "webp"):
        assert ["several sizes" in remark.reason for remark in run("m.tif", frames="all", format=form).failed] == [True]


def test_the_still_picture_of_an_animation_is_no_frame_of_it(run: Run) -> None:
    still, *frames = (Image.fromarray(noise(9, 9, seed)) for seed in range(4))
    still.save("a.png", save_all=True, default_image=True, append_images=frames, duration=[50, 60, 70])
    run("a.png", Same, frames="all")
    with Image.open("out/a.png") as image:
        assert getattr(image, "n_frames", 1) == 3
    run("a.png", Same)
    assert np.array_equal(pixels_of("out/a.png"), np.asarray(still))


def test_the_resolution_is_turned_with_the_picture(run: Run) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for form in ("jpg", "tif", "png"):
        Image.fromarray(noise(20, 30)).save(f"a.{form}", dpi=(200, 100), exif=exif)
        run(f"a.{form}", format="png")
        with Image.open("out/a.png") as image:
            assert image.size == (20, 30)
            assert [round(value) for value in image.info["dpi"]] == [100, 200]


def test_a_profile_that_16_bits_do_not_go_through_is_named(run: Run) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for channels, said in ((3, "of its 16 bits a colour 8 are left"), (1, "its colour profile is left out")):
        Path("a.png").write_bytes(encode([DEEP[..., :channels].copy()], "png", {}, {}, "none"))
        data = Path("a.png").read_bytes()
        chunk = b"iCCP" + b"icc\0\0" + zlib.compress(lab)
        packed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        Path("a.png").write_bytes(data[:33] + packed + data[33:])  # behind the first chunk
        assert any(note.startswith(said) for note in notes(run("a.png")))


def test_the_preview_in_a_phones_jpeg_is_no_frame(run: Run) -> None:
    large, preview = (Image.fromarray(noise(side, side)) for side in (48, 16))
    large.save("phone.jpg", "MPO", save_all=True, append_images=[preview])
    run("phone.jpg", frames="all")
    with Image.open("out/phone.png") as image:
        assert (image.size, getattr(image, "n_frames", 1)) == ((48, 48), 1)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_floats_and_long_integers_stay_what_they_are_in_tiff(run: Run, kind: Any) -> None:
    low, high = -1000.0, 3000.0
    values = RANDOM.uniform(low, high, (6, 5)).astype(kind)
    Image.fromarray(values).save("a.tif")
    run("a.tif", card={"value_range": (low, high)}, format="tif")
    made = pixels_of("out/a.tif")
    assert made.dtype == kind
    assert np.allclose(made, low + high - values, atol=1e-3)
    said = notes(run("a.tif", card={"value_range": (low, high)}))
    assert said == [f"png holds uint16, not {np.dtype(kind).name}; --format tif keeps the depth"]
    assert np.allclose(pixels_of("out/a.png") / 65535 * (high - low) + low, low + high - values, atol=0.1)


def test_nan_and_what_lies_beyond_the_range_are_named(run: Run) -> None:
    values = np.array([[-5, 0], [np.nan, 300]], np.float32)
    Image.fromarray(values).save("a.tif")
    assert notes(run("a.tif", format="tif")) == [
        "holds NaN or infinite values, which count as 0",
        "its values from -5 to 300 are cut off at 0 and 255, as the bundle says no range (--value-range)",
    ]
    assert notes(run("a.tif", format="tif", value_range="-5,300")) == ["holds NaN or infinite values, which count as -5"]
    assert np.allclose(pixels_of("out/a.tif"), [[300, 295], [300, -5]], atol=1e-4)


def test_grey_is_shown_three_times_and_comes_back_as_the_mean(run: Run) -> None:
    grey = noise(8, 6)[..., 0]
    Image.fromarray(grey).save("a.png")
    run("a.png", Same)
    assert Same.seen.shape == (1, 8, 6, 3)
    assert (Same.seen == Same.seen[..., :1]).all()
    run("a.png", Blue)
    assert np.array_equal(pixels_of("out/a.png"), np.rint(grey / 3))


@pytest.mark.parametrize(("form", "name"), [("RGBA", "a.png"), ("LA", "a.png"), ("RGBA", "a.webp"), ("P", "a.png")])
def test_alpha_is_kept_and_what_is_hidden_does_not_bleed(run: Run, form: str, name: str) -> None:
    y, x = np.mgrid[:20, :20]
    alpha = np.clip((9.5 - np.hypot(y - 10, x - 10)) * 40, 0, 255).astype(np.uint8)
    made = []
    for hidden in ((255, 0, 255), (0, 90, 3)):
        pixels = np.dstack([noise(20, 20) // 85 * 85, alpha])
        pixels[alpha == 0, :3] = hidden
        image = Image.fromarray(pixels)
        image = image.quantize(256, dither=Image.Dither.NONE) if form == "P" else image.convert(form)
        image.save(name, lossless=True, exact=True)
        run(name, Blurred)
        made.append(decode(Path("out/a.png"), background=None))
    if form != "P":  # a palette of 256 colours is another for other pixels
        assert np.array_equal(made[0].pixels, made[1].pixels)
    assert np.array_equal(made[1].alpha, decode(Path(name)).alpha)  # type: ignore[arg-type]
    assert made[1].mode == {"P": "RGBA"}.get(form, form)


def test_the_generator_sees_the_background_and_edges_come_back_without_it(run: Run) -> None:
    pixels = np.dstack([noise(9, 8), RANDOM.integers(0, 256, (9, 8), dtype=np.uint8)])
    Image.fromarray(pixels).save("a.png")
    run("a.png", Same, card={"background": "#ff8000"})
    alpha = pixels[..., 3:] / 255
    assert np.allclose(Same.seen[0], pixels[..., :3] / 255 * alpha + (1 - alpha) * np.array((255, 128, 0)) / 255, atol=1e-6)
    assert np.array_equal(pixels_of("out/a.png")[alpha[..., 0] > 0], pixels[alpha[..., 0] > 0])
    run("a.png", Same, format="jpg")
    assert pixels_of("out/a.jpg").shape == (9, 8, 3)


DURATIONS = [100, 200, 50, 400]


@pytest.mark.parametrize("form", ["gif", "webp", "png", "tif"])
def test_all_frames_go_into_the_same_container_with_their_durations(run: Run, form: str) -> None:
    sources = [np.full((12, 10, 3), value, np.uint8) for value in (0, 51, 102, 204)]
    images = [Image.fromarray(source) for source in sources]
    images[0].save(f"a.{form}", save_all=True, append_images=images[1:], duration=DURATIONS, loop=3, lossless=True)
    assert notes(run(f"a.{form}")) == ["the first frame or page alone; --frames all translates all"]
    assert np.array_equal(pixels_of("out/a.png")[..., :3], 255 - sources[0])
    result = run(f"a.{form}", frames="all")
    assert (result.outputs, result.notes) == ((str(Path(f"out/a.{form}")),), ())
    with Image.open(f"out/a.{form}") as image:
        assert getattr(image, "n_frames") == 4  # noqa: B009
        for number, source in enumerate(sources):
            image.seek(number)
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - (255 - source)).max() <= 3
            if form != "tif":
                assert (image.info["duration"], image.info["loop"]) == (DURATIONS[number], 3)
    assert run(f"a.{form}", frames="all", overwrite=False).translated == 0  # its mark is found again


def test_a_stack_keeps_the_depth_of_its_pages_and_a_format_of_one_frame_refuses_it(run: Run) -> None:
    pages = [DEEP[..., 0], DEEP[:4, :3, 1]]
    first, second = (Image.fromarray(np.ascontiguousarray(page)) for page in pages)
    first.save("a.tif", save_all=True, append_images=[second])
    run("a.tif", frames="all")
    with Image.open("out/a.tif") as image:
        for number, page in enumerate(pages):
            image.seek(number)
            assert np.array_equal(np.asarray(image), 65535 - page)
    failed = run("a.tif", frames="all", format="jpg").failed
    assert "jpg holds no 2 frames of uint8" in failed[0].reason


@pytest.mark.parametrize("form", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("kept", ["none", "basic", "all"])
def test_metadata_that_still_hold_are_kept_and_the_place_only_if_it_is_asked_for(run: Run, form: str, kept: Any) -> None:
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "a camera", 0x0132: "2020:01:02 03:04:05"})
    exif[0x8769] = {0x9003: "2020:01:02 03:04:05", 0x9286: b"a comment", 0x927C: b"secrets of the maker"}
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0)}
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise(6, 9)).save("a.jpg", exif=exif, dpi=(300, 300), icc_profile=srgb)
    run("a.jpg", format=form, keep_metadata=kept)
    with Image.open(f"out/a.{form}") as image:
        found, inner = image.getexif(), image.getexif().get_ifd(0x8769)
        assert image.size == (6, 9)  # upright
        assert found.get(0x0112, 1) == 1
        assert (0x0132 in found, 0x010F in found) == (kept != "none", kept == "all")
        assert ("icc_profile" in image.info) == (kept != "none")
        if form != "webp":
            assert (round(image.info.get("dpi", (0, 0))[0]) == 300) == (kept != "none")
        if form != "tif":
            assert (0x9003 in inner, 0x9286 in inner, 0x927C in inner) == (kept != "none", kept == "all", False)
            assert (2 in found.get_ifd(0x8825)) == (kept == "all")
    assert run("a.jpg", format=form, keep_metadata=kept, overwrite=False).translated == 0  # the mark is there too


def test_a_profile_that_is_not_srgb_is_applied_and_not_kept(run: Run) -> None:
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    Image.fromarray(noise(6, 9)).save("a.png", icc_profile=other)
    run("a.png")
    with Image.open("out/a.png") as image:
        assert "icc_profile" not in image.info


def test_a_bundle_of_few_steps_is_warned_of(run: Run) -> None:
    Image.fromarray(noise(6, 9)).save("a.png")
    told: list[Any] = []
    run("a.png", card={"steps": 40, "resolved_recipe": {}}, on_progress=told.append)
    assert "trained for 40 steps" in told[0].text
    assert [event.is_warning for event in told[:2]] == [False, True]


def test_evaluate_finds_the_source_of_each_result_also_where_names_clash(run: Run) -> None:
    Path("in/a").mkdir(parents=True)
    names = ["in/a/x.bmp", "in/a/x.png", "in/x.png"]
    for seed, name in enumerate(names):
        Image.fromarray(noise(6, 9, seed)).save(name)
    made = sorted(run("in", recursive=True).outputs)
    fakes = [LabelledImage(Path(path), True, path, "test", "") for path in made]
    found = find_sources(Path("in"), fakes)
    assert found.paired
    assert [path.as_posix() for path in found.paths] == names
