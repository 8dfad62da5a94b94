"""Training a detector from Python: what is found, what is not, what is left behind."""

from __future__ import annotations

import json
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
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.networks.contracts import Detector, detectors
from fruitgan.progress import Event, Progress
from fruitgan.registry import Choice
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
from fruitgan.train_detector.fit import Training, fit, own_randomness
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


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than a few small steps; those of `trained` are made before this."""
    monkeypatch.setattr("fruitgan.train_detector.page.plot_files", lambda *_: {})


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


def test_a_planted_difference_is_found_by_the_small_network(easy: Path) -> None:
    dataset = opened(easy)
    split = grouped_split(dataset.images, 0)
    detector, _ = fit(SMALL, dataset, split, FitSettings(epochs=8), CPU)
    assert judge(dataset.logits(detector, split.test, CPU), dataset.generated[split.test]).accuracy >= 0.9


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


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_torchs_own_random_state_back(easy: Path) -> None:
    dataset = opened(easy)
    split, found = grouped_split(dataset.images, 0), []
    for number, seed in enumerate((3, 3, 4)):
        torch.manual_seed(number)  # whatever was drawn before must not matter
        detector, _ = fit(SMALL, dataset, split, FitSettings(epochs=1, seed=seed, augment="rotate-shift-mirror"), CPU)
        drawn = torch.rand(3)
        torch.manual_seed(number)
        assert torch.equal(torch.rand(3), drawn)
        found.append(torch.cat([tensor.flatten().double() for tensor in detector.state_dict().values()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_early_stopping_keeps_the_best_weights(same: LabelledImageDataset) -> None:
    """Refit only up to the best epoch: the weights must be those that the longer training has kept."""
    split = grouped_split(same.images, 0)
    with own_randomness(CPU):
        longer = Training(SMALL, same, split, FitSettings(epochs=12, patience=2), CPU)
        found = [training_round for training_round in longer.run() if training_round is not None]
        best = longer.load_best()
    assert len(found) - best.number == 2 or len(found) == 12
    assert best.number < len(found)
    shorter, _ = fit(SMALL, same, split, FitSettings(epochs=best.number, patience=2), CPU)
    kept = longer.detector.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in shorter.state_dict().items())


def test_a_stop_judges_the_best_so_far_and_the_run_is_not_finished(easy: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []

    def stop(event: Event) -> bool:
        if isinstance(event, Progress) and event.what == "training":
            seen.append(event)
            return event.details.get("epoch") == 2 and "val_loss" in event.details
        return False

    asked = settings(easy, tmp_path, detector="small-cnn", detector_options={"base_channels": "2"})
    result = train_detector(asked, stop)
    assert (result.rounds, result.finished) == (2, False)
    assert load_detector(result.run).card.rounds == 2
    assert not (result.run / "metrics.json").exists()
    steps = len(seen) // 2  # the first event counts none; the bar moves within an epoch
    assert [event.done for event in seen] == list(range(2 * steps + 1))
    assert seen[0].total == 100 * steps


def test_a_regression_tells_how_far_its_features_are(easy: Path) -> None:
    dataset, told = opened(easy), list[Event]()
    choice = detectors.choose("spectrum", {"image_size_px": SIDE, "bins": 5})
    with own_randomness(CPU):
        training = Training(choice, dataset, grouped_split(dataset.images, 0), FitSettings(batch_size=50), CPU, told.append)
        next(training.run())
    assert told == [Progress("features", done, 96) for done in (50, 76, 96)]


def test_unreadable_images_are_named_and_counted(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "dataset", 30, planted=60)
    broken = data / "predicted" / "000003.png"
    broken.write_bytes(broken.read_bytes()[:100])
    result = train_detector(settings(data, tmp_path / "runs"))
    assert any("000003.png" in warning and "1 of " in warning for warning in result.warnings)
    assert result.n + result.train_images + result.val_images == 58
    assert result.left_out_images == 1


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


def test_too_few_images_are_a_data_error_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="9 generated and 9 real ones, at least 10 of each"):
        train_detector(settings(write_dataset(tmp_path / "few", 9, planted=0), tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_run_is_never_written_over_and_without_a_name_gets_one_that_is_free(
    trained: TrainDetectorResult, easy: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.run.rglob("*")}
    with pytest.raises(UsageError, match="exists; go on with --resume first, or choose another --name"):
        train_detector(settings(easy, trained.run.parent, name="first"))
    assert {path: path.stat().st_mtime_ns for path in trained.run.rglob("*")} == before
    (tmp_path / "dataset-spectrum").mkdir()
    assert train_detector(settings(easy, tmp_path)).run.name == "dataset-spectrum-1"


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


def test_files_of_another_kind_are_refused(trained: TrainDetectorResult, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"

    def refused(said: str) -> None:
        with pytest.raises(DataError, match=said):
            load_detector(path)

    refused("no such file")
    path.write_bytes(b"something else")
    refused("not a detector")
    path.write_bytes(trained.file.read_bytes()[:-10])
    refused("torn")
    card, tensors = stored(trained.file)
    assert {"linear.weight", "linear.bias", "mean", "spread"} == set(tensors)
    for metadata, said in (
        ({"fruitgan": "{}"}, "not a detector but a generators' bundle"),
        (None, "without a detector's card"),
        (card | {"format": 99}, "newer than this program's"),
        (card | {"protocol": 3}, "protocol"),
        (card | {"protocol": "x"}, "none of grouped"),
        (card | {"more": 1}, "more"),
        (card, "weights are not those of the detector spectrum"),
    ):
        is_card = metadata is not None and "protocol" in metadata
        save_file({"a": np.zeros(3)}, path, metadata={"fruitgan-detector": json.dumps(metadata)} if is_card else metadata)
        refused(said)


@pytest.mark.parametrize("version", [1, 2])
def test_a_detector_of_an_earlier_format_is_read(version: int, trained: TrainDetectorResult, tmp_path: Path) -> None:
    card, tensors = stored(trained.file)
    assert card["format"] == 3
    card["format"] = version
    for later in ("train_sha256", "val_sha256", "test_sha256", "taught_looks", "files", "calibration_slope"):
        del card[later]
    if version == 1:
        card["verdict"]["chance"] = card["verdict"].pop("majority_baseline")
    path = tmp_path / "old.safetensors"
    save_file(tensors, path, metadata={"fruitgan-detector": json.dumps(card)})
    found, now = load_detector(path).card, load_detector(trained.file).card
    assert (found.verdict, found.train_sha256, found.files, found.calibration_slope) == (now.verdict, (), None, 1.0)


def test_weights_that_are_not_finite_are_not_saved(trained: TrainDetectorResult, tmp_path: Path) -> None:
    bundle = load_detector(trained.file)
    bundle.detector.get_parameter("linear.bias").data.fill_(float("nan"))
    with pytest.raises(FruitganError, match=r"linear\.bias of the detector is not finite"):
        save_detector(DetectorBundle(bundle.card, bundle.detector), tmp_path / "d.safetensors")
    assert not list(tmp_path.iterdir())


class Broken(Detector):
    """Answers with nothing that is a number."""

    image_size_px = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x.flatten(1).sum(1) * float("nan")


def test_a_loss_that_is_not_finite_ends_the_training(same: LabelledImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "build", lambda _: Broken())
    with pytest.raises(FruitganError, match="not finite in epoch 1"):
        fit(Choice("broken", "x", "0"), same, grouped_split(same.images, 0), FitSettings(), CPU)


def test_a_dataset_gives_what_the_files_hold(easy: Path) -> None:
    dataset = opened(easy)
    some = np.array([3, 0, 119])
    naive = np.stack([np.asarray(Image.open(dataset.images[i].path)) for i in some]).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(dataset.batch(some, CPU), naive, atol=1e-6)
    assert dataset.labels(some, CPU).tolist() == [1, 1, 0]


def test_a_small_training_set_still_has_steps_in_an_epoch() -> None:
    assert [FitSettings().batch_size_for(n) for n in (50, 300, 1440)] == [8, 18, 64]
    assert FitSettings(batch_size=32).batch_size_for(50) == 32
