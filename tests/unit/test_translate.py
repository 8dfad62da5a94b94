"""The job: which files are pictures, where their results go, and what is done again."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import pixels_of, save_noise
from PIL import Image
from toy_bundles import Negative, save_toy

from fruitgan import bundle as bundles
from fruitgan.engines.contracts import Images, engines
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.parallel import Shard
from fruitgan.translate.job import TranslateResult, TranslateSettings, translate
from fruitgan.translate.pictures import read_mark

Run = Callable[..., TranslateResult]


class Small(Negative):
    """The negative, so that every expected pixel is known; 13 columns are too many for its memory."""

    def translate(self, images: Images) -> Images:
        if images.shape[2] == 13:
            raise FruitganError("not enough memory for 13 px; lower --scale")
        return super().translate(images)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Translates in an empty folder, with a bundle beside it and an engine that gives the negative."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(engines, "get", lambda name: Small)
    save_toy(tmp_path / "toy.safetensors")

    def run(*sources: str, **settings: Any) -> TranslateResult:
        streams = {name: settings.pop(name) for name in ("stdin", "stdout", "on_progress") if name in settings}
        return translate(TranslateSettings(sources=sources, **{"bundle": "../toy.safetensors", **settings}), **streams)

    return run


def files(folder: str | Path = "translated") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def reasons(remarks: Any) -> dict[str, str]:
    return {remark.path: remark.reason for remark in remarks}


def test_pictures_that_share_a_name_take_their_folders_with_them(run: Run) -> None:
    sources = {
        name: save_noise(name, seed=seed)
        for seed, name in enumerate(("a/b/x.png", "a/c/x.png", "d/b/x.png", "e/y.png", "x.png.gif"))
    }
    assert run(*sources).translated == 5
    assert files() == ["a/b/x.png", "c/x.png", "d/b/x.png", "x.png.gif.png", "y.png"]
    assert (pixels_of("translated/d/b/x.png") == 255 - sources["d/b/x.png"]).all()


def test_names_that_differ_in_case_alone_do_not_meet(run: Run) -> None:
    for name in ("in/Photo.png", "in/photo.png", "in/PHOTO.bmp"):
        save_noise(name)
    count = len(files("in"))
    result = run("in")
    assert result.translated == count == len({output.casefold() for output in result.outputs})
    save_noise("in/another.png")
    assert run("in").translated == 1  # the names of the others hang on nothing that is new


def test_a_folder_is_searched_by_content_and_with_recursive_as_a_tree(run: Run) -> None:
    for name in ("in/a.png", "in/sub/a.png", "in/sub/deep/picture-without-suffix.png", "in/.hidden.png"):
        save_noise(name)
    Path("in/sub/deep/picture-without-suffix.png").rename("in/sub/deep/nosuffix")
    flat = run("in", output="flat")
    assert files("flat") == ["a.png"]
    hidden = {str(Path("in/.hidden.png")): "hidden"}
    assert reasons(flat.skipped) == {str(Path("in/sub")): "a folder; -r goes into it"} | hidden
    tree = run("in", output="tree", recursive=True)
    assert files("tree") == ["a.png", "sub/a.png", "sub/deep/nosuffix.png"]
    assert reasons(tree.skipped) == hidden
    assert run("in/.hidden.png", output="named").translated == 1


def test_a_glob_that_no_shell_expanded_is_expanded(run: Run) -> None:
    for name in ("in/a1.png", "in/a2.png", "in/b.png", "in/[x].png"):
        save_noise(name)
    assert run("in/a*.png").translated == 2
    assert run("in/[x].png").outputs == (str(Path("translated/[x].png")),)  # a path that exists is no pattern
    none = run("in/z*.png")
    assert (reasons(none.failed), none.exit_code) == ({"in/z*.png": "no file matches this pattern"}, 3)
    Path("empty").mkdir()
    with pytest.raises(DataError, match="no images found"):
        run("empty")


def test_a_name_too_long_for_a_result_fails_alone(run: Run) -> None:
    save_noise("in/a.png")
    save_noise(f"in/{'n' * 251}.png")
    result = run("in", format="webp")
    assert (result.translated, len(result.failed), result.exit_code) == (1, 1, 3)
    assert files() == ["a.webp"]


def test_a_file_that_is_named_twice_is_translated_once(run: Run) -> None:
    save_noise("in/a.png")
    assert run("in/a.png", "in", "./in/../in/a.png").outputs == (str(Path("translated/a.png")),)


def test_memory_that_does_not_suffice_for_one_picture_suffices_for_the_others(run: Run) -> None:
    save_noise("in/a.png", 5, 13)
    save_noise("in/b.png")
    result = run("in")
    assert (result.translated, result.exit_code) == (1, 1)
    assert "lower --scale" in result.failed[0].reason
    assert run("in/a.png").exit_code == 1
    assert run("in/a.png", "missing.png").exit_code == 3


class TestAgain:
    """Running it a second time."""

    def test_a_rerun_does_only_what_is_missing(self, run: Run) -> None:
        for seed in range(4):
            save_noise(f"in/{seed}.png", seed=seed)
        first = run("in")
        Path("translated/2.png").unlink()
        stamps = {name: Path("translated", name).stat().st_mtime_ns for name in files()}
        second = run("in")
        assert (second.translated, second.outputs) == (1, first.outputs)
        assert {name: Path("translated", name).stat().st_mtime_ns for name in stamps} == stamps
        assert run("in").translated == 0

    @pytest.mark.parametrize(
        ("first", "change", "reason"),
        [
            ({}, {"direction": "b2a"}, "made with another direction"),
            ({}, {"scale": "native"}, "made with another scale"),
            ({}, {"compare": True}, "made with another compare"),
            ({}, {"strength": 0.5}, "made with another strength"),
            ({"strength": 0.5}, {"strength": 1.0}, "made with another strength"),
            ({}, {"bundle": "../other.safetensors"}, "made by another bundle"),
        ],
    )
    def test_results_of_another_bundle_or_other_options_are_not_replaced(
        self, run: Run, first: dict[str, Any], change: dict[str, Any], reason: str
    ) -> None:
        for name in "ab":
            save_noise(f"in/{name}.png", 80, 90)
        save_toy(Path("../other.safetensors"), weight=2.0)
        run("in/a.png", format="jpg", **first)
        before = Path("translated/a.jpg").read_bytes()
        with pytest.raises(UsageError, match=rf"\({reason}\) is in the way: --overwrite"):
            run("in", format="jpg", **change)
        assert files() == ["a.jpg"]
        assert Path("translated/a.jpg").read_bytes() == before
        assert run("in", format="jpg", overwrite=True, **change).translated == 2
        assert run("in", format="jpg", **change).translated == 0

    def test_a_stranger_in_a_results_place_is_not_replaced(self, run: Run) -> None:
        save_noise("in/a.png")
        save_noise("translated/a.png")
        with pytest.raises(UsageError, match="not made by fruitgan"):
            run("in")
        Path("translated/a.png").unlink()
        Path("translated/a.png").mkdir()
        with pytest.raises(UsageError, match="is no file"):
            run("in", overwrite=True)

    def test_another_picture_of_the_same_name_is_not_taken_for_done(self, run: Run) -> None:
        save_noise("in/a.png", seed=1)
        run("in")
        save_noise("in/a.png", seed=2)
        with pytest.raises(UsageError, match="made from another image"):
            run("in")

    def test_a_bundle_with_another_card_but_the_same_weights_is_the_same(self, run: Run) -> None:
        save_noise("a.png")
        run("a.png")
        bundle = bundles.load(Path("../toy.safetensors"))
        bundles.save(bundles.Bundle(replace(bundle.card, notes="measured later"), bundle.weights), Path("../b.safetensors"))
        assert run("a.png", bundle="../b.safetensors").translated == 0

    def test_unfinished_files_of_a_dead_process_are_no_pictures(self, run: Run) -> None:
        save_noise("in/a.png")
        save_noise("in/b.png")
        Path("in/b.png").rename("in/.fruitgan-0123456789abcdef.part")
        result = run("in")
        assert (result.translated, result.skipped) == (1, ())


class TestPlaces:
    """`-o FILE|DIR|-` and `--format`."""

    def test_the_results_folder_is_not_translated_again(self, run: Run) -> None:
        save_noise("a.png")
        save_noise("sub/b.png")
        assert run(".", recursive=True).translated == 2
        again = run(".", recursive=True)
        assert (again.translated, files()) == (0, ["a.png", "sub/b.png"])
        assert reasons(again.skipped) == {"translated": "the folder of the results"}
        run("translated/a.png", output="back", direction="b2a")  # but what is named itself is
        assert (pixels_of("back/a.png") == pixels_of("a.png")).all()

    def test_results_beside_their_sources_are_not_translated_again(self, run: Run) -> None:
        save_noise("in/a.bmp")
        save_noise("in/b.gif")
        assert run("in", output="in").translated == 2
        again = run("in", output="in")
        assert (again.translated, len(again.outputs), len(again.skipped)) == (0, 2, 2)
        assert files("in") == ["a.bmp", "a.png", "b.gif", "b.png"]

    def test_results_in_a_tree_of_their_sources_are_not_translated_again(self, run: Run) -> None:
        save_noise("a.bmp")
        save_noise("sub/deeper/b.bmp")
        assert run(".", output=".", recursive=True).translated == 2
        before = files()
        assert run(".", output=".", recursive=True).translated == 0
        assert files() == before

    def test_a_source_is_never_replaced(self, run: Run) -> None:
        save_noise("in/a.png")
        before = Path("in/a.png").read_bytes()
        for output in ("in", "in/a.png"):
            with pytest.raises(UsageError, match="would replace a source"):
                run("in/a.png", output=output, overwrite=True)
        assert Path("in/a.png").read_bytes() == before

    def test_a_file_name_says_the_format_and_each_bears_the_mark(self, run: Run) -> None:
        save_noise("a.bmp")
        names = {"x.png": "PNG", "x.JPEG": "JPEG", "deep/er/x.webp": "WEBP", "x.tiff": "TIFF", "x.gif": "GIF"}
        for place, form in ((Path(name), form) for name, form in names.items()):
            assert run("a.bmp", output=str(place)).outputs == (str(place),)
            with Image.open(place) as image:
                assert image.format == form
            assert (read_mark(place) or {})["source"] == hashlib.sha256(Path("a.bmp").read_bytes()).hexdigest()

    def test_contradictions_and_formats_that_are_not_written_are_refused(self, run: Run) -> None:
        save_noise("a.png")
        save_noise("b.png")
        with pytest.raises(UsageError, match="contradicts"):
            run("a.png", output="x.png", format="jpg")
        with pytest.raises(UsageError, match=r"no \.bmp is written"):
            run("a.png", output="x.bmp")
        with pytest.raises(UsageError, match="takes one image, not 2"):
            run("a.png", "b.png", output="x.png")
        with pytest.raises(UsageError, match="takes one image, not 2"):
            run("a.png", "b.png", output="-", stdout=io.BytesIO())

    def test_standard_input_goes_to_standard_output(self, run: Run) -> None:
        source = save_noise("a.png")
        out = io.BytesIO()
        result = run("-", stdin=io.BytesIO(Path("a.png").read_bytes()), stdout=out)
        assert (result.outputs, result.exit_code) == (("-",), 0)
        assert (pixels_of(out) == 255 - source).all()  # type: ignore[arg-type]
        out = io.BytesIO()
        run("a.png", output="-", format="webp", stdout=out)
        assert out.getvalue()[8:12] == b"WEBP"
        assert not Path("translated").exists()

    def test_standard_input_goes_to_a_file_once(self, run: Run) -> None:
        save_noise("a.png", seed=1)
        data = Path("a.png").read_bytes()
        assert run("-", output="x.jpg", stdin=io.BytesIO(data)).translated == 1
        assert run("-", output="x.jpg", stdin=io.BytesIO(data)).translated == 0
        assert run("-", output="folder/", stdin=io.BytesIO(data)).outputs == (str(Path("folder/stdin.png")),)

    def test_words_on_standard_input_are_skipped(self, run: Run) -> None:
        result = run("-", stdin=io.BytesIO(b"hello"), stdout=io.BytesIO())
        assert (list(reasons(result.skipped)), result.outputs, result.exit_code) == (["-"], (), 3)


class TestPictures:
    """What is in the results."""

    def test_compare_puts_the_source_on_the_left(self, run: Run) -> None:
        source = save_noise("a.png", 6, 4)
        run("a.png", compare=True)
        assert (pixels_of("translated/a.png") == np.concatenate([source, 255 - source], axis=1)).all()

    def test_strength_lies_between_source_and_result(self, run: Run) -> None:
        source = save_noise("a.png").astype(np.float64)
        for strength in (0, 0.25, 1):
            run("a.png", output="out/", strength=strength, overwrite=True)
            wanted = (1 - strength) * source + strength * (255 - source)
            assert np.abs(pixels_of("out/a.png") - wanted).max() <= 0.5 + 1e-3
        assert (pixels_of("out/a.png") == 255 - source).all()

    def test_a_strength_of_nothing_gives_deep_and_transparent_pictures_back(self, run: Run) -> None:
        deep = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1800
        Image.fromarray(deep).save("deep.png")
        seen = np.dstack([save_noise("x.png"), np.full((5, 7), 128, np.uint8)])
        Image.fromarray(seen).save("half.png")
        run("deep.png", "half.png", strength=0)
        assert np.abs(pixels_of("translated/deep.png").astype(int) - deep).max() <= 1
        assert np.abs(pixels_of("translated/half.png").astype(int) - seen).max() <= 1

    def test_a_contact_sheet_has_each_source_beside_its_result(self, run: Run) -> None:
        sources = {name: save_noise(f"in/{name}.png", 128, 128, seed) for seed, name in enumerate("abcde")}
        result = run("in", contact_sheet=True)
        assert result.contact_sheet == str(Path("translated/contact-sheet.png"))
        sheet = pixels_of(result.contact_sheet).astype(int)
        assert sheet.shape == (2 * 130 - 2, 8 * 130 - 2, 3)
        for place, (name, source) in enumerate(sources.items()):
            top, left = place // 4 * 130, place % 4 * 260
            assert (sheet[top : top + 128, left : left + 128] == source).all()
            assert (sheet[top : top + 128, left + 130 : left + 258] == pixels_of(f"translated/{name}.png")).all()
        again = run("in", contact_sheet=True)  # the sheet that is there gives way, and is no source
        assert (again.translated, again.contact_sheet) == (0, result.contact_sheet)
        skipped = run("translated", "in", output="translated/", contact_sheet=True).skipped
        assert result.contact_sheet in {remark.path for remark in skipped}

    def test_a_contact_sheet_takes_no_other_files_place(self, run: Run) -> None:
        save_noise("in/contact-sheet.jpg")
        with pytest.raises(UsageError, match=r"contact-sheet\.png"):
            run("in", contact_sheet=True)
        save_noise("a.png")
        save_noise("translated/contact-sheet.png")
        with pytest.raises(UsageError, match=r"contact-sheet\.png"):
            run("a.png", contact_sheet=True)
        with pytest.raises(UsageError, match="--contact-sheet"):
            run("a.png", output="-", contact_sheet=True)

    def test_a_side_too_long_for_the_format_fails_with_the_way_out(self, run: Run) -> None:
        save_noise("a.png", 1, 16_384)
        result = run("a.png", format="webp")
        assert (result.exit_code, "use png" in result.failed[0].reason) == (3, True)

    @pytest.mark.parametrize(
        "data", [b"", b"{", b'{"fruitgan-translate": {"a": ', b'{"fruitgan-translate": 3}', b"\xff" * 9000]
    )
    def test_other_files_bear_no_mark(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "x").write_bytes(data)
        assert read_mark(tmp_path / "x") is None
        assert read_mark(tmp_path) is None
        assert read_mark(tmp_path / "missing") is None


class TestDirection:
    """`--to`, `--direction` and the settings' own checks."""

    @pytest.mark.parametrize(
        ("wish", "direction"),
        [({}, "a2b"), ({"to": "orange"}, "a2b"), ({"to": "apple"}, "b2a"), ({"to": "apple", "direction": "b2a"}, "b2a")],
    )
    def test_the_domain_or_the_letters_choose(self, run: Run, wish: dict[str, Any], direction: str) -> None:
        save_noise("a.png")
        run("a.png", **wish)
        assert (read_mark(Path("translated/a.png")) or {})["direction"] == direction

    @pytest.mark.parametrize(
        ("wish", "message"),
        [
            ({"to": "oragne"}, "did you mean orange"),
            ({"to": "apple"}, "only leads to orange"),
            ({"direction": "b2a"}, "only has a2b"),
            ({"to": "orange", "direction": "b2a"}, "give one of the two"),
        ],
    )
    def test_what_the_bundle_cannot_do_is_a_usage_error(self, run: Run, wish: dict[str, Any], message: str) -> None:
        save_noise("a.png")
        save_toy(Path("one-way.safetensors"), directions=("a2b",))
        with pytest.raises(UsageError, match=message):
            run("a.png", bundle="one-way.safetensors", **wish)
        assert not Path("translated").exists()

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("scale", ["", "0", "-3", "8193", "1.5", "autto", "٣", "9" * 5000]),
            ("strength", [-0.1, 1.1, float("nan")]),
            ("sources", [(), ("-", "a")]),
        ],
    )
    def test_settings_that_cannot_be_are_refused(self, name: str, values: list[Any]) -> None:
        for value in values:
            with pytest.raises(UsageError):
                TranslateSettings(**{"sources": ("a.png",), name: value})


