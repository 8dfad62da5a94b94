"""Several processes train as one: the same losses, one writer, and a clear word where they cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import write_dataset, write_ramp_domains
from typed_commands import run_json

from fruitgan import cli, process_group
from fruitgan.errors import UsageError

pytestmark = pytest.mark.usefixtures("no_report", "no_detector_report")

LOSSES = Path(__file__).with_name("ranked_losses.py")
TRAIN = (
    *("train-gan", "--recipe", "cyclegan", "--generator", "resnet-6", "--generator-option", "base_channels=4"),
    *("--discriminator-option", "base_channels=4", "--image-size", "24", "--batch-size", "4", "--name", "run"),
)
COMMAND = (sys.executable, "-m", "fruitgan")
Forked = Callable[..., list[dict[str, Any]]]
Ended = list[tuple[int, str, str]]
Together = Callable[..., Ended]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_ramp_domains(tmp_path / "data")


@pytest.fixture
def together(forked: Forked, tmp_path: Path) -> Together:
    """Start the processes of one training, each with its own words, as a launcher would; they meet by a file.

    `order` is more of what held_commands.py takes, for each; the last one is held at a step until the others have ended.
    Gives exit code, stdout and stderr of each.
    """
    folder = tmp_path / "launch"
    folder.mkdir()
    launched = {"FRUITGAN_LAUNCH": str(folder), "LOCAL_WORLD_SIZE": "1"}

    def do(*words: Sequence[str | Path], hold_last_at: int = -1, environment: Mapping[str, str] = {}, **order: Any) -> Ended:
        orders = []
        for rank, own in enumerate(words):
            ranked = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(len(words))}
            more = {"folder": str(tmp_path), "environment": {**launched, **ranked, **environment}, **order}
            orders.append({"arguments": list(map(str, own)), **more})
        orders[-1]["hold_at"] = hold_last_at
        return [(found["code"], found["stdout"], found["stderr"]) for found in forked(*orders)]

    return do


def outcome(tmp_path: Path) -> int:
    return int((tmp_path / "launch" / "exit-code").read_text())


def run(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], env=os.environ | environment, cwd=tmp_path, text=True, capture_output=True)


def assert_as_alone(found: Mapping[str, Any]) -> None:
    for name, losses in found.items():
        alone = found[f"{name.split()[0]} 1"]
        for kind, tolerance in (("float64", 1e-9), ("fp32", 1e-4)):
            for step, (here, there) in enumerate(zip(losses[kind], alone[kind], strict=True), start=1):
                assert here == pytest.approx(there, rel=tolerance, abs=tolerance), f"{name}, {kind}, step {step}"


def first_losses(together: Together, folder: Path, *asked: Any, processes: int) -> Mapping[str, Any]:
    """By recipe and number of processes, `fast 2`, and by precision: a table for each step; as ranked_losses.py is asked."""
    words = [folder / "losses.json", folder / "data", *asked]
    for code, _, stderr in together(*[words] * processes, script=str(LOSSES)):
        assert code == 0, stderr
    found: Mapping[str, Any] = json.loads((folder / "losses.json").read_text())
    return found


def test_two_processes_lose_what_one_loses(together: Together, tmp_path: Path) -> None:
    # With a replay buffer; with dropout; with drawn places. All recipes, and for longer: the next test.
    found = first_losses(together, tmp_path, "cyclegan,seed-unet,cut", 2, 0, 1, 2, processes=2)
    assert_as_alone(found)
    assert {len(losses["float64"]) for losses in found.values()} == {2}


@pytest.mark.slow
def test_twenty_steps_of_one_two_and_four_processes_lose_the_same_in_every_recipe(together: Together, tmp_path: Path) -> None:
    assert_as_alone(first_losses(together, tmp_path, "", 20, 5, 1, 2, 4, processes=4))


def test_of_two_processes_one_writes_and_speaks(
    data: Path, forked: Forked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*TRAIN, "--data", str(data), "--steps", "3")
    (several,) = forked({"arguments": [*words, "--json", "--processes", "2"], "folder": str(tmp_path)})
    assert several["code"] == 0, several["stderr"]
    result = json.loads(several["stdout"])
    assert result["finished"]
    assert several["stderr"].count("step 0 of 3") == several["stderr"].count("saved ") == 1
    alone = run_json(capsys, *words, "--out", tmp_path / "alone")
    assert alone["final_losses"] == pytest.approx(result["final_losses"], rel=1e-4)
    folders = (tmp_path / "runs" / "train-gan" / "run", tmp_path / "alone" / "run")
    assert len({tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))) for folder in folders}) == 1
    assert json.loads((folders[0] / "environment.json").read_text())["processes"] == 2


def test_what_differs_between_the_processes_is_all_named_and_nothing_is_written(
    data: Path, together: Together, tmp_path: Path
) -> None:
    words = (*TRAIN, "--data", data, "--steps", "3")
    (_, _, first), (_, _, second) = together(words, (*words, "--seed", "7", "--cycle-weight", "5"))
    assert "seed is 0 in process 0 and 7 in process 1" in first
    assert "recipe.weights.cycle.start is 10.0 in process 0 and 5.0 in process 1" in first
    assert second == ""
    assert outcome(tmp_path) == 2
    assert not (tmp_path / "runs" / "train-gan" / "run").exists()


def test_what_one_process_finds_wrong_is_said_by_it_alone(data: Path, together: Together, tmp_path: Path) -> None:
    words = (*TRAIN, "--steps", "3", "--data")
    (_, _, first), (_, _, second) = together((*words, data), (*words, tmp_path / "gone"))
    assert first == ""
    assert "gone" in second
    assert outcome(tmp_path) == 3


def test_processes_that_do_not_divide_the_batch_are_refused_with_those_that_do() -> None:
    group = object.__new__(process_group.Group)
    group._all, group.restarts = 3, 0
    with pytest.raises(UsageError, match=r"3 processes .* a batch of 4 .*: 1, 2, 4$"):
        group.divide(4)


def test_a_detector_is_trained_by_two_processes_as_by_one(
    together: Together, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "dataset", 17, planted=20)
    words = ("train-detector", "--data", str(data), "--detector", "small-cnn", "--detector-option", "base_channels=4")
    words += ("--image-size", "16", "--epochs", "3", "-b", "5", "--gpu", "none")  # no divisor of the batches, and batch norm
    one = run_json(capsys, *words, "--out", tmp_path / "alone")
    (code, printed, stderr), _ = together(*[(*words, "--json")] * 2)
    assert code == outcome(tmp_path) == 0, stderr
    other = json.loads(printed)
    assert other["accuracy"] == one["accuracy"]
    logs = [(tmp_path / found["run"] / "log.jsonl").read_text().splitlines() for found in (one, other)]
    for here, there in zip(*(map(json.loads, lines) for lines in logs), strict=True):
        for name in ("train_loss", "train_accuracy", "val_loss"):
            assert here[name] == pytest.approx(there[name], rel=1e-3)


def of_launch(process: subprocess.Popen[str]) -> list[int]:
    """The processes that the command has started, the first one's first."""
    return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the processes of a launch are found in /proc")
