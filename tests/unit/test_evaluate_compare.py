"""Generators side by side: pairs by source, what is said and what is not, bundles that translate first."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from evaluations import evaluating, fill
from PIL import Image

from fruitgan.bundle import Bundle, load, locate, save
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.compare import compare, labels
from fruitgan.evaluate.results import EvaluateResult
from fruitgan.evaluate.settings import CompareSettings
from fruitgan.evaluate.wording import compare_rows
from fruitgan.progress import Event, Note


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reds, and what two generators made of striped blues: next to nothing, and nearly all that is wanted."""
    folder = tmp_path_factory.mktemp("sides")
    fill(folder / "real", 24, 100, 0.9)
    fill(folder / "source", 24, redness=0.0, striped=True)
    fill(folder / "lazy", 24, redness=0.1, striped=True)
    fill(folder / "good", 24, redness=0.8)
    return folder


def run(sides: Path, out: Path, *runs: Path, **changes: object) -> EvaluateResult:
    asked = {"real_dir": sides / "real", "source_dir": sides / "source", "detector": "spectrum", "out": out} | changes
    judging = evaluating(sides, metrics=("kid",), features=("colour", "fruit-embed"), **asked)
    return compare(CompareSettings(runs=tuple(map(str, runs))), judging)


@pytest.fixture(scope="module")
def found(sides: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluateResult:
    return run(sides, tmp_path_factory.mktemp("out"), sides / "lazy", sides / "good")


def test_what_is_nearer_is_said_to_be_and_every_row_has_its_difference_interval_and_p(found: EvaluateResult) -> None:
    (comparison,) = found.compare
    assert (comparison["first"], comparison["run"], comparison["n_sources"]) == ("lazy", "good", 24)
    assert comparison["claim"]["holds"] is True
    assert set(comparison["claim"]["agreeing"]) == {"colour", "fruit-embed"}
    rows = {(row["name"], row["features"]): row for row in comparison["rows"]}
    assert {name for name, _ in rows} == {"kid", "fid", "r", "recognised", "accuracy"}
    for row in rows.values():
        assert row["difference"] == pytest.approx(row["value"] - row["first"])
        assert row["interval"][0] <= row["difference"] <= row["interval"][1]
        assert 0 <= row["p_value"] <= 1
    for features in ("colour", "fruit-embed"):
        assert rows["kid", features]["interval"][1] < 0
        assert rows["r", features]["value"] == pytest.approx(
            rows["kid", features]["value"] / rows["kid", features]["first"] * rows["r", features]["first"]
        )


def test_a_run_may_be_called_as_one_of_the_kinds_of_images(sides: Path, tmp_path: Path, found: EvaluateResult) -> None:
    for name in ("real", "generated", "source"):
        other = tmp_path / name
        shutil.copytree(sides / "good", other)
        (again,) = run(sides, tmp_path / f"of {name}", sides / "lazy", other).compare
        assert again["run"] == name
        assert [row["value"] for row in again["rows"]] == [row["value"] for row in found.compare[0]["rows"]]


def test_the_first_ones_files_hold_the_comparison_and_the_others_have_their_own(found: EvaluateResult) -> None:
    values = json.loads(found.file.read_text())
    assert values == found.as_json()
    (comparison,) = values["compare"]
    assert values["fake_dir"].endswith("lazy")
    own = json.loads((found.out / "runs/good/evaluation.json").read_text())
    assert own["compare"] == []
    assert own["kid"]["value"] == next(row["value"] for row in comparison["rows"] if row["name"] == "kid")
    assert Path(comparison["report"]).is_file()
    page = found.report.read_text()
    assert "good against lazy, 24 sources" in page
    assert "The images of good are nearer to the real ones than those of lazy: colour and fruit-embed say so." in page


def test_of_the_same_images_nothing_is_claimed_and_what_has_no_partner_is_left_out(sides: Path, tmp_path: Path) -> None:
    for name, first in (("fewer", 10), ("few", 20)):
        shutil.copytree(sides / "good", tmp_path / name)
        for number in range(first):
            (tmp_path / name / f"{number:03d}.png").unlink()
    (comparison,) = run(sides, tmp_path / "out", sides / "good", tmp_path / "fewer", detector="none").compare
    assert comparison["n_sources"] == 14
    assert comparison["claim"]["holds"] is None
    assert all((row["difference"], row["p_value"]) == (0, 1) for row in comparison["rows"])
    for said in ("10 images have no partner", "no detectors are compared"):
        assert any(note.startswith(said) for note in comparison["notes"])
    with pytest.raises(DataError, match="4 images are of the same source by their names, and 8 are needed"):
        run(sides, tmp_path / "no", sides / "lazy", tmp_path / "few")
    assert not (tmp_path / "no").exists()


def test_two_bundles_translate_the_same_pictures_and_are_compared_by_the_manifests_sources(tmp_path: Path) -> None:
    shipped = load(locate("apple2orange"))
    card = dataclasses.replace(shipped.card, image_size_px=32)
    back = {"a2b": shipped.weights["b2a"], "b2a": shipped.weights["a2b"]}
    save(Bundle(card, shipped.weights), tmp_path / "right.safetensors")
    save(Bundle(dataclasses.replace(card, image_size_px=64), back), tmp_path / "wrong.safetensors")
    for split, redness, first in (("trainA", 0.2, 200), ("testA", 0.2, 0), ("trainB", 0.9, 300), ("testB", 0.9, 100)):
        fill(tmp_path / "data" / split, 12, first, redness)
    settings = CompareSettings(
        runs=(str(tmp_path / "right.safetensors"), str(tmp_path / "wrong.safetensors")),
        data=str(tmp_path / "data"),
        domains=shipped.card.domains,
    )
    base = evaluating(tmp_path, real_dir=None, metrics=("kid",))
    told: list[Event] = []
    result = compare(settings, base, told.append)
    (comparison,) = result.compare
    assert (comparison["first"], comparison["run"], comparison["n_sources"]) == ("right", "wrong", 12)
    assert comparison["claim"]["holds"] is None  # one kind of features is no witness for two
    assert {row["name"] for row in comparison["rows"]} == {"kid", "fid", "r"}
    assert result.source_dir == tmp_path / "data"
    assert (tmp_path / "out/runs/wrong/dataset/manifest.csv").is_file()
    page = result.report.read_text()
    assert "<h1>right against wrong</h1>" in page
    assert '<th scope="col">source</th><th scope="col">right</th><th scope="col">wrong</th>' in page
    assert page.count('alt="wrong, ') == 6
    assert any(isinstance(event, Note) and "wrong 64 px" in event.text and "at 32 px" in event.text for event in told)
    for side in ("right", "wrong"):
        with Image.open(next((tmp_path / "out/runs" / side / "dataset/predicted").iterdir())) as image:
            assert image.size == (32, 32)
    with pytest.raises(UsageError, match="needs images to translate: --data"):
        compare(dataclasses.replace(settings, data=None), base)


def test_a_p_that_resamples_cannot_show_is_not_printed_as_0() -> None:
    row = {"name": "r", "features": "colour", "first": 1.0, "value": 0.5, "difference": -0.5, "interval": [-0.51, -0.49]}
    cells = compare_rows({"rows": [row | {"p_value": p, "test": "t", "n": 9} for p in (0.0, 0.02)]})
    assert [cell[5] for cell in cells] == ["< 0.0001", "0.02"]


def test_labels_are_short_and_unlike() -> None:
    assert labels(["a/x/predicted", "b/x", "runs/x/bundle.safetensors", "y.safetensors", "/"]) == ["x", "x-2", "x-3", "y", "_"]


def test_one_alone_or_one_twice_is_no_comparison() -> None:
    with pytest.raises(UsageError, match="at least two"):
        CompareSettings(runs=("a",))
    with pytest.raises(UsageError, match="named twice"):
        CompareSettings(runs=("a", "b", "a"))
