"""torch's compiler, where there is one: the same training within a stated tolerance; one line where there is none."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_files import write_noise_domains
from torch import nn
from training_events import step_of
from trainings import SMALL

from fruitgan.errors import EnvironmentProblem
from fruitgan.train_gan.assemble import compile_networks
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings


def test_where_nothing_can_be_compiled_one_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(function: Any, **_: Any) -> Any:
        def compiled(*_: Any) -> Any:
            raise RuntimeError("\nInvalidCxxCompiler: No working C++ compiler found\n\nand much more")

        return compiled

    monkeypatch.setattr(torch, "compile", failing)
    network = nn.ModuleDict({"one": nn.Linear(2, 2)})
    with pytest.raises(EnvironmentProblem, match=r"--compile: .*No working C\+\+ compiler found.*g\+\+.* or leave") as caught:
        compile_networks(network, torch.device("cpu"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
@pytest.mark.filterwarnings("default")  # torch's compiler warns of its own parts
def test_compiled_networks_train_as_those_that_are_not(tmp_path: Path) -> None:
    """The first step's losses within 1e-5, or within what fp32 pixels are rounded by; the next steps go on from there.

    Cycle and identity are means of differences of pixels in [-1, 1], nearly equal ones in the first step. In the composite
    m tanh(h + atanh(clip(x))) + (1 - m) x six results reach the pixel undiminished (atanh, sum, tanh, two products, sum), each
    rounded by half a unit in the last place below 1 at most, 2^-25. Both sides may be off by that much.
    Later steps cannot be held against each other: Adam's first updates are as large whatever a gradient's size, so that its
    last digits come to move weights (cycle and identity were up to 8% apart within four steps).
    """
    rounding = 2 * 6 * 2.0**-25
    write_noise_domains(tmp_path / "data", 4, (48, 48), splits=("trainA", "trainB"))
    losses: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for compiled in losses:

        def keep(event: object, compiled: bool = compiled) -> None:
            if step_of(event) > 0 and event.details["losses"] is not None:
                losses[compiled].append(dict(event.details["losses"]))

        given = {**SMALL, "image_size": 48, "batch_size": 2, "discriminator": "patch-multiscale", "steps": 4, "log_every": 1}
        where = {"data": str(tmp_path / "data"), "out": tmp_path / "runs", "name": str(compiled)}
        train_gan(TrainGanSettings(**given, **where, compile=compiled), keep)
    assert len(losses[True]) == 4
    assert losses[True][0] == pytest.approx(losses[False][0], rel=1e-5, abs=rounding)
    for before, after in itertools.pairwise(losses[True]):
        assert all(math.isfinite(value) for value in after.values())
        assert before != after
