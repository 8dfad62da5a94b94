"""The evaluation job: what it needs, refuses, withholds and shows, and that its numbers go the right way."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluations import SIDE_PX, evaluating, fill, subject_of, write_manifest
from picture_files import pixels_of
from PIL import Image
from toy_bundles import detector_card

from fruitgan.data import labelled
from fruitgan.data.decode import decode
from fruitgan.data.labelled import LabelledImage, read_dataset
from fruitgan.errors import DataError, Stopped, UsageError
from fruitgan.evaluate import sources
from fruitgan.evaluate.detection import judge_by_given
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.page import exhibits
from fruitgan.evaluate.results import EvaluateResult
from fruitgan.evaluate.settings import DEFAULT_METRICS
from fruitgan.evaluate.sources import find_sources
from fruitgan.evaluate.wording import figure
from fruitgan.measures.contracts import metrics
from fruitgan.networks.contracts import detectors
from fruitgan.train_detector.detector import DetectorBundle, load_detector, open_image_dataset, save_detector


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 blue fakes, 24 red reals; bluer sources of the fakes, and as many others that are like the reals."""
    folder = tmp_path_factory.mktemp("set")
    for name, first, redness in (("predicted", 0, 0.2), ("origins", 100, 0.8), ("sources", 0, 0.0), ("alike", 200, 0.8)):
        fill(folder / name, 24, first, redness)
    return folder


@pytest.fixture
def dataset(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sets, in the folder `set`."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(sets, tmp_path / "set", ignore=shutil.ignore_patterns("out", "seen")))


@pytest.fixture(scope="module")
def everything(sets: Path) -> EvaluateResult:
    """An evaluation with all metrics on three features, sources and training images."""
    asked = evaluating(
        sets,
        detector="spectrum",
        metrics=("all",),
        features=("colour", "random", "fruit-embed"),
        source_dir=sets / "sources",
        training_dir=fill(sets / "seen", 30, 500, 0.8),
    )
    told: list[str] = []
    result = evaluate(asked, lambda event: told.append(event.what))
    assert {"looking for leaks", "detector spectrum"} <= set(told)
    return result


def test_the_whole_evaluation_leaves_numbers_with_their_protocol_and_a_page(everything: EvaluateResult) -> None:
    result = everything
    values = json.loads(result.file.read_text())
    assert values == result.as_json()
    assert {*metrics.names(), "kid_random", "fid_fruit-embed", "r", "r_random"} < values.keys()
    assert not [key for key in values if key.startswith(("density_", "coverage_", "spectrum_"))]
    for key in ("kid", "fid_random"):
        assert values[key]["interval"][0] <= values[key]["value"] <= values[key]["interval"][1]
        assert (values[key]["n_real"], values[key]["n_fake"]) == (24, 24)
        assert values["floor"][key]["n_real"] == 12
    assert (values["kid"]["features"], values["kid"]["resize"][:18]) == ("colour", "squashed to 128 px")
    assert 0 < values["r"]["value"] < 1
    assert values["r"]["paired"]
    assert (values["detector"]["name"], values["detector"]["n"]) == ("spectrum", 48)
    assert (values["leaks"], values["withheld"], values["not_measured"]) == ([], None, {})
    assert values["background"]["details"]["pairs_without"] >= 0
    assert values["nearest-training"]["details"]["n_training"] == 30
    page = result.report.read_text()
    assert "data:image/png" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert "R says how much of the distance between the sources and the real images is left: " in page


def test_fakes_that_are_as_the_real_ones_score_near_zero_and_others_far_from_it(
    dataset: Path, everything: EvaluateResult
) -> None:
    near, far = evaluate(evaluating(dataset, fake_dir=dataset / "alike")), everything
    assert near.numbers["kid"].interval.low < 0 < near.numbers["kid"].interval.high
    assert far.numbers["kid"].interval.low > 3 * near.numbers["kid"].interval.high
    assert far.numbers["fid"].value > 3 * near.numbers["fid"].value


def test_the_same_seed_gives_the_same_numbers_whatever_else_is_measured(dataset: Path, everything: EvaluateResult) -> None:
    again = evaluate(evaluating(dataset, detector="spectrum"))
    for key in ("kid", "fid"):
        for a, b in ((again.numbers[key], everything.numbers[key]), (again.floor[key], everything.floor[key])):
            assert dataclasses.replace(a, seconds=0) == dataclasses.replace(b, seconds=0)
    assert dataclasses.replace(again.detector, seconds=0) == dataclasses.replace(everything.detector, seconds=0)


def test_too_few_images_are_refused_with_the_number_that_is_needed(dataset: Path) -> None:
    few = fill(dataset / "few", 5, 300)
    with pytest.raises(DataError, match="kid needs at least 8 generated images, found 5"):
        evaluate(evaluating(dataset, fake_dir=few))
    with pytest.raises(DataError, match="R needs at least 8 source images, found 5"):
        evaluate(evaluating(dataset, source_dir=few))
    result = evaluate(evaluating(dataset, fake_dir=fill(few, 9, 300), detector=None))
    assert result.detector is None
    assert "9 generated and 24 real ones, at least 14 of each" in (result.withheld or "")
    with pytest.raises(DataError, match="at least 14"):
        evaluate(evaluating(dataset, fake_dir=few, detector="small-cnn"))


def test_without_real_images_given_or_beside_the_generated_ones_it_says_what_to_give(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--real-dir"):
        evaluate(evaluating(dataset, real_dir=None, fake_dir=fill(tmp_path / "lonely/fakes", 10)))
    with pytest.raises(DataError, match=r"give --fake-dir .*predicted"):
        evaluate(evaluating(dataset, real_dir=None, fake_dir=dataset))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"real_dir": Path("set/predicted")}, DataError, "the same folder"),
        ({"real_dir": Path("empty")}, DataError, "no images"),
        ({"source_dir": Path("nowhere")}, DataError, "no such folder"),
        ({"source_dir": Path("set/origins")}, DataError, "is the folder of the real"),
        ({"detector": "set/predicted/000.png"}, DataError, "not a detector"),
        ({"metrics": ("kidd",)}, UsageError, "did you mean kid"),
        ({"detector": "spectrumm"}, UsageError, "did you mean spectrum"),
        ({"fail_above": {"kidd": 1.0}}, UsageError, "did you mean kid"),
        ({"features": ("colour", "colour")}, UsageError, "named twice"),
        ({"metrics": ()}, UsageError, "at least one"),
        ({"fail_below": {"kid": float("nan")}}, UsageError, "finite number"),
        ({"weights": {"inception": Path("x")}}, UsageError, "give --features inception"),
        ({"weights": {"colour": Path("x")}}, UsageError, "no option 'weights'"),
        ({"features": ("torchvision",)}, UsageError, "which network"),
        ({"features": ("colour:red",)}, UsageError, "no family"),
        ({"metrics": ("kid", "background")}, UsageError, "--source-dir"),
        ({"metrics": ("nearest-training",)}, UsageError, "--training-dir"),
        ({"fail_above": {"density_colour": 1.0}}, UsageError, "no number named"),
        ({"seed": -1}, UsageError, "0 or more"),
    ],
)
def test_what_cannot_be_used_is_named(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], error: type, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").symlink_to(sets)
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=message):
        evaluate(evaluating(Path("set"), **{"out": Path("out")} | changes))
    assert not Path("out").exists()


