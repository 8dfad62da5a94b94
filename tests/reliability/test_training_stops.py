"""Asked to stop, a training finishes its step, saves, and says how to go on; asked twice it stops at once. Real processes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from picture_files import write_noise_domains

from fruitgan.runs.run import LOCK, locked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")

Command = Callable[..., dict[str, Any]]
STEPS = 5
TINY = [
    *("--recipe", "fast", "--image-size", "32", "--batch-size", "1", "--precision", "fp32", "--gpu", "none", "--seed", "3"),
    *("--generator-option", "base_channels=4", "--generator-option", "blocks=1"),
    *("--discriminator", "patch-multiscale", "--discriminator-option", "base_channels=4", "--discriminator-option", "scales=1"),
    *("--save-every", "2", "--steps", str(STEPS)),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise_domains(tmp_path_factory.mktemp("data") / "dark2light", 2, (40, 36), lighter_b=80)


@pytest.fixture(scope="module")
def command(forked: Callable[..., list[dict[str, Any]]]) -> Command:
    """`fruitgan train-gan ARGUMENTS...` in a process of its own; what it is ordered besides stands in held_commands.py."""
    return lambda *arguments, **more: forked({"arguments": ["train-gan", *map(str, arguments)], **more})[0]


@pytest.fixture(scope="module")
def whole(command: Command, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run gave that nobody stopped."""
    return ended(command("--data", data, *TINY, "--name", "whole", "--out", tmp_path_factory.mktemp("whole"), "--json"))


def ended(found: dict[str, Any]) -> dict[str, Any]:
    assert found["code"] == 0, found["stderr"]
    result: dict[str, Any] = json.loads(found["stdout"])
    assert (result["finished"], result["step"]) == (True, STEPS)
    return {name: result[name] for name in ("step", "images", "final_losses", "weights_sha256")}


def resume_line(found: dict[str, Any]) -> list[str]:
    """The words after `fruitgan train-gan` of the line to paste, which is the last thing that was said."""
    words = shlex.split(found["stderr"].splitlines()[-1].partition("go on with: ")[2])
    assert words[:2] == ["fruitgan", "train-gan"], found["stderr"]
    return words[2:]


def saved_steps(run: Path) -> list[int]:
    return sorted(json.loads(file.read_text())["step"] for file in run.glob("checkpoints/*/state.json"))


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 0)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    name: str, code: int, command: Command, data: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    asked = [*TINY, "--name", "a run", "--out", tmp_path, "--json"]
    found = command("--data", data, *asked, hold_at=2, then=[["signal", name]])
    assert found["code"] == code
    lines = found["stderr"].splitlines()
    assert "finishing the step and saving; Ctrl-C again stops at once" in lines
    assert lines[-1].startswith("stopped, saved; go on with: fruitgan train-gan --resume ")
    result = json.loads(found["stdout"])
    assert (result["step"], result["finished"]) == (3, False)
    assert saved_steps(tmp_path / "a run") == [2, 3]
    assert not (tmp_path / "a run" / LOCK).exists()
    again = command(*resume_line(found), "--json")
    assert ended(again) == whole
    assert f"step 3 of {STEPS}" in again["stderr"]
    assert "no longer" not in again["stderr"]