def test_a_training_whose_processes_are_killed_five_times_ends_as_one_that_was_left_alone(data: Path, tmp_path: Path) -> None:
    words = (*TRAIN, "--data", str(data), "--steps", "60", "--save-every", "3", "--processes", "2", "--json")
    alone = json.loads(run(tmp_path, *words, "--out", "alone").stdout)
    victims, saved, random = 0, 0, np.random.default_rng(7)
    wait_for = random.integers(1, 4)
    command = [*COMMAND, *words]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as killed:
        assert killed.stderr is not None
        assert killed.stdout is not None
        for line in killed.stderr:
            saved += line.startswith("saved ")
            if saved >= wait_for and victims < 5:
                os.kill(of_launch(killed)[random.integers(2)], signal.SIGKILL)
                victims, saved, wait_for = victims + 1, 0, random.integers(1, 4)
        result = json.loads(killed.stdout.read())
    assert (killed.returncode, victims, result["finished"]) == (0, 5, True)
    assert result["weights_sha256"] == alone["weights_sha256"]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(data: Path, tmp_path: Path) -> None:
    lengths, constant = ("2", "4", "6"), ("--set", "learning_rate.end=1")
    found = {}
    for out, numbers in (("several", ("2", "1", "4")), ("alone", ("1", "1", "1"))):
        for steps, number in zip(lengths, numbers, strict=True):
            begun = ("--resume", "run") if steps != lengths[0] else (*TRAIN[1:], "--data", str(data), *constant)
            words = ("train-gan", *begun, "--steps", steps, "--out", out, "--processes", number, "--json")
            done = run(tmp_path, *words, FRUITGAN_GPU="" if int(number) > 1 else "none")
            assert done.returncode == 0, done.stderr
            found[out] = json.loads(done.stdout)
    assert found["several"]["final_losses"] == pytest.approx(found["alone"]["final_losses"], rel=1e-2)


@pytest.mark.slow
def test_a_process_that_hangs_is_given_up_with_a_word(data: Path, together: Together) -> None:
    words = (*TRAIN, "--data", data, "--steps", "5")
    (code, _, said), _ = together(words, words, environment={"FRUITGAN_RANK_SECONDS": "8"}, hold_last_at=2)
    assert code == 1
    assert "has not answered for 8 seconds" in said


@pytest.mark.slow
def test_started_anew_as_many_train_as_divide_the_batch(data: Path, together: Together, tmp_path: Path) -> None:
    words = (*TRAIN, "--data", data, "--steps", "3", "--json")
    found = together(words, words, words, environment={"TORCHELASTIC_RESTART_COUNT": "1"})
    assert [code for code, _, _ in found] == [0, 0, 0]
    assert json.loads(found[0][1])["finished"]
    assert json.loads((tmp_path / "runs" / "train-gan" / "run" / "environment.json").read_text())["processes"] == 2


@pytest.mark.parametrize(
    ("environment", "code", "named"),
    [
        ({"WORLD_SIZE": "2"}, 2, "RANK and MASTER_ADDR and MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost"}, 2, "MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "9"}, 4, "localhost:9"),
    ],
)
def test_a_process_of_several_without_the_others_says_what_is_missing(
    environment: Mapping[str, str], code: int, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process_group, "CONNECT_SECONDS", 0)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["train-gan", "--data", "demo"]) == code
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--processes", "2", "--gpu", "0"), "--gpu 0,1"),
        (("--processes", "2", "--device", "mps"), "--device mps"),
        (("--gpu", "0,"), "--gpu 0,"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    words: Sequence[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train-gan", "--data", "demo", *words]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.slow
def test_processes_that_go_back_go_back_together_and_one_says_it(data: Path, tmp_path: Path) -> None:
    words = ("--steps", "60", "--save-every", "5", "--on-nan", "rollback", "--cycle-weight", "1e38")
    found = run(tmp_path, *TRAIN, "--data", str(data), *words, "--processes", "2")
    assert found.returncode == 1
    assert found.stderr.count("on with another seed") == 3
    assert found.stderr.count("error: not finite") == 1
