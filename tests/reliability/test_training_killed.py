"""A run that dies while it writes, or cannot write, loses nothing that it said was saved, and ends as if nothing had happened.

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
from picture_files import write_ramp_domains

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

Found = Mapping[tuple[str, str], Any]
# What is tried, in which scenario, and every how many changes of the run.
SPREAD = {
    ("die", "begun"): [2, 30],
    ("die", "extended"): [5, 50],
    ("power-cut", "begun"): [20, 45],
    ("power-cut", "extended"): [60, 45],
    ("power-cut-unsynced", "begun"): [140, 100],
    ("full", "begun"): [6, 60],
    ("full", "extended"): [79, 100],
    ("limit", "begun"): [0, 1],
    ("kill", "long"): [0, 1],
}
FULL = "no space left on device"
TOO_LARGE = "file too large"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ramp_domains(tmp_path_factory.mktemp("data") / "dark2light")


def tried(data: Path, out: Path, wanted: Mapping[tuple[str, str], list[int]]) -> Found:
    work = [{"what": what, "scenario": scenario, "share": share} for (what, scenario), share in wanted.items()]
    order = {"out": str(out), "data": str(data), "work": work}
    answers = answer(Path(__file__).with_name("forked_runs.py"), order)
    return {(found["what"], found["scenario"]): found for found in answers}


@pytest.fixture(scope="module")
def spread(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    return tried(data, tmp_path_factory.mktemp("runs"), SPREAD)


def assert_nothing_was_lost(found: Mapping[str, Any]) -> None:
    assert found["cases"]
    for case in found["cases"]:
        moment = (case["number"], found["changes"][case["number"] : case["number"] + 1])
        assert case["again"]["code"] == 0, moment
        assert case["again"]["said"] == [0, ""], moment
        assert case["ended"] == found["whole"], moment
        assert case["left_at_the_end"] == [], moment
        assert kept(case), moment


def kept(case: Mapping[str, Any]) -> bool:
    """Whether the run went on from no earlier than it had said was saved."""
    return "started" not in case["again"] or case["again"]["started"] >= case["first"]["saved"]


def assert_died(found: Mapping[str, Any]) -> None:
    assert [case["first"]["code"] for case in found["cases"]] == [-signal.SIGKILL] * len(found["cases"])


def assert_failed_in_one_line(found: Mapping[str, Any], reason: str) -> int:
    """Where a write was left to fail at; of how many cases that was so."""
    failed = 0
    for case in found["cases"]:
        code, line = case["first"]["said"]
        assert case["first"]["code"] == 0, case  # the process itself is well
        assert case["left"] == [], case
        if code:
            failed += 1
            assert code == 1
            assert "\n" not in line
            assert reason in line.lower(), line
    return failed


@pytest.mark.parametrize("what", ["die", "power-cut"])
@pytest.mark.parametrize("scenario", ["begun", "extended"])
def test_dead_at_any_change_a_run_goes_on_and_ends_with_the_same_tensors(what: str, scenario: str, spread: Found) -> None:
    assert_died(spread[what, scenario])
    assert_nothing_was_lost(spread[what, scenario])


@pytest.mark.parametrize("scenario", ["begun", "extended"])
def test_on_a_full_disk_a_run_fails_in_one_line_and_goes_on_when_there_is_room(scenario: str, spread: Found) -> None:
    found = spread["full", scenario]
    assert assert_failed_in_one_line(found, FULL) > len(found["cases"]) / 2
    assert_nothing_was_lost(found)


def test_at_the_limit_of_a_files_size_a_run_fails_in_one_line_and_goes_on_without_it(spread: Found) -> None:
    found = spread["limit", "begun"]
    assert assert_failed_in_one_line(found, TOO_LARGE) == len(found["cases"]) == 3
    assert_nothing_was_lost(found)


def test_twenty_kills_at_steps_counted_by_lines_of_the_log_change_nothing(spread: Found) -> None:
    found = spread["kill", "long"]
    (case,) = found["cases"]
    assert [kill["code"] for kill in case["kills"]] == [-signal.SIGKILL] * 20
    sittings = [*case["kills"], case["again"]]
    starts = [sitting["started"] for sitting in sittings]
    assert all(later >= before["saved"] for before, later in zip(sittings, starts[1:], strict=False))
    assert starts[-1] > 30  # and so the kills fell all over it
    assert case["again"]["said"] == [0, ""]
    assert case["ended"] == found["whole"]
    assert [line["step"] for line in case["ended"]["log"]] == list(range(1, 101))
    assert case["left_at_the_end"] == []


def test_the_changes_counted_are_all_that_saving_does(spread: Found) -> None:
    for scenario in ("begun", "extended"):
        changes = spread["die", scenario]["changes"]
        assert len(changes) > 80
        known = {
            "open",
            "write",
            "fsync",
            "tensors",
            "os.mkdir",
            "os.rename",
            "os.remove",
            "os.rmdir",
            "os.truncate",
            "os.utime",
        }
        assert set(changes) == known
        assert changes.count("tensors") == {"begun": 3, "extended": 2}[scenario]  # one a checkpoint


def test_a_power_cut_would_show_that_nothing_was_brought_to_the_disk(spread: Found) -> None:
    found = spread["power-cut-unsynced", "begun"]
    assert not any(kept(case) for case in found["cases"])


@pytest.mark.slow
@pytest.mark.parametrize("what", ["die", "power-cut", "full"])
@pytest.mark.parametrize("scenario", ["begun", "extended"])
def test_every_single_change(what: str, scenario: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tried(data, tmp_path, {(what, scenario): [0, 1]})[what, scenario]
    assert len(found["cases"]) == len(found["changes"])
    if what == "full":
        assert_failed_in_one_line(found, FULL)
    else:
        assert_died(found)
    assert_nothing_was_lost(found)
    with capsys.disabled():
        print(f"\n{what}, {scenario}: {len(found['cases'])} cases, nothing lost")
