"""A captured step is the step: recorded on a CPU as a tape of tensor operations, which is all that a CUDA graph keeps of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_
from trainings import RandomImages, differences, everything
from trainings import trainer_of as on_a_cpu

from fruitgan.data.augment.training import JitterMirror
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.loader import BatchLoader, Loader, Sampler
from fruitgan.networks.contracts import discriminators, generators
from fruitgan.train_gan.cuda_graphs import WARM_UP_STEPS, StepRunner, Variant
from fruitgan.train_gan.objectives.cyclegan import CycleStep, cyclegan
from fruitgan.train_gan.recipe import constant, recipes, until
from fruitgan.train_gan.trainer import Trainer

STEPS = 12


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records tensor operations while they are done. Whatever else the host computed is lost, as in a graph."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in WAITING:
            raise RuntimeError(f"{func}: not permitted while recording\nand what else torch would say")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def play(self) -> None:
        made: dict[int, Tensor] = {}

        def current(value: Any) -> Any:
            return made.get(id(value), value) if isinstance(value, Tensor) else value

        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                again = func(*tree_map(current, args), **tree_map(current, kwargs))
                flat, new = [], []
                tree_map_(flat.append, out)
                tree_map_(new.append, again)
                made |= {id(old): one for old, one in zip(flat, new, strict=True) if isinstance(old, Tensor) and old is not one}


class Tapes:
    """Recording does the work once, since a tape cannot be made without; the first playing is therefore left out."""

    def __init__(self) -> None:
        self.recorded = self.played = self.released = 0

    def warm_up(self, work: Callable[[], None]) -> None:
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        try:
            with tape:
                work()
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904 - as torch does
        self.recorded += 1
        fresh = [True]

        def replay() -> None:
            if not fresh:
                self.played += 1
                tape.play()
            fresh.clear()

        return replay

    def release(self, recorded: dict[Variant, Callable[[], None]]) -> None:
        """What was recorded is still there, since a GPU may be at it: nobody else has dropped it."""
        assert recorded
        recorded.clear()
        self.released += 1


WAITING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero")
"""What a tensor operation is called that needs the device's answer on the host."""


def bank_feed(side_px: int, *, on_device: bool) -> BatchLoader:
    """Eight images of noise a domain, of which crops are taken."""
    random = np.random.default_rng(0)
    a, b = (ImageDataset(random.integers(0, 256, (8, *[side_px + 4] * 2, 3), dtype=np.uint8), (), ()) for _ in range(2))
    return BatchLoader(
        a,
        b,
        Sampler(8, 8, 1, 5, "passes"),
        JitterMirror(load_ratio=(side_px + 4) / side_px),
        image_size_px=side_px,
        device=torch.device("cpu"),
        images_on_device=on_device,
    )


def trainer_of(kind: str, capture: Any, feed: Loader | None = None) -> Trainer:
    generator, discriminator, side_px, options = {
        "fast": ("mobile", "patch-multiscale", 48, {"base_channels": 4, "blocks": 1}),
        "cyclegan": ("resnet-6", "patch-70", 24, {"base_channels": 2}),
        "seed-unet": ("unet-128", "patch-70-affine", 128, {"base_channels": 2}),  # with dropout
    }[kind]
    recipe = recipes.get(kind)
    if kind == "fast":  # a loss that ends within the steps: another variant
        recipe = dataclasses.replace(
            recipe, weights=dict.fromkeys(recipe.weights, constant(1.0)) | {"identity": until(0.35, 5.0)}
        )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        objective = cyclegan(pool_size=2 if kind == "cyclegan" else 0)(
            lambda: generators.get(generator)(**options), lambda: discriminators.get(discriminator)(base_channels=2)
        )
    feed = feed or RandomImages(side_px, bad={9}, n=1)  # a step that must change nothing
    return on_a_cpu(objective, recipe, feed, STEPS, steps_per_epoch=4, capture=capture)


