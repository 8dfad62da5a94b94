"""Every kind of report with a name of one's choice wherever a name can stand: made up, small, and complete."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fruitgan.demo.page import demo_report
from fruitgan.evaluate.exhibits import Exhibits, Shown
from fruitgan.evaluate.page import evaluation_report
from fruitgan.images import Pixels
from fruitgan.registry import Choice
from fruitgan.report.grid import grid, png_bytes
from fruitgan.settings import to_json
from fruitgan.train_detector.page import Report, detector_report
from fruitgan.train_detector.regression import Round
from fruitgan.train_detector.settings import FitSettings
from fruitgan.train_gan.page import training_report
from fruitgan.train_gan.recipes import fast

TOTAL_STEPS, STEPS_PER_EPOCH = 40, 10


def pictures(count: int) -> list[Pixels]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


def choice_of(name: str) -> dict[str, Any]:
    return {"name": name, "package": f"package {name}", "version": f"1 {name}", "options": {f"option {name}": f"value {name}"}}


def as_file_name(name: str) -> str:
    """What of a name a file system takes."""
    return name.replace("/", "_").replace("\0", "")[:80]


def config(name: str) -> dict[str, Any]:
    recipe = dataclasses.replace(fast, steps=TOTAL_STEPS, epochs=None, image_size_px=8, summary=f"summary {name}")
    return {
        "settings": {"data": f"/home/{name}", "data_a": f"/home/a {name}", "data_b": None, "init_from": f"from {name}"},
        "plan": {
            "recipe_name": f"recipe {name}",
            "recipe": to_json(recipe),
            **{kind: choice_of(f"{kind} {name}") for kind in ("objective", "generator", "discriminator", "augmentation")},
            "precision": "fp32",
            "seed": 0,
        },
        "steps_per_epoch": STEPS_PER_EPOCH,
        "domains": [f"domain a {name}", f"domain b {name}"],
        "training_images": [3, 4],
        "data_fingerprint": f"{name}/{name}",
    }


def log(name: str) -> list[dict[str, Any]]:
    terms = {f"term {name}": 1.0, f"term {name}_a": 2.0, f"term {name}_b": 0.5}
    rollback = {"terms": [f"lost {name}"], "from_step": 10, "to_step": 5}
    first = {"warnings": {"collapse": f"warning {name}"}, "rollbacks": [rollback], "not_finite": [f"gone {name}"]}
    return [
        {"step": step, "losses": terms, "learning_rate": 2e-4, **(first if step == 10 else {})} for step in range(10, 41, 10)
    ]


def result(run: Path, name: str) -> dict[str, Any]:
    return {
        "run": str(run),
        "step": TOTAL_STEPS,
        "finished": True,
        "images": 80,
        "seconds": 3.0,
        "images_per_second": 8.0,
        "bundle": f"{run}/bundle {name}.safetensors",
        "final_losses": {},
        "weights_sha256": name,
    }


def training(name: str, folder: Path) -> str:
    run = folder / as_file_name(f"run {name}")
    (run / "samples").mkdir(parents=True)
    rows = [[picture] * 3 for picture in pictures(4)]
    for step in (10, 20):
        (run / "samples" / f"step-{step:08d}.png").write_bytes(png_bytes(grid(rows)))
    machine = {f"machine {name}": f"value {name}", "packages": {f"package {name}": f"1 {name}"}}
    (run / "environment.json").write_text(json.dumps(machine))
    return training_report(run, config(name), log(name), result(run, name))


CONFUSION = {"generated_as_generated": 3, "generated_as_real": 1, "real_as_generated": 1, "real_as_real": 3}
DETECTED = {
    "accuracy": 0.75,
    "interval": [0.4, 0.93],
    "auc": 0.8,
    "p_value": 0.1,
    "majority_baseline": 0.5,
    "n": 8,
    "confusion": CONFUSION,
}


def detector_inputs(name: str) -> Report:
    found = {
        **DETECTED,
        "protocol": f"protocol {name}",
        "parts": [{"split": f"split {name}", "n": 4, "found": 0.5, "interval": [0.1, 0.9]}],
        "train_images": 8,
        "val_images": 4,
        "left_out_images": 0,
        "image_size_px": 16,
        "rounds": 2,
        "best_round": 1,
        "finished": True,
        "notes": [f"note {name}", name],
        "warnings": [f"warning {name}", name],
    }
    numbers = {"train_loss": 0.5, "train_accuracy": 0.7, "val_loss": 0.6, "val_accuracy": 0.7, "seconds": 1.0}
    return Report(
        name=f"run {name}",
        result=found,
        detector=Choice(f"detector {name}", f"package {name}", "1", {f"option {name}": f"value {name}"}),
        augmentation=Choice(f"augmentation {name}", "x", "1", {}),
        rounds=[Round(number=number, **numbers) for number in (1, 2)],
        logits=np.array([1.0, 2.0, -1.0, -2.0]),
        generated=np.array([True, True, False, False]),
        examples={f"examples {name}": pictures(2)},
        settings=FitSettings(),
        environment={f"machine {name}": f"value {name}", "packages": {f"package {name}": f"1 {name}"}},
    )


def detector(name: str, folder: Path) -> str:
    return detector_report(detector_inputs(name))


def number(features: str) -> dict[str, Any]:
    return {
        "value": 0.3,
        "interval": [0.2, 0.4],
        "n_real": 8,
        "n_fake": 8,
        "n_source": 8,
        "features": features,
        "resize": f"resized {features}",
        "seconds": 1.0,
    }


BIN = {"low": 0.5, "high": 0.6, "n": 4, "predicted": 0.55, "observed": 0.5, "interval": [0.1, 0.9]}
FOUND = {
    "auc_interval": [0.6, 0.9],
    "average_precision": 0.7,
    "calibration": {"error": 0.1, "bins": [BIN, BIN | {"predicted": 0.9}]},
    "roc": [0.0, 0.7, 1.0],
    "image_size_px": 16,
    "resize": "squashed",
}
TRAINED = {
    "image_size_px": 16,
    "accuracy": 0.7,
    "interval": [0.4, 0.9],
    "auc": 0.8,
    "held_out_auc": 0.7,
    "chosen_folds": 2,
    "seconds": 1.0,
}
CHANGED = {"amount": 1.0, "accuracy": 0.7, "interval": [0.4, 0.9], "auc": 0.8}
BIASED = {"accuracy_reals_changed": 0.6, "accuracy_generated_changed": 0.7}
LEARNT = {"n_training": 8, "accuracy": 0.6, "interval": [0.4, 0.9], "auc": 0.8}
COMPARED = {
    "features": "random",
    "first": 0.5,
    "value": 0.4,
    "difference": -0.1,
    "interval": [-0.2, 0.1],
    "p_value": 0.3,
    "test": "McNemar, exact",
    "n": 8,
}


def exhibits(name: str) -> Exhibits:
    one = pictures(1)[0]
    shown = Shown(f"file {name}", -1.0, {"source": one, "generated": one, "cycled": one})
    return Exhibits(
        galleries={f"gallery {name}": pictures(2)},
        cards={
            f"title {name}": [shown, Shown(name, 2.0, {f"kind {name}": one})],
        },
        sides=[{f"side {name}": one}],
        spectra={f"kind {name}": [-20.0, -30.0], "real": [-21.0, -29.0]},
    )


def judged(name: str) -> dict[str, Any]:
    features = f"features {name}"
    metric = f"metric {name}_{features}"
    floor = {"value": 0.01, "interval": [0.0, 0.02], "n_real": 4, "value_at_size": None}
    return {
        "kid": number("random"),
        metric: number(features),
        "r": number("random"),
        f"r_{features}": number(features),
        "floor": {"kid": floor, metric: floor | {"value_at_size": 0.2}},
        "fake_dir": f"fakes {name}",
        "real_dir": f"reals {name}",
        "source_dir": f"sources {name}",
        "n_fake": 8,
        "n_real": 8,
        "trained_against": [f"network {name}"],
        "judges_sharing_training": [features],
        "r_withheld": f"withheld {name}",
        "claims": [
            {
                "claim": f"claim {name}",
                "holds": None,
                "agreeing": [features],
                "contrary": [],
                "undecided": ["random"],
                "dependent": [features],
            }
        ],
        "not_measured": {f"metric {name}": f"reason {name}"},
        "leaks": [
            {"kind": f"kind {name}", "detail": f"detail {name}", "effect": 0.7, "p_value": 0.001, "spoils_detector": True},
            {"kind": f"count {name}", "detail": f"detail {name}", "effect": None, "p_value": None, "spoils_detector": False},
        ],
        "controls": [
            {"name": f"control {name}", "detail": f"is {name}", "n": 8, "p_value": 0.4, "auc": auc, "distinguished": False}
            for auc in (0.5, None)
        ],
        "detectors": [{**TRAINED, "name": f"detector {name}"}],
        "judged": [{"file": f"{i} {name}", "generated": i < 4, "logit": float(i % 3 - 1)} for i in range(8)],
        "robustness": [{**CHANGED, **BIASED, "change": change} for change in (f"change {name}", "jpeg")],
        "by_depth": [{**LEARNT, "name": name, "stride": 4}],
        "learning_curve": [{**LEARNT, "name": name}],
        "compare": [
            {
                "first": f"first {name}",
                "run": f"run {name}",
                "n_sources": 8,
                "rows": [{**COMPARED, "name": "kid", "features": features}, {**COMPARED, "name": "accuracy"}],
                "claim": {
                    "claim": f"claim {name}",
                    "holds": True,
                    "agreeing": [name],
                    "contrary": [],
                    "undecided": [],
                    "dependent": [],
                },
                "notes": [f"note {name}", name],
            }
        ],
        "environment": {f"machine {name}": f"value {name}", "packages": {"fruitgan": "0", f"package {name}": f"1 {name}"}},
        "detector": {**DETECTED, **FOUND, "name": f"detector {name}", "protocol": f"protocol {name}"},
        "withheld": None,
        "gates": [{"name": f"gate {name}", "above": True, "bound": 0.1, "passed": False}],
        "notes": [f"note {name}", name],
        "warnings": [f"warning {name}", name],
        "quick": True,
        "seed": 0,
        "seconds": 2.0,
    }


def evaluation(name: str, folder: Path) -> str:
    return evaluation_report(judged(name), exhibits(name))


def evaluation_without_detector(name: str, folder: Path) -> str:
    found = {**judged(name), "detector": None, "withheld": f"withheld {name}", "judged": [], "robustness": [], "compare": []}
    return evaluation_report(found, dataclasses.replace(exhibits(name), galleries={"real": pictures(1)}, cards={}))


def demo(name: str, folder: Path) -> str:
    home = folder / as_file_name(name)
    for place in ("fruit/trainA", "fruit/trainB", "translated", "dataset/predicted", "dataset/origins"):
        (home / place).mkdir(parents=True)
        (home / place / as_file_name(f"0 {name[:40]}.png")).write_bytes(png_bytes(pictures(1)[0]))
    detected = {**DETECTED, "detector": f"detector {name}"}
    measured = {**judged(name), "kid_colour": number(f"features {name}")}
    return demo_report(home, result(home, name), config(name), log(name), detected, measured, seconds=3.0)


BUILDERS: dict[str, Callable[[str, Path], str]] = {
    builder.__name__: builder for builder in (training, detector, evaluation, evaluation_without_detector, demo)
}
