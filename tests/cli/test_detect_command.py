"""`fruitgan detect` as it is typed."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import shutil
from pathlib import Path

import pytest
from picture_files import save_noise, write_dataset
from PIL import Image
from typed_commands import Cli, typed

from fruitgan.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, no_detector_report: None) -> Path:
    """A folder with a data set and a detector trained on it."""
    place = tmp_path_factory.mktemp("trained")
    write_dataset(place / "dataset", 40, planted=60)
    options = ["--detector", "spectrum", "--detector-option", "bins=4", "--gpu", "none", "-q"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train-detector", "--data", "dataset", *options]) == 0
    return place


@pytest.fixture
def cli(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITGAN_GPU", "none")
    capsys.readouterr()
    return typed("detect", capsys)


RUN = "runs/train-detector/dataset-spectrum"


def test_each_picture_is_a_line_of_csv(cli: Cli) -> None:
    code, out, err = cli("dataset/predicted", "dataset/origins/000000.png")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, len(rows)) == (0, 41)
    assert list(rows[0]) == ["file", "verdict", "probability", "outside"]
    assert [row["verdict"] for row in rows].count("generated") == 40
    assert rows[-1]["file"] == "dataset/origins/000000.png"
    assert float(rows[-1]["probability"]) < 0.5 < float(rows[0]["probability"])
    assert {row["outside"] for row in rows} == {""}
    assert "warning" not in err


@pytest.mark.parametrize("wanted", [None, RUN, "dataset-spectrum", f"{RUN}/detector.safetensors"])
def test_json_is_one_object_and_probabilities_are_calibrated_logits(cli: Cli, wanted: str | None) -> None:
    code, out, _ = cli("dataset/predicted/000000.png", "--json", *(["--detector", wanted] if wanted else []))
    found = json.loads(out)
    assert (code, found["detector"]) == (0, f"{RUN}/detector.safetensors")
    (picture,) = found["pictures"]
    assert picture["generated"] is True
    from fruitgan.train_detector.detector import load_detector

    slope = load_detector(Path(RUN)).card.calibration_slope
    assert picture["probability"] == pytest.approx(1 / (1 + math.exp(-slope * picture["logit"])))


def test_a_detector_whose_logits_told_nothing_of_its_validation_images_is_undecided(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fruitgan.train_detector import detect_job
    from fruitgan.train_detector.detector import DetectorBundle, load_detector

    def blunt(file: Path) -> DetectorBundle:
        bundle = load_detector(file)
        return dataclasses.replace(bundle, card=dataclasses.replace(bundle.card, calibration_slope=0.0))

    monkeypatch.setattr(detect_job, "load_detector", blunt)
    _, out, _ = cli("dataset/predicted/000000.png")
    assert out.splitlines()[1] == "dataset/predicted/000000.png,undecided,0.5000,"
    (picture,) = json.loads(cli("dataset/predicted/000000.png", "--json")[1])["pictures"]
    assert (picture["generated"], picture["probability"]) == (None, 0.5)


def test_what_the_detector_was_not_trained_on_is_said(cli: Cli) -> None:
    save_noise("large.png", 40, 30)
    Image.open("dataset/origins/000001.png").save("small.jpg", quality=50)
    code, out, err = cli("large.png", "small.jpg", "dataset/origins/000001.png")
    outside = [row["outside"] for row in csv.DictReader(io.StringIO(out))]
    assert code == 0
    assert outside == ["size: 30 x 40 px, trained on sides of 16 px", "format: JPEG, trained on PNG", ""]
    assert "2 of 3 pictures are unlike what the detector was trained on" in err
    assert "the picture is unlike what the detector was trained on" in cli("small.jpg")[2]


def test_what_cannot_be_decoded_fails_and_the_rest_is_judged(cli: Cli) -> None:
    whole = Path("dataset/origins/000000.png").read_bytes()
    Path("mixed").mkdir()
    Path("mixed/a.png").write_bytes(whole)
    Path("mixed/torn.png").write_bytes(whole[:60])
    Path("mixed/notes.txt").write_text("apples")
    code, out, err = cli("mixed", "--json")
    found = json.loads(out)
    assert (code, len(found["pictures"])) == (3, 1)
    assert [Path(entry["path"]).name for entry in found["failed"]] == ["torn.png"]
    assert "error: " in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere.png",), 3, "no such file or folder"),
        (("dataset", "--detector", "nothing"), 2, "no file or run named 'nothing'"),
        (("dataset", "--detector", "no/such"), 3, "no/such: no such file or run"),
        (("dataset", "--detector", "dataset/origins/000000.png"), 3, "not a detector"),
    ],
)
def test_a_mistake_is_one_line(cli: Cli, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, _, err = cli(*arguments)
    assert found == code
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    assert said in err


def test_without_a_detector_it_says_what_trains_one(cli: Cli) -> None:
    shutil.rmtree("runs")
    code, out, err = cli("dataset")
    assert (code, out) == (3, "")
    assert "fruitgan train-detector --data" in err


def test_what_is_no_picture_is_named(cli: Cli) -> None:
    Path("note.jpg").write_text("no picture")
    code, out, err = cli("note.jpg", "-q")
    assert (code, out) == (3, "")
    assert err.startswith("error: note.jpg: not an image")
