"""Training a detector from Python: what is found, what is not, what is left behind."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from fruitgan.data.labelled import read_folders
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.networks.contracts import Detector, detectors
from fruitgan.progress import Event, Note, Progress
from fruitgan.registry import Choice
from fruitgan.train_detector.calibration import judge
from fruitgan.train_detector.detector import (
    DetectorBundle,
    answers,
    load_detector,
    open_image_dataset,
    save_detector,
    size_notes,
    squashed,
)
from fruitgan.train_detector.fit import fit
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.protocols import grouped_split
from fruitgan.train_detector.settings import FitSettings, TrainDetectorResult, TrainDetectorSettings

CPU = torch.device("cpu")
SIDE = 32


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(folder: Path, n: int, planted: float, seed: int = 0, side: int = SIDE) -> Path:
    """Soft random pictures in both classes; the generated ones have a grid of this strength on every second pixel."""
    random = np.random.default_rng(seed)
    for name in ("predicted", "origins"):
        (folder / name).mkdir(parents=True)
        for number in range(n):
            soft = Image.fromarray(random.integers(40, 216, (side // 8, side // 8, 3), dtype=np.uint8))
            pixels = np.asarray(soft.resize((side, side), Image.Resampling.BICUBIC)) + random.normal(0, 4, (side, side, 3))
            if name == "predicted":
                pixels[::2, ::2] += planted
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{number:06d}.png")
    return folder


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("easy") / "dataset", 60, planted=12)


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("same") / "dataset", 100, planted=0)


def settings(data: Path, out: Path, **changes: Any) -> TrainDetectorSettings:
    given: dict[str, Any] = {"data": data, "out": out, "detector": "spectrum", "gpu": "none"}
    if changes.get("detector", "spectrum") == "spectrum":
        given["detector_options"] = {"bins": "5"}
    return TrainDetectorSettings(**(given | changes))


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
    assert result.image_size_px == SIDE  # never larger than the images
    assert any("manifest.csv" in warning for warning in result.warnings)  # two bare folders
    assert any("24 test images" in note and "about 2,500 images" in note for note in result.notes)


def test_a_planted_difference_is_found_by_the_small_network(easy: Path, tmp_path: Path) -> None:
    result = train_detector(settings(easy, tmp_path, detector="small-cnn", epochs=12, batch_size=8))
    assert result.accuracy >= 0.9


def test_equal_distributions_give_an_interval_that_contains_a_half(same: Path, tmp_path: Path) -> None:
    result = train_detector(settings(same, tmp_path))
    low, high = result.interval
    assert low < 0.5 < high
    assert result.p_value > 0.05


def test_the_run_folder_holds_everything_that_is_promised(trained: TrainDetectorResult, easy: Path) -> None:
    result, run = trained, trained.run
    assert run.name == "first"
    names = {"config.json", "environment.json", "log.jsonl", "detector.safetensors", "metrics.json", "report.html"}
    assert {path.name for path in run.iterdir()} == {*names, "plots", "checkpoints"}
    assert {path.name for path in (run / "plots").iterdir()} == {"loss.png", "accuracy.png", "roc.png", "confusion.png"}
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


def test_the_same_seed_gives_the_same_file_bit_for_bit(easy: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "detector": "small-cnn",
        "epochs": 2,
        "name": "run",
        "image_size": 16,
        "augment": "rotate-shift-mirror",
    }
    given["detector_options"] = {"base_channels": "4"}
    files = []
    for number, seed in enumerate((3, 3, 4)):
        torch.manual_seed(number)  # whatever was drawn before must not matter
        files.append(train_detector(settings(easy, tmp_path / str(number), seed=seed, **given)).file.read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_torchs_own_random_state_is_given_back(easy: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train_detector(settings(easy, tmp_path, detector="small-cnn", epochs=1, image_size=16))
    assert torch.equal(torch.rand(3), expected)


def test_early_stopping_keeps_the_best_weights(same: Path, tmp_path: Path) -> None:
    """Refit only up to the best epoch: the weights must be those that the longer run has kept."""
    given = {"detector": "small-cnn", "image_size": 16, "detector_options": {"base_channels": "4"}, "name": "run"}
    longer = train_detector(settings(same, tmp_path / "a", epochs=12, patience=3, **given))
    assert longer.rounds - longer.best_round == 3 or longer.rounds == 12
    assert longer.best_round < longer.rounds
    shorter = train_detector(settings(same, tmp_path / "b", epochs=longer.best_round, patience=3, **given))
    kept = [load_detector(result.file).detector.state_dict() for result in (longer, shorter)]
    assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])
    assert longer.confusion == shorter.confusion


def test_a_stop_judges_the_best_so_far_and_the_run_is_not_finished(easy: Path, tmp_path: Path) -> None:
    seen: list[Event] = []

    def stop(event: Event) -> bool:
        seen.append(event)
        return isinstance(event, Progress) and "val_loss" in event.details and event.details["epoch"] == 2

    result = train_detector(settings(easy, tmp_path, detector="small-cnn", image_size=16), stop)
    assert (result.rounds, result.finished) == (2, False)
    assert load_detector(result.run).card.rounds == 2
    assert not (result.run / "metrics.json").exists()
    assert any(isinstance(event, Note) and "76 train, 20 val and 24 test images" in event.text for event in seen)
    training = [event for event in seen if isinstance(event, Progress) and event.what == "training"]
    steps = len(training) // 2  # the first event counts none; the bar moves within an epoch
    assert [event.done for event in training] == list(range(2 * steps + 1))
    assert training[0].total == 100 * steps


def test_the_seed_protocol_reports_what_chose_and_says_so(easy: Path, tmp_path: Path) -> None:
    result = train_detector(settings(easy, tmp_path, protocol="seed"))
    assert (result.train_images, result.val_images, result.n) == (96, 24, 24)
    assert "leaks" in result.notes[0]
    last = json.loads((result.run / "log.jsonl").read_text().splitlines()[result.best_round - 1])
    assert last["val_accuracy"] == pytest.approx(result.accuracy)
    assert load_detector(result.file).card.protocol == "seed"
    assert "read too high" in (result.run / "report.html").read_text()


def test_many_weights_on_a_cpu_are_a_warning(easy: Path, tmp_path: Path) -> None:
    def stop(event: Event) -> bool:
        if isinstance(event, Note) and "seed-cnn at 128 px has 34 million weights" in event.text:
            assert event.is_warning
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train_detector(settings(easy, tmp_path, detector="seed-cnn", image_size=128), stop)


def test_unreadable_images_are_named_and_counted(tmp_path: Path) -> None:
    data = draw(tmp_path / "dataset", 30, planted=12)
    broken = data / "predicted" / "000003.png"
    broken.write_bytes(broken.read_bytes()[:100])
    result = train_detector(settings(data, tmp_path / "runs"))
    assert any("000003.png" in warning and "1 of " in warning for warning in result.warnings)
    assert result.n + result.train_images + result.val_images == 58
    assert result.left_out_images == 1


def test_what_resizing_does_to_a_judgement_is_said() -> None:
    square, wide = (32, 32), (48, 40)
    notes = size_notes({True: Counter({square: 9}), False: Counter({wide: 9})}, 32)
    assert "differ in size (32 x 32 px generated, 48 x 40 px real)" in notes[0]
    notes = size_notes({True: Counter({square: 9, wide: 1}), False: Counter({square: 5, wide: 3})}, 32)
    assert notes == ("images of 2 sizes: all are resized alike to 32 x 32 px",)
    notes = size_notes({True: Counter({(259, 256): 9}), False: Counter({(259, 256): 5})}, 128)
    assert notes[-1].startswith("the images are shrunk from 256 to 128 px")
    assert "--image-size 256 keeps them and takes 4.0 times as long" in notes[-1]
    assert size_notes({True: Counter({square: 9}), False: Counter({square: 9})}, 32) == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"augment": "mirrors"}, "did you mean mirror"),
        ({"protocol": "grouping"}, "did you mean grouped"),
        ({"augment": "mirror"}, "fitted to the images as they are"),
        ({"augment": "jitter-mirror", "detector": "small-cnn"}, "use mirror or rotate-shift-mirror"),
        ({"image_size": 30}, "--image-size 32 would do"),
        ({"image_size": 32, "detector_options": {"image_size_px": "32"}}, "say the same thing"),
        ({"epochs": 0}, "--epochs 0: 1 or more"),
        ({"batch_size": 1}, "--batch-size 1: 2 or more"),
        ({"name": "../up"}, "a name, not a path"),
        ({"seed": -1}, "--seed -1"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: a number above 0"),
        ({"learning_rate": 0.1}, "is a logistic regression, which has none"),
    ],
)
def test_a_wrong_wish_is_named(easy: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train_detector(settings(easy, tmp_path, **changes))


def test_too_few_images_are_a_data_error_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few images: 9 generated, at least 10 of each class"):
        train_detector(settings(draw(tmp_path / "few", 9, planted=0), tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_run_is_never_written_over(easy: Path, tmp_path: Path) -> None:
    result = train_detector(settings(easy, tmp_path, name="one"))
    before = {path: path.stat().st_mtime_ns for path in result.run.rglob("*")}
    with pytest.raises(UsageError, match="exists; go on with --resume one, or choose another --name"):
        train_detector(settings(easy, tmp_path, name="one"))
    assert {path: path.stat().st_mtime_ns for path in result.run.rglob("*")} == before
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="exists"):
        train_detector(settings(easy, tmp_path, name="mine"))


def test_runs_without_a_name_get_one_that_is_free(easy: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset-spectrum").mkdir()
    assert train_detector(settings(easy, tmp_path)).run.name == "dataset-spectrum-1"


# The detector's file


def test_a_detector_from_its_file_answers_as_the_one_that_was_judged(trained: TrainDetectorResult, easy: Path) -> None:
    bundle = load_detector(trained.file)
    assert bundle.card.verdict.accuracy == trained.accuracy
    images = read_folders(easy / "predicted", easy / "origins").images
    album = open_image_dataset(images, bundle.card.image_size_px)
    parts = grouped_split(album.images, 0)
    logits = album.logits(bundle.detector, parts.test, CPU, batch_size=7)
    assert logits.dtype == np.float64
    assert judge(logits, album.generated[parts.test]).confusion == trained.confusion
    np.testing.assert_allclose(album.logits(bundle.detector, parts.test, CPU), logits, atol=1e-4)
    pixels = [squashed(np.asarray(Image.open(album.images[i].path)), bundle.card.image_size_px) for i in parts.test]
    np.testing.assert_allclose(answers(bundle.detector, pixels, CPU), logits, atol=1e-4)


def test_the_file_has_one_metadata_key_and_nothing_but_tensors(trained: TrainDetectorResult) -> None:
    with safe_open(trained.file, framework="numpy") as file:
        assert list(file.metadata()) == ["fruitgan-detector"]
        assert {"linear.weight", "linear.bias", "mean", "spread"} == set(file.keys())


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
    card = json.loads(safe_open(trained.file, framework="numpy").metadata()["fruitgan-detector"])
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
    with safe_open(trained.file, framework="numpy") as file:
        card = json.loads(file.metadata()["fruitgan-detector"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    assert card["format"] == 3
    card["format"] = version
    for later in ("train_sha256", "val_sha256", "test_sha256", "taught_looks", "files", "calibration_slope", "backbones"):
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


# Fitting without a workflow


class Broken(Detector):
    """Answers with nothing that is a number."""

    image_size_px = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x.flatten(1).sum(1) * float("nan")


def test_a_loss_that_is_not_finite_ends_the_training(easy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "build", lambda _: Broken())
    album = open_image_dataset(read_folders(easy / "predicted", easy / "origins").images, SIDE)
    parts = grouped_split(album.images, 0)
    with pytest.raises(FruitganError, match="not finite in epoch 1"):
        fit(Choice("broken", "x", "0"), album, parts, FitSettings(), CPU)


def test_a_dataset_is_decoded_once_and_gives_what_the_files_hold(easy: Path) -> None:
    images = read_folders(easy / "predicted", easy / "origins").images
    events: list[Event] = []
    one, other = (open_image_dataset(images, SIDE, tell=events.append) for _ in range(2))
    assert one.fingerprint == other.fingerprint
    some = np.array([3, 0, 119])
    naive = np.stack([np.asarray(Image.open(images[i].path)) for i in some]).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(one.batch(some, CPU), naive, atol=1e-6)
    assert torch.equal(one.batch(some, CPU), other.batch(some, CPU))
    assert one.labels(some, CPU).tolist() == [1, 1, 0]
    assert len(events) <= len(images)


def test_a_dataset_of_the_wrong_size_is_refused(easy: Path) -> None:
    album = open_image_dataset(read_folders(easy / "predicted", easy / "origins").images, SIDE)
    choice = detectors.choose("small-cnn", {"image_size_px": 64})
    with pytest.raises(UsageError, match="wants images of 64 px and would get 32 px"):
        fit(choice, album, grouped_split(album.images, 0), FitSettings(), CPU)


def test_a_small_training_set_still_has_steps_in_an_epoch() -> None:
    assert [FitSettings().batch_size_for(n) for n in (50, 300, 1440)] == [8, 18, 64]
    assert FitSettings(batch_size=32).batch_size_for(50) == 32