def test_a_result_is_no_shard_where_its_source_is_none(run: Run) -> None:
    save_noise(Path("in/apple.png"))
    for source, output in (("in/apple.png", "out.tar"), ("some.tar", "out.png")):
        with tarfile.open("some.tar", "w") as tar:
            tar.add("in/apple.png")
        with pytest.raises(UsageError, match="shard"):
            run(source, output=output)
    assert not Path("out.tar").exists()


@pytest.mark.parametrize("text", ["5,1", "1,1", "nan,1", "0,inf", "x"])
def test_a_range_of_values_that_is_none_is_refused(run: Run, text: str) -> None:
    save_noise(Path("in/apple.png"))
    with pytest.raises(UsageError, match="--value-range"):
        run("in", value_range=text)


def test_parts_of_two_outputs_beside_each_other_keep_their_failures_apart(run: Run) -> None:
    save_noise(Path("in/apple.png"))
    Path("in/broken.png").write_bytes(Path("in/apple.png").read_bytes()[:60])
    run("in", output="res/one", shard=Shard(0, 1))
    run("in/apple.png", output="res/two", shard=Shard(0, 1))
    rows = Path("res/one.failed-0-of-1.jsonl").read_text().splitlines()
    assert [json.loads(row)["path"] for row in rows] == ["in/broken.png"]
    assert Path("res/two.failed-0-of-1.jsonl").read_text() == ""


@pytest.mark.parametrize("source", ["missing.png", "notes.txt"])
def test_a_source_that_is_no_picture_is_told_of_for_a_file_too(run: Run, source: str) -> None:
    Path("notes.txt").write_text("no picture")
    result = run(source, output="out.png")
    assert (len(result.failed) + len(result.skipped), result.outputs) == (1, ())
