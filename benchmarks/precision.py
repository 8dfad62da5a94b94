"""Whether training in bf16 costs quality: the recipe `fast` in both precisions from the same seeds, judged on held-out images.

    python benchmarks/precision.py --data apple2orange/trainA apple2orange/trainB --out precision.jsonl

A tenth of the *training* images, cut off by hash, is judged, never trained on. R is KID(fakes, held-out reals) : KID(sources,
held-out reals), here by two features and in both directions: 0 is perfect, 1 has done nothing. What is compared is R in bf16
minus R in fp32, seed by seed; its 95% interval is Student's over the seeds. The margin stands before the first run: bf16 costs
nothing if the upper end is below 0.05 by both features. Lines in `--out` are kept, so that a stopped comparison goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Literal

import torch
from quality import described, pictures, translated
from scipy.stats import t as student

from fruitgan.data.sources import Source, loose_source
from fruitgan.images import Pixels
from fruitgan.measures.distances import kernel_distance
from fruitgan.train_gan.assemble import Datasets, load_datasets, make_objective, make_plan, make_trainer
from fruitgan.train_gan.settings import TrainGanSettings

ARMS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
FEATURES = ("random", "colour")
MARGIN = 0.05


def train(
    settings: TrainGanSettings, source: Source, banks: Datasets | None
) -> tuple[dict[str, list[Pixels]], Datasets, float, dict[str, float]]:
    """The fakes of the held-out images by direction, the banks, seconds a step and the last losses."""
    cpu = torch.device("cpu")
    plan = make_plan(settings, cpu)
    banks = banks or load_datasets(plan, source, lambda *_: None)
    trainer = make_trainer(plan, banks, make_objective(plan), cpu, 25)
    began = time.perf_counter()
    losses: dict[str, float] = {}
    for report in trainer.steps(trainer.total_steps):
        losses = dict(report.losses or losses)
    pace = (time.perf_counter() - began) / trainer.total_steps
    fakes = {}
    for direction, domain in (("a2b", source.a), ("b2a", source.b)):
        images = pictures(domain.test, plan.recipe.image_size_px)
        fakes[direction] = translated(trainer.generator(direction), images, cpu)
    return fakes, banks, pace, losses


def ratios(fakes: dict[str, list[Pixels]], source: Source, size_px: int) -> dict[str, float]:
    found = {}
    real = [pictures(domain.test, size_px) for domain in (source.a, source.b)]
    for name in FEATURES:
        a, b = (described(images, name) for images in real)
        between = kernel_distance(a, b)
        for direction, target in (("a2b", b), ("b2a", a)):
            found[f"{name} {direction}"] = kernel_distance(target, described(fakes[direction], name)) / between
    return found


def compare(lines: list[dict[str, object]]) -> None:
    """The table of seeds, and the paired differences with their intervals."""
    by_seed: dict[int, dict[str, dict[str, float]]] = {}
    for line in lines:
        by_seed.setdefault(int(str(line["seed"])), {})[str(line["precision"])] = dict(line["r"])  # type: ignore[call-overload]
    pairs = {seed: arms for seed, arms in sorted(by_seed.items()) if len(arms) == len(ARMS)}
    measures = sorted(next(iter(pairs.values()))["fp32"]) if pairs else []
    for measure in measures:
        shown = ", ".join(f"{arms['fp32'][measure]:.3f} {arms['bf16'][measure]:.3f}" for arms in pairs.values())
        print(f"R by {measure}, fp32 and bf16 seed by seed: {shown}")
    if len(pairs) < 2:
        print("an interval takes two seeds at least")
        return
    for name in FEATURES:
        both = [m for m in measures if m.startswith(name)]
        gaps = [statistics.mean(arms["bf16"][m] - arms["fp32"][m] for m in both) for arms in pairs.values()]
        spread = statistics.stdev(gaps) / len(gaps) ** 0.5 * float(student.ppf(0.975, len(gaps) - 1))
        mean = statistics.mean(gaps)
        verdict = "no cost" if mean + spread < MARGIN else "a cost cannot be excluded"
        print(
            f"{name}: R in bf16 minus R in fp32, both directions: {mean:+.4f} "
            f"({mean - spread:+.4f} to {mean + spread:+.4f}, {len(gaps)} seeds): {verdict} (margin {MARGIN})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, nargs=2, required=True, metavar=("DIR_A", "DIR_B"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    source = loose_source(*given.data)
    lines = [json.loads(text) for text in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(line["seed"], line["precision"]) for line in lines}
    settings = TrainGanSettings(recipe="fast", image_size=given.image_size, steps=given.steps)
    banks = None
    for seed in range(given.seeds):
        for precision in ARMS:
            if (seed, precision) in done:
                continue
            asked = dataclasses.replace(settings, seed=seed, precision=precision)
            fakes, banks, pace, losses = train(asked, source, banks)
            lines.append(
                {
                    "seed": seed,
                    "precision": precision,
                    "steps": given.steps,
                    "image_size_px": given.image_size,
                    "held_out": [len(source.a.test), len(source.b.test)],
                    "seconds_per_step": round(pace, 4),
                    "losses": losses,
                    "r": ratios(fakes, source, given.image_size),
                }
            )
            with given.out.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(f"seed {seed}, {precision}: {pace:.3f} s a step, {lines[-1]['r']}", flush=True)
    compare(lines)


if __name__ == "__main__":
    main()
