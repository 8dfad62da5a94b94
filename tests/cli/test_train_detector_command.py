"""`fruitgan train-detector` as it is typed."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import write_dataset
from safetensors.numpy import load_file
from typed_commands import Cli, typed

from fruitgan.cli import main
from fruitgan.runs.run import locked
from fruitgan.train_detector import job
from fruitgan.train_detector.detector import LabelledImageDataset, load_detector


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command in a folder with a small dataset; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITGAN_GPU", "none")
    write_dataset(Path("dataset"), 25, planted=60)
    return typed("train-detector", capsys)


FAST = ("--data", "dataset", "--detector", "spectrum", "--detector-option", "bins=4", "--image-size", "16")


def test_json_is_one_object_with_the_numbers_and_the_run_can_be_shown(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = cli(*FAST, "--json", "-q")
    assert code == 0
    assert all(line.startswith("warning: ") for line in err.splitlines())
    result = json.loads(out)
    assert result["accuracy"] >= 0.9
    assert result["interval"][0] <= result["accuracy"] <= result["interval"][1]
    assert sum(result["confusion"].values()) == result["n"] == 10
    assert json.loads(Path(result["run"], "metrics.json").read_text()) == result
    assert Path(result["file"]).is_file()
    assert main(["show", Path(result["run"]).name, "--json"]) == 0  # the run by its name alone
    shown = json.loads(capsys.readouterr().out)
    assert (shown["finished"], shown["card"]["detector"]["name"], shown["card"]["name"]) == (
        True,
        "spectrum",
        "dataset-spectrum",
    )
    assert main(["show", result["file"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["n"] == 10


def test_a_person_sees_a_table_on_stdout_and_the_rest_on_stderr(cli: Cli) -> None:
    code, out, err = cli(*FAST)
    assert code == 0
    assert out.startswith("spectrum, grouped protocol\n")
    for word in ("accuracy", "95% interval", "AUC", "generated", "real", "runs/train-detector/dataset-spectrum"):
        assert word in out
    assert "warning: dataset/predicted and dataset/origins: no manifest.csv" in err
    assert "grouped protocol: no source image" in err
    assert "trial 1: training loss" in err


def test_the_seed_protocol_prints_why_it_leaks(cli: Cli) -> None:
    code, out, err = cli(*FAST, "--protocol", "seed")
    assert code == 0
    assert "its accuracy leaks and reads too high" in err
    assert "are also the validation images" in err
    assert "reads too high: the test images chose the weights" in out


def test_every_option_does_something(cli: Cli) -> None:
    options = ("--detector", "small-cnn", "--detector-option", "base_channels=4", "--epochs", "2", "--patience", "1", "-b", "8")
    more = ("--augment", "rotate-shift-mirror", "--image-size", "16", "--name", "mine", "--out", "o", "--seed", "5")
    code, out, _ = cli("--data", "dataset", *options, *more, "--learning-rate", "0.002", "--gpu", "none", "--json")
    assert code == 0
    assert json.loads(out)["rounds"] <= 2
    config = json.loads(Path("o/mine/config.json").read_text())
    assert config["detector"]["options"] == {"image_size_px": 16, "base_channels": 4}
    assert config["settings"]["augment"] == "rotate-shift-mirror"
    found = [config["settings"][name] for name in ("seed", "batch_size", "patience", "learning_rate")]
    assert found == [5, 8, 1, 0.002]
    assert "Adam, learning rate 0.002" in Path("o/mine/report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "Give --data DIR"),
        (("--data", "nowhere"), 3, "nowhere: no such folder"),
        (("--data", "dataset/origins"), 3, "has no folder predicted"),
        (("--data", "dataset", "--detector", "cnn"), 2, "no detector named 'cnn'"),
        (("--resume", "nowhere"), 2, "no run 'nowhere'"),
        (("--data", "dataset", "--detector-option", "bins"), 2, "expected KEY=VALUE"),
        (("--data", "dataset", "--protocol", "leaky"), 2, "--protocol"),
        (("--data", "dataset", "--out", ".", "--name", "dataset"), 2, "choose another --name"),
        (("--data", "dataset", "--gpu", "7"), 4, "GPU 7"),
        (("--data", "dataset", "--gpu", "none", "--device", "cpu"), 2, "--device"),
        (("--data", "dataset", "--image-size", "17"), 2, "--image-size 16 would do"),
        ((*FAST, "--augment", "mirror"), 2, "fitted to the images as they are"),
    ],
)
def test_a_mistake_is_one_line_with_its_exit_code(cli: Cli, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, out, err = cli(*arguments)
    assert (found, out) == (code, "")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 0)])
def test_a_signal_saves_judges_the_best_so_far_and_says_how_to_go_on(name: str, code: int, cli: Cli, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fruitgan", "train-detector", "--data", "dataset", "--image-size", "16"]
    command += ["--epochs", "100000", "--patience", "100000", "--name", "long", "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any(line.startswith("epoch 1:") for line in process.stderr)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == code
    result = json.loads(out)
    assert result["finished"] is False
    names = {path.name for path in (tmp_path / result["run"]).iterdir()}
    assert {"detector.safetensors", "report.html", "checkpoints"} <= names
    assert "metrics.json" not in names
    line = err.splitlines()[-1].partition("go on with: ")[2]
    assert line == "fruitgan train-detector --resume long --gpu none"
    again, out, err = cli(*shlex.split(line)[2:], "--epochs", str(result["rounds"]), "--json")
    assert again == 0
    assert json.loads(out)["rounds"] == result["rounds"]
    assert f"resumed after epoch {result['rounds']}" in err


def test_a_finished_run_gives_its_result_again(cli: Cli) -> None:
    _, first, _ = cli(*FAST, "--name", "one", "--json")
    assert cli("--resume", "one", "--json")[:2] == (0, first)
    code, _, err = cli("--resume")
    assert code == 2
    assert "no unfinished run under runs/train-detector" in err


NETWORK = ("--data", "dataset", "--detector-option", "base_channels=4", "--image-size", "16", "-b", "8", "--epochs", "2")


def stopped_in_batch(number: int, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The command, with Ctrl-C pressed while it fetches a batch."""
    batch, calls = LabelledImageDataset.batch, []

    def asked(self: LabelledImageDataset, *more: Any) -> Any:
        calls.append(more)
        if len(calls) == number:
            signal.raise_signal(signal.SIGINT)
        return batch(self, *more)

    with monkeypatch.context() as patch:
        patch.setattr(LabelledImageDataset, "batch", asked)
        return cli(*NETWORK, "--name", "stopped", "--json")


