"""`fruitgan distill`: a teacher's run in, a student with its numbers out; stopped, resumed, refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import write_fruit_domains
from trainings import SMALL, stop_after
from typed_commands import run_json

from fruitgan import bundle as bundles
from fruitgan.cli import main
from fruitgan.distill import job as gates
from fruitgan.networks.mobile import LiteU
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings

pytestmark = pytest.mark.usefixtures("no_report")

STUDENT = [
    "--student", "lite-u", "--student-option", "base_channels=4", "--student-option", "blocks=1", "--batch-size", "1",
    "--gpu", "none", "--precision", "fp32", "--threads", "1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def quick_speed_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "SPEED_SIDE_PX", 32)
    monkeypatch.setattr(gates, "SPEED_PASSES", 2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on a few drawn fruit."""
    folder = tmp_path_factory.mktemp("teacher")
    data = write_fruit_domains(folder / "pear2plum", 10, 48, fruit_a="apple")
    given = {**SMALL, "image_size": 48, "steps": 2}
    return train_gan(TrainGanSettings(data=str(data), out=folder / "runs", name="teacher", **given)).run


def test_a_student_is_taught_on_its_teachers_images_and_measured(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_json(capsys, "distill", "--teacher", teacher, *STUDENT, "--steps", "2", "--out", tmp_path)
    run = Path(result["run"])
    assert run.parent == tmp_path
    card = bundles.load_card(Path(result["bundle"]))
    size_px = bundles.load_card(bundles.locate(str(teacher))).image_size_px
    assert (card.generator.name, card.recipe, card.data) == ("lite-u", "lesson", "pear2plum")
    assert card.image_size_px == size_px
    names = [gate["name"] for gate in result["gates"]]
    assert names == [
        *(f"{what}_{way}" for way in ("a2b", "b2a") for what in ("psnr", "kid_ratio", "detector_points")),
        "images_per_second",
    ]
    assert json.loads((run / "gates.json").read_text()) == result["gates"]
    page = (run / "report.html").read_text()
    assert "beside its teacher, teacher" in page
    assert all(name in page for name in names)
    by_name = {gate["name"]: gate for gate in result["gates"]}
    # Teacher and student are both hardly trained from the identity.
    assert by_name["psnr_a2b"]["value"] > 28
    assert by_name["psnr_a2b"]["passed"] is True
    assert by_name["images_per_second"]["value"] > 0


def test_a_stopped_lesson_goes_on_to_the_same_student_with_no_other_teacher_and_strict_makes_a_closed_gate_exit_5(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = gates.Gate("psnr_a2b", 20.0, 28.0, False, "dB")
    monkeypatch.setattr("fruitgan.distill.job.measure", lambda **_: (shut,))  # measuring takes longer than a few small steps
    whole = run_json(capsys, "distill", "--teacher", teacher, *STUDENT, "--steps", "3", "--out", tmp_path)
    student = {key: SMALL[key] for key in ("generator_options", "batch_size", "precision", "gpu", "threads")}
    halves = TrainGanSettings(**student, generator="lite-u", steps=3, out=tmp_path, name="halves")
    assert gates.distill(gates.DistillSettings(teacher=str(teacher), training=halves), stop_after(1)).training.step == 1
    assert main(["distill", "--resume", "halves", "--teacher", "apple2orange", "--out", str(tmp_path)]) == 2
    assert "--teacher cannot change in a resumed run" in capsys.readouterr().err
    for name, value in {"TEACHER": "apple2orange", "STUDENT": "lite", "DATA": "demo"}.items():
        monkeypatch.setenv(f"FRUITGAN_{name}", value)  # for new ones
    assert main(["distill", "--resume", "halves", "--out", str(tmp_path), "--gpu", "none", "--strict", "--json"]) == 5
    written = capsys.readouterr()
    again = json.loads(written.out)
    assert (again["step"], again["weights_sha256"]) == (3, whole["weights_sha256"])
    assert "the student's psnr_a2b did not pass" in written.err
    more = ("--steps", "1000000", "--max-time", "1s")
    stopped = run_json(capsys, "distill", "--resume", "halves", "--out", tmp_path, "--gpu", "none", *more)
    assert (stopped["finished"], stopped["gates"]) == (False, [])


def test_what_cannot_be_is_said_in_one_line(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        (["distill"], 2, "which teacher?"),
        (["distill", "--teacher", "nobody"], 2, "no file, run or shipped bundle named 'nobody'"),
        (["distill", "--teacher", "apple2orange"], 2, "a bundle does not hold its images; give --data"),
        (["train-gan", "--data", str(tmp_path), "--recipe", "lesson"], 2, "needs a teacher: fruitgan distill --teacher RUN"),
    ]
    for words, code, said in cases:
        assert main([*words, "--out", str(tmp_path / "runs")]) == code
        assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_psnr_is_the_mean_of_its_formula() -> None:
    right = [np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 50, np.uint8)]
    said = [right[0] + 10, right[1] + 20]
    gate = gates.psnr_gate("a2b", right, said)
    assert gate.value == pytest.approx((20 * math.log10(255 / 10) + 20 * math.log10(255 / 20)) / 2)
    assert gate.passed is False
    assert gates.psnr_gate("a2b", right, right).passed is True


def test_the_speed_is_measured_on_two_threads_which_are_given_back() -> None:
    before = torch.get_num_threads()
    gate = gates.speed_gate(LiteU(base_channels=4, blocks=1).eval())
    assert gate.value is not None
    assert gate.value > 0
    assert "2 threads" in gate.said
    assert torch.get_num_threads() == before
