"""The evaluation job: what it needs, what it refuses, what it withholds, and that its numbers go the right way."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fruitgan.data.labelled import LabelledImage, ManifestRow, manifest_bytes
from fruitgan.errors import DataError, EnvironmentProblem, Stopped, UsageError
from fruitgan.evaluate import job
from fruitgan.evaluate.detection import judge_by_given
from fruitgan.evaluate.job import evaluate
from fruitgan.evaluate.settings import DEFAULT_METRICS, EvaluateSettings
from fruitgan.evaluate.sources import find_sources
from fruitgan.evaluate.wording import figure
from fruitgan.measures.contracts import metrics
from fruitgan.measures.features import pretrained as inception_module
from fruitgan.train_detector.calibration import judge
from fruitgan.train_detector.detector import DetectorBundle, DetectorCard, load_detector, open_image_dataset, save_detector
from fruitgan.train_detector.seen import looks_of

SIDE_PX = 32


def picture(seed: int, redness: float = 0.5) -> np.ndarray:
    """A blurred blob of colour on grey with a little noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    centre, radius = random.uniform(10, 22, 2), random.uniform(6, 12)
    blob = np.clip(radius - np.hypot(y - centre[0], x - centre[1]), 0, 1)[:, :, None]
    colour = np.array([200 * redness + random.uniform(0, 40), 90, 200 * (1 - redness)])
    return np.clip(blob * colour + (1 - blob) * 120 + random.normal(0, 6, (SIDE_PX, SIDE_PX, 3)), 2, 250).astype(np.uint8)


