"""What tests of trainings have in common: feeds of random images, and how runs are stopped and held against each other."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from training_events import step_of

from fruitgan import bundle as bundles
from fruitgan.data.loader import Batch, Loader
from fruitgan.progress import Event
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.recipe import Recipe
from fruitgan.train_gan.trainer import Trainer

SMALL: dict[str, Any] = {
    **{"recipe": "fast", "image_size": 24, "batch_size": 1, "precision": "fp32", "gpu": "none", "threads": 1},
    **{"generator_options": {"base_channels": "4", "blocks": "1"}},
    **{"discriminator": "patch-70", "discriminator_options": {"base_channels": "4"}},
}
"""The smallest training there is: a step takes some hundredths of a second."""


class RandomImages(Loader):
    """A feed of `n` random images, the same for the same step; at the steps in `bad` they are not numbers."""

    def __init__(self, side_px: int, bad: set[int] | None = None, n: int = 2, dtype: torch.dtype = torch.float32) -> None:
        self.side_px = side_px
        self.bad = bad or set()
        self.n = n
        self.dtype = dtype

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        numbers = torch.Generator().manual_seed(step)
        shape = (self.n, 3, self.side_px, self.side_px)
        a, b = (torch.rand(shape, generator=numbers, dtype=self.dtype) * 2 - 1 for _ in range(2))
        if step in self.bad:
            a = a * torch.nan
        return Batch(a, b, {name: torch.rand((self.n, count), generator=numbers) for name, count in draws.items()})


def trainer_of(objective: Objective, recipe: Recipe, loader: Loader, total_steps: int, **more: Any) -> Trainer:
    """On a CPU in fp32; `more` are other fields of the trainer."""
    given = {"steps_per_epoch": 10, "seed": 5, "log_every": 1000, "device": torch.device("cpu"), "precision": "fp32"}
    return Trainer(objective, recipe, loader, total_steps=total_steps, **given | more)


class NaivePool:
    """Zhu et al. 2017, section 4, in the authors' wording: fill first, then swap half the time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def query(self, fakes: Tensor, draws: Tensor) -> Tensor:
        shown = []
        for fake, (swap, which) in zip(fakes, draws.tolist(), strict=True):
            if len(self.images) < self.size:
                self.images.append(fake)
                shown.append(fake)
            elif swap > 0.5:
                place = int(which * self.size)
                shown.append(self.images[place])
                self.images[place] = fake
            else:
                shown.append(fake)
        return torch.stack(shown)


def everything(trainer: Trainer) -> dict[str, Any]:
    """Every part's state, copied, by PART/KEY."""
    return {
        f"{part}/{key}": value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for part, stateful in trainer.stateful().items()
        for key, value in stateful.state().items()
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What is not the same in both; numbers that are none are alike."""
    assert one.keys() == other.keys()
    return [
        key
        for key, value in one.items()
        if not (
            torch.equal(value.nan_to_num(7), other[key].nan_to_num(7)) if isinstance(value, Tensor) else value == other[key]
        )
    ]


def stop_after(step: int) -> Callable[[Event], bool]:
    return lambda event: step_of(event) >= step


def log_lines(run: Path) -> list[dict[str, Any]]:
    """The log, but for what a clock decides."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def last_checkpoint(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    folder = max((run / "checkpoints").iterdir())
    return load_file(folder / "state.safetensors"), json.loads((folder / "state.json").read_text())


def assert_same_end(found: Path, expected: Path) -> None:
    """Two runs came to the same, bit for bit: checkpoints, logs and bundles."""
    (tensors, document), (expected_tensors, expected_document) = last_checkpoint(found), last_checkpoint(expected)
    assert differences(tensors, expected_tensors) == []
    assert document["values"] == expected_document["values"]
    assert document["sha256"] == expected_document["sha256"]
    assert log_lines(found) == log_lines(expected)
    weights = [bundles.load(run / bundles.FILE_NAME) for run in (found, expected)]
    assert bundles.weights_sha256(weights[0]) == bundles.weights_sha256(weights[1])