def test_beside_its_real_images_alone_it_says_what_is_not_measured_what_was_trained_on_and_which_gates_failed(
    dataset: Path,
) -> None:
    write_manifest(dataset, trained_reals=5)
    bounds = {"fail_above": {"kid": 0.01, "fid": 1e9, "accuracy": 0.9}, "fail_below": {"kid": 0.01}}
    result = evaluate(evaluating(dataset, real_dir=None, metrics=DEFAULT_METRICS, **bounds))
    assert result.real_dir == dataset / "origins"
    assert result.not_measured.keys() == {"structure", "background", "nearest-training"}
    assert "--source-dir" in result.not_measured["background"]
    assert "of 0 of 24 generated images and 5 of 24 real ones are of the training split" in result.warnings[0]
    assert (result.n_fake_training, result.n_real_training) == (0, 5)
    passed = {("kid", True): False, ("fid", True): True, ("accuracy", True): False, ("kid", False): True}
    assert {(gate.name, gate.above): gate.passed for gate in result.gates} == passed
    assert "accuracy has no value" in str(result.failed_gates[1])


def test_r_is_withheld_where_sources_look_like_the_real_ones_and_pairs_where_one_is_missing(dataset: Path) -> None:
    (dataset / "alike/000.png").rename(dataset / "alike/x.png")
    result = evaluate(evaluating(dataset, metrics=DEFAULT_METRICS, source_dir=dataset / "alike"))
    assert "which image each generated one was made of" in result.not_measured["background"]
    assert any("so R takes all 24 images there as sources" in note for note in result.notes)
    assert result.ratios == {"r": None}
    assert (result.r_withheld or "").startswith("on colour the sources cannot be distinguished")
    assert result.as_json()["r"] is None


def test_a_leak_withholds_the_detectors_number(dataset: Path) -> None:
    for path in (dataset / "predicted").iterdir():
        Image.fromarray(pixels_of(path)).resize((48, 48)).save(path)
    result = evaluate(evaluating(dataset, detector="spectrum"))
    assert [leak.kind for leak in result.leaks] == ["size"]
    assert "size" in (result.withheld or "")
    assert result.as_json()["detector"] is None


def test_sources_are_found_by_the_manifest_then_by_name_else_all_are_taken(tmp_path: Path) -> None:
    (tmp_path / "testA").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / f"testA/{name}.jpg").write_bytes(b"\xff\xd8\xff")  # begins as a JPEG

    def image(name: str, source: str = "") -> LabelledImage:
        return LabelledImage(Path(name), True, name, "test", source)

    for folder in (tmp_path, tmp_path / "testA"):
        found = find_sources(folder, [image("000.png", "testA/b.jpg"), image("001.png", "testA/a.jpg")])
        assert ([path.name for path in found.paths], found.paired) == (["b.jpg", "a.jpg"], True)
    named = [image("c.png"), image("a.png")]
    assert [path.name for path in find_sources(tmp_path, named).paths] == ["c.jpg", "a.jpg"]
    unknown = find_sources(tmp_path, [*named, image("x.png")])
    assert (len(unknown.paths), unknown.paired) == (3, False)
    assert "1 of 3 generated images" in unknown.missing


