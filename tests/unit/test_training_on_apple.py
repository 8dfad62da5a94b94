"""A training on an Apple GPU (MPS), as far as it can be known without one: which operations torch has there, and Adam's gap."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchgen
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fruitgan.data.augment import augmentations
from fruitgan.train_gan import ema
from fruitgan.train_gan.assemble import make_plan
from fruitgan.train_gan.ema import PlayerAdam
from fruitgan.train_gan.estimate import SAMPLED_STEPS, sketched_step
from fruitgan.train_gan.recipe import Adam, Clock, recipes
from fruitgan.train_gan.settings import TrainGanSettings

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


class Recording(TorchDispatchMode):
    """The names of all operations; of one that is composed of others on every device, also of those."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        first = name not in self.seen
        self.seen.add(name)
        keys = kernels_of(name) or set()
        is_composite = COMPOSITE in keys and "MPS" not in keys and func.overloadpacket.__name__ not in DISPATCHED_INSIDE
        if first and is_composite and not func._schema.is_mutable:
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def missing(seen: set[str]) -> list[str]:
    """The operations that torch has on some devices, but not on MPS."""
    kernels = {name: kernels_of(name) for name in seen}
    return sorted(n for n, keys in kernels.items() if keys and "MPS" not in keys and not any("Composite" in k for k in keys))


def test_the_list_is_read_as_it_is_meant() -> None:
    assert len(LISTED) > 2000
    assert "MPS" in (kernels_of("reflection_pad2d") or ())
    assert missing({"reflection_pad2d", "add.Tensor", "linalg_lstsq", "_cudnn_rnn", "matmul"}) == ["_cudnn_rnn"]
    assert "CompositeImplicitAutograd" in (kernels_of("matmul") or ())


@pytest.mark.parametrize("name", recipes.names())
def test_every_operation_of_a_recipes_step_is_there_on_an_apple_gpu(name: str) -> None:
    plan = make_plan(TrainGanSettings(recipe=name, precision="fp32"), torch.device("cpu"))
    clocks = [Clock(step, SAMPLED_STEPS, SAMPLED_STEPS) for step in range(SAMPLED_STEPS)]
    counted = [{name for name, weight in plan.recipe.weights.items() if weight.at(clock)} for clock in clocks]
    fullest = max(range(SAMPLED_STEPS), key=lambda step: len(counted[step]))
    assert counted[fullest] == set().union(*counted)  # this step computes all that any does
    with Recording() as recording:
        sketched_step(plan, 1, fullest)
        augmentation = augmentations.build(plan.augmentation)
        kept = torch.empty(1, 3, *[augmentation.load_size_px(64)] * 2, device="meta")
        assert augmentation.apply(kept, torch.rand(1, augmentation.draws), 64).shape[-1] == 64
    assert {"convolution", "convolution_backward", "native_group_norm_backward"} <= recording.seen
    assert missing(recording.seen | {"_fused_adam_.tensor_lr"}) == []


@pytest.mark.parametrize("is_finite", [True, False])
def test_a_step_that_is_not_finite_changes_nothing_where_adam_moves_anyway(
    is_finite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused: Callable[..., None] = torch._fused_adam_

    def deaf(*lists: Any, found_inf: Tensor, **options: Any) -> None:
        fused(*lists, found_inf=None, **options)

    def moved(gradient: float, ok: float) -> list[Tensor]:
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = PlayerAdam([parameter], Adam())
        optimizer.learning_rate.fill_(0.1)
        for value, counts in ((0.5, 1.0), (gradient, ok)):
            parameter.grad = torch.full((3,), value)
            optimizer.step(torch.tensor(counts))
        return [parameter.detach(), *optimizer.means, *optimizer.squares, *optimizer.counts]

    expected = moved(2.0 if is_finite else float("nan"), float(is_finite))
    monkeypatch.setattr(torch, "_fused_adam_", deaf)
    monkeypatch.setattr(ema, "MOVES_ANYWAY", ("cpu",))
    for found, right in zip(moved(2.0 if is_finite else float("nan"), float(is_finite)), expected, strict=True):
        assert torch.equal(found, right)
        assert torch.isfinite(found).all()
