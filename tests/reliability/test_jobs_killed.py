"""Jobs that die while they write, or cannot write, are finished by the same command, and end as if nothing had happened.

Every change to the file system is a moment to die at: by SIGKILL, or by a power cut that takes what was not yet on the disk.
The default suite tries a spread of them, `pytest -m slow` all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

Found = Mapping[tuple[str, str], Any]
# What is tried with which job, and every how many of its changes.
SPREAD = {
    ("die", "export"): [3, 16],
    ("die", "export-overwriting"): [17, 100],
    ("die", "export-repairing"): [14, 40],
    ("die", "network"): [20, 90],
    ("die", "network-longer"): [40, 80],
    ("die", "regression"): [50, 90],
    ("die", "evaluation"): [5, 40],
    ("power-cut", "export"): [30, 80],
    ("power-cut", "network"): [70, 140],
    ("full", "export"): [8, 60],
    ("full", "network"): [30, 240],
    ("full", "evaluation"): [2, 60],
    ("limit", "export"): [0, 1],
    ("die", "translation"): [0, 9],
    ("die", "translation-of-many"): [5, 28],
    ("power-cut", "translation"): [1, 20],
    ("full", "translation"): [0, 20],
    ("limit", "translation"): [0, 1],
    ("die", "gan"): [2, 60],
    ("die", "gan-longer"): [5, 100],
    ("power-cut", "gan"): [20, 90],
    ("power-cut", "gan-longer"): [60, 90],
    ("power-cut-unsynced", "gan"): [140, 100],
    ("full", "gan"): [6, 120],
    ("full", "gan-longer"): [79, 200],
    ("limit", "gan"): [0, 1],
}
DYING = ("die", "power-cut")
REASONS = ("no space left on device", "file too large")


def tried(out: Path, wanted: Mapping[tuple[str, str], list[int]]) -> Found:
    work = [{"what": what, "job": job, "share": share} for (what, job), share in wanted.items()]
    process = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("forked_jobs.py"))],
        input=json.dumps({"out": str(out), "work": work}),
        # With what tests share, and without a GPU, for which torch would start threads: these survive no fork.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return {(found["what"], found["job"]): found for found in json.loads(process.stdout)}


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
        assert goes_on_from_what_was_saved(case), moment
        if found["what"] in ("full", "limit"):
            assert case["left"] == [], moment
            assert (case["first"]["code"], case["first"]["said"][1].count("\n")) == (0, 0), moment


def goes_on_from_what_was_saved(case: Mapping[str, Any]) -> bool:
    """Whether a training went on from no earlier step than it had said was saved."""
    return "started" not in case["again"] or case["again"]["started"] >= case["first"]["saved"]


@pytest.mark.parametrize(("what", "job"), [key for key in SPREAD if key[0] != "power-cut-unsynced"])
def test_a_job_that_died_or_could_not_write_is_finished_by_the_same_command(what: str, job: str, spread: Found) -> None:
    assert_all_is_as_promised(spread[what, job])


@pytest.mark.parametrize("job", ["export", "translation", "translation-of-many"])
def test_pictures_that_were_whole_are_not_made_again(job: str, spread: Found) -> None:
    cases = spread["die", job]["cases"]
    assert [case["again"]["kept"] for case in cases] == [case["whole_before"] for case in cases]
    assert len({case["whole_before"] for case in cases}) > 3  # the deaths were spread over the pictures


@pytest.mark.parametrize("job", ["network", "network-longer", "regression"])
def test_a_training_that_died_does_no_round_again_but_the_one_that_was_not_saved(job: str, spread: Found) -> None:
    cases = [case for case in spread["die", job]["cases"] if "rounds_taken_up" in case["again"]]  # the others were finished
    assert all(case["first"]["rounds"] - 1 <= case["again"]["rounds_taken_up"] <= case["first"]["rounds"] for case in cases)
    assert any(case["again"]["rounds_taken_up"] for case in cases)


@pytest.mark.parametrize("job", ["export", "translation", "network", "evaluation", "gan", "gan-longer"])
def test_a_full_disk_is_said_with_what_could_not_be_written(job: str, spread: Found) -> None:
    said = [case["first"]["said"] for case in spread["full", job]["cases"] if case["first"]["said"][0]]
    for code, message in said:  # after its last write a job does not notice
        assert code == 1
        assert REASONS[0] in message.lower()
        assert "cannot be" in message
    assert len(said) > len(spread["full", job]["cases"]) / 2


@pytest.mark.parametrize("job", ["export", "translation", "gan"])
def test_a_limit_on_the_size_of_files_is_said(job: str, spread: Found) -> None:
    small, _ = spread["limit", job]["cases"]
    code, message = small["first"]["said"]
    assert code == 1
    assert REASONS[1] in message.lower()


def test_the_changes_counted_are_all_that_saving_does(spread: Found) -> None:
    moves = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.utime"}
    for job, checkpoints in (("gan", 3), ("gan-longer", 2)):
        changes = spread["die", job]["changes"]
        assert set(changes) == {"open", "write", "fsync", "tensors"} | moves
        assert changes.count("tensors") == checkpoints
        assert len(changes) > 80


def test_a_power_cut_would_show_that_nothing_was_brought_to_the_disk(spread: Found) -> None:
    assert not any(goes_on_from_what_was_saved(case) for case in spread["power-cut-unsynced", "gan"]["cases"])


@pytest.mark.slow
@pytest.mark.parametrize("job", sorted({job for _, job in SPREAD}))
@pytest.mark.parametrize("what", ["die", "power-cut", "full"])
def test_at_no_change_anything_is_lost(what: str, job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tried(tmp_path / "jobs", {(what, job): [0, 1]})[what, job]
    assert len(found["cases"]) == len(found["changes"])
    assert_all_is_as_promised(found)
    with capsys.disabled():
        print(f"\n{found['what']}, {found['job']}: {len(found['cases'])} cases, as promised")
