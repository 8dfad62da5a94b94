"""`fruitgan evaluate` as a person types it: streams, JSON, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_files import write_noise

from fruitgan.cli import main
from fruitgan.evaluate import job

Fruitgan = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    random = np.random.default_rng(0)
    for name, low in (("predicted", 10), ("origins", 90)):
        write_noise(folder / name, [(24, 24)] * 12, low=low, high=low + 150, seed=random)
    return folder


QUICK = ("--quick", "--features", "colour", "--metrics", "kid,fid", "--device", "cpu")


def test_the_json_is_one_object_on_stdout_and_the_files_are_there(fruitgan: Fruitgan, dataset: Path, tmp_path: Path) -> None:
    done = fruitgan("evaluate", "--fake-dir", dataset / "predicted", *QUICK, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["kid"]["interval"][0] <= values["kid"]["value"]
    assert {"fid", "floor", "r", "leaks", "detector", "withheld"} <= values.keys()
    assert {"name", "accuracy", "interval", "auc", "p_value", "n"} <= values["detector"].keys()
    folder = tmp_path / values["out"]
    assert folder.parent == tmp_path / "runs/evaluate"
    assert json.loads((folder / "evaluation.json").read_text()) == values
    assert (folder / "report.html").stat().st_size > 10_000


def test_the_table_shows_kid_times_100_and_the_last_line_is_the_report(
    fruitgan: Fruitgan, dataset: Path, tmp_path: Path
) -> None:
    asked = ("evaluate", "--fake-dir", dataset / "predicted", *QUICK, "--detector", "none", "--out", "here")
    done = fruitgan(*asked, "--verbose", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    value = json.loads((tmp_path / "here/evaluation.json").read_text())["kid"]["value"]
    row = next(line for line in done.stdout.splitlines() if line.startswith("KID x 100 "))
    assert abs(float(row.split()[3].replace(",", "")) - 100 * value) <= 0.01 * abs(100 * value)
    assert "12 generated, 12 real" in row
    assert done.stdout.splitlines()[-1] == "here/report.html"
    assert "No R: R needs the images" in done.stdout
    assert "no manifest.csv" in done.stderr
    short = fruitgan(*asked, cwd=tmp_path).stdout.splitlines()
    assert short[0].startswith("Whether a detector distinguishes")
    assert 2 + 1 <= len(short) <= 2 + 1 + 5
    assert (row in short, short[-1]) == (True, "here/report.html")


def test_a_failed_gate_is_exit_5_after_everything_was_written(fruitgan: Fruitgan, dataset: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", "--fake-dir", dataset / "predicted", *QUICK, "--detector", "none", "--out", "here", "--json")
    done = fruitgan(*arguments, "--fail-above", "kid=0.0001", "--fail-below", "fid=0", cwd=tmp_path)
    assert done.returncode == 5
    assert "kid is" in done.stderr
    assert "above 0.0001" in done.stderr
    assert [gate["passed"] for gate in json.loads(done.stdout)["gates"]] == [False, True]
    assert (tmp_path / "here/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "--fake-dir"),
        (("--fake-dir", "nowhere"), 3, "no such folder"),
        (("--fake-dir", "{set}/predicted", "--real-dir", "{set}/predicted"), 3, "the same folder"),
        (("--fake-dir", "{set}/predicted", "--features", "colours"), 2, "did you mean colour"),
        (("--fake-dir", "{set}/predicted", "--fail-above", "kid"), 2, "such as kid=0.05"),
        (("--fake-dir", "{set}/predicted", "--fail-above", "kid=1", "--fail-above", "kid=2"), 2, "has a bound already"),
        (("--fake-dir", "{set}/predicted", "--features", "inception"), 3, "FRUITGAN_OFFLINE"),
    ],
)
def test_mistakes_have_their_exit_codes_and_one_line(
    fruitgan: Fruitgan, dataset: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    texts = [argument.format(set=dataset) for argument in arguments]
    done = fruitgan("evaluate", *texts, cwd=tmp_path, env={"FRUITGAN_OFFLINE": "1"})
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_half_of_an_evaluation(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    def stopped(*_: object) -> str:
        signal.raise_signal(number)
        return ""

    arguments = [
        "evaluate",
        "--fake-dir",
        str(dataset / "predicted"),
        *QUICK,
        "--detector",
        "none",
        "--out",
        str(tmp_path / "o"),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(job, "evaluation_report", stopped)
        assert main(arguments) == code
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; the same command begins again"
    assert not (tmp_path / "o").exists()
    assert main(arguments) == 0
