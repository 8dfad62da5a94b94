"""Train for long, killed now and then, and tell whether memory grows and whether the log is whole.

    python benchmarks/long_run.py                            # 20,000 steps and 5 kills
    python benchmarks/long_run.py --steps 1100 --kills 1 --warm-up 500 --confidence 0.999

The networks are two convolutions each, as a plug-in could bring them, so that most of the work is what is around them and stays
for long: images, pools of past fakes, optimisers, log, samples, watch, checkpoints. A kill is a SIGKILL somewhere in the step
after a line of the log that was drawn. Slopes are of each sitting after its warm-up: of the bytes in use (asked of the C
library and not given back), of Python's blocks in use, and of the resident memory, in which holes count too. Needs glibc 2.33.

Two caches of fixed size fill ever more slowly as a process goes on and would be taken for a leak: small pieces that the C
library keeps by thread and counts as in use, and the names in CPython's cache of attributes. The first is switched off (the
benchmark starts itself again with GLIBC_TUNABLES), the second emptied before each look.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import random
import signal
import statistics
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from PIL import Image
from scipy import stats

from fruitgan.progress import Event, Progress
from fruitgan.train_gan.assemble import make_plan
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings

WARM_UP_STEPS = 1000
"""Of each sitting: pools and the watch's windows fill, and what is made once is made."""
STRETCH_STEPS = 100
NO_THREAD_CACHE = "glibc.malloc.tcache_count=0"
LOG_EVERY, SAVE_EVERY, SAMPLE_EVERY = 10, 50, 100
NETWORKS = """
from torch import nn
from fruitgan.networks.contracts import Discriminator, Generator, SizeRule


class Small(Generator):
    size_rule = SizeRule(minimum_px=8, multiple_of_px=1)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1))

    def forward(self, x):
        return (x + self.layers(x)).tanh()


class Judge(Discriminator):
    size_rule = SizeRule(minimum_px=8, multiple_of_px=1)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))

    def forward(self, x):
        return (self.layers(x),)
"""


def install_networks(site: Path) -> None:
    """Bring the networks as a package of its own would."""
    about = site / "small_networks-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: small-networks\nVersion: 1.0\n")
    points = (
        "[fruitgan.generators]\nsmall = small_networks:Small\n[fruitgan.discriminators]\nsmall-judge = small_networks:Judge\n"
    )
    (about / "entry_points.txt").write_text(points)
    (site / "small_networks.py").write_text(NETWORKS)
    sys.path.insert(0, str(site))


def draw_images(folder: Path) -> None:
    drawn = np.random.default_rng(0)
    for split, light in (("trainA", 0), ("trainB", 80), ("testA", 0), ("testB", 80)):
        (folder / split).mkdir(parents=True)
        for number in range(12):
            pixels = drawn.integers(0, 150, (24, 24, 3)) + light
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / f"{number}.png")


class HeapInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
    ]


def in_use_bytes() -> int:
    """What was asked of the C library and not given back, in its heaps and beside them; without Python's small objects."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = HeapInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@dataclass(frozen=True)
class Seen:
    """At a line of the log."""

    step: int
    in_use: int
    blocks: int
    resident: int


def sitting(settings: TrainGanSettings, kill_at_step: int | None) -> list[Seen]:
    """One sitting in a fork, killed when the log has a line of this step: what was seen at its beginning and at every line."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with os.fdopen(writing, "w", buffering=1) as told:
                train_gan(settings, lambda event: _tell(event, told))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    seen: list[Seen] = []
    with os.fdopen(reading) as told:
        for line in told:
            seen.append(Seen(*map(int, line.split())))
            if seen[-1].step == kill_at_step:
                os.kill(child, signal.SIGKILL)
                break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != (0 if kill_at_step is None else -signal.SIGKILL):
        raise SystemExit(f"a run segment ended with {code}")
    return seen


