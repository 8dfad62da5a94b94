"""A run that goes on elsewhere than it came from works, says what is other there, and no longer claims to be bit-equal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picture_files import write_noise_domains
from training_events import step_of, warnings_of

from fruitgan.progress import Event
from fruitgan.runs.run import Run
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanResult, TrainGanSettings

pytestmark = pytest.mark.usefixtures("no_report")

Stopped = Callable[..., Path]


@pytest.fixture(scope="module")
def stopped_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped at step 2 of 5."""
    folder = tmp_path_factory.mktemp("runs")
    settings = TrainGanSettings(
        **{"data": str(write_noise_domains(folder / "dark2light", 1, (24, 24), lighter_b=80)), "out": folder, "steps": 5},
        **{"recipe": "cyclegan", "generator": "mobile", "generator_options": {"base_channels": "2", "blocks": "1"}},
        **{
            "image_size": 24,
            "precision": "fp32",
            "gpu": "none",
            "name": "run",
            "discriminator_options": {"base_channels": "4"},
        },
    )
    return train_gan(settings, lambda event: step_of(event) == 2).run


@pytest.fixture
def stopped(stopped_here: Path, tmp_path: Path) -> Stopped:
    """The run, as it would stand there had it come from a machine of which this is known."""

    def make(packages: dict[str, str] | None = None, **machine: Any) -> Path:
        run = Path(shutil.copytree(stopped_here, tmp_path / "run"))
        file = run / "environment.json"
        here = json.loads(file.read_text())
        file.write_text(json.dumps({**here, **machine, "packages": {**here["packages"], **(packages or {})}}))
        return run

    return make


def going_on(run: Path, until: int | None = None) -> tuple[TrainGanResult, tuple[str, ...]]:
    notes: list[str] = []

    def watch(event: Event) -> bool:
        notes.extend(warnings_of([event]))
        return step_of(event) == until

    return train_gan(TrainGanSettings(resume="run", out=run.parent, gpu="none"), watch), tuple(notes)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (
            {"device": "cuda:0", "gpu": "NVIDIA H100", "cpu": "another processor", "torch_threads": 96},
            ["device cpu, was cuda:0", "gpu none, was NVIDIA H100", ", was another processor", "torch threads ", ", was 96"],
        ),
        ({"packages": {"torch": "1.9.0", "numpy": "1.20.0"}}, ["torch ", ", was 1.9.0", "numpy ", ", was 1.20.0"]),
    ],
)
def test_a_run_from_elsewhere_goes_on_and_says_what_is_other_and_that_bits_may_differ(
    known: dict[str, Any], said: list[str], stopped: Stopped
) -> None:
    run = stopped(**known)
    result, notes = going_on(run)
    assert result.finished
    assert len(notes) == 1
    assert notes[0].startswith("resumed in a different environment (")
    assert [words for words in said if words not in notes[0]] == []
    assert notes[0].endswith("): no longer bit-identical")
    later = Run(run).environment["later"]
    assert [sitting["from_step"] for sitting in later] == [2]


def test_it_is_said_once_and_again_when_the_run_goes_elsewhere_again(stopped: Stopped) -> None:
    run = stopped(device="cuda:0")
    assert len(going_on(run, until=3)[1]) == 1
    assert going_on(run, until=4)[1] == ()
    file = run / "environment.json"
    environment = json.loads(file.read_text())
    environment["later"][-1]["packages"]["torch"] = "99.0"
    file.write_text(json.dumps(environment))
    (note,) = going_on(run)[1]
    assert "torch " in note
    assert ", was 99.0" in note
    assert [sitting["from_step"] for sitting in Run(run).environment["later"]] == [2, 4]


def test_in_the_same_place_nothing_is_said(stopped: Stopped) -> None:
    assert going_on(stopped())[1] == ()


@pytest.mark.parametrize("text", ["{", '{"packages": 3}'])
def test_where_it_came_from_may_be_unreadable_and_the_run_goes_on(text: str, stopped: Stopped) -> None:
    run = stopped()
    (run / "environment.json").write_text(text)
    assert going_on(run)[0].finished
