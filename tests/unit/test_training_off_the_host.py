"""Every recipe's step on a device, here torch's that has shapes and no memory: it takes nothing of the host's, and what it does
torch has on an Apple GPU (MPS) too, as far as that can be known without one.

A GPU's operations take a scalar of the host, and a CUDA graph would repeat its first value for ever.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchgen
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
"""Fewer layers of the same kinds, where a generator has that option."""
STEPS = {"lesson": 9}
"""Of this recipe a loss begins after two thirds of the training, which makes another variant of its steps."""


COMPOSITE = "CompositeExplicitAutograd"
DISPATCHED_INSIDE = {"convolution", "convolution_backward", "copy_", "_to_copy", "clone", "_foreach_norm"}
"""Composites that choose a kernel of the device by themselves: `mps_convolution` and its gradient, copies, norms."""


def listed() -> dict[str, tuple[str, set[str]]]:
    """Of torch's own list (native_functions.yaml): by operation the one that it delegates to, and where it has kernels."""
    text = (Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml").read_text(
        encoding="utf-8"
    )
    found = {}
    for block in re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]:
        delegate = re.search(r"^  structured_delegate: (\S+)", block, flags=re.MULTILINE)
        kernels = re.search(r"^  dispatch:\n((?:    .*\n)+)", block, flags=re.MULTILINE)
        lines = kernels[1].splitlines() if kernels else []
        keys = {key.strip() for line in lines if not line.strip().startswith("#") for key in line.partition(":")[0].split(",")}
        found[block.partition("(")[0]] = (delegate[1] if delegate else "", keys)
    return found


LISTED = listed()


def kernels_of(name: str) -> set[str] | None:
    """Where the operation has kernels; None: torch does not list it."""
    if name not in LISTED:
        return None
    delegate, keys = LISTED[name]
    return kernels_of(delegate) if delegate else keys


def not_on_mps(seen: set[str]) -> list[str]:
    """The operations that torch has on some devices, but not on MPS."""
    kernels = {name: kernels_of(name) for name in seen}
    return sorted(n for n, keys in kernels.items() if keys and "MPS" not in keys and not any("Composite" in k for k in keys))


def test_the_list_is_read_as_it_is_meant() -> None:
    assert len(LISTED) > 2000
    assert "MPS" in (kernels_of("reflection_pad2d") or ())
    assert not_on_mps({"reflection_pad2d", "add.Tensor", "linalg_lstsq", "_cudnn_rnn", "matmul"}) == ["_cudnn_rnn"]
    assert "CompositeImplicitAutograd" in (kernels_of("matmul") or ())


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While `on`, an operation that takes or gives a tensor of the host fails; one that waits for the device fails always.

    The names of those seen then are kept; of one that is composed of others on every device, also the names of those.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on = False
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Fused Adam has no shapes without kernels; it gives nothing back.
        is_adam = func is torch.ops.aten._fused_adam_.tensor_lr
        if not self.on:
            return None if is_adam else func(*args, **(kwargs or {}))
        if (name := func.name().removeprefix("aten::")) not in self.seen:
            self.seen.add(name)
            keys = kernels_of(name) or set()
            is_composite = COMPOSITE in keys and "MPS" not in keys and func.overloadpacket.__name__ not in DISPATCHED_INSIDE
            if is_composite and not func._schema.is_mutable:
                with self:
                    return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **(kwargs or {}))
        out = None if is_adam else func(*args, **(kwargs or {}))
        hosts = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor) and x.device.type == "cpu"]
        if hosts:
            raise AssertionError(f"{func} with a tensor of the host: {[list(x.shape) for x in hosts]}")
        return out


class Watched:
    """Takes the place of CUDA graphs: what they would record is watched."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def warm_up(self, work: Callable[[], None]) -> None:
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.watch.on = True
        try:
            work()
        finally:
            self.watch.on = False
        return lambda: None

    def release(self, recorded: dict[cuda_graphs.Variant, Callable[[], None]]) -> None:
        recorded.clear()


@pytest.fixture(autouse=True)
def one_step_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "WARM_UP_STEPS", 1)


def train(recipe: str, *, on_device: bool, change: Callable[[Trainer], None] = lambda _: None) -> tuple[Watch, Trainer]:
    """All steps but the last, which is logged: that waits for the device by right."""
    side_px, steps = 256 if recipe == "seed-unet" else 96, STEPS.get(recipe, 4)
    discriminator = {"base_channels": "4"} | ({"strides": "4"} if recipe == "fruit" else {})  # fast has all of the backbone
    narrow = {"generator_options": {"base_channels": "4", **LIGHTER.get(recipe, {})}, "discriminator_options": discriminator}
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
            device=META,
            images_on_device=on_device,
        )
        trainer = bare_trainer(plan, objective, feed, IMAGES // 2, META, 1000)
        trainer._run._capture = Watched(watch)
        change(trainer)
        for _ in range(steps - 1):
            next(trainer.steps(steps))
    return watch, trainer


@pytest.mark.parametrize(("recipe", "on_device"), [*((name, True) for name in recipes.names()), ("cyclegan", False)])
def test_what_is_captured_of_a_step_is_on_the_device_alone_and_there_on_an_apple_gpu(recipe: str, on_device: bool) -> None:
    watch, trainer = train(recipe, on_device=on_device)
    assert trainer.note is None
    (fullest,) = trainer._run._recorded  # of the others the memory was given back
    assert fullest == {name for name, weight in trainer.recipe.weights.items() if weight.start or weight.end}
    assert {"convolution", "convolution_backward", "native_group_norm_backward", "_fused_adam_.tensor_lr"} <= watch.seen
    assert not_on_mps(watch.seen) == []


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
