"""`fruitgan train-detector` as it is typed."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import write_dataset
from safetensors.numpy import load_file
from typed_commands import Cli, typed

from fruitgan.cli import main
from fruitgan.runs.run import locked
from fruitgan.train_detector import job, page
from fruitgan.train_detector.detector import LabelledImageDataset, load_detector

RUNS = Path("runs/train-detector")
SMALL = ("--data", "dataset", "--image-size", "16")
FAST = (*SMALL, "--detector", "spectrum", "--detector-option", "bins=4")
NETWORK = (*SMALL, "--detector-option", "base_channels=4", "-b", "8", "--epochs", "2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, no_detector_report: None) -> Path:
    """A folder with a small dataset and the run `whole`, which nothing stopped."""
    place = tmp_path_factory.mktemp("whole")
    write_dataset(place / "dataset", 25, planted=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train-detector", *NETWORK, "--name", "whole", "--gpu", "none", "-q"]) == 0
    return place


@pytest.fixture
def cli(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command in a copy of that folder; gives exit code, stdout and stderr."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRUITGAN_GPU", "none")
    capsys.readouterr()
    return typed("train-detector", capsys)


def test_json_is_one_object_that_a_finished_run_gives_again_and_the_run_can_be_shown(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = cli(*FAST, "--json", "-q")
    assert code == 0
    assert all(line.startswith("warning: ") for line in err.splitlines())
    result = json.loads(out)
    assert result["accuracy"] >= 0.9
    assert result["interval"][0] <= result["accuracy"] <= result["interval"][1]
    assert sum(result["confusion"].values()) == result["n"] == 10
    assert json.loads(Path(result["run"], "metrics.json").read_text()) == result
    assert cli("--resume", "dataset-spectrum", "--json")[:2] == (0, out)
    code, _, err = cli("--resume")
    assert (code, "no unfinished run under runs/train-detector" in err) == (2, True)
    assert main(["show", "dataset-spectrum", "--json"]) == 0  # the run by its name alone
    shown = json.loads(capsys.readouterr().out)
    assert (shown["finished"], shown["card"]["detector"]["name"]) == (True, "spectrum")
    assert main(["show", result["file"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["n"] == 10


def test_a_person_sees_a_table_on_stdout_and_why_the_seed_protocol_leaks(cli: Cli) -> None:
    code, out, err = cli(*FAST, "--protocol", "seed", "--epochs", "3", "-b", "4")
    assert code == 0
    assert "warning: --epochs, --batch-size: without effect, since the detector spectrum is a logistic regression" in err
    assert out.startswith("spectrum, seed protocol\n")
    for word in ("accuracy", "95% interval", "AUC", "generated", "real", "runs/train-detector/dataset-spectrum"):
        assert word in out
    assert "reads too high: the test images chose the weights" in out
    for words in ("no manifest.csv", "trial 1: training loss", "its accuracy leaks", "are also the validation images"):
        assert words in err
    result = json.loads((RUNS / "dataset-spectrum/metrics.json").read_text())
    assert (result["train_images"], result["val_images"], result["n"]) == (40, 10, 10)
    best = (RUNS / "dataset-spectrum/log.jsonl").read_text().splitlines()[result["best_round"] - 1]
    assert json.loads(best)["val_accuracy"] == pytest.approx(result["accuracy"])
    assert load_detector(RUNS / "dataset-spectrum").card.protocol == "seed"


REPORT = page.detector_report


def test_every_option_does_something(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "detector_report", REPORT)
    options = ("--detector", "small-cnn", "--patience", "1", "--augment", "rotate-shift-mirror", "--name", "mine", "--out", "o")
    code, out, _ = cli(*NETWORK, *options, "--seed", "5", "--learning-rate", "0.002", "--json")
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
        (("--resume", "nowhere"), 2, "no run 'nowhere'"),
        ((*SMALL, "--detector", "cnn"), 2, "no detector named 'cnn'"),
        ((*SMALL, "--detector-option", "image_size_px=16"), 2, "say the same thing"),
        ((*SMALL, "--protocol", "leaky"), 2, "--protocol"),
        ((*SMALL, "--out", ".", "--name", "dataset"), 2, "choose another --name"),
        ((*SMALL, "--gpu", "7"), 4, "GPU 7"),
        (("--data", "dataset", "--image-size", "17"), 2, "--image-size 16 would do"),
        ((*SMALL, "--augment", "mirrors"), 2, "did you mean mirror"),
        ((*SMALL, "--augment", "jitter-mirror"), 2, "use mirror or rotate-shift-mirror"),
        ((*SMALL, "--learning-rate", "0"), 2, "--learning-rate 0.0: a number above 0"),
        ((*FAST, "--augment", "mirror"), 2, "fitted to the images as they are"),
        ((*FAST, "--learning-rate", "0.1"), 2, "is a logistic regression, which has none"),
    ],
)
def test_a_mistake_is_one_line_with_its_exit_code(cli: Cli, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, out, err = cli(*arguments)
    assert (found, out) == (code, "")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]


def stopped_in_batch(number: int, sign: signal.Signals, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The command, given a signal while it fetches a batch."""
    batch, calls = LabelledImageDataset.batch, []

    def asked(self: LabelledImageDataset, *more: Any) -> Any:
        calls.append(more)
        if len(calls) == number:
            signal.raise_signal(sign)
        return batch(self, *more)

    with monkeypatch.context() as patch:
        patch.setattr(LabelledImageDataset, "batch", asked)
        return cli(*NETWORK, "--name", "stopped", "--json")


