"""What each ingredient of a recipe is worth at equal compute: reference and variants, equal seeds, the same images.

    python benchmarks/quality.py --data apple2orange --out quality           # a GPU: two arms, three seeds, 256 px
    python benchmarks/quality.py --data apple2orange --out quality --small   # a CPU: four rows, 64 px, one seed, indicative
    python benchmarks/quality.py --data apple2orange --out quality --of fast --judge held-out   # the CPU's recipe, 96 px

Every arm gets the multiply-adds of the reference's `--steps`, counted; what judges is its last weights (averaged, where it
averages), on the test images, opened once (`--judge held-out`: on the tenth of the training images that no arm trains on, for
choosing); the pictures stay beside its checkpoints, for other judges. Intervals are paired: the same images are drawn for both
arms of a difference. The GPU's form is about two hours on one NVIDIA H200 by our estimate, not tried; a training that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from quality_arms import LARGE, SMALL, fitted, of_fast, of_fruit

from fruitgan.data.augment import augmentations
from fruitgan.data.decode import decode
from fruitgan.data.sources import Domain, Source, find_source
from fruitgan.device import choose_device, has_fast_bf16
from fruitgan.files import write_atomically
from fruitgan.images import Pixels, squared
from fruitgan.measures.contracts import features
from fruitgan.measures.distances import kernel_distances
from fruitgan.measures.features import extract
from fruitgan.measures.statistics import percentile_interval, resample_weights
from fruitgan.networks.contracts import discriminators, generators
from fruitgan.report.page import png_bytes
from fruitgan.runs.checkpoint import Checkpoints
from fruitgan.settings import Precision
from fruitgan.train_gan.assemble import load_datasets, make_objective, make_plan, make_trainer
from fruitgan.train_gan.estimate import count_work, mean_multiply_adds
from fruitgan.train_gan.objectives.contracts import objectives
from fruitgan.train_gan.recipe import Recipe
from fruitgan.train_gan.samples import translate_batch
from fruitgan.train_gan.settings import Plan, TrainGanSettings

BACKENDS = ("random", "colour")
RESAMPLES = 1000
SAVE_EVERY = 500
BATCH = 8
WAYS = {"a2b": ("a", "b"), "b2a": ("b", "a")}
Values = NDArray[np.float64]


def slug(arm: str) -> str:
    """Its name in file names and in `--only`."""
    return "-".join(re.findall("[a-z0-9]+", arm.lower()))


def chosen_arms(given: argparse.Namespace) -> list[tuple[str, Recipe]]:
    """The rows that were asked for, the reference first."""
    rows = list((of_fruit() if given.of == "fruit" else of_fast()).items())
    if given.only:
        by_slug = {slug(arm): (arm, recipe) for arm, recipe in rows}
        if unknown := [name for name in given.only.split(",") if name not in by_slug]:
            raise SystemExit(f"--only: no row {', '.join(unknown)}; known are {', '.join(by_slug)}")
        return [by_slug[name] for name in given.only.split(",")]
    if given.all or given.of == "fast":
        return rows
    return [rows[index] for index in (SMALL if given.small else LARGE)]


def plan_of(recipe: Recipe, seed: int, precision: Precision, device: torch.device) -> Plan:
    """The recipe, resolved."""
    base = make_plan(TrainGanSettings(recipe="cyclegan", seed=seed), device)
    return dataclasses.replace(
        base,
        recipe=recipe,
        precision=precision,
        objective=objectives.choose(recipe.objective.name, recipe.objective.options),
        generator=generators.choose(recipe.generator.name, recipe.generator.options),
        discriminator=discriminators.choose(recipe.discriminator.name, recipe.discriminator.options),
        augmentation=augmentations.choose(recipe.augmentation.name, recipe.augmentation.options),
    )


def train(plan: Plan, source: Source, folder: Path, device: torch.device) -> dict[str, torch.nn.Module]:
    """The last weights by direction; goes on from the newest checkpoint."""
    banks = load_datasets(plan, source, lambda *_: None)
    trainer = make_trainer(plan, banks, make_objective(plan), device, log_every=100)
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    trainer.step, _ = checkpoints.restore_newest(trainer.stateful())
    began, first = time.monotonic(), trainer.step
    for report in trainer.steps(trainer.total_steps):
        if report.step % SAVE_EVERY == 0 or report.step == trainer.total_steps:
            trainer.confirm()
            checkpoints.save(report.step, trainer.stateful())
            rate = (time.monotonic() - began) / (report.step - first)
            print(f"{folder}: step {report.step} of {trainer.total_steps}, {rate:.2f} s a step", flush=True)
    return {way: trainer.generator(way) for way in trainer.objective.generators}


def pictures(paths: Sequence[Path], size_px: int) -> list[Pixels]:
    return [squared(decode(path).pixels, size_px) for path in paths]


def translated(network: torch.nn.Module, sources: Sequence[Pixels], device: torch.device) -> list[Pixels]:
    """What the generator makes of pictures, a few at a time."""
    batches = (sources[start : start + BATCH] for start in range(0, len(sources), BATCH))
    return [fake for batch in batches for fake in translate_batch(network, list(batch), device)]


def described(images: Sequence[Pixels], backend: str) -> Values:
    """The features [N, D] of pictures."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number:05d}.png" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(png_bytes(image))
        return extract(features.build(features.choose(backend, {})), paths).values