def fill(folder: Path, count: int, first: int = 0, redness: float = 0.5, change: Callable | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = picture(first + i, redness)
        Image.fromarray(pixels if change is None else change(pixels)).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 blue fakes, 24 red reals, of which half of each are sources enough."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "set/predicted", 24, first=0, redness=0.2)
    fill(tmp_path / "set/origins", 24, first=100, redness=0.8)
    return tmp_path / "set"


def settings(dataset: Path, **changes: object) -> EvaluateSettings:
    base = EvaluateSettings(
        fake_dir=dataset / "predicted",
        detector="none",
        features=("colour",),
        metrics=("kid", "fid"),
        quick=True,
        device="cpu",
        out=dataset / "out",
    )
    return dataclasses.replace(base, **changes)


def test_the_whole_evaluation_leaves_numbers_with_their_protocol_and_a_page(dataset: Path) -> None:
    fill(dataset / "sources", 24, first=0, redness=0.0)
    told = []
    result = evaluate(
        settings(dataset, detector="spectrum", features=("colour", "random"), source_dir=dataset / "sources"), told.append
    )
    values = json.loads((dataset / "out/evaluation.json").read_text())
    assert values == result.as_json()
    assert {"kid", "fid", "kid_random", "fid_random", "r", "r_random"} < values.keys()
    for key in ("kid", "fid_random"):
        assert values[key]["interval"][0] <= values[key]["value"] <= values[key]["interval"][1]
        assert (values[key]["n_real"], values[key]["n_fake"]) == (24, 24)
        assert values["floor"][key]["n_real"] == 12
    assert values["kid"]["features"] == "colour"
    assert "128 px" in values["kid"]["resize"]
    assert 0 < values["r"]["value"] < 1
    assert values["r"]["paired"]
    assert values["detector"]["name"] == "spectrum"
    assert values["detector"]["n"] == 48
    assert values["leaks"] == []
    assert values["withheld"] is None
    page = (dataset / "out/report.html").read_text()
    assert "data:image/png" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert "R says how much of the distance between the sources and the real images is left: " in page
    assert {progress.what for progress in told} >= {"looking for leaks", "detector spectrum"}


def test_fakes_that_are_as_the_real_ones_score_near_zero_and_others_far_from_it(dataset: Path) -> None:
    alike = fill(dataset / "alike", 24, first=200, redness=0.8)
    near, far = evaluate(settings(dataset, fake_dir=alike)), evaluate(settings(dataset))
    assert near.numbers["kid"].interval.low < 0 < near.numbers["kid"].interval.high
    assert far.numbers["kid"].interval.low > 3 * near.numbers["kid"].interval.high
    assert far.numbers["fid"].value > 3 * near.numbers["fid"].value


def test_the_same_seed_gives_the_same_numbers(dataset: Path) -> None:
    first, second = (evaluate(settings(dataset, detector="spectrum", seed=3)) for _ in range(2))
    for a, b in ((first.numbers, second.numbers), (first.floor, second.floor)):
        assert [(n.value, n.interval) for n in a.values()] == [(n.value, n.interval) for n in b.values()]
    assert first.detector is not None
    assert second.detector is not None
    assert dataclasses.replace(first.detector, seconds=0) == dataclasses.replace(second.detector, seconds=0)


def test_too_few_images_are_refused_with_the_number_that_is_needed(dataset: Path) -> None:
    few = fill(dataset / "few", 5, first=300)
    with pytest.raises(DataError, match="kid needs at least 8 generated images, found 5"):
        evaluate(settings(dataset, fake_dir=few))
    with pytest.raises(DataError, match="R needs at least 8 source images, found 5"):
        evaluate(settings(dataset, source_dir=few))


def test_a_detector_without_enough_images_is_withheld_unless_it_was_asked_for(dataset: Path) -> None:
    few = fill(dataset / "few", 9, first=300)
    result = evaluate(settings(dataset, fake_dir=few, detector=None))
    assert result.detector is None
    assert "at least 10 images of each class, found 9 generated" in (result.withheld or "")
    with pytest.raises(DataError, match="at least 10"):
        evaluate(settings(dataset, fake_dir=few, detector="small-cnn"))


def test_the_real_images_are_sought_beside_the_generated_ones(dataset: Path, tmp_path: Path) -> None:
    assert evaluate(settings(dataset)).real_dir == dataset / "origins"
    lonely = fill(tmp_path / "lonely/fakes", 10)
    with pytest.raises(DataError, match="--real-dir"):
        evaluate(settings(dataset, fake_dir=lonely))
    with pytest.raises(DataError, match=r"give --fake-dir .*predicted"):
        evaluate(settings(dataset, fake_dir=dataset))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fake_dir": Path("nowhere")}, "no such folder"),
        ({"real_dir": Path("set/predicted")}, "the same folder"),
        ({"real_dir": Path("set/empty")}, "no images"),
        ({"source_dir": Path("nowhere")}, "no such folder"),
        ({"source_dir": Path("set/origins")}, "is the folder of the real"),
        ({"detector": "nothing.safetensors"}, "no such file"),
        ({"detector": "set/predicted/000.png"}, "not a detector"),
    ],
)
def test_folders_and_files_that_cannot_be_used_are_named(dataset: Path, changes: dict[str, object], message: str) -> None:
    (dataset / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        evaluate(settings(dataset, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": ("colours",)}, "did you mean colour"),
        ({"metrics": ("kidd",)}, "did you mean kid"),
        ({"detector": "spectrumm"}, "did you mean spectrum"),
        ({"fail_above": {"kidd": 1.0}}, "did you mean kid"),
        ({"features": ("colour", "colour")}, "named twice"),
        ({"metrics": ()}, "at least one"),
        ({"fail_below": {"kid": float("nan")}}, "not a number"),
        ({"weights": {"inception": Path("x")}}, "give --features inception"),
        ({"weights": {"colour": Path("x")}}, "need none"),
        ({"features": ("torchvision",)}, "which network"),
        ({"features": ("colour:red",)}, "no family"),
        ({"features": ("torchvision:resnet9999",)}, "no classifier named 'resnet9999'"),
        ({"metrics": ("kid", "background")}, "--source-dir"),
        ({"metrics": ("nearest-training",)}, "--training-dir"),
        ({"fail_above": {"density_colour": 1.0}}, "no number named"),
        ({"seed": -1}, "0 or more"),
    ],
)
def test_names_and_values_that_cannot_be_are_refused(dataset: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(settings(dataset, **changes))


def test_all_numbers_come_with_sources_and_training_images_and_claims_name_who_agrees(dataset: Path, tmp_path: Path) -> None:
    fill(dataset / "sources", 24, first=0, redness=0.0)
    fill(dataset / "seen", 30, first=500, redness=0.8)
    asked = settings(
        dataset,
        metrics=("all",),
        features=("colour", "random", "fruit-embed"),
        source_dir=dataset / "sources",
        training_dir=dataset / "seen",
    )
    values = evaluate(asked).as_json()
    expected = set(metrics.names()) - {"kid", "fid"}
    assert expected < values.keys()
    assert not [key for key in values if key.startswith(("density_", "coverage_", "spectrum_"))]
    assert values["not_measured"] == {}
    assert values["background"]["details"]["pairs_without"] >= 0
    assert values["nearest-training"]["details"]["n_training"] == 30
    apart, nearer = values["claims"]
    assert apart["claim"] != nearer["claim"]
    assert {"colour", "random"} <= set(apart["agreeing"])
    ratios = [values[key] for key in ("r", "r_random", "r_fruit-embed") if values[key] is not None]
    assert set(nearer["agreeing"]) == {ratio["features"] for ratio in ratios if ratio["interval"][1] < 0.9} >= {"random"}
    for claim in (apart, nearer):
        assert claim["holds"] is (True if "fruit-embed" in claim["agreeing"] else None)  # the other two see much the same


def test_what_lacks_its_images_is_left_out_of_the_default_numbers_and_said(dataset: Path) -> None:
    fill(dataset / "others", 20, first=900)
    (dataset / "others/000.png").rename(dataset / "others/x.png")
    result = evaluate(settings(dataset, metrics=DEFAULT_METRICS))
    assert {"structure", "background", "nearest-training"} >= result.not_measured.keys() >= {"background"}
    assert "--source-dir" in result.not_measured["background"]
    unpaired = evaluate(settings(dataset, metrics=DEFAULT_METRICS, source_dir=dataset / "others"))
    assert "which image each generated one was made of" in unpaired.not_measured["background"]


def test_a_broken_image_is_left_out_and_named(dataset: Path) -> None:
    (dataset / "predicted/broken.png").write_bytes((dataset / "predicted/000.png").read_bytes()[:80])
    result = evaluate(settings(dataset))
    assert result.n_fake == 24
    assert any("broken.png" in warning for warning in result.warnings)


def test_a_leak_withholds_the_detectors_number(dataset: Path) -> None:
    for path in (dataset / "predicted").iterdir():
        with Image.open(path) as image:
            image.resize((48, 48)).save(path)
    result = evaluate(settings(dataset, detector="spectrum"))
    assert [leak.kind for leak in result.leaks] == ["size"]
    assert result.detector is None
    assert "size" in (result.withheld or "")
    assert result.as_json()["detector"] is None


def test_gates_look_at_values_and_a_withheld_one_does_not_pass(dataset: Path) -> None:
    result = evaluate(settings(dataset, fail_above={"kid": 0.01, "fid": 1e9, "accuracy": 0.9}, fail_below={"kid": 0.01}))
    assert {(gate.name, gate.above): gate.passed for gate in result.gates} == {
        ("kid", True): False,
        ("fid", True): True,
        ("accuracy", True): False,
        ("kid", False): True,
    }
    assert "accuracy has no value" in str(result.failed_gates[1])


def test_r_is_withheld_where_sources_look_like_the_real_ones(dataset: Path) -> None:
    alike = fill(dataset / "alike", 24, first=200, redness=0.8)
    result = evaluate(settings(dataset, source_dir=alike))
    assert result.ratios == {"r": None}
    assert "nothing to divide by" in (result.r_withheld or "")
    assert (result.r_withheld or "").startswith("on colour the sources cannot be distinguished")
    assert result.as_json()["r"] is None


def image(path: Path, group: str, generated: bool, source: str = "") -> LabelledImage:
    return LabelledImage(path, generated, group, "test", source)


def test_sources_are_found_by_the_manifest_then_by_name_else_all_are_taken(tmp_path: Path) -> None:
    for name in ("testA/a.jpg", "testA/b.jpg", "testA/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\xd8\xff")  # begins as a JPEG
    listed = [image(Path("000.png"), "g", True, "testA/b.jpg"), image(Path("001.png"), "h", True, "testA/a.jpg")]
    for folder in (tmp_path, tmp_path / "testA"):
        found = find_sources(folder, listed)
        assert [path.name for path in found.paths] == ["b.jpg", "a.jpg"]
        assert found.paired
    named = [image(Path("c.png"), "g", True), image(Path("a.png"), "h", True)]
    assert [path.name for path in find_sources(tmp_path, named).paths] == ["c.jpg", "a.jpg"]
    unknown = find_sources(tmp_path, [*named, image(Path("x.png"), "i", True)])
    assert (len(unknown.paths), unknown.paired) == (3, False)
    assert "1 of 3 generated images" in (unknown.note or "")


def test_images_that_the_generator_was_trained_on_are_counted(dataset: Path) -> None:
    rows = []
    for folder, label in (("predicted", "generated"), ("origins", "real")):
        for i, path in enumerate(sorted((dataset / folder).iterdir())):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            split = "train" if i < 5 and label == "real" else "test"
            rows.append(ManifestRow(f"{folder}/{path.name}", label, f"x/{path.name}", split, f"{folder}{i}", digest, ""))
    (dataset / "manifest.csv").write_bytes(manifest_bytes(rows))
    result = evaluate(settings(dataset))
    assert not result.warnings
    assert any("of 0 of 24 generated images and 5 of 24 real ones are of the training split" in note for note in result.notes)


def by_given(path: Path, images: Sequence[LabelledImage]) -> Any:
    return judge_by_given(path, load_detector(path), images, torch.device("cpu"), 0, lambda event: None)


def test_a_given_detector_is_judged_on_images_that_it_was_not_trained_with(dataset: Path) -> None:
    from fruitgan.data.labelled import read_dataset
    from fruitgan.networks.contracts import detectors

    images = read_dataset(dataset).images
    choice = detectors.choose("spectrum", {"image_size_px": 32})
    album = open_image_dataset(images, 32)
    fingerprint = album.fingerprint
    verdict = judge(np.array([1.0, -1.0]), np.array([True, False]))
    card = DetectorCard(
        name="x",
        detector=choice,
        image_size_px=32,
        protocol="grouped",
        verdict=verdict,
        training_images=30,
        rounds=1,
        data="set",
        data_fingerprint=fingerprint,
        seed=0,
        fruitgan_version="0",
    )
    looks = looks_of([image.path for image in images])
    for taught in (30, 0):
        known = {"train_sha256": tuple(look.content for look in looks[9 : 9 + taught])}
        bundle = DetectorBundle(dataclasses.replace(card, **known), detectors.build(choice))
        save_detector(bundle, dataset / "detector.safetensors")
        result, notes, judged = by_given(dataset / "detector.safetensors", images)
        assert taught <= result.left_out == 48 - result.n < taught + 9
        assert bool(notes) == bool(taught)
        assert len(judged) == result.n
    hostile = detectors.build(choice)
    hostile.get_buffer("spread").fill_(0)  # it is divided by
    save_detector(DetectorBundle(card, hostile), dataset / "detector.safetensors")
    with pytest.raises(DataError, match="answers with numbers that are not finite"):
        by_given(dataset / "detector.safetensors", images)


def test_a_job_that_is_asked_to_stop_leaves_nothing(dataset: Path) -> None:
    with pytest.raises(Stopped, match="the same command begins again"):
        evaluate(settings(dataset), lambda event: event.what.startswith("kid"))
    assert not (dataset / "out").exists()


def test_figures_have_three_digits_and_no_minus_nothing() -> None:
    assert [figure(value) for value in (1234.5, 12.345, 0.0123, -0.0004, 0.0)] == ["1,234", "12.3", "0.012", "0", "0"]


def test_inception_offline_says_which_file_goes_where(monkeypatch: pytest.MonkeyPatch, cache_folder: Path) -> None:
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        inception_module.inception()
    for part in (inception_module.INCEPTION.name, inception_module.INCEPTION.address, inception_module.INCEPTION.sha256):
        assert part in str(caught.value)
    assert str(cache_folder / "downloads") in str(caught.value)


def test_a_missing_extra_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(EnvironmentProblem, match=r'pip install "fruitgan\[inception\]"'):
        inception_module.inception()


def test_weights_of_another_sum_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "weights.pth"
    wrong.write_bytes(b"hostile")
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("opened"))
    with pytest.raises(DataError, match="sha256"):
        inception_module.inception(weights=str(wrong))
    with pytest.raises(DataError, match="no such file"):
        inception_module.inception(weights=str(tmp_path / "absent.pth"))


def test_inception_is_torch_fidelitys_network_with_the_weights_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, state: None)
        patch.setattr(theirs, "load_state_dict_from_url", lambda *arguments, **options: {})
        network = theirs.FeatureExtractorInceptionV3("x", ["2048"])
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    monkeypatch.setattr(
        inception_module,
        "INCEPTION",
        dataclasses.replace(inception_module.INCEPTION, sha256=inception_module.file_sha256(file)),
    )
    pixels = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    ours = inception_module.inception(weights=str(file)).eval()
    with torch.inference_mode():
        assert torch.equal(ours(pixels.float() / 255), network(pixels)[0])


def test_of_very_many_images_a_random_draw_is_measured_and_said_so(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(dataset / "origins", 10, first=200, redness=0.8)  # 000.png to 009.png anew: still 24
    fill(dataset / "origins/more", 6, first=300, redness=0.8)
    monkeypatch.setattr(job, "MOST_IMAGES", 24)
    monkeypatch.setattr(job, "DRAWN_IMAGES", 20)
    results = [evaluate(settings(dataset, seed=seed)) for seed in (0, 0, 1)]
    assert [(result.n_real, result.n_fake) for result in results] == [(20, 24)] * 3
    kids = [result.numbers["kid"].value for result in results]
    assert kids[0] == kids[1] != kids[2]
    assert any("of 30 real images 20 are measured" in note for note in results[0].notes)
