"""What several processes give a training: measured with two on this machine, and on paper for eight and sixty-four GPUs.

    python benchmarks/distributed.py --data apple2orange            # on two quiet cores
    python benchmarks/distributed.py --paper

Measured: `fast` at 128 px, the same global batch, in one process of one thread, in two of one thread each, and in two
independent trainings of one thread side by side. Rounds take turns. The last is what the machine gives at most where two
processes share its memory and caches; the aim is that two as one reach 0.9 of it.

On paper: products counted on torch's device without memory, at a quarter of the data sheet's rate (which is what
convolutions of few images reach); bytes are those of the all-reduce of all players' gradients and the all-gather of the fakes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch

from fruitgan.train_gan.assemble import make_objective, make_plan
from fruitgan.train_gan.estimate import count_work, mean_multiply_adds
from fruitgan.train_gan.settings import TrainGanSettings

AIM = 0.9
RECIPES = ("cyclegan", "seed-unet", "fruit", "fast", "cut", "lesson")
# An NVIDIA H100 SXM and its machines, by the data sheets: dense bf16; NVLink one way; a 400 Gbit/s adapter for each GPU.
FLOPS, REACHED = 989e12, 0.25
NVLINK_BYTES, INFINIBAND_BYTES = 450e9, 50e9
LATENCY_SECONDS = {8: 30e-6, 64: 100e-6}
"""Of one collective."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--data", default="apple2orange")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.paper:
        paper()
    else:
        measure(given)


def measure(given: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {"one": [], "two as one": [], "two beside each other": []}
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(given.rounds):
            out = f"{scratch}/{number}"
            rates["one"].append(sum(trained(given, [f"{out}-one"], 1)))
            rates["two as one"].append(sum(trained(given, [f"{out}-two"], 2)))
            rates["two beside each other"].append(sum(trained(given, [f"{out}-left", f"{out}-right"], 1)))
    for name, found in rates.items():
        print(f"{name:22} {', '.join(f'{rate:.2f}' for rate in found)} images/s")
    share = max(rates["two as one"]) / max(rates["two beside each other"])
    print(f"two as one reach {share:.2f} of two beside each other; the aim is {AIM}")


def trained(given: argparse.Namespace, folders: list[str], processes: int) -> list[float]:
    """Images a second of trainings that run at the same time, each in so many processes of one thread."""
    command = [sys.executable, "-m", "fruitgan", "train-gan", "--data", given.data, "--recipe", "fast", "--gpu", "none"]
    command += ["--image-size", str(given.image_size), "--batch-size", str(given.batch_size), "--steps", str(given.steps)]
    command += ["--threads", "1", "--processes", str(processes), "--json", "--quiet", "--save-every", str(given.steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([*command, "--out", folder], stdout=subprocess.PIPE, text=True, env=environment) for folder in folders
    ]
    said = [process.communicate()[0] for process in running]
    return [float(json.loads(text)["images_per_second"]) for text in said]


def paper() -> None:
    print("| recipe | GFLOP an image | gradients, MB | fakes an image, MB | 8 GPUs | 64 GPUs | images a GPU for 0.9 of 64 |")
    print("|---|---|---|---|---|---|---|")
    for recipe in RECIPES:
        plan = make_plan(TrainGanSettings(recipe=recipe, batch_size=1), torch.device("cpu"))
        work = 2 * mean_multiply_adds(count_work(plan))
        with torch.device("meta"):
            objective = make_objective(plan)
        names = {name for player in objective.players for name in player.networks}
        gradients = sum(4 * p.numel() for name in names for p in objective.networks[name].parameters() if p.requires_grad)
        fakes = sum(12 * plan.recipe.image_size_px**2 for name in objective.extras if name.startswith("pool"))
        seconds = work / FLOPS / REACHED
        shares = [share_kept(gpus, gradients, fakes, seconds, 1) for gpus in (8, 64)]
        numbers = (n for n in (1, 2, 4, 8, 16, 32, 64) if share_kept(64, gradients, fakes, seconds, n) >= AIM)
        enough = next(numbers, "never")
        cells = [recipe, f"{work / 1e9:,.0f}", f"{gradients / 1e6:.1f}", f"{fakes / 1e6:.2f}"]
        print(f"| {' | '.join([*cells, *(f'{share:.2f}' for share in shares), str(enough)])} |")


def share_kept(gpus: int, gradient_bytes: float, fake_bytes: float, seconds: float, images: int) -> float:
    """Of a GPU's own rate, with so many images each: the all-reduce and the all-gather come on top, and hide behind nothing.

    A ring moves 2 (n - 1) / n of the gradients over each link; between machines of eight, each GPU's adapter an eighth.
    """
    within, machines = min(gpus, 8), gpus // 8
    spent = 2 * (within - 1) / within * gradient_bytes / NVLINK_BYTES
    if machines > 1:
        spent += 2 * (machines - 1) / machines * gradient_bytes / within / INFINIBAND_BYTES
    spent += (gpus - 1) * images * fake_bytes / (NVLINK_BYTES if machines == 1 else INFINIBAND_BYTES)
    spent += LATENCY_SECONDS[gpus] * (2 if fake_bytes else 1)
    return images * seconds / (images * seconds + spent)


if __name__ == "__main__":
    main()