def _tell(event: Event, told: TextIO) -> None:
    match event:
        case Progress(done=step, details={"run": _}) | Progress(done=step, details={"losses": {}}):
            pass
        case _:
            return
    gc.collect()
    _empty_attribute_cache()
    print(step, in_use_bytes(), sys.getallocatedblocks(), resident_bytes(), file=told)


def _empty_attribute_cache() -> None:
    """CPython keeps up to 4,096 names in it, each in a place by its address, so that equal ones are kept many times."""
    if sys.version_info >= (3, 13):
        sys._clear_internal_caches()
    else:
        sys._clear_type_cache()


def after_warm_up(seen: list[Seen], warm_up_steps: int) -> list[Seen]:
    """The ends of a sitting's stretches after the warm-up, each before a checkpoint: while one is written more is in use."""
    begin = seen[0].step + warm_up_steps
    return [at for at in seen if at.step >= begin and at.step % STRETCH_STEPS == STRETCH_STEPS - LOG_EVERY]


def slope(sittings: list[list[int]], confidence: float) -> dict[str, Any]:
    """How much a step was gained over the stretches of all sittings, with its interval.

    Memory moves in jumps that stay, like a walk: what is independent are its gains over equal stretches, and so this is the t
    interval of theirs.
    """
    gained = [(later - before) / STRETCH_STEPS for ends in sittings for before, later in pairwise(ends)]
    mean = statistics.fmean(gained)
    half = float(stats.t.ppf((1 + confidence) / 2, len(gained) - 1)) * statistics.stdev(gained) / math.sqrt(len(gained))
    return {"per_step": round(mean, 3), "interval": [round(mean - half, 3), round(mean + half, 3)]}


def long_run(steps: int, kills: int, warm_up_steps: int, confidence: float, folder: Path) -> dict[str, Any]:
    data = folder / "dark2light"
    draw_images(data)
    install_networks(folder / "site")
    settings = TrainGanSettings(
        data=str(data),
        recipe="cyclegan",
        generator="small",
        discriminator="small-judge",
        image_size=16,
        steps=steps,
        log_every=LOG_EVERY,
        save_every=SAVE_EVERY,
        sample_every=SAMPLE_EVERY,
        seed=0,
        gpu="none",
        precision="fp32",
        out=folder,
        name="run",
    )
    make_plan(settings, torch.device("cpu"))  # imports the rest, so that no fork need do it
    lines = range(LOG_EVERY, steps, LOG_EVERY)
    killed_at = sorted(random.Random(0).sample(lines, kills))
    sittings = []
    for step in [*killed_at, None]:
        sittings.append(sitting(settings, step))
        settings = TrainGanSettings(resume="run", out=folder, gpu="none")
    warm = [after_warm_up(seen, warm_up_steps) for seen in sittings]
    found = [json.loads(line)["step"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return {
        "steps": json.loads((folder / "run" / "result.json").read_text())["step"],
        "in_use": slope([[at.in_use for at in ends] for ends in warm], confidence),
        "blocks": slope([[at.blocks for at in ends] for ends in warm], confidence),
        "resident": slope([[at.resident for at in ends] for ends in warm], confidence),
        "resident_mib": [[round(seen[0].resident / 2**20, 1), round(seen[-1].resident / 2**20, 1)] for seen in sittings],
        "killed_at_steps": killed_at,
        "went_on_from": [seen[0].step for seen in sittings[1:]],
        "lines": len(found),
        "missing": sorted({*lines, steps} - set(found)),
        "twice_or_out_of_order": sum(later <= before for before, later in pairwise(found)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=WARM_UP_STEPS, metavar="STEPS")
    parser.add_argument("--confidence", type=float, default=0.95, metavar="SHARE", help="of the intervals")
    arguments = parser.parse_args()
    if os.environ.get("GLIBC_TUNABLES") != NO_THREAD_CACHE:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "GLIBC_TUNABLES": NO_THREAD_CACHE})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = long_run(arguments.steps, arguments.kills, arguments.warm_up, arguments.confidence, Path(folder))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