def judged(
    networks: Mapping[str, torch.nn.Module],
    shown: Mapping[str, list[Pixels]],
    folder: Path,
    device: torch.device,
    backends: Sequence[str] = BACKENDS,
) -> dict[str, Values]:
    """The features of what the networks made, by direction and backend; the pictures stay in the folder for other judges."""
    found: dict[str, Values] = {}
    for way, network in networks.items():
        fakes = translated(network, shown[WAYS[way][0]], device)
        shutil.rmtree(folder / way, ignore_errors=True)  # none of an earlier call that judged more
        (folder / way).mkdir(parents=True)
        for number, fake in enumerate(fakes):
            (folder / way / f"{number:05d}.png").write_bytes(png_bytes(fake))
        found |= {f"{way} {backend}": described(fakes, backend) for backend in backends}
    return found


def kids(real: Values, fake: Values, resamples: int = RESAMPLES) -> tuple[float, Values]:
    """KID, and that of every resample; the same images are drawn for every arm."""
    whole = kernel_distances(real, fake, np.ones((1, len(real))), np.ones((1, len(fake))))
    weights = (resample_weights(n, resamples, 0, what) for n, what in ((len(real), "real"), (len(fake), "fake")))
    return float(whole[0]), kernel_distances(real, fake, *weights)


def table(found: Mapping[str, list[dict[str, Values]]], real: Mapping[str, Values], steps: Mapping[str, int]) -> list[str]:
    """Rows of Markdown: KID and R of each arm, the mean over seeds; and the paired difference to the reference."""
    lines = [
        "| arm | steps | direction, features | KID x 100 | R | difference to the reference, 95% interval |",
        "|---|---|---|---|---|---|",
    ]
    for way, (of, to) in WAYS.items():
        for backend in BACKENDS:
            key = f"{way} {backend}"
            untouched, _ = kids(real[f"{to} {backend}"], real[f"{of} {backend}"], 1)
            known = {arm: seeds for arm, seeds in found.items() if key in seeds[0]}  # an arm may have one direction
            scores = {arm: [kids(real[f"{to} {backend}"], seed[key]) for seed in seeds] for arm, seeds in known.items()}
            reference = next(iter(scores))
            for arm, runs in scores.items():
                value = float(np.mean([score for score, _ in runs]))
                gap = ""
                if arm != reference:
                    ways = [mine[1] - theirs[1] for mine, theirs in zip(runs, scores[reference], strict=True)]
                    low, high = percentile_interval(np.mean(ways, axis=0))
                    base = float(np.mean([score for score, _ in scores[reference]]))
                    gap = f"{100 * (value - base):+.2f} ({100 * low:+.2f} to {100 * high:+.2f}), {value / base - 1:+.0%}"
                lines.append(f"| {arm} | {steps[arm]:,} | {key} | {100 * value:.2f} | {value / untouched:.3f} | {gap} |")
    return lines


