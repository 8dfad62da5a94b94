"""How much faster a training step is than the same step written plainly, both measured in turn in one run.

    python benchmarks/train_step.py --recipe seed-unet --threads 2
    python benchmarks/train_step.py --recipe cyclegan --device cuda --precision bf16 --rounds 30

`plain` calls every network once for each kind of image, uses torch's own instance norm, convolutions, borders, blurs and Adam
as they come, in fp32, and the C library's way with freed memory; its losses are those of
`fruitgan.train_gan.objectives.cyclegan` (of `fruit`'s it leaves out the masks and the changes of what discriminators are shown,
so that only ours can be read there). Each turn begins with a step that does not count. Ratios are of medians, their interval
that of the single rounds. On a GPU ours is captured as CUDA graphs, unless `--eager`, and lies channels last, unless
`--contiguous`. Beside them stands what this machine reaches on one large product and on one large convolution.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, cast
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fruitgan.data.loader import Batch, Loader, Sampler
from fruitgan.device import keep_freed_memory, memory_format_of
from fruitgan.networks import layers
from fruitgan.settings import Precision
from fruitgan.train_gan import trainer as training
from fruitgan.train_gan.assemble import compile_networks, make_objective, make_plan
from fruitgan.train_gan.cuda_graphs import WARM_UP_STEPS, CudaGraphs
from fruitgan.train_gan.objectives.adversarial import ReplayBuffer, discriminator_loss, generator_loss
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.recipe import Recipe
from fruitgan.train_gan.settings import Plan, TrainGanSettings


class Noise(Loader):
    """A feed of one batch of noise, the same at every step."""

    def __init__(self, n: int, side_px: int, device: torch.device) -> None:
        random = torch.Generator().manual_seed(0)
        self.a, self.b = (torch.rand((n, 3, side_px, side_px), generator=random).mul(2).sub(1).to(device) for _ in range(2))
        self.n = n

    def batch(self, step: int, draws: Any) -> Batch:
        return Batch(
            self.a, self.b, {name: torch.zeros((self.n, count), device=self.a.device) for name, count in draws.items()}
        )


class PlainStep:
    """The step as it is usually written."""

    def __init__(self, objective: Objective, recipe: Recipe, feed: Noise) -> None:
        self.networks, self.weights, self.feed = objective.networks, objective.weights, feed
        self.mode = str(recipe.objective.options["gan_mode"])
        pool_size = int(recipe.objective.options["pool_size"])
        self.pools = {domain: ReplayBuffer(pool_size) if pool_size else None for domain in "ab"}
        self.optimizers = {}
        for kind in ("generator", "discriminator"):
            parameters = [p for name, net in objective.networks.items() if name.startswith(kind) for p in net.parameters()]
            adam = recipe.optimizers[f"{kind}s"]
            self.optimizers[kind] = torch.optim.Adam(parameters, adam.learning_rate, (adam.beta_1, adam.beta_2), adam.epsilon)

    def __call__(self) -> None:
        nets, a, b, weights = self.networks, self.feed.a, self.feed.b, self.weights
        ab, ba, judge_a, judge_b = (nets[n] for n in ("generator_ab", "generator_ba", "discriminator_a", "discriminator_b"))
        fake_b, fake_a = ab(a), ba(b)
        cycled_a, cycled_b = ba(fake_b), ab(fake_a)
        loss = weights["cycle"] * ((cycled_a - a).abs().mean() + (cycled_b - b).abs().mean())
        if float(weights["identity"]):
            loss = loss + weights["identity"] * ((ba(a) - a).abs().mean() + (ab(b) - b).abs().mean())
        for judge in (judge_a, judge_b):
            judge.requires_grad_(False)
        loss = loss + generator_loss(self.mode, judge_b(fake_b)) + generator_loss(self.mode, judge_a(fake_a))
        self._descend("generator", loss)
        for domain, judge, real, fake in (("a", judge_a, a, fake_a), ("b", judge_b, b, fake_b)):
            judge.requires_grad_(True)
            pool = self.pools[domain]
            fake = fake.detach() if pool is None else pool.query(fake, torch.zeros((len(a), 2), device=a.device))
            self._backward(discriminator_loss(self.mode, judge(real), judge(fake)))
            if pool is not None:
                pool.settle(torch.ones((), device=a.device))
        self.optimizers["discriminator"].step()
        self.optimizers["discriminator"].zero_grad()

    def _descend(self, kind: str, loss: Tensor) -> None:
        self._backward(loss)
        self.optimizers[kind].step()
        self.optimizers[kind].zero_grad()

    @staticmethod
    def _backward(loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def plain_layers() -> Iterator[None]:
    """torch's own instance norm, convolutions and reflected borders in place of ours."""

    def instance_norm(self: layers.InstanceNorm, x: Tensor) -> Tensor:
        if x.shape[-2:] == (1, 1):
            return group_norm(self, x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)

    group_norm = layers.InstanceNorm.forward
    with (
        mock.patch.object(layers.InstanceNorm, "forward", instance_norm),
        mock.patch.object(layers, "_better_as_matmul", return_value=False),
        mock.patch.object(layers, "_has_own_gradient", return_value=False),
    ):
        yield


