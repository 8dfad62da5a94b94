"""Every kind of report with a name of one's choice wherever a name can stand: made up, small, and complete."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fruitgan.demo.job import demo_report
from fruitgan.evaluate.page import Exhibits, evaluation_report
from fruitgan.images import Pixels
from fruitgan.registry import Choice
from fruitgan.report.page import grid, png_bytes
from fruitgan.settings import from_json, to_json
from fruitgan.train_detector.page import detector_report
from fruitgan.train_detector.regression import Round
from fruitgan.train_detector.settings import FitSettings
from fruitgan.train_gan.page import training_report
from fruitgan.train_gan.recipes import fast
from fruitgan.train_gan.settings import RunConfig

TOTAL_STEPS, STEPS_PER_EPOCH = 40, 10


class Page(HTMLParser):
    """What a browser would build: elements with their attributes, and the text; what is neither are `oddities`."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.oddities: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.oddities.append(data)

    handle_pi = unknown_decl = handle_comment

    @property
    def text(self) -> str:
        return "".join(self.words)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, *names: str) -> list[str]:
        """Of the attributes of these names, or of all."""
        return [value for _, given in self.elements for name, value in given.items() if not names or name in names]


def pictures(count: int) -> list[Pixels]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


def choice_of(name: str) -> dict[str, Any]:
    return {"name": name, "package": f"package {name}", "version": f"1 {name}", "options": {f"option {name}": f"value {name}"}}


def as_file_name(name: str) -> str:
    """What of a name a file system takes."""
    return name.replace("/", "_").replace("\0", "")[:80]


def config(name: str) -> RunConfig:
    recipe = dataclasses.replace(fast, steps=TOTAL_STEPS, epochs=None, image_size_px=8, summary=f"summary {name}")
    table = {
        "settings": {"data": f"/home/{name}", "data_a": f"/home/a {name}", "data_b": None, "init_from": f"from {name}"},
        "plan": {
            "recipe_name": f"recipe {name}",
            "recipe": to_json(recipe),
            **{kind: choice_of(f"{kind} {name}") for kind in ("objective", "generator", "discriminator", "augmentation")},
            "precision": "fp32",
            "seed": 0,
        },
        "total_steps": TOTAL_STEPS,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "domains": [f"domain a {name}", f"domain b {name}"],
        "training_images": [3, 4],
        "data_fingerprint": f"{name}/{name}",
    }
    return from_json(RunConfig, table)


def log(name: str) -> list[dict[str, Any]]:
    terms = {f"term {name}": 1.0, f"term {name}_a": 2.0, f"term {name}_b": 0.5}
    rollback = {"terms": [f"lost {name}"], "from_step": 10, "to_step": 5}
    first = {"warnings": {"collapse": f"warning {name}"}, "rollbacks": [rollback], "not_finite": [f"gone {name}"]}
    return [
        {"step": step, "losses": terms, "learning_rate": 2e-4, **(first if step == 10 else {})} for step in range(10, 41, 10)
    ]


def result(run: Path, name: str) -> dict[str, Any]:
    done = {"step": TOTAL_STEPS, "finished": True, "images": 80, "seconds": 3.0, "images_per_second": 8.0}
    return done | {"run": str(run), "bundle": f"{run}/bundle {name}.safetensors", "final_losses": {}, "weights_sha256": name}


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
SCORES = {"accuracy": 0.75, "interval": [0.4, 0.93], "auc": 0.8, "p_value": 0.1, "majority_baseline": 0.5}
DETECTED = {**SCORES, "n": 8, "confusion": CONFUSION}


def detector_inputs(name: str) -> tuple[dict[str, Any], Any, Any]:
    """The job's result, as much of a training as its report looks at, and the logits of the test images."""
    trained = {"train_images": 8, "val_images": 4, "left_out_images": 0, "image_size_px": 16, "best_round": 1, "finished": True}
    found = {
        **DETECTED,
        **trained,
        "protocol": f"protocol {name}",
        "parts": [{"split": f"split {name}", "n": 4, "found": 0.5, "interval": [0.1, 0.9]}],
        "notes": [f"note {name}", name],
        "warnings": [f"warning {name}", name],
    }
    numbers = {"train_loss": 0.5, "train_accuracy": 0.7, "val_loss": 0.6, "val_accuracy": 0.7, "seconds": 1.0}
    training = SimpleNamespace(
        choice=Choice(f"detector {name}", f"package {name}", "1", {f"option {name}": f"value {name}"}),
        augmentation=Choice(f"augmentation {name}", "x", "1", {}),
        rounds=[Round(number=number, **numbers) for number in (1, 2)],
        split=SimpleNamespace(test=np.arange(4)),
        dataset=SimpleNamespace(generated=np.array([True, True, False, False]), decoded=SimpleNamespace(pixels=pictures(4))),
        settings=FitSettings(),
        batch_size=8,
    )
    return found, training, np.array([1.0, 2.0, -1.0, -2.0])


def detector(name: str, folder: Path) -> str:
    machine = {f"machine {name}": f"value {name}", "packages": {f"package {name}": f"1 {name}"}}
    return detector_report(f"run {name}", *detector_inputs(name), machine)


RECORDED = json.loads(Path(__file__).with_name("evaluation.json").read_text())
"""What `evaluate --compare` left of two small sets, its lists cut short."""
LOOKED_UP = {"kid", "fid", "r", "recognised", "accuracy", "blur"}


def judged(name: str) -> dict[str, Any]:
    """The recorded result with the name in every text, and as the name of a metric and of features."""

    def named(value: Any) -> Any:
        if isinstance(value, str):
            return value if value in LOOKED_UP else f"{value} {name}"
        if isinstance(value, dict):
            return {key: named(entry) for key, entry in value.items()}
        return [named(entry) for entry in value] if isinstance(value, list) else value

    found = {key: named(value) for key, value in RECORDED.items()}
    metric = f"metric {name}_{found['kid']['features']}"
    return found | {
        metric: found["fid"],
        "floor": found["floor"] | {metric: found["floor"]["fid"]},
        "not_measured": {name: name},
    }


def exhibits(name: str) -> Exhibits:
    one = pictures(1)[0]
    shown = (f"file {name}", -1.0, {"source": one, "generated": one, "cycled": one})
    return Exhibits(
        galleries={f"gallery {name}": pictures(2)},
        cards={f"title {name}": [shown, (name, 2.0, {f"kind {name}": one})]},
        sides=[{f"side {name}": one}],
        spectra={f"kind {name}": [-20.0, -30.0], "real": [-21.0, -29.0]},
    )


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
    return demo_report(home, result(home, name), config(name), log(name), detected, judged(name), seconds=3.0)


BUILDERS: dict[str, Callable[[str, Path], str]] = {
    builder.__name__: builder for builder in (training, detector, evaluation, evaluation_without_detector, demo)
}