@pytest.mark.parametrize(("first", "step", "kept"), [("SIGINT", 3, [2]), ("SIGTERM", 1, [])])
def test_a_second_ctrl_c_stops_at_once_and_leaves_the_last_checkpoint(
    first: str, step: int, kept: list[int], command: Command, data: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    asked = [*TINY, "--name", "run", "--out", tmp_path, "--json"]
    found = command("--data", data, *asked, hold_at=step, then=[["signal", first], ["signal", "SIGINT"]])
    assert found["code"] == 130
    assert found["stdout"] == ""
    what = "the checkpoint of step 2 stays" if kept else "before the first checkpoint"
    assert f"stopped at once; {what}; go on with: " in found["stderr"].splitlines()[-1]
    assert "Traceback" not in found["stderr"]
    assert saved_steps(tmp_path / "run") == kept
    again = command(*resume_line(found), "--json")
    assert ended(again) == whole
    assert f"step {2 if kept else 0} of {STEPS}" in again["stderr"]


def test_time_that_is_up_ends_the_command_well_and_says_how_to_go_on(command: Command, data: Path, tmp_path: Path) -> None:
    asked = [*TINY[:-1], "1000000", "--name", "run", "--out", tmp_path, "--json", "--max-time", "1s"]
    found = command("--data", data, *asked)
    assert found["code"] == 0
    result = json.loads(found["stdout"])
    assert not result["finished"]
    assert saved_steps(tmp_path / "run")[-1] == result["step"] > 0
    again = command(*resume_line(found), "--steps", str(result["step"] + 1), "--json")
    assert f"step {result['step']} of {result['step'] + 1}" in again["stderr"]
    assert json.loads(again["stdout"])["finished"]


def test_a_dead_process_leaves_its_lock_behind_and_nobody_minds(
    command: Command, data: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    found = command("--data", data, *TINY, "--name", "run", "--out", tmp_path, hold_at=3, then=[["signal", "SIGKILL"]])
    assert found["code"] == -9
    assert (tmp_path / "run" / LOCK).is_file()
    assert ended(command("--resume", "--out", tmp_path, "--gpu", "none", "--json")) == whole
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_run_that_another_process_has_is_left_alone(
    command: Command, data: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    command("--data", data, *TINY, "--name", "older", "--out", tmp_path, hold_at=2, then=[["signal", "SIGTERM"]])
    shutil.copytree(tmp_path / "older", tmp_path / "run")  # with newer times
    going_on = ["--out", tmp_path, "--gpu", "none", "--json"]
    with locked(tmp_path / "run"):
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        found = command("--resume", "run", *going_on)
        assert found["code"] == 1
        assert (
            found["stderr"]
            == f"error: {tmp_path / 'run'}: in use by process {os.getpid()}; wait for its end, or stop it, and try again\n"
        )
        other = command("--resume", *going_on)  # the newest that is free
        assert f"{tmp_path / 'run'} is newer, but in use by process {os.getpid()}" in other["stderr"]
        assert ended(other) == whole
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


# Folders that cannot be written to


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A folder of runs; what a test forbids in it is allowed again at the end."""
    yield tmp_path
    for folder in (tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


def assert_one_line(found: dict[str, Any], *words: str) -> None:
    assert found["code"] == 1
    error = found["stderr"].splitlines()[-1]
    assert error.startswith("error: ")
    for word in words:
        assert word in error.lower()
    assert "Traceback" not in found["stderr"]


def test_where_nothing_may_be_written_no_run_begins(command: Command, data: Path, out: Path) -> None:
    out.chmod(0o555)
    found = command("--data", data, *TINY, "--name", "run", "--out", out, unprivileged=True)
    assert_one_line(found, out.name, "permission denied")
    assert list(out.iterdir()) == []


def test_a_run_in_a_folder_made_read_only_is_not_touched_and_goes_on_later(
    command: Command, data: Path, out: Path, whole: dict[str, Any]
) -> None:
    command("--data", data, *TINY, "--name", "run", "--out", out, hold_at=2, then=[["signal", "SIGTERM"]])
    run = out / "run"
    kept = shutil.copytree(run, out / "copy")
    for folder in (run, run / "checkpoints", run / "samples"):
        folder.chmod(0o555)
    going_on = ["--resume", "run", "--out", out, "--gpu", "none", "--json"]
    assert_one_line(command(*going_on, unprivileged=True), "run.lock", "permission denied")
    assert {path.relative_to(run) for path in run.rglob("*")} == {path.relative_to(kept) for path in kept.rglob("*")}
    for folder in (run, run / "checkpoints", run / "samples"):
        folder.chmod(0o755)
    assert ended(command(*going_on)) == whole


@pytest.mark.parametrize("folder", ["", "checkpoints"])
def test_a_folder_that_becomes_read_only_mid_run_ends_it_in_one_line(
    folder: str, command: Command, data: Path, out: Path, whole: dict[str, Any]
) -> None:
    run = out / "run"
    asked = [*TINY, "--name", "run", "--out", out, "--sample-every", "2"]
    # By then the checkpoint of step 2 is on the disk: that of step 4 has waited for it.
    found = command("--data", data, *asked, hold_at=4, then=[["chmod", str(run / folder)]], unprivileged=True)
    assert_one_line(found, "run", "permission denied")
    (run / folder).chmod(0o755)
    assert saved_steps(run)[0] == 2
    assert ended(command("--resume", "run", "--out", out, "--gpu", "none", "--json")) == whole
    assert list(out.rglob(".fruitgan-*")) == []
