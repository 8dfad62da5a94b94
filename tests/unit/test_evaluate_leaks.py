"""What gives real and generated images away, and what only seems to."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from fruitgan.data.groups import Look
from fruitgan.errors import DataError
from fruitgan.evaluate.facts import Facts, inspect
from fruitgan.evaluate.leaks import Leak, find_leaks

Make = Callable[[int], Image.Image]
FACTS = Facts(
    path=Path("0.png"),
    generated=True,
    file_sha256="",
    look=Look("", 0),
    width_px=160,
    height_px=160,
    format="PNG",
    mode="RGB",
    quantisation="",
    metadata=(),
    name="0",
    suffix=".png",
    blockiness=0.0,
    darkest=3,
    brightest=250,
    full_range=False,
    thin_ends=False,
)


def made_up(fakes: list[tuple[int, int]], reals: list[tuple[int, int]]) -> list[Facts]:
    """Facts of images of these sizes, alike in all else."""
    sizes = [(True, size) for size in fakes] + [(False, size) for size in reals]
    return [
        replace(FACTS, generated=generated, look=Look(str(i), 0), file_sha256=str(i), width_px=size[0], height_px=size[1])
        for i, (generated, size) in enumerate(sizes)
    ]


def test_a_class_of_one_group_is_tested_and_gives_no_accuracy() -> None:
    facts = made_up([(160, 160)] * 50, [(200, 200)] * 3000)
    groups = ["one"] * 50 + [str(i) for i in range(3000)]
    (size,) = [leak for leak in find_leaks(facts, groups) if leak.kind == "size"]
    assert size.effect == 0.5


def photograph(seed: int, side_px: int = 48) -> Image.Image:
    """Broad shapes with some grain: unlike white noise JPEG leaves its blocks on them."""
    small = np.random.default_rng(seed).uniform(60, 190, (7, 7, 3)).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((side_px, side_px), Image.Resampling.BICUBIC)).astype(float)
    grain = np.random.default_rng(seed + 10**6).normal(0, 3, pixels.shape)
    return Image.fromarray(np.clip(pixels + grain, 1, 254).astype(np.uint8))


def stretched(seed: int) -> Image.Image:
    pixels = np.asarray(photograph(seed)).astype(float)
    pixels -= pixels.min()
    return Image.fromarray((pixels / pixels.max() * 255).astype(np.uint8))


def clipped(seed: int) -> Image.Image:
    pixels = np.asarray(photograph(seed)).astype(float)
    return Image.fromarray(np.clip((pixels - 128) * 5 + 128, 0, 255).astype(np.uint8))


def once_jpeg(seed: int) -> Image.Image:
    file = io.BytesIO()
    photograph(seed).save(file, "JPEG", quality=50)
    return Image.open(file)


def leaks(
    folder: Path, fake: Make = photograph, count: int = 20, suffix: str = ".png", real_suffix: str = ".png", **options: Any
) -> dict[str, Leak]:
    """By kind, what is found between these fakes, written with these options, and photographs."""
    paths = []
    for kind, make, first, end, given in (("fake", fake, 0, suffix, options), ("real", photograph, 1000, real_suffix, {})):
        (folder / kind).mkdir()
        for i in range(count):
            paths.append(folder / kind / f"{i:04d}{end}")
            make(first + i).save(paths[-1], **given)
    return {leak.kind: leak for leak in find_leaks(inspect(paths, [True] * count + [False] * count))}


def test_two_kinds_made_alike_have_no_leaks_however_full_of_black_and_white(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert leaks(tmp_path) == leaks(tmp_path / "other", clipped) == {}


@pytest.mark.parametrize(
    ("fake", "options", "kind", "words"),
    [
        (lambda seed: photograph(seed, 40), {}, "size", "40 x 40 px, real ones 48 x 48 px"),
        (lambda seed: photograph(seed).convert("L"), {}, "mode", "generated images are L, real ones RGB"),
        (stretched, {}, "stretch", "100% of the generated images reach from 0 to 255"),
        (once_jpeg, {"count": 40}, "jpeg-history", "compressed differently before they were stored"),
        (photograph, {"suffix": ".jpg", "quality": 90}, "format", "has an accuracy of 100%"),
        (photograph, {"suffix": ".webp", "lossless": True}, "format", "has an accuracy of 100%"),
        (photograph, {"suffix": ".jpg", "quality": 95, "real_suffix": ".jpeg"}, "quantisation", "100%"),
    ],
)
def test_what_one_kind_alone_has_is_a_leak_with_its_effect(
    tmp_path: Path, fake: Make, options: dict[str, Any], kind: str, words: str
) -> None:
    found = leaks(tmp_path, fake, **options)
    assert next(iter(found)) == kind
    assert words in found[kind].detail
    assert found[kind].spoils_detector
    assert found[kind].effect is not None
    assert found[kind].effect > 0.8
    assert found[kind].p_value is not None
    assert found[kind].p_value < 0.01


def test_metadata_and_names_are_told_and_spoil_nothing_that_sees_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "a generator"
    found = leaks(tmp_path, suffix="a.png", exif=exif)
    assert {"metadata", "names"} <= set(found)
    assert not any(found[kind].spoils_detector for kind in ("metadata", "names"))
    assert "generated, mostly: exif; real: nothing" in found["metadata"].detail
    assert "generated images are 00a, real ones 00" in found["names"].detail


def test_sizes_that_agree_in_the_median_alone_are_a_leak() -> None:
    """300 photographs of 160 x 160 px against 300 of 64 to 256 px."""
    found = find_leaks(made_up([(160, 160)] * 300, [(64 + i % 193, 64 + i * 7 % 193) for i in range(300)]))
    assert [(leak.kind, leak.spoils_detector) for leak in found] == [("size", True)]
    assert "generated images are 160 x 160 px, real ones from 64 x 6" in found[0].detail


def test_sizes_that_tell_only_together_with_the_mode_are_a_leak() -> None:
    sizes = [(160, 160) if i % 2 else (80, 80) for i in range(120)]
    facts = made_up(sizes, sizes)
    facts = [replace(fact, mode="L" if (fact.width_px == 80) == fact.generated else "RGB") for fact in facts]
    assert [(leak.kind, leak.spoils_detector) for leak in find_leaks(facts)] == [("combination", True)]


@pytest.mark.parametrize(
    ("number", "options", "kind", "spoils", "words"),
    [
        (
            lambda seed: 1000 if seed == 3 else seed,
            {"count": 30},
            "identical-files",
            False,
            "1 of 30 generated images is the very same file as a real one, such as 0003.png and 0000.png",
        ),
        (lambda seed: 1000 + seed if seed < 5 else seed, {"suffix": ".bmp"}, "identical-pixels", True, "5 of 20"),
        (lambda seed: min(seed, 17), {}, "duplicate-images", False, "2 duplicates among 20 generated images"),
    ],
)
def test_copies_are_named_whatever_their_bytes_and_only_many_of_real_images_spoil_the_detector(
    tmp_path: Path, number: Callable[[int], int], options: dict[str, Any], kind: str, spoils: bool, words: str
) -> None:
    found = leaks(tmp_path, lambda seed: photograph(number(seed)), **options)
    assert {name: leak.spoils_detector for name, leak in found.items() if name != "format"} == {kind: spoils}
    assert words in found[kind].detail


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "torn.png"
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"torn\.png: a damaged"):
        inspect([path], [True])


def alike(count: int = 40) -> list[Facts]:
    """Generated and real images, half of each, with nothing to tell them apart."""
    return made_up([(160, 160)] * (count // 2), [(160, 160)] * (count // 2))


def test_headers_that_tell_the_classes_apart_only_together_are_found() -> None:
    """Of each class half have the one name and half the one suffix, but not the same halves."""
    facts = [
        replace(fact, name="IMG0" if (i % 2 == 0) == fact.generated else "0", suffix=".PNG" if i % 2 == 0 else ".png")
        for i, fact in enumerate(alike(120))
    ]
    (found,) = find_leaks(facts)
    assert (found.kind, found.spoils_detector, found.effect) == ("headers", False, 1.0)
    assert found.p_value is not None
    assert found.p_value < 0.01


def test_sources_on_both_sides_are_counted() -> None:
    (found,) = find_leaks(alike(), [f"source {i % 20 if i < 26 else i}" for i in range(40)])
    assert (found.kind, found.spoils_detector) == ("shared-sources", False)
    assert "of 6 of 20 generated images the source" in found.detail


def test_near_duplicates_are_a_leak_only_where_they_straddle_the_splits() -> None:
    looks = np.random.default_rng(0).integers(2**63, size=40).tolist()
    facts = [replace(fact, look=fact.look._replace(code=looks[min(i, 38)])) for i, fact in enumerate(alike())]
    splits = ["test"] * 40
    assert find_leaks(facts, None, splits) == ()
    splits[38] = "train"
    (found,) = find_leaks(facts, None, splits)
    assert found.kind == "near-duplicates"
    assert "1 of 19 real images of the test split is nearly one of the training split" in found.detail


@pytest.mark.parametrize(("fakes", "is_leak"), [(-0.08, False), (0.2, True)])
def test_a_generators_own_grid_of_8_px_is_no_trace_of_compression(fakes: float, is_leak: bool) -> None:
    random = np.random.default_rng(0)
    facts = made_up([(160, 160)] * 60, [(160, 160)] * 60)
    # Photographs that were resized scatter by 0.1; a UNet's steps across its own grid are smaller than elsewhere.
    values = [*random.normal(fakes, 0.02, 60), *random.normal(0.0, 0.1, 60)]
    leaks = find_leaks([replace(fact, blockiness=float(value)) for fact, value in zip(facts, values, strict=True)])
    assert [leak.kind for leak in leaks] == ["jpeg-history"] * is_leak


def honest(images: int, things: int, seed: int) -> tuple[list[Facts], list[str]]:
    """Facts of photographs of so many things, each thing's photographs alike, and half of the things called generated."""
    random = np.random.default_rng(seed)
    of_thing = [
        {
            "width_px": int(random.choice([64, 128, 256, random.integers(64, 256)])),
            "height_px": int(random.choice([64, 128, 256, random.integers(64, 256)])),
            **{name: str(random.choice(["a", "b", "c"])) for name in ("format", "mode", "quantisation", "name", "suffix")},
            "metadata": (str(random.choice(["exif", "icc_profile"])),),
            "blockiness": float(random.normal()),
        }
        for _ in range(things)
    ]
    fakes = set(random.permutation(things)[: things // 2].tolist())
    chosen = random.integers(things, size=images).tolist()
    facts = [
        replace(FACTS, **of_thing[thing], generated=thing in fakes, look=Look(str(i), 0), file_sha256=str(i))
        for i, thing in enumerate(chosen)
    ]
    return facts, [str(thing) for thing in chosen]


@pytest.mark.parametrize(
    ("images", "things", "splits", "alarms"),
    [
        (60, 60, 20, 1),
        (200, 60, 20, 1),
        pytest.param(200, 200, 300, 8, marks=pytest.mark.slow),
        pytest.param(200, 60, 300, 8, marks=pytest.mark.slow),
    ],
)
def test_honest_splits_hardly_ever_raise_an_alarm(images: int, things: int, splits: int, alarms: int) -> None:
    """A hundredth of them may, and a few more by chance."""
    assert sum(any(leak.p_value for leak in find_leaks(*honest(images, things, seed))) for seed in range(splits)) <= alarms