def assert_both_ended_the_same() -> None:
    logs = [Path("runs/train-detector", name, "log.jsonl").read_text().splitlines() for name in ("whole", "stopped")]
    losses = [[json.loads(line)["train_loss"] for line in lines] for lines in logs]
    assert losses[0] == losses[1]
    weights = [load_file(Path("runs/train-detector", name, "detector.safetensors")) for name in ("whole", "stopped")]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_stop_in_the_first_epoch_starts_again_and_comes_to_the_same_end(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(*NETWORK, "--name", "whole")[0] == 0
    code, out, err = stopped_in_batch(2, cli, monkeypatch)
    run = "runs/train-detector/stopped"
    assert (code, json.loads(out)) == (130, {"run": run, "rounds": 0, "finished": False})
    assert err.splitlines()[-1].startswith("stopped before the end of the first epoch; start it again with: fruitgan train-det")
    assert not Path(run, "checkpoints").exists()
    for words in (("--seed", "1"), ("--detector", "spectrum"), ("--image-size", "8"), ("-b", "4"), ("--learning-rate", "1")):
        code, _, err = cli("--resume", *words)
        assert code == 2
        assert "cannot change in a resumed run" in err
    assert cli("--resume", "--image-size", "16")[0] == 0
    assert_both_ended_the_same()


def test_a_stop_within_an_epoch_goes_back_to_the_end_of_the_last_and_comes_to_the_same_end(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli(*NETWORK, "--name", "whole")[0] == 0
    steps, val = 4, 1  # batches in an epoch: 32 training images, 8 of them at a time, and 8 of the validation set
    code, out, err = stopped_in_batch(steps + val + 2, cli, monkeypatch)
    result = json.loads(out)
    assert (code, result["rounds"], result["finished"]) == (130, 1, False)
    assert "stopped, saved, the best weights so far tested; go on with: fruitgan train-detector --resume stopped" in err
    assert [path.name for path in Path(result["run"], "checkpoints").iterdir()] == [f"step-{steps:08d}"]
    assert cli("--resume")[0] == 0
    assert_both_ended_the_same()


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_of_an_earlier_version_is_refused_in_one_line_and_its_detector_works(cli: Cli, is_finished: bool) -> None:
    assert cli(*FAST, "--name", "old")[0] == 0
    run = Path("runs/train-detector/old")
    (run / "config.json").write_text((run / "config.json").read_text().replace('"format": 2', '"format": 1'))
    if not is_finished:
        (run / "metrics.json").unlink()
    code, out, err = cli("--resume", "old")
    assert (code, out) == (3, "")
    assert "a run of an earlier fruitgan (format 1), which this one cannot resume; its detector.safetensors works" in err
    assert load_detector(run).card.name == "old"


def test_a_finished_run_is_extended_by_more_epochs(cli: Cli) -> None:
    assert cli(*NETWORK, "--name", "whole")[0] == 0
    assert cli(*NETWORK, "--epochs", "1", "--name", "short")[0] == 0
    code, out, err = cli("--resume", "short", "--data", "dataset", "--epochs", "2", "--json")
    assert (code, json.loads(out)["rounds"]) == (0, 2)
    assert "goes on with --epochs 2 instead of 1" in err
    weights = [load_file(Path("runs/train-detector", name, "detector.safetensors")) for name in ("whole", "short")]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_run_in_use_and_other_images_are_refused(cli: Cli) -> None:
    assert cli(*NETWORK, "--name", "one")[0] == 0
    Path("runs/train-detector/one/metrics.json").unlink()
    with locked(Path("runs/train-detector/one")):
        code, _, err = cli("--resume", "one")
    assert (code, "in use by process" in err) == (1, True)
    Path("dataset/origins/000000.png").unlink()
    code, _, err = cli("--resume", "one", "--data", "dataset")
    assert (code, "are not those of the run" in err) == (3, True)


def test_a_dataset_that_disappears_while_it_is_read_is_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object) -> dict[object, object]:
        Path("dataset/origins").rename("elsewhere")
        return {True: Counter(), False: Counter()}

    monkeypatch.setattr(job, "sizes_of", lose)
    code, _, err = cli(*NETWORK)
    assert (code, "dataset/origins/000000.png: " in err) == (3, True)
    assert not Path("runs").exists()
