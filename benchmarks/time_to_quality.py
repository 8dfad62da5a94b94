"""Time to a good picture: how long a recipe trains until its pictures reach R <= 0.5 and 0.3, by each judge.

    OMP_NUM_THREADS=1 python benchmarks/time_to_quality.py --data apple2orange --out ttq --recipe fast --minutes 60
    OMP_NUM_THREADS=1 python benchmarks/time_to_quality.py --data apple2orange --out ttq --recipe cyclegan --minutes 600

One recipe a call, all at one size, from the same images and seed, on one machine; calls share the folder, and each prints the
table of all recipes in it. A tenth of the training images is held out by hash; every `--every` minutes of training (judging
does not count) the EMA generator (the last weights, where a recipe has none) translates them, and R = KID(fake, real) /
KID(source, real) is taken on features that trained none of the recipes. The pictures of every look stay, for other judges. A
call that was stopped goes on from its last look. `narrow` is `fruit` with 16 channels; the U-Net is that of the size. On a CPU
a minute is one of the processor's time, so that what else the machine does counts little; on a GPU it is one of the clock.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality import WAYS, cut, described, judged, pictures, plan_of
from torch import device as Device

from fruitgan.data.sources import find_source
from fruitgan.device import choose_device, has_fast_bf16
from fruitgan.files import write_atomically
from fruitgan.images import Pixels
from fruitgan.measures.distances import kernel_distance
from fruitgan.runs.checkpoint import Checkpoints
from fruitgan.train_gan.assemble import load_datasets, make_objective, make_trainer
from fruitgan.train_gan.recipe import Part, Recipe, recipes
from fruitgan.train_gan.trainer import Trainer

RECIPES = ("fast", "narrow", "cyclegan", "seed-unet")
GOALS = (0.5, 0.3)
Look = dict[str, Any]
"""`seconds` of training, `step`, and `r`: by direction and judge, as in "a2b random"."""


def recipe_of(name: str, size_px: int, steps: int) -> Recipe:
    """The recipe at the benchmark's size, over so many steps."""
    recipe = recipes.get("fruit" if name == "narrow" else name)
    if name == "narrow":
        generator = Part(name=recipe.generator.name, options={**recipe.generator.options, "base_channels": 16})
        recipe = dataclasses.replace(recipe, generator=generator)
    if recipe.generator.name == "unet-256" and size_px % 256:
        recipe = dataclasses.replace(recipe, generator=Part(name="unet-128", options=recipe.generator.options))
    return dataclasses.replace(recipe, image_size_px=size_px, epochs=None, steps=steps)


class Judges:
    """R of translations of held-out images, by each set of features."""

    def __init__(self, shown: Mapping[str, list[Pixels]], names: Sequence[str], device: Device) -> None:
        self.shown, self.names, self.device = shown, names, device
        self.real = {f"{letter} {name}": described(images, name) for letter, images in shown.items() for name in names}

    def look(self, trainer: Trainer, folder: Path) -> dict[str, float]:
        """R by direction and judge: 0 is as far from the real images as they are from themselves, 1 has changed nothing."""
        fakes = judged({way: trainer.generator(way) for way in WAYS}, self.shown, folder, self.device, self.names)
        found = {}
        for way, (of, to) in WAYS.items():
            for name in self.names:
                real = self.real[f"{to} {name}"]
                apart, before = (kernel_distance(real, x) for x in (fakes[f"{way} {name}"], self.real[f"{of} {name}"]))
                found[f"{way} {name}"] = apart / before
        return found


def worst(look: Look, judge: str) -> float:
    """R of the worse direction."""
    return max(float(look["r"][f"{way} {judge}"]) for way in WAYS)


def reached(looks: Sequence[Look], judge: str, goal: float) -> str:
    """The minute of the first look at which both directions are at the goal."""
    minutes = (look["seconds"] / 60 for look in looks if worst(look, judge) <= goal)
    first = next(minutes, None)
    return f"{first:.1f} min" if first is not None else f"not within {looks[-1]['seconds'] / 60:.1f} min"


def table(folder: Path) -> list[str]:
    """Markdown: when each recipe reached the goals by each judge, and its lowest R; R is that of the worse direction."""
    heads = ["recipe", "trained", "judge", *(f"R <= {goal}" for goal in GOALS), "lowest R"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for file in sorted(folder.glob("*.json")):
        looks: list[Look] = json.loads(file.read_text(encoding="utf-8"))
        trained = f"{looks[-1]['seconds'] / 60:.1f} min, {looks[-1]['step']:,} steps"
        for judge in dict.fromkeys(key.split()[1] for key in looks[-1]["r"]):
            times = [reached(looks, judge, goal) for goal in GOALS]
            lowest = min(worst(look, judge) for look in looks)
            lines.append(f"| {' | '.join([file.stem, trained, judge, *times, f'{lowest:.3f}'])} |")
    return lines


def train(given: argparse.Namespace, device: Device) -> None:
    """Train and look in turns until the time is up or the goal is reached."""
    source, held = cut(find_source(given.data), "held-out")
    precision = "bf16" if has_fast_bf16(device) else "fp32"
    plan = plan_of(recipe_of(given.recipe, given.image_size, given.steps), given.seed, precision, device)  # type: ignore[arg-type]
    trainer = make_trainer(plan, load_datasets(plan, source, lambda *_: None), make_objective(plan), device, log_every=100)
    shown = {letter: pictures(paths[: given.images], given.image_size) for letter, paths in held.items()}
    judges = Judges(shown, given.judges.split(","), device)
    file, checkpoints = given.out / f"{given.recipe}.json", Checkpoints(given.out / given.recipe, keep=1)
    trainer.step, _ = checkpoints.restore_newest(trainer.stateful())
    looks: list[Look] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    looks = [look for look in looks if look["step"] <= trainer.step]
    seconds = float(checkpoints.about(trainer.step).get("seconds", 0.0))
    steps = trainer.steps(trainer.total_steps)
    clock = time.process_time if device.type == "cpu" else time.monotonic
    while seconds < 60 * given.minutes and trainer.step < trainer.total_steps:
        began = clock()
        while clock() - began < 60 * given.every and next(steps, None) is not None:
            pass
        trainer.confirm()  # waits for the device
        seconds += clock() - began
        found = judges.look(trainer, given.out / given.recipe / f"fakes-{trainer.step:06d}")
        looks.append({"seconds": seconds, "step": trainer.step, "r": found})
        write_atomically(file, json.dumps(looks, indent=1).encode())
        checkpoints.save(trainer.step, trainer.stateful(), {"seconds": seconds})
        said = ", ".join(f"{key} {r:.2f}" for key, r in found.items())
        print(f"{given.recipe}: {seconds / 60:.1f} min, step {trainer.step:,}, R {said}", flush=True)
        if given.stop_at is not None and max(found.values()) <= given.stop_at:
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--minutes", type=float, default=60, help="of training, at most, those of earlier calls included")
    parser.add_argument("--every", type=float, default=2, help="minutes of training between two looks")
    parser.add_argument("--stop-at", type=float, metavar="R", help="end as soon as every judge sees this R or less")
    parser.add_argument("--steps", type=int, default=30_000, help="of the whole training, by which its schedules go")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=10_000, help="judged of each domain at most")
    parser.add_argument("--judges", default="random,colour", help="features that trained none of the recipes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    train(given, choose_device(None, given.device))
    text = "\n".join(table(given.out))
    write_atomically(given.out / "table.md", f"{text}\n".encode())
    print(text)


if __name__ == "__main__":
    main()