def run(trainer: Trainer, until: int) -> None:
    reports = trainer.steps(until)
    for _ in range(trainer.step, min(until, STEPS - 1)):  # the last one logs, and so stumbles over the step that did not count
        next(reports)


@pytest.mark.parametrize(
    ("kind", "feed"),
    [
        ("fast", lambda: bank_feed(48, on_device=False)),
        ("cyclegan", lambda: None),
        ("seed-unet", lambda: bank_feed(128, on_device=True)),  # where crops are made in what is captured
    ],
)
def test_captured_steps_equal_steps_as_they_are(kind: str, feed: Callable[[], Loader | None]) -> None:
    tapes = Tapes()
    captured, plain = trainer_of(kind, tapes, feed()), trainer_of(kind, None, feed())
    run(captured, STEPS)
    run(plain, STEPS)
    variants = 2 if kind == "fast" else 1
    assert (tapes.recorded, tapes.released) == (variants, variants - 1)
    assert tapes.played == STEPS - 1 - variants * (WARM_UP_STEPS + 1)
    assert differences(everything(captured), everything(plain)) == []


def test_a_restored_trainer_records_anew() -> None:
    tapes = Tapes()
    trainer, plain = trainer_of("cyclegan", tapes), trainer_of("cyclegan", None)
    run(trainer, 6)
    state = {part: stateful.state() for part, stateful in trainer.stateful().items()}
    for part, stateful in trainer.stateful().items():
        stateful.restore({key: v.clone() if isinstance(v, Tensor) else v for key, v in state[part].items()})
    run(trainer, STEPS)
    run(plain, STEPS)
    assert tapes.recorded == 2
    assert differences(everything(trainer), everything(plain)) == []


def test_an_objective_that_waits_for_the_device_is_trained_as_it_is_and_a_note_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, plain = trainer_of("cyclegan", Tapes()), trainer_of("cyclegan", None)
    for one in (trainer, plain):
        inner = one.objective.judges.to_judge  # type: ignore[attr-defined]

        def waiting(fakes: Mapping[str, Tensor], draws: Mapping[str, Tensor], inner: Any = inner) -> dict[str, Tensor]:
            nothing = 0 * float(fakes["a"].detach().mean())  # before the buffers are written to, which a tape really does
            judged: dict[str, Tensor] = inner(fakes, draws)
            return {domain: images + nothing for domain, images in judged.items()}

        monkeypatch.setattr(one.objective.judges, "to_judge", waiting)  # type: ignore[attr-defined]
        assert isinstance(one.objective.prepare(one.loader.batch(0, one.objective.draws), frozenset()), CycleStep)
        for extra in one.objective.extras.values():
            extra.settle(torch.zeros(()))
        run(one, 8)
    assert trainer.note is not None
    assert "not permitted while recording" in trainer.note
    assert "\n" not in trainer.note
    assert plain.note is None
    assert differences(everything(trainer), everything(plain)) == []


def test_memory_that_runs_out_while_recording_is_no_reason_to_go_on() -> None:
    class Full(Tapes):
        def capture(self, work: Callable[[], None]) -> Callable[[], None]:
            raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        run(trainer_of("cyclegan", Full()), STEPS)


def test_a_new_variant_gets_the_others_memory_and_one_that_comes_back_is_recorded_once_more() -> None:
    done: list[str] = []
    number = torch.zeros(())

    def work(variant: frozenset[str]) -> None:
        number.add_(1)
        done.extend(variant)

    tapes = Tapes()
    runner = StepRunner(work, tapes, lambda reason: None)
    once, twice = frozenset({"once"}), frozenset({"twice"})
    sequence = [once] * 6 + [twice] * 6 + [once, twice, once, twice]
    for variant in sequence:
        runner(variant)
    assert int(number) == len(sequence)
    assert (tapes.recorded, tapes.released) == (3, 1)
    assert done.count("once") == WARM_UP_STEPS + 2  # recorded twice; a played tape does not come by here
    assert done.count("twice") == WARM_UP_STEPS + 1
