"""`fruitgan evaluate --compare RUN1 RUN2` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from picture_files import write_noise

from fruitgan.cli import main

QUICK = ("--quick", "--features", "colour", "--metrics", "kid", "--detector", "none", "--device", "cpu")


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sides")
    random = np.random.default_rng(0)
    for name, low in (("a/predicted", 10), ("a/origins", 90), ("b/predicted", 60)):
        write_noise(folder / name, [(24, 24)] * 10, low=low, high=low + 150, seed=random)
    return folder


@pytest.mark.parametrize(
    "first", [("--compare", "a"), ("--fake-dir", "a/predicted", "--compare")], ids=["two runs", "against the fakes"]
)
def test_the_second_run_stands_behind_the_first_and_the_table_is_below_the_numbers(
    sides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], first: tuple[str, ...]
) -> None:
    monkeypatch.chdir(sides)
    assert main(["evaluate", *first, "b", *QUICK, "--out", str(tmp_path / "o")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("b against a, 10 sources" in line for line in lines)
    row = next(line for line in lines if line.startswith("KID x 100, colour"))
    (comparison,) = json.loads((tmp_path / "o/evaluation.json").read_text())["compare"]
    kid = next(row for row in comparison["rows"] if row["name"] == "kid")
    cells = row.split()
    assert float(cells[4]) == pytest.approx(100 * kid["first"], rel=0.01)
    assert float(cells[6]) == pytest.approx(100 * kid["difference"], rel=0.01)
    assert lines[-1] == str(tmp_path / "o/report.html")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--compare", "a"), 2, "with what? Give at least two"),
        (("a", "b"), 2, "a: give a folder of generated images with --fake-dir, or several runs after --compare"),
        ((), 2, "with --fake-dir DIR, or several runs with --compare RUN1 RUN2"),
        (("--fake-dir", "a/predicted", "--data", "apple2orange"), 2, "--data: belongs to --compare"),
        (("--compare", "a", "a"), 2, "named twice"),
        (("--compare", "a", "appel2orange"), 2, "apple2orange"),
        (("--compare", "a", "apple2orange"), 2, "needs images to translate: --data NAME|DIR"),
        (("--compare", "a", "b", "--real-dir", "nowhere"), 3, "no such folder"),
    ],
)
def test_mistakes_have_their_exit_codes_and_one_line(
    sides: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(sides)
    assert main(["evaluate", *arguments, *QUICK]) == code
    said = capsys.readouterr().err
    assert message in said.replace("\n", " ")
    assert "Traceback" not in said
    assert not (sides / "runs").exists()