def trainer_of(
    plan: Plan, device: torch.device, precision: Precision, *, eager: bool = False, compiled: bool = False
) -> training.Trainer:
    objective = make_objective(plan)
    if compiled:
        compile_networks(objective.networks, device)
    feed = Noise(plan.recipe.batch_size, plan.recipe.image_size_px, device)
    many = 10**9
    sampler = Sampler(many, many, plan.recipe.batch_size, 0, plan.recipe.pairing)
    return training.Trainer(
        objective,
        plan.recipe,
        feed,
        total_steps=many,
        steps_per_epoch=sampler.steps_per_epoch,
        seed=0,
        device=device,
        precision=precision,
        log_every=many,
        capture=CudaGraphs(device) if device.type == "cuda" and not eager else None,
    )


def as_glibc_does() -> None:
    """What its own thresholds grow to: larger blocks come from the system each time."""
    keep_freed_memory(32 << 20, 64 << 20)


def peak_gflops(device: torch.device, precision: Precision) -> dict[str, float]:
    """What the machine reaches: multiplications and additions, 1e9 a second, on a large product and a large convolution."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side, images, repeats = (8192, 64, 20) if device.type == "cuda" else (1536, 2, 3)  # a GPU is not filled by less
    x, w = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    maps = torch.randn(images, 256, 64, 64, device=device, dtype=dtype).to(memory_format=memory_format_of(device))
    filters = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).to(memory_format=memory_format_of(device))
    work: dict[str, tuple[Callable[[], object], float]] = {
        "product": (lambda: x @ w, 2 * float(side) ** 3),
        "convolution": (lambda: F.conv2d(maps, filters, padding=1), 2 * images * 64 * 64 * 256 * 256 * 9.0),
    }
    found = {}
    with torch.no_grad():
        for name, (function, operations) in work.items():
            seconds(function, device, repeats)
            found[name] = max(operations / seconds(function, device, repeats) / 1e9 for _ in range(5))
    return found


def step_operations(plan: Plan) -> int:
    """Multiplications and additions of one step of ours, counted on the CPU."""
    trainer = trainer_of(plan, torch.device("cpu"), "fp32")
    with FlopCounterMode(display=False) as counter:
        next(trainer.steps(1))
    return int(counter.get_total_flops())


def stepper(trainer: training.Trainer) -> Callable[[], object]:
    steps = trainer.steps(10**9)
    return lambda: next(steps)


def plain_stepper(plan: Plan, device: torch.device) -> Callable[[], object]:
    objective = make_objective(plan)
    objective.to(device)
    objective.networks.train()
    for name, schedule in plan.recipe.weights.items():
        objective.weights[name].fill_(schedule.start)
    step = PlainStep(objective, plan.recipe, Noise(plan.recipe.batch_size, plan.recipe.image_size_px, device))

    def run() -> None:
        with plain_layers():
            step()

    return run


def seconds(step: Callable[[], object], device: torch.device, repeats: int) -> float:
    _wait_for(device)
    began = time.perf_counter()
    for _ in range(repeats):
        step()
    _wait_for(device)
    return (time.perf_counter() - began) / repeats


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", default="seed-unet")
    parser.add_argument("--precision", default="fp32,bf16", help="of ours, several with commas; plain is fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1, help="steps a round")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs")
    parser.add_argument("--contiguous", action="store_true", help="channels not last on a GPU")
    parser.add_argument("--compile", action="store_true", help="our networks through torch.compile")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before the first round")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    wishes = TrainGanSettings(recipe=given.recipe, image_size=given.image_size, batch_size=given.batch_size, seed=0)
    plan = make_plan(wishes, device)
    steppers: dict[str, Callable[[], object]] = {"plain fp32": plain_stepper(plan, device)}
    if given.contiguous:
        mock.patch.object(training, "memory_format_of", return_value=torch.contiguous_format).start()
    for precision in given.precision.split(","):
        ours = trainer_of(plan, device, cast(Precision, precision), eager=given.eager, compiled=given.compile)
        steppers[f"fruitgan {precision}"] = stepper(ours)
    operations = step_operations(plan)
    for step in steppers.values():
        seconds(step, device, given.warm_up + (WARM_UP_STEPS + 1 if device.type == "cuda" else 0))
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(given.rounds):
        for name, step in steppers.items():
            as_glibc_does() if name.startswith("plain") else keep_freed_memory()
            step()  # what the turn before gave back to the system is fetched anew, which no training does at every step
            times[name].append(seconds(step, device, given.repeats))
    size = f"{plan.recipe.image_size_px} px, batch {plan.recipe.batch_size}"
    ways = [way for way in ("eager", "contiguous", "compile") if getattr(given, way)]
    on = " ".join([given.device, *ways])
    print(f"{given.recipe}, {size}, {on}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    plain = times["plain fp32"]
    for name, mine in times.items():
        ratios = [p / m for p, m in zip(plain, mine, strict=True)]
        ratio = statistics.median(plain) / statistics.median(mine)
        gflops = operations / statistics.median(mine) / 1e9
        print(
            f"{name:16} {1000 * statistics.median(mine):9.1f} ms a step   {ratio:5.2f} times as fast "
            f"({min(ratios):.2f} to {max(ratios):.2f} over {given.rounds} rounds)   {gflops:7.0f} GFLOP/s"
        )
    for precision in given.precision.split(","):
        reached = ", ".join(
            f"{value:.0f} on a {name}" for name, value in peak_gflops(device, cast(Precision, precision)).items()
        )
        print(f"this machine in {precision}, GFLOP/s: {reached}")


if __name__ == "__main__":
    main()
