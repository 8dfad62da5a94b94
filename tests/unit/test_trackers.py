"""Trackers: what they are given, read back from their own files; a failure, a resumed run and a rollback."""

from __future__ import annotations

import builtins
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import write_noise, write_ramp_domains
from training_events import step_of, warnings_of
from trainings import SMALL, last_checkpoint, log_lines

from fruitgan.cli import main
from fruitgan.errors import EnvironmentProblem, UsageError
from fruitgan.progress import Event, Listener
from fruitgan.runs.run import LOG, TRACKERS, Run
from fruitgan.runs.trackers import Trackers
from fruitgan.train_detector.job import train_detector
from fruitgan.train_detector.settings import TrainDetectorSettings
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings

Install = Callable[..., Path]
CONFIG = {"plan": {"seed": 3}, "settings": {"data": "/home/somebody/fruit"}}
NOTEBOOK = """
import json
from fruitgan.runs.trackers import Tracker

class Notebook(Tracker):
    def begin(self, run):
        run.folder.mkdir(parents=True, exist_ok=True)
        self.file = run.folder / "notes.jsonl"
        self.write("begin", run.name, run.id, dict(run.config))
        return "a notebook"

    def write(self, *what):
        with self.file.open("a") as file:
            file.write(json.dumps(what) + "\\n")

    def scalars(self, step, values):
        self.write("scalars", step, values)

    def image(self, step, name, pixels):
        self.write("image", step, name, pixels.shape)

    def end(self):
        self.write("end")

class Broken(Notebook):
    def scalars(self, step, values):
        raise OSError("the pen is dry")
"""


@pytest.fixture
def notebook(install: Install) -> None:
    points = {name.lower(): f"fruitgan_notebook:{name}" for name in ("Notebook", "Broken")}
    install("fruitgan-notebook", {"trackers": points}, NOTEBOOK)


def notes(run: Path, name: str = "notebook") -> list[list[Any]]:
    return [json.loads(line) for line in (run / TRACKERS / name / "notes.jsonl").read_text().splitlines()]


def line(step: int, loss: float) -> dict[str, Any]:
    times = {"step": step, "images": step, "seconds": 0.5}
    return {**times, "losses": {"cycle_a": loss}, "learning_rate": 1e-3, "kid": {"a2b": 0.5}}


def tracked(run: Run, names: list[str], logged_step: int, events: list[Event] | None = None) -> Trackers:
    made = Trackers(names, Listener(None if events is None else events.append), is_new=True)
    made.begin(run, logged_step)
    return made


def two_segments_and_a_rollback(run: Run, name: str) -> None:
    """Losses of 10, 20 and 30, once each: killed after 20, resumed from 10, at 30 back to 20, and all the way to 40."""
    first = tracked(run, [name], 0)
    first.line(10, line(10, 0.1))
    first.image(10, "samples", np.full((6, 8, 3), 200, np.uint8))
    first.line(20, line(20, 0.2))
    first.end()
    second = tracked(run, [name], 20)
    second.line(20, line(20, 0.9))
    second.line(30, line(30, 0.3))
    second.take_back()
    second.line(30, line(30, 0.9))
    second.line(40, line(40, 0.4))
    second.end()


def test_event_files_hold_each_step_once_and_the_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Run.create(tmp_path / "apple", CONFIG, {})
    two_segments_and_a_rollback(run, "tensorboard")
    found = EventAccumulator(str(run.path / TRACKERS / "tensorboard"), purge_orphaned_data=False).Reload()
    assert found.Tags()["scalars"] == ["losses/cycle_a", "learning_rate", "kid/a2b"]
    losses = [(event.step, round(event.value, 6)) for event in found.Scalars("losses/cycle_a")]
    assert losses == [(10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4)]
    (image,) = found.Images("samples")
    assert (image.step, image.width, image.height) == (10, 8, 6)
    text = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"seed": 3' in text
    assert "somebody" not in text


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The only address that wandb knows, and folders of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
        for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            monkeypatch.setenv(name, str(tmp_path / name))
        yield server