def test_a_given_detector_is_judged_on_images_that_it_was_not_trained_with(dataset: Path) -> None:
    images, file = read_dataset(dataset).images, dataset / "detector.safetensors"
    choice = detectors.choose("spectrum", {"image_size_px": 32})
    card = detector_card(choice, 32, data_fingerprint=open_image_dataset(images, 32).decoded.fingerprint)
    subject = subject_of(dataset, images)
    for taught in (30, 0):
        known = {"train_sha256": tuple(look.content for look in subject.looks[9 : 9 + taught])}
        save_detector(DetectorBundle(dataclasses.replace(card, **known), detectors.build(choice)), file)
        result, notes, judged = judge_by_given(file, load_detector(file), subject)
        assert taught <= result.left_out == 48 - result.n < taught + 9
        assert (bool(notes), len(judged)) == (bool(taught), result.n)
    hostile = detectors.build(choice)
    hostile.get_buffer("spread").fill_(0)  # it is divided by
    save_detector(DetectorBundle(card, hostile), file)
    with pytest.raises(DataError, match="answers with numbers that are not finite"):
        judge_by_given(file, load_detector(file), subject)


def test_a_job_that_is_asked_to_stop_leaves_nothing(dataset: Path) -> None:
    with pytest.raises(Stopped, match="the same command begins again"):
        evaluate(evaluating(dataset), lambda event: event.what.startswith("kid"))
    assert not (dataset / "out").exists()


def test_of_very_many_images_a_random_draw_is_measured_and_said_so(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(dataset / "origins/more", 6, 300, 0.8)
    monkeypatch.setattr(sources, "MOST_IMAGES", 24)
    monkeypatch.setattr(sources, "DRAWN_IMAGES", 20)
    opened: list[Path] = []
    monkeypatch.setattr(labelled, "decode", lambda path: opened.append(path) or decode(path))
    results = [evaluate(evaluating(dataset, seed=seed)) for seed in (0, 0, 1)]
    assert [(result.n_real, result.n_fake) for result in results] == [(20, 24)] * 3
    kids = [result.numbers["kid"].value for result in results]
    assert kids[0] == kids[1] != kids[2]
    assert len(opened) == 3 * (20 + 24)
    assert any("of 30 real images 20 are measured" in warning for warning in results[0].warnings)


def test_numbers_have_short_names_on_the_first_features_and_torch_fidelitys_on_inception_alone() -> None:
    asked = evaluating(Path("set"), features=("inception", "colour"))
    keys = [asked.key(number, name) for name in asked.features for number in ("kid", "fid", "r")]
    fidelitys = ["kernel_inception_distance_mean", "frechet_inception_distance"]
    assert keys == [*fidelitys, "r", "kid_colour", "fid_colour", "r_colour"]
    assert evaluating(Path("set")).key("kid", "colour") == "kid"


def test_figures_have_three_digits_and_no_minus_nothing() -> None:
    assert [figure(value) for value in (1234.5, 12.345, 0.0123, -0.0004, 0.0)] == ["1,234", "12.3", "0.012", "0", "0"]


def test_the_most_convincing_fakes_are_those_of_the_lowest_logits_beside_their_sources(
    dataset: Path, everything: EvaluateResult
) -> None:
    images = read_dataset(dataset).images
    fakes = images[:24]
    Image.fromarray(pixels_of(dataset / "sources/001.png")).resize((64, 48)).save(dataset / "sources/001.png")
    subject = subject_of(dataset, images, find_sources(dataset / "sources", fakes))
    judged = [{"file": f"{i:03d}.png", "generated": True, "logit": float(i - 3)} for i in range(6)]
    result = dataclasses.replace(everything, judged=judged)
    found = exhibits(result, subject, [{"a": fakes[0].path, "b": fakes[1].path}])
    most = found.cards["Most convincing"]
    assert [(file, logit) for file, logit, _ in most] == [("000.png", -3), ("001.png", -2), ("002.png", -1)]
    assert [logit for _, logit, _ in found.cards["Least convincing"]] == [2, 1, 0]
    for number, (_, _, shown) in enumerate(most):
        assert list(shown) == ["source", "generated"]
        assert np.array_equal(shown["generated"], pixels_of(fakes[number].path))
        assert shown["source"].shape == (SIDE_PX, SIDE_PX, 3)
    assert np.array_equal(most[0][2]["source"], pixels_of(dataset / "sources/000.png"))
    assert [list(side) for side in found.sides] == [["source", "a", "b"]]
    assert {kind: len(gallery) for kind, gallery in found.galleries.items()} == {"generated": 8, "real": 8}
    assert {kind: len(line) for kind, line in found.spectra.items()} == {"generated": 64, "real": 64}