def cut(source: Source, judge: str) -> tuple[Source, dict[str, tuple[Path, ...]]]:
    """What is trained on, and what is judged on: a tenth of the training images is never trained on."""
    train, held = {}, {}
    for letter, domain in (("a", source.a), ("b", source.b)):
        out = {path for path in domain.train if hashlib.sha256(path.read_bytes()).digest()[0] < 26}
        train[letter] = Domain(domain.name, tuple(path for path in domain.train if path not in out), domain.test)
        held[letter] = tuple(path for path in domain.train if path in out) if judge == "held-out" else domain.test
    return Source(source.name, train["a"], train["b"]), held


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--small", action="store_true", help="four rows, narrow networks, 64 px, one seed: for a CPU, indicative"
    )
    parser.add_argument(
        "--of", choices=("fruit", "fast"), default="fruit", help="fast: all its rows, 96 px, one seed, for a CPU"
    )
    parser.add_argument("--all", action="store_true", help="every row of the ablation")
    parser.add_argument(
        "--only", metavar="ARM,ARM", help="these rows, the reference first: cyclegan,fruit-mask-adaptive-changes"
    )
    parser.add_argument("--steps", type=int, help="of the reference; default 10,000, for a CPU 1,000, of fast 1,600")
    parser.add_argument("--image-size", type=int, help="default 256, for a CPU 64, of fast 96")
    parser.add_argument("--judged-size", type=int, metavar="PX", help="of the pictures that are judged; default --image-size")
    parser.add_argument("--seeds", type=int, help="default 3, for a CPU 1")
    parser.add_argument("--judge", choices=("test", "held-out"), default="test")
    parser.add_argument("--images", type=int, default=10_000, help="judged of each domain at most")
    parser.add_argument("--device")
    given = parser.parse_args()
    small = given.small or given.of == "fast"
    given.steps = given.steps or (1_600 if given.of == "fast" else 1_000 if small else 10_000)
    given.image_size = given.image_size or (96 if given.of == "fast" else 64 if small else 256)
    given.judged_size = given.judged_size or given.image_size
    given.seeds = given.seeds or (1 if small else 3)
    return given


def main() -> None:
    given = options()
    device = choose_device(None, given.device)
    precision: Precision = "bf16" if has_fast_bf16(device) else "fp32"
    source, paths = cut(find_source(given.data), given.judge)
    shown = {letter: pictures(found[: given.images], given.judged_size) for letter, found in paths.items()}
    real = {f"{letter} {backend}": described(images, backend) for letter, images in shown.items() for backend in BACKENDS}
    chosen = chosen_arms(given)
    budget, steps = 0.0, {}
    found: dict[str, list[dict[str, Values]]] = {}
    for arm, recipe in chosen:
        recipe = fitted(recipe, given.image_size, given.small and given.of == "fruit")
        recipe = dataclasses.replace(recipe, epochs=None, steps=given.steps)
        work = mean_multiply_adds(count_work(plan_of(recipe, 0, precision, device)))
        budget = budget or work * given.steps  # the first row's: the reference's
        steps[arm] = round(budget / work)
        recipe = dataclasses.replace(recipe, steps=steps[arm])
        print(f"{arm}: {work / 1e9:.2f} G multiply-adds a step, {steps[arm]:,} steps", flush=True)
        found[arm] = []
        for seed in range(given.seeds):
            folder = given.out / f"{slug(arm)}-{seed}"
            networks = train(plan_of(recipe, seed, precision, device), source, folder, device)
            found[arm].append(judged(networks, shown, folder / "fakes", device))
    counts = " and ".join(str(len(images)) for images in shown.values())
    head = f"{given.image_size} px, {given.seeds} seed(s), {counts} {given.judge} images, {budget / 1e12:,.1f} T multiply-adds"
    text = "\n".join([head, "", *table(found, real, steps), ""])
    write_atomically(given.out / "table.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
