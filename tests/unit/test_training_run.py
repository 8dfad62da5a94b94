"""The folder of a run: whole with its config, a log without gaps or duplicates, and found again by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fruitgan.errors import DataError, UsageError
from fruitgan.runs.resume import find_run
from fruitgan.runs.run import CONFIG, LOG, RESULT, Run


def make(out: Path, name: str, *, age_seconds: int = 0) -> Run:
    run = Run.create(out / name, {"seed": 1}, {"torch": "2"})
    for path in (run.path / CONFIG, run.path):
        os.utime(path, (1_700_000_000 - age_seconds,) * 2)
    return run


def line(step: int, loss: float = 1 / 3, **more: Any) -> dict[str, Any]:
    return {"step": step, "seconds": step / 2, "losses": {"cycle_a": loss}, "learning_rate": 2e-4, **more}


def test_a_run_appears_whole_with_its_config(tmp_path: Path) -> None:
    run = make(tmp_path / "runs", "first")
    assert run.config == {"seed": 1}
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "environment.json"]
    assert run.result is None
    assert run.entries() == []


def test_an_existing_run_is_not_touched(tmp_path: Path) -> None:
    make(tmp_path, "first")
    with pytest.raises(UsageError, match=r"first exists; .*--resume"):
        Run.create(tmp_path / "first", {"seed": 2}, {})
    assert Run(tmp_path / "first").config == {"seed": 1}


def test_a_result_is_there_until_the_run_is_reopened(tmp_path: Path) -> None:
    run = make(tmp_path, "first")
    run.write(RESULT, {"step": 5, "path": tmp_path})
    assert run.result == {"step": 5, "path": str(tmp_path)}
    run.reopen()
    run.reopen()
    assert run.result is None


def test_the_log_is_taken_back_to_a_step_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    run = make(tmp_path, "first")
    for step in (5, 10, 15, 20):
        run.log(line(step))
    with (run.path / LOG).open("a") as file:
        file.write('{"step": 25, "los')
    assert [entry["step"] for entry in run.entries()] == [5, 10, 15, 20]
    assert [entry["step"] for entry in run.forget_after(15)] == [5, 10, 15]
    run.log(line(20, 0.1))
    lines = [json.loads(text) for text in (run.path / LOG).read_text().splitlines()]
    assert [(entry["step"], entry["losses"]["cycle_a"]) for entry in lines] == [(5, 1 / 3), (10, 1 / 3), (15, 1 / 3), (20, 0.1)]


def test_what_is_no_line_of_a_log_is_left_out_and_what_a_line_says_beside_stays(tmp_path: Path) -> None:
    run = make(tmp_path, "first")
    rollback = {"from_step": 3, "to_step": 0, "terms": ["x"]}
    good = line(5, kid={"a2b": 0.1}, outputs={"a2b": {"changed": 0.2}}, rollbacks=[rollback])
    changes: list[dict[str, Any]] = [
        *({"step": "5"}, {"step": True}, {"losses": [1]}, {"losses": {"x": "y"}}, {"losses": {"x": 1e400}}, {"seconds": None}),
        *({"outputs": {"a2b": 1}}, {"warnings": ["x"]}, {"rollbacks": [{}]}, {"rollbacks": 1}, {"not_finite": "x"}),
    ]
    bad = [[], 3, "text", None, {}, {"step": 5}, *({**good, **change} for change in changes)]
    (run.path / LOG).write_text("".join(json.dumps(entry) + "\n" for entry in [good, *bad, good]))
    assert run.entries() == [good, good]
    (run.path / LOG).unlink()
    os.mkfifo(run.path / LOG)
    assert run.entries() == []


def test_a_run_is_found_by_name_by_folder_and_as_the_newest_unfinished(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    old, middle, new = make(out, "old", age_seconds=90), make(out, "middle", age_seconds=60), make(out, "new", age_seconds=30)
    assert find_run(out, "old").path == old.path
    assert find_run(out, str(middle.path)).path == middle.path
    assert find_run(out, "newest").path == new.path
    new.write(RESULT, {})
    assert find_run(out, "newest").path == middle.path
    old.log({"step": 1})  # what was worked on last counts, not what was begun last
    assert find_run(out, "newest").path == old.path


def test_an_unknown_run_is_refused_with_what_is_near(tmp_path: Path) -> None:
    make(tmp_path, "oranges-fast").write(RESULT, {})
    with pytest.raises(UsageError, match="did you mean oranges-fast"):
        find_run(tmp_path, "orange-fast")
    with pytest.raises(UsageError, match="no unfinished run"):
        find_run(tmp_path, "newest")
    with pytest.raises(UsageError, match="none"):
        find_run(tmp_path / "nowhere", "first")


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    run = make(tmp_path, "first")
    (run.path / CONFIG).write_text(text)
    with pytest.raises(DataError, match=r"config\.json"):
        _ = run.config
    (run.path / RESULT).write_text(text)
    with pytest.raises(DataError, match=r"result\.json"):
        _ = run.result