def assert_ended_as_the_whole_run(name: str) -> None:
    logs = [(RUNS / one / "log.jsonl").read_text().splitlines() for one in ("whole", name)]
    losses = [[json.loads(line)["train_loss"] for line in lines] for lines in logs]
    assert losses[0] == losses[1]
    weights = [load_file(RUNS / one / "detector.safetensors") for one in ("whole", name)]
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_stop_in_the_first_epoch_starts_again_and_comes_to_the_same_end(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = stopped_in_batch(2, signal.SIGINT, cli, monkeypatch)
    assert (code, json.loads(out)) == (130, {"run": str(RUNS / "stopped"), "rounds": 0, "finished": False})
    assert err.splitlines()[-1].startswith("stopped before the end of the first epoch; start it again with: fruitgan train-det")
    assert not (RUNS / "stopped/checkpoints").exists()
    for words in (("--seed", "1"), ("--detector", "spectrum"), ("--image-size", "8"), ("-b", "4"), ("--learning-rate", "1")):
        code, _, err = cli("--resume", *words)
        assert (code, "cannot change in a resumed run" in err) == (2, True)
    assert cli("--resume", "--image-size", "16")[0] == 0
    assert_ended_as_the_whole_run("stopped")


@pytest.mark.parametrize(("place", "sign", "code"), [(2, signal.SIGUSR1, 0), (0, signal.SIGTERM, 143)])
def test_a_stop_within_an_epoch_goes_back_to_the_end_of_the_last_and_comes_to_the_same_end(
    place: int, sign: signal.Signals, code: int, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, val = 4, 1  # batches in an epoch: 32 training images, 8 of them at a time, and 8 of the validation set
    found, out, err = stopped_in_batch(steps + val + place, sign, cli, monkeypatch)
    result, run = json.loads(out), RUNS / "stopped"
    assert (found, result["rounds"], result["finished"]) == (code, 1, False)
    assert err.endswith(
        "stopped, saved, the best weights so far tested; go on with: fruitgan train-detector --resume stopped --gpu none\n"
    )
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{steps:08d}"]
    names = {path.name for path in run.iterdir()}
    assert {"detector.safetensors", "report.html"} <= names - {"metrics.json"} == names
    code, _, err = cli("--resume")
    assert (code, "resumed after epoch 1" in err) == (0, True)
    assert_ended_as_the_whole_run("stopped")


def test_a_run_is_extended_by_more_epochs_and_refused_in_use_with_other_images_or_of_another_version(cli: Cli) -> None:
    assert cli(*NETWORK, "--epochs", "1", "--name", "short")[0] == 0
    code, out, err = cli("--resume", "short", "--data", "dataset", "--epochs", "2", "--json")
    assert (code, json.loads(out)["rounds"]) == (0, 2)
    assert "goes on with --epochs 2 instead of 1" in err
    assert_ended_as_the_whole_run("short")
    config = (RUNS / "whole/config.json").read_text()
    (RUNS / "whole/config.json").write_text(config.replace('"format": 2', '"format": 1'))
    code, out, err = cli("--resume", "whole")
    assert (code, out) == (3, "")
    assert "format 1, here 2), which this one cannot resume; its detector.safetensors works" in err
    assert load_detector(RUNS / "whole").card.name == "whole"
    (RUNS / "short/metrics.json").unlink()
    with locked(RUNS / "short"):
        code, _, err = cli("--resume", "short")
    assert (code, "in use by process" in err) == (1, True)
    Path("dataset/origins/000000.png").unlink()
    code, _, err = cli("--resume", "short", "--data", "dataset")
    assert (code, "are not those of the run" in err) == (3, True)


def test_a_dataset_that_disappears_while_it_is_read_is_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object) -> dict[bool, list[tuple[int, int]]]:
        Path("dataset/origins").rename("elsewhere")
        return {True: [], False: []}

    monkeypatch.setattr(job, "sizes_of", lose)
    code, _, err = cli(*NETWORK, "--name", "lost")
    assert (code, "dataset/origins/000000.png: " in err) == (3, True)
    assert not (RUNS / "lost").exists()
