"""Training a detector from Python: what is found, what is not, what is left behind."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_files import write_dataset
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from fruitgan.data.labelled import read_folders
from fruitgan.device import own_randomness
from fruitgan.errors import DataError, FruitganError
from fruitgan.networks.contracts import detectors
from fruitgan.progress import Event, Progress
from fruitgan.train_detector.calibration import judge
from fruitgan.train_detector.detector import (
    DetectorBundle,
    LabelledImageDataset,
    answers,
    load_detector,
    open_image_dataset,
    save_detector,
    size_notes,
    squashed,
)
from fruitgan.train_detector.fit import Training, fit
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.protocols import grouped_split
from fruitgan.train_detector.settings import FitSettings, TrainDetectorResult, TrainDetectorSettings

CPU = torch.device("cpu")
SIDE = 16
SMALL = detectors.choose("small-cnn", {"image_size_px": SIDE, "base_channels": 4})


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("easy") / "dataset", 60, planted=30)


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> LabelledImageDataset:
    return opened(write_dataset(tmp_path_factory.mktemp("same") / "dataset", 100, planted=0))


def opened(data: Path) -> LabelledImageDataset:
    return open_image_dataset(read_folders(data / "predicted", data / "origins").images, SIDE)


def settings(data: Path, out: Path, **changes: Any) -> TrainDetectorSettings:
    given = {"data": data, "out": out, "detector": "spectrum", "detector_options": {"bins": "5"}, "image_size": SIDE}
    return TrainDetectorSettings(gpu="none", threads=1, **(given | changes))


@pytest.fixture(scope="module")
def trained(easy: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainDetectorResult:
    return train_detector(settings(easy, tmp_path_factory.mktemp("runs"), name="first"))


def test_a_planted_difference_is_found_by_the_spectrum(trained: TrainDetectorResult) -> None:
    result = trained
    assert result.accuracy >= 0.95
    assert result.interval[0] > 0.5
    assert result.auc > 0.99
    assert result.p_value < 0.001
    assert (result.n, result.train_images + result.val_images + result.n) == (24, 120)
    assert any("manifest.csv" in warning for warning in result.warnings)  # two bare folders
    assert any("24 test images" in note and "about 2,500 images" in note for note in result.notes)


def test_a_planted_difference_is_found_by_the_small_network_step_by_step(
    easy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fruitgan.train_detector.job.write_report", lambda *_: None)  # that of `trained` is looked at
    (tmp_path / "dataset-small-cnn").mkdir()
    events: list[Event] = []
    asked = settings(easy, tmp_path, detector="small-cnn", detector_options={"base_channels": "4"}, epochs=8)
    result = train_detector(asked, events.append)
    assert result.accuracy >= 0.9
    assert result.run.name == "dataset-small-cnn-1"  # a name that is free
    done = [event.done for event in events if isinstance(event, Progress) and event.what == "training"]
    assert done == [*range(8 * 10 + 1), 8 * 10]  # 10 batches of 8 images an epoch; the first event counts none


def test_equal_distributions_give_an_interval_that_contains_a_half(same: LabelledImageDataset) -> None:
    split = grouped_split(same.images, 0)
    choice = detectors.choose("spectrum", {"image_size_px": SIDE, "bins": 5})
    detector, _ = fit(choice, same, split, FitSettings(), CPU)
    verdict = judge(same.logits(detector, split.test, CPU), same.generated[split.test])
    assert verdict.interval[0] < 0.5 < verdict.interval[1]
    assert verdict.p_value > 0.05


def test_the_run_folder_holds_everything_that_is_promised(trained: TrainDetectorResult, easy: Path) -> None:
    result, run = trained, trained.run
    assert run.name == "first"
    names = {"config.json", "environment.json", "log.jsonl", "detector.safetensors", "metrics.json", "report.html"}
    assert {path.name for path in run.iterdir()} == {*names, "plots", "checkpoints"}
    assert {path.name for path in (run / "plots").iterdir()} == {"loss.png", "accuracy.png", "roc.png"}
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["accuracy"] == result.accuracy
    assert metrics["confusion"]["real_as_real"] == result.confusion.real_as_real
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines] == list(range(1, result.rounds + 1))
    assert min(lines, key=lambda line: line["val_loss"])["trial"] == result.best_round
    page = (run / "report.html").read_text()
    assert f"{100 * result.accuracy:.1f}%" in page or f"{result.accuracy:.0%}" in page
    assert "grouped protocol" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    # A run is passed on: where its maker keeps files is nobody's business.
    assert str(easy.parent) not in page


def test_early_stopping_keeps_the_best_weights_which_the_seed_decides(same: LabelledImageDataset) -> None:
    """Refit only up to the best epoch: the weights must be those that the longer training has kept."""
    split, given = grouped_split(same.images, 0), {"patience": 2, "augment": "rotate-shift-mirror"}
    with own_randomness(CPU):
        longer = Training(SMALL, same, split, FitSettings(epochs=12, seed=3, **given), CPU)
        found = [training_round for training_round in longer.run() if training_round is not None]
        best = longer.load_best()
    assert len(found) - best.number == 2 or len(found) == 12
    assert best.number < len(found)
    weights = [longer.detector.state_dict()]
    for seed in (3, 4):
        torch.manual_seed(seed)  # whatever was drawn before must not matter, and torch's own state is given back
        detector, _ = fit(SMALL, same, split, FitSettings(epochs=best.number, seed=seed, **given), CPU)
        drawn = torch.rand(3)
        torch.manual_seed(seed)
        assert torch.equal(torch.rand(3), drawn)
        weights.append(detector.state_dict())
    assert all(torch.equal(tensor, weights[0][name]) for name, tensor in weights[1].items())
    assert not torch.equal(weights[2]["head.1.weight"], weights[0]["head.1.weight"])


def test_a_regression_tells_how_far_its_features_are(easy: Path) -> None:
    dataset, told = opened(easy), list[Event]()
    choice = detectors.choose("spectrum", {"image_size_px": SIDE, "bins": 5})
    with own_randomness(CPU):
        training = Training(choice, dataset, grouped_split(dataset.images, 0), FitSettings(batch_size=50), CPU, told.append)
        next(training.run())
    assert told == [Progress("features", done, 96) for done in (50, 96)]


def test_what_resizing_does_to_a_judgement_is_said() -> None:
    square, wide = (32, 32), (48, 40)
    notes = size_notes({True: [square], False: [wide]}, 32)
    assert "differ in size (mostly 32 x 32 px generated, 48 x 40 px real)" in notes[0]
    assert size_notes({True: [square, wide], False: [wide, square]}, 32) == (
        "images of 2 sizes: all are resized alike to 32 x 32 px",
    )
    notes = size_notes({True: [(259, 256)] * 2, False: [(259, 256)]}, 128)
    assert notes[-1].startswith("the images are shrunk from 256 to 128 px")
    assert "--image-size 256 keeps them and takes 4.0 times as long" in notes[-1]
    assert size_notes({True: [square], False: [square]}, 32) == ()
    odd = {True: [(85, 85)], False: [(85, 85)]}
    assert "--image-size 80 loses less" in size_notes(odd, 32)[-1]
    assert "--image-size" not in size_notes(odd, 80)[-1]  # there is no better one


# The detector's file


def test_a_detector_from_its_file_answers_as_the_one_that_was_judged(trained: TrainDetectorResult, easy: Path) -> None:
    bundle = load_detector(trained.file)
    assert bundle.card.verdict.accuracy == trained.accuracy
    dataset = opened(easy)
    test = grouped_split(dataset.images, 0).test
    logits = dataset.logits(bundle.detector, test, CPU, batch_size=7)
    assert logits.dtype == np.float64
    assert judge(logits, dataset.generated[test]).confusion == trained.confusion
    np.testing.assert_allclose(dataset.logits(bundle.detector, test, CPU), logits, atol=1e-4)
    pixels = [squashed(np.asarray(Image.open(dataset.images[i].path)), bundle.card.image_size_px) for i in test]
    np.testing.assert_allclose(answers(bundle.detector, pixels, CPU), logits, atol=1e-4)


def stored(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Its card, under its one metadata key, and its tensors."""
    with safe_open(file, framework="numpy") as found:
        assert list(found.metadata()) == ["fruitgan-detector"]
        card = json.loads(found.metadata()["fruitgan-detector"])
        return card, {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 - no mapping


@pytest.mark.parametrize(
    ("key", "changes", "said"),
    [
        ("fruitgan", {}, "not a detector but a generators' bundle"),
        ("another", {}, "without a detector's card"),
        ("fruitgan-detector", {"format": 99}, "newer than this program's"),
        ("fruitgan-detector", {"protocol": 3}, "protocol"),
        ("fruitgan-detector", {"protocol": "x"}, "none of grouped"),
        ("fruitgan-detector", {"more": 1}, "more"),
        ("fruitgan-detector", {}, "weights are not those of the detector spectrum"),
    ],
)
def test_files_of_another_kind_are_refused(
    key: str, changes: dict[str, Any], said: str, trained: TrainDetectorResult, tmp_path: Path
) -> None:
    card, _ = stored(trained.file)
    save_file({"a": np.zeros(3)}, tmp_path / "file.safetensors", metadata={key: json.dumps(card | changes)})
    with pytest.raises(DataError, match=said):
        load_detector(tmp_path / "file.safetensors")


def test_weights_that_are_not_finite_are_not_saved(trained: TrainDetectorResult, tmp_path: Path) -> None:
    bundle = load_detector(trained.file)
    bundle.detector.get_parameter("linear.bias").data.fill_(float("nan"))
    with pytest.raises(FruitganError, match=r"linear\.bias of the detector is not finite"):
        save_detector(DetectorBundle(bundle.card, bundle.detector), tmp_path / "d.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_ends_the_training(same: LabelledImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fruitgan.train_detector.fit.log_loss", lambda *_: math.nan)
    with pytest.raises(FruitganError, match="not finite in epoch 1"):
        fit(SMALL, same, grouped_split(same.images, 0), FitSettings(), CPU)


def test_a_small_training_set_still_has_steps_in_an_epoch() -> None:
    assert [FitSettings().batch_size_for(n) for n in (50, 300, 1440)] == [8, 18, 64]
    assert FitSettings(batch_size=32).batch_size_for(50) == 32
