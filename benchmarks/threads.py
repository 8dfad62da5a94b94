"""Whether a training's own choice of CPU threads holds: against every fixed number, alone and beside busy neighbours.

    python benchmarks/threads.py --neighbours 0,1,2

For each number of neighbours (busy processes) the same training of `fast` on noise runs with the number of
threads that its trial chooses, and with 1, half and all cores, in turns. Prints steps a second of each, and the share of
the best fixed number that the choice reaches; the aim is 0.8 or more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from fruitgan.device import using_threads
from fruitgan.machine import cores
from fruitgan.train_gan.assemble import make_plan
from fruitgan.train_gan.estimate import throw_away_step, training_threads
from fruitgan.train_gan.settings import TrainGanSettings

BUSY = "while True: sum(range(100_000))"
AIM = 0.8


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many other processes that take all of a core each."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--neighbours", default="0,1,2")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each number in each turn")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)
    plan = make_plan(TrainGanSettings(recipe=given.recipe, image_size=given.image_size), torch.device("cpu"))
    step = throw_away_step(plan)
    fixed = sorted({1, max(1, cores() // 2), cores()})
    for count in map(int, given.neighbours.split(",")):
        steps: dict[str, float] = dict.fromkeys(["chosen", *map(str, fixed)], 0.0)
        spent = dict.fromkeys(steps, 0.0)
        choices = []
        with neighbours(count):
            for _ in range(given.turns):
                choices.append(training_threads(plan, None, deterministic=False).number)
                for name, number in zip(steps, [choices[-1], *fixed], strict=True):
                    with using_threads(number):
                        step()
                        began = time.perf_counter()
                        while time.perf_counter() - began < given.seconds:
                            step()
                            steps[name] += 1
                        spent[name] += time.perf_counter() - began
        rates = {name: steps[name] / spent[name] for name in steps}
        best = max(rates[str(number)] for number in fixed)
        told = ", ".join(f"{name}: {rate:.2f}" for name, rate in rates.items())
        verdict = "" if rates["chosen"] >= AIM * best else f" (under {AIM})"
        print(
            f"{count} neighbours: chose {choices}; steps/s {told}; {rates['chosen'] / best:.2f} of the best{verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
