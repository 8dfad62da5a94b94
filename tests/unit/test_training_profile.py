"""Profiled steps are the steps; what is written names every stage, and a browser's viewer can open it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fruitgan.train_gan.segment import PROFILED_STEPS, SKIPPED_STEPS, SUMMARY, TRACE, profiled
from fruitgan.train_gan.trainer import stage

CPU = torch.device("cpu")


def work(steps: int) -> Iterator[int]:
    for step in range(steps):
        with stage("short"):
            torch.ones(2) + 1
        with stage("long"):
            torch.ones(300, 300) @ torch.ones(300, 300)
            began = time.thread_time()
            while time.thread_time() - began < 0.002:
                pass
        yield step


def test_the_steps_come_out_as_they_are_and_trace_and_summary_are_of_those_profiled(tmp_path: Path) -> None:
    assert list(profiled(work(20), CPU, tmp_path / "profile")) == list(range(20))
    events = json.loads((tmp_path / "profile" / TRACE).read_text())["traceEvents"]
    long = [event for event in events if event.get("name") == "fruitgan: long"]
    assert len(long) == PROFILED_STEPS
    for event in long:  # what a viewer of the trace event format needs of a complete event
        assert event["ph"] == "X"
        assert event["dur"] >= 2000
        assert {"ts", "pid", "tid"} <= event.keys()
    assert any(event.get("name") == "aten::mm" for event in events)
    text = (tmp_path / "profile" / SUMMARY).read_text()
    rows = [line.split() for line in text.splitlines() if line.startswith(("long", "short"))]
    assert [row[0] for row in rows] == ["long", "short"]
    assert sum(float(row[-1].rstrip("%")) for row in rows) == pytest.approx(100, abs=0.2)
    assert float(rows[0][1]) >= 2
    assert text.startswith(f"{PROFILED_STEPS} steps on cpu, ")
    assert "aten::mm" in text


@pytest.mark.parametrize(("steps", "found"), [(SKIPPED_STEPS, 0), (SKIPPED_STEPS + 2, 2)])
def test_a_short_training_leaves_what_there_is(tmp_path: Path, steps: int, found: int) -> None:
    assert len(list(profiled(work(steps), CPU, tmp_path / "profile"))) == steps
    assert (tmp_path / "profile" / TRACE).exists() == (tmp_path / "profile" / SUMMARY).exists() == (found > 0)
    if found:
        assert (tmp_path / "profile" / SUMMARY).read_text().startswith(f"{found} steps")