def records(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format behind seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = file.read_bytes(), 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part of one
            yield Record.FromString(record)
            record = b""


def test_wandb_offline_holds_each_step_once_and_asks_for_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    monkeypatch.setenv("FRUITGAN_OFFLINE", "1")
    run = Run.create(tmp_path / "apple", CONFIG, {})
    two_segments_and_a_rollback(run, "wandb")
    sys.modules["wandb"].teardown()  # type: ignore[attr-defined] # as at the end of a process: then the files are whole
    files = sorted((run.path / TRACKERS / "wandb").rglob("*.wandb"))
    assert len(files) == 2
    ids, losses = set(), []
    for record in (record for file in files for record in records(file)):
        if record.WhichOneof("record_type") == "run":
            ids.add((record.run.run_id, record.run.project, record.run.display_name))
            assert "somebody" not in str(record)
        if record.WhichOneof("record_type") == "history":
            values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            if "losses/cycle_a" in values:
                losses.append((values["step"], values["losses/cycle_a"]))
    assert sorted(losses) == [(10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4)]
    assert [(project, name) for _, project, name in ids] == [("fruitgan", "apple")]  # one id
    assert len(list(run.path.rglob("samples_*.png"))) == 1
    with pytest.raises(TimeoutError):
        listening.accept()


def test_a_second_death_before_the_first_ones_step_gives_no_step_twice(tmp_path: Path, notebook: None) -> None:
    run = Run.create(tmp_path / "apple", CONFIG, {})
    for logged_step, steps in ((0, (10, 20, 30)), (30, (20,)), (20, (20, 30, 40))):  # the second dies at 20
        segment = tracked(run, ["notebook"], logged_step)
        for step in steps:
            segment.line(step, line(step, 0.1))
    assert [note[1] for note in notes(run.path) if note[0] == "scalars"] == [10, 20, 30, 40]
    assert len({note[2] for note in notes(run.path) if note[0] == "begin"}) == 1


def test_a_missing_package_stops_a_new_run_and_not_a_resumed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    events: list[Event] = []
    with pytest.raises(EnvironmentProblem, match=r'pip install "fruitgan\[tensorboard\]"'):
        Trackers(["tensorboard"], Listener(events.append), is_new=True)
    Trackers(["tensorboard"], Listener(events.append), is_new=False)
    assert len(warnings_of(events)) == 1


def test_an_unknown_tracker_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean tensorboard"):
        Trackers(["tensorbord"], Listener(None), is_new=True)
    words = ["--data", str(write_ramp_domains(tmp_path / "dark2light")), "--out", str(tmp_path / "runs"), "--steps", "1"]
    assert main(["train-gan", *words, "--track", "tensorbord", "--gpu", "none"]) == 2
    assert list((tmp_path / "runs").glob("*")) == []


def test_a_folder_of_a_tracker_that_is_a_link_is_not_written_to(tmp_path: Path, notebook: None) -> None:
    run = Run.create(tmp_path / "apple", CONFIG, {})
    (run.path / TRACKERS).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (run.path / TRACKERS / "notebook").symlink_to(tmp_path / "elsewhere")
    events: list[Event] = []
    tracked(run, ["notebook"], 0, events).line(1, line(1, 0.1))
    assert len(warnings_of(events)) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.usefixtures("no_report", "notebook")
def test_a_training_gives_its_log_and_its_samples_and_goes_on_where_a_tracker_fails(tmp_path: Path) -> None:
    data = write_ramp_domains(tmp_path / "dark2light")
    often = {"log_every": 1, "save_every": 3, "sample_every": 4, "steps": 7}
    events: list[Event] = []

    def die_at_5(event: Event) -> None:
        events.append(event)
        if step_of(event) == 5:
            raise KeyboardInterrupt

    given: dict[str, Any] = {"data": str(data), "out": tmp_path, **SMALL, **often}
    with pytest.raises(KeyboardInterrupt):
        train_gan(TrainGanSettings(**given, name="tracked", track=("broken", "notebook")), die_at_5)
    assert len([text for text in warnings_of(events) if "the pen is dry" in text]) == 1
    train_gan(TrainGanSettings(out=tmp_path, gpu="none", resume="tracked"))
    train_gan(TrainGanSettings(**given, name="plain"))
    run = tmp_path / "tracked"
    given_scalars = {note[1]: note[2] for note in notes(run) if note[0] == "scalars"}
    assert [note[1] for note in notes(run) if note[0] == "scalars"] == [1, 2, 3, 4, 5, 6, 7]
    for entry in log_lines(run):
        losses = {name: value for name, value in given_scalars[entry["step"]].items() if name.startswith("losses/")}
        assert losses == {f"losses/{term}": value for term, value in entry["losses"].items()}
    assert [note[1] for note in notes(run) if note[0] == "image"] == [4, 7]
    assert [note[0] for note in notes(run)].count("end") == 2
    assert last_checkpoint(run)[1]["sha256"] == last_checkpoint(tmp_path / "plain")[1]["sha256"]


@pytest.mark.usefixtures("no_detector_report", "notebook")
def test_a_detectors_epochs_are_tracked(tmp_path: Path) -> None:
    for kind, low in (("predicted", 0), ("origins", 128)):
        write_noise(tmp_path / "data" / kind, [(16, 16)] * 30, low=low, seed=low)
    asked: dict[str, Any] = {"detector": "small-cnn", "image_size": 16, "epochs": 2, "gpu": "none", "threads": 1}
    settings = TrainDetectorSettings(data=tmp_path / "data", out=tmp_path, name="run", track=("notebook",), **asked)
    train_detector(settings)
    logged = [json.loads(text) for text in (tmp_path / "run" / LOG).read_text().splitlines()]
    found = [(note[1], note[2]["val_loss"]) for note in notes(tmp_path / "run") if note[0] == "scalars"]
    assert found == [(entry["epoch"], entry["val_loss"]) for entry in logged]
