"""Exports, detector trainings and evaluations that die while they write, or cannot write, are finished by the same command.

Every change to the file system is a moment to die at: by SIGKILL, or by a power cut that takes what was not yet on the disk.
The default suite tries a spread of them, `pytest -m slow` all.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from answering_scripts import answer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

Found = Mapping[tuple[str, str], Any]
# What is tried with which job, and every how many of its changes.
SPREAD = {
    ("die", "export"): [3, 11],
    ("die", "export-overwriting"): [17, 50],
    ("die", "export-repairing"): [14, 20],
    ("die", "network"): [20, 45],
    ("die", "network-longer"): [40, 40],
    ("die", "regression"): [50, 120],
    ("die", "evaluation"): [5, 4],
    ("power-cut", "export"): [30, 40],
    ("power-cut", "network"): [70, 70],
    ("full", "export"): [8, 30],
    ("full", "network"): [30, 120],
    ("full", "evaluation"): [2, 5],
    ("limit", "export"): [0, 1],
}
DYING = ("die", "power-cut")
REASONS = ("no space left on device", "file too large")


def tried(out: Path, wanted: Mapping[tuple[str, str], list[int]]) -> Found:
    work = [{"what": what, "job": job, "share": share} for (what, job), share in wanted.items()]
    answers = answer(Path(__file__).with_name("forked_jobs.py"), {"out": str(out), "work": work})
    return {(found["what"], found["job"]): found for found in answers}


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return tried(tmp_path_factory.mktemp("jobs"), SPREAD)


def assert_all_is_as_promised(found: Mapping[str, Any]) -> None:
    assert found["cases"]
    for case in found["cases"]:
        moment = (case["number"], found["changes"][case["number"] : case["number"] + 1])
        if found["what"] in DYING:
            assert case["first"]["code"] == -signal.SIGKILL, moment
        assert case["wrong"] == [], moment
        assert case["again"]["said"] == [0, ""], moment
        assert case["redone"] == [], moment
        assert case["ended"] == found["whole"], moment
        assert case["left_at_the_end"] == [], moment


@pytest.mark.parametrize(("what", "job"), SPREAD)
def test_a_job_that_died_or_could_not_write_is_finished_by_the_same_command(what: str, job: str, spread: Found) -> None:
    assert_all_is_as_promised(spread[what, job])


def test_an_export_that_died_makes_only_what_is_missing(spread: Found) -> None:
    cases = spread["die", "export"]["cases"]
    assert [case["again"]["kept"] for case in cases] == [case["whole_before"] for case in cases]
    assert len({case["whole_before"] for case in cases}) > 4  # the deaths were spread over the pictures


@pytest.mark.parametrize("job", ["network", "network-longer", "regression"])
def test_a_training_that_died_does_no_round_again_but_the_one_that_was_not_saved(job: str, spread: Found) -> None:
    cases = [case for case in spread["die", job]["cases"] if "rounds_taken_up" in case["again"]]  # the others were finished
    assert all(case["first"]["rounds"] - 1 <= case["again"]["rounds_taken_up"] <= case["first"]["rounds"] for case in cases)
    assert any(case["again"]["rounds_taken_up"] for case in cases)


@pytest.mark.parametrize("job", ["export", "network", "evaluation"])
def test_a_full_disk_is_said_with_what_could_not_be_written(job: str, spread: Found) -> None:
    for case in spread["full", job]["cases"]:
        code, message = case["first"]["said"]
        assert code == 1
        assert REASONS[0] in message.lower()
        assert "cannot be" in message


def test_a_limit_on_the_size_of_files_is_said(spread: Found) -> None:
    small, *_ = spread["limit", "export"]["cases"]
    code, message = small["first"]["said"]
    assert code == 1
    assert REASONS[1] in message.lower()


@pytest.mark.slow
@pytest.mark.parametrize("job", ["export", "export-overwriting", "export-repairing", "network", "network-longer", "regression"])
@pytest.mark.parametrize("what", ["die", "power-cut", "full"])
def test_at_no_change_anything_is_lost(what: str, job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tried(tmp_path / "jobs", {(what, job): [0, 1]})[what, job]
    assert len(found["cases"]) == len(found["changes"])
    assert_all_is_as_promised(found)
    tell_of(found, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["die", "power-cut", "full", "limit"])
def test_at_no_change_an_evaluation_is_half_written(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tried(tmp_path / "jobs", {(what, "evaluation"): [0, 1]})[what, "evaluation"]
    assert_all_is_as_promised(found)
    tell_of(found, capsys)


def tell_of(found: Mapping[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{found['what']}, {found['job']}: {len(found['cases'])} cases, as promised")
