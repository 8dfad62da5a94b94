"""A step on a device touches nothing of the host's: every recipe, on torch's device that has shapes and no memory.

A GPU's operations take a scalar of the host, and a CUDA graph would repeat its first value for ever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fruitgan.data.augment import augmentations
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.loader import BatchLoader, Sampler
from fruitgan.train_gan import cuda_graphs
from fruitgan.train_gan.assemble import bare_trainer, make_objective, make_plan
from fruitgan.train_gan.recipe import recipes
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.train_gan.trainer import Trainer

META = torch.device("meta")
IMAGES = 4
LIGHTER = {name: {"blocks": "1"} for name in ("fruit", "cut", "lesson", "fast")}
STEPS = {"lesson": 9}
"""Of this recipe a loss begins after two thirds of the training, which makes another variant of its steps."""


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While `on`, an operation that takes or gives a tensor of the host fails; one that waits for the device fails always."""

    on = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Fused Adam has no shapes without kernels; it gives nothing back.
        out = None if func is torch.ops.aten._fused_adam_.tensor_lr else func(*args, **(kwargs or {}))
        hosts = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor) and x.device.type == "cpu"]
        if self.on and hosts:
            raise AssertionError(f"{func} with a tensor of the host: {[list(x.shape) for x in hosts]}")
        return out


class Watched:
    """Takes the place of CUDA graphs: what they would record is watched."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.recorded = 0

    def warm_up(self, work: Callable[[], None]) -> None:
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.watch.on = True
        try:
            work()
        finally:
            self.watch.on = False
        self.recorded += 1
        return lambda: None

    def release(self, recorded: dict[cuda_graphs.Variant, Callable[[], None]]) -> None:
        recorded.clear()


@pytest.fixture(autouse=True)
def one_step_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "WARM_UP_STEPS", 1)


def train(recipe: str, *, on_device: bool, change: Callable[[Trainer], None] = lambda _: None) -> tuple[Watched, Trainer]:
    """All steps but the last, which is logged: that waits for the device by right."""
    side_px, steps = 256 if recipe == "seed-unet" else 96, STEPS.get(recipe, 4)
    discriminator = {"base_channels": "4"} | ({"strides": "4"} if recipe == "fruit" else {})  # fast has all of the backbone
    narrow = {"generator_options": LIGHTER.get(recipe, {}), "discriminator_options": discriminator}
    asked = TrainGanSettings(recipe=recipe, image_size=side_px, batch_size=2, steps=steps, precision="fp32", **narrow)
    plan = make_plan(asked, torch.device("cpu"))
    loaded_px = augmentations.build(plan.augmentation).load_size_px(side_px)
    banks = [ImageDataset(np.zeros((IMAGES, loaded_px, loaded_px, 3), dtype=np.uint8), (), ()) for _ in range(2)]
    objective = make_objective(plan)
    with Watch() as watch:
        feed = BatchLoader(
            *banks,
            Sampler(IMAGES, IMAGES, plan.recipe.batch_size, plan.seed, plan.recipe.pairing),
            augmentations.build(plan.augmentation),
            image_size_px=side_px,
            seed=0,
            device=META,
            images_on_device=on_device,
        )
        watched = Watched(watch)
        trainer = bare_trainer(plan, objective, feed, IMAGES // 2, META, 1000)
        trainer._run._capture = watched
        change(trainer)
        for _ in range(steps - 1):
            next(trainer.steps(steps))
    return watched, trainer


@pytest.mark.parametrize(("recipe", "on_device"), [*((name, True) for name in recipes.names()), ("cyclegan", False)])
def test_what_is_captured_of_a_step_is_on_the_device_alone(recipe: str, on_device: bool) -> None:
    watched, trainer = train(recipe, on_device=on_device)
    assert trainer.note is None
    assert watched.recorded == (2 if recipe in STEPS else 1)


def test_a_weight_that_was_left_on_the_host_would_be_seen() -> None:
    def leave(trainer: Trainer) -> None:
        trainer.objective.weights = {name: torch.ones(()) for name in trainer.objective.weights}

    with pytest.raises(AssertionError, match=r"with a tensor of the host: \[\[\]"):
        train("cyclegan", on_device=True, change=leave)


def test_a_step_that_waits_for_the_device_would_be_seen() -> None:
    def wait(trainer: Trainer) -> None:
        player = trainer.objective.players[0]

        def loss(step: Any) -> dict[str, Tensor]:
            terms = player.loss(step)
            return {name: term * float(term) for name, term in terms.items()}

        trainer.objective.players = (dataclasses.replace(player, loss=loss),)

    with pytest.raises(RuntimeError, match="meta"):
        train("cyclegan", on_device=True, change=wait)
