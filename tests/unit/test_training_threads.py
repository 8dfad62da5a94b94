"""A training keeps its number of CPU threads: chosen once, recorded, the same when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_files import save_noise
from training_events import warnings_of
from trainings import SMALL

from fruitgan import device as threads
from fruitgan.progress import Event, Note
from fruitgan.settings import read_json
from fruitgan.train_gan import estimate, segment
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Event]]:
    """Trains a step or two on a few pictures; gives what it told."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    number = torch.get_num_threads()  # two on a busy core would take ten times as long: it is only said
    monkeypatch.setattr(torch, "get_num_threads", lambda: number)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    for split in ("trainA", "trainB"):
        for number in range(2):
            save_noise(tmp_path / "data" / split / f"{number}.png", 32, 32, seed=number + 9 * (split == "trainB"))

    def train(**changes: object) -> list[Event]:
        events: list[Event] = []
        shared: dict[str, Any] = {"out": tmp_path / "runs", "gpu": "none", **changes}
        new = SMALL | {"data": str(tmp_path / "data"), "threads": None, "steps": 1, "name": "run"}
        train_gan(TrainGanSettings(**({} if "resume" in changes else new) | shared), events.append)
        return events

    return train


def number_of(events: list[Event]) -> str:
    return next(event.text.partition(", ")[2] for event in events if isinstance(event, Note) and ": step " in event.text)


def recorded(tmp_path: Path) -> int:
    return int(read_json(tmp_path / "runs" / "run" / "config.json")["settings"]["threads"])


def test_the_number_is_tried_out_once_and_kept_when_the_run_is_resumed(
    started: Callable[..., list[Event]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def trial(work: Callable[[], None], seconds: float = 0) -> dict[int, float]:
        work()
        tried.append("trial")
        return {1: 0.1, 2: 0.2} if len(tried) == 1 else {1: 0.2, 2: 0.1}

    monkeypatch.setattr(threads, "seconds_by_threads", trial)
    assert number_of(started()).startswith("1 thread (fastest of 1, 2)")
    assert recorded(tmp_path) == 1
    assert number_of(started(resume="run", steps=2)).startswith("1 thread")
    assert tried == ["trial"]
    assert number_of(started(resume="run", steps=3, threads=2)).startswith("2 threads")
    assert recorded(tmp_path) == 2


def test_the_trial_changes_nothing_of_the_run(started: Callable[..., list[Event]], tmp_path: Path) -> None:
    started()
    tried = (tmp_path / "runs" / "run" / "result.json").read_text()
    number = recorded(tmp_path)
    (tmp_path / "runs" / "run").rename(tmp_path / "first")
    started(threads=number)
    again = (tmp_path / "runs" / "run" / "result.json").read_text()
    assert json.loads(tried)["weights_sha256"] == json.loads(again)["weights_sha256"]


def test_a_number_that_has_become_much_faster_is_named_once(
    started: Callable[..., list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "THREADS_CHECK_SECONDS", 0)
    monkeypatch.setattr(estimate, "seconds_by_threads", lambda *_: {1: 1.0, 2: 4.0})
    events = started(threads=2, steps=3)
    assert [text[:7] for text in warnings_of(events) if "--threads 1" in text] == ["step 1:"]
