"""Golden losses: the first steps of a tiny run of each recipe, recorded so that no change of the mathematics goes unseen.

    python tests/golden/regenerate.py

writes the recipes' JSON files in this folder anew. Do it when the mathematics was meant to change, look at the difference, and
give the numbers before and after in the changelog.

Adversarial training is chaotic: in float32 another processor's rounding grows to tens of per cent within these few steps. So
the runs are made in float64, from weights that are drawn here to the last bit.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from fruitgan import randomness
from fruitgan.data.augment import augmentations
from fruitgan.data.loader import Batch, Loader
from fruitgan.data.sources import folder_source
from fruitgan.progress import silent
from fruitgan.train_gan.assemble import Datasets, load_datasets, make_objective, make_plan, make_trainer
from fruitgan.train_gan.settings import Plan, TrainGanSettings
from fruitgan.train_gan.trainer import Trainer

HERE = Path(__file__).parent
STEPS = 20

# Small enough for seconds; each with its own kinds of networks, losses, schedules and pairing.
RECIPES: dict[str, dict[str, Any]] = {
    "cyclegan": {"generator_options": {"base_channels": "4"}, "image_size": 24},
    "seed-unet": {"generator_options": {"base_channels": "4"}, "generator": "unet-128", "image_size": 128},
    "fruit": {"generator_options": {"base_channels": "4", "blocks": "1"}, "image_size": 96},
    "cut": {"generator_options": {"base_channels": "4", "blocks": "1"}, "image_size": 48, "batch_size": 2},
    "lesson": {"generator_options": {"base_channels": "4", "blocks": "1"}, "image_size": 48},
    "fast": {"generator_options": {"base_channels": "4", "blocks": "2"}, "image_size": 48, "batch_size": 2},
}


def draw_images(folder: Path, side_px: int) -> None:
    """Five and four waves of colour. They have the size at which they are kept, so that no resampling takes part."""
    down, right = np.mgrid[0:side_px, 0:side_px] / side_px
    for split, n, shift in (("trainA", 5, 0.0), ("trainB", 4, 0.5), ("testA", 1, 0.0), ("testB", 1, 0.5)):
        (folder / split).mkdir(parents=True)
        for number in range(n):
            phases = 6 * down[..., None] * (number + 1) + (5 + number) * right[..., None] + np.array([0.0, 1.0, 2.5]) + shift
            pixels = 255 * (0.5 + 0.5 * np.sin(phases)) ** (1 + shift)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / f"{number}.png")


@torch.no_grad()
def set_weights(networks: nn.ModuleDict) -> None:
    """Start as the recipes do (deviation 0.02 around 0, around 1 for scales), from numbers that no version of torch changes."""
    for number, (name, tensor) in enumerate(networks.double().state_dict().items()):
        uniform = 2 * randomness.sample(0, number, tensor.numel(), "golden weights").reshape(tensor.shape) - 1
        if name.endswith(("_u", "_v")):  # spectral norm's vectors
            tensor.copy_(torch.from_numpy(uniform / np.sqrt((uniform**2).sum())))
        else:
            middle = 1.0 if tensor.ndim == 1 and name.endswith("weight") else 0.0
            tensor.copy_(torch.from_numpy(middle + 0.02 * np.sqrt(3) * uniform))


class InFloat64(Loader):
    """A feed's batches, images and draws alike."""

    def __init__(self, feed: Loader) -> None:
        self.feed = feed

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        made = self.feed.batch(step, draws)
        return Batch(made.a.double(), made.b.double(), {name: numbers.double() for name, numbers in made.draws.items()})


def plan_of(recipe: str, **more: Any) -> Plan:
    settings = {"steps": STEPS, "seed": 11, "precision": "fp32", "discriminator_options": {"base_channels": "4"}}
    return make_plan(TrainGanSettings(recipe=recipe, **settings | RECIPES[recipe] | more), torch.device("cpu"))


def draw_for(plan: Plan, folder: Path) -> None:
    draw_images(folder, augmentations.build(plan.augmentation).load_size_px(plan.recipe.image_size_px))


def datasets_of(plan: Plan, folder: Path) -> Datasets:
    return load_datasets(plan, folder_source(folder, ("a", "b")), silent)


def trainer_of(plan: Plan, datasets: Datasets, *, in_float64: bool = True) -> Trainer:
    objective = make_objective(plan)
    set_weights(objective.networks)
    if not in_float64:
        objective.networks.float()
    trainer = make_trainer(plan, datasets, objective, torch.device("cpu"), log_every=1)
    if in_float64:
        trainer._inputs.loader = InFloat64(trainer.loader)
    return trainer


def first_losses(recipe: str, folder: Path, steps: int = STEPS) -> list[dict[str, float]]:
    """The losses of each of the first steps, by term; the images are drawn into the folder."""
    plan = plan_of(recipe)
    draw_for(plan, folder)
    trainer = trainer_of(plan, datasets_of(plan, folder))
    return [dict(report.losses or {}) for report in trainer.steps(steps)]


def golden_file(recipe: str) -> Path:
    return HERE / f"{recipe}.json"


def main() -> None:
    for recipe in RECIPES:
        with tempfile.TemporaryDirectory() as folder:
            losses = first_losses(recipe, Path(folder) / "data")
        rounded = [{term: float(f"{value:.10g}") for term, value in step.items()} for step in losses]
        lines = ",\n".join(json.dumps(step) for step in rounded)
        golden_file(recipe).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        print(f"{golden_file(recipe)}: {len(losses)} steps")


if __name__ == "__main__":
    main()
