"""`fruitgan evaluate` as a person types it: streams, JSON, exit codes, several generators side by side."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from evaluations import fill
from typed_commands import run_json

from fruitgan.cli import main
from fruitgan.evaluate import job

Capture = pytest.CaptureFixture[str]
FAKES = ("--fake-dir", "a/predicted")
QUICK = ("--quick", "--features", "colour", "--metrics", "kid,fid", "--device", "cpu", "--threads", "1")
NUMBERS = (*QUICK, "--detector", "none", "--out", "o")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, `a`, and another generator's pictures of the same sources, `b`."""
    folder = tmp_path_factory.mktemp("sets")
    for name, first, redness in (("a/predicted", 0, 0.2), ("a/origins", 100, 0.8), ("b/predicted", 0, 0.5)):
        fill(folder / name, 16, first, redness)
    return folder


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_json_is_one_object_on_stdout_and_the_files_are_there(here: Path, capsys: Capture) -> None:
    values = run_json(capsys, "evaluate", *FAKES, *QUICK, "--attackers", "spectrum")
    assert values["kid"]["interval"][0] <= values["kid"]["value"]
    assert {"fid", "floor", "r", "leaks", "detector", "withheld"} <= values.keys()
    assert {"name", "accuracy", "interval", "auc", "p_value", "n"} <= values["detector"].keys()
    folder = Path(values["out"])
    assert folder.parent == Path("runs/evaluate")
    assert json.loads((folder / "evaluation.json").read_text()) == values
    assert (folder / "report.html").stat().st_size > 10_000


def test_the_table_shows_kid_times_100_and_the_last_line_is_the_report(here: Path, capsys: Capture) -> None:
    assert main(["evaluate", *FAKES, *NUMBERS, "--verbose"]) == 0
    told = capsys.readouterr()
    value = json.loads((here / "o/evaluation.json").read_text())["kid"]["value"]
    row = next(line for line in told.out.splitlines() if line.startswith("KID x 100 "))
    assert abs(float(row.split()[3].replace(",", "")) - 100 * value) <= 0.01 * abs(100 * value)
    assert "16 generated, 16 real" in row
    assert told.out.splitlines()[-1] == "o/report.html"
    assert "No R: R needs the images" in told.out
    assert "no manifest.csv" in told.err
    assert main(["evaluate", *FAKES, *NUMBERS]) == 0
    short = capsys.readouterr().out.splitlines()
    assert short[0].startswith("Whether a detector distinguishes")
    assert 2 + 1 <= len(short) <= 2 + 1 + 5
    assert (row in short, short[-1]) == (True, "o/report.html")


def test_a_failed_gate_is_exit_5_after_everything_was_written(here: Path, capsys: Capture) -> None:
    assert main(["evaluate", *FAKES, *NUMBERS, "--json", "--fail-above", "kid=0.0001", "--fail-below", "fid=0"]) == 5
    told = capsys.readouterr()
    assert "kid is" in told.err
    assert "above 0.0001" in told.err
    assert [gate["passed"] for gate in json.loads(told.out)["gates"]] == [False, True]
    assert (here / "o/report.html").exists()


def test_the_second_run_stands_behind_the_first_and_the_table_is_below_the_numbers(here: Path, capsys: Capture) -> None:
    assert main(["evaluate", *FAKES, "--compare", "b", *NUMBERS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("b against a, 16 sources" in line for line in lines)
    cells = next(line for line in lines if line.startswith("KID x 100, colour")).split()
    (comparison,) = json.loads((here / "o/evaluation.json").read_text())["compare"]
    kid: dict[str, Any] = next(row for row in comparison["rows"] if row["name"] == "kid")
    assert float(cells[4]) == pytest.approx(100 * kid["first"], rel=0.01)
    assert float(cells[6]) == pytest.approx(100 * kid["difference"], rel=0.01)
    assert lines[-1] == "o/report.html"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--fake-dir", "nowhere"), 3, "no such folder"),
        ((*FAKES, "--features", "colours"), 2, "did you mean colour"),
        ((*FAKES, "--fail-above", "kid"), 2, "such as kid=0.05"),
        ((*FAKES, "--fail-above", "kid=1", "--fail-above", "kid=2"), 2, "one bound"),
        (("--compare", "a"), 2, "with what? Give at least two"),
        (("a", "b"), 2, "a: give a folder of generated images with --fake-dir, or several runs after --compare"),
        ((), 2, "with --fake-dir DIR, or several runs with --compare RUN1 RUN2"),
        ((*FAKES, "--data", "apple2orange"), 2, "--data: belongs to --compare"),
        (("--compare", "a", "a"), 2, "named twice"),
        (("--compare", "a", "appel2orange"), 2, "apple2orange"),
        (("--compare", "a", "apple2orange"), 2, "needs images to translate: --data NAME|DIR"),
        (("--compare", "a", "b", "--real-dir", "nowhere"), 3, "no such folder"),
    ],
)
def test_mistakes_have_their_exit_codes_and_one_line(
    here: Path, capsys: Capture, arguments: Sequence[str], code: int, message: str
) -> None:
    assert main(["evaluate", *arguments, "--device", "cpu"]) == code
    said = capsys.readouterr().err
    assert message in said.replace("\n", " ")
    assert "Traceback" not in said
    assert not (here / "runs").exists()


def test_the_environment_may_hold_what_only_a_comparison_uses(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name, value in (("DATA", "nowhere"), ("IMAGE_SIZE", "64"), ("COUNT", "5")):
        monkeypatch.setenv(f"FRUITGAN_{name}", value)
    assert main(["evaluate", *FAKES, "--device", "cpu", "--features", "colours"]) == 2
    assert "did you mean colour" in capsys.readouterr().err
    assert main(["evaluate", "--compare", "a", "apple2orange", "--device", "cpu"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_no_half_of_an_evaluation(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, number: int, code: int
) -> None:
    monkeypatch.setattr(job, "evaluation_report", lambda *_: signal.raise_signal(number))
    assert main(["evaluate", *FAKES, *NUMBERS]) == code
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; the same command begins again"
    assert not (here / "o").exists()
