"""Whatever files, domains and plug-ins are called: in every report it is text, and the page is built as for any other."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fruitgan.images import Pixels
from fruitgan.registry import Choice
from fruitgan.report.demo import Story, demo_report
from fruitgan.report.detector import Report, detector_report, plot_files
from fruitgan.report.evaluation import evaluation_report
from fruitgan.report.grid import grid, png_bytes
from fruitgan.report.page import visible
from fruitgan.report.training import training_report
from fruitgan.settings import to_json
from fruitgan.training.detection import FitSettings, Round
from fruitgan.training.recipes import fast

PLAIN = "plum"
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src="//evil.example/x" onerror="alert(2)"><a b="',
    "single quotes": "' onmouseover='alert(3)' x='",
    "ends": "</title></style></text></svg></pre></code></table><script src=//evil.example></script>",
    "comment": "]]><!-- --!><![CDATA[<?php ?>",
    "entities": "&lt;b&gt;&amp;&#60;script&#62;&quot;&apos;",
    "template": "{{ 7 * 7 }}{% raw %}{# #}${7*7}",
    "lines": "one\ntwo\r\nthree\t<b>four",
    "bytes": "caf\udce9\udcff",
    "direction": "apple\u202egpj.exe\u2066\u200f\u061c",
    "controls": "\x1b]0;title\x07\x1b[2J\x08\x85\x00",
    "nothing seen": "a\u200b\u00ad\u2060\ufeff\U000e0041b",
    "address": "javascript:alert(4)//https://evil.example/",
    "style": "url(//evil.example/x);}</style><style>*{display:none}",
    "mathematics": "$\\frac{1}{0}$ \\undefined",
    "hebrew": "\u05ea\u05e4\u05d5\u05d7",
    "long": "<" * 3000,
}
TOTAL_STEPS, STEPS_PER_EPOCH = 40, 10


class Page(HTMLParser):
    """What a browser would build: elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.oddities: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.words += [value for _, value in attrs if value]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "style", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.oddities.append(data)

    def handle_pi(self, data: str) -> None:
        self.oddities.append(data)

    def unknown_decl(self, data: str) -> None:
        self.oddities.append(data)


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
            "precision": f"precision {name}",
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
    return training_report(run, config(name), log(name), result(run, name), {"a2b": 2, "b2a": 2})


CONFUSION = {"generated_as_generated": 3, "generated_as_real": 1, "real_as_generated": 1, "real_as_real": 3}
DETECTED = {
    "accuracy": 0.75,
    "interval": [0.4, 0.93],
    "auc": 0.8,
    "p_value": 0.1,
    "chance": 0.5,
    "n": 8,
    "confusion": CONFUSION,
}


def detector_inputs(name: str) -> Report:
    found = {
        **DETECTED,
        "protocol": f"protocol {name}",
        "parts": [{"split": f"split {name}", "n": 4, "found": 0.5, "interval": [0.1, 0.9]}],
        "train_images": 8,
        "choose_images": 4,
        "left_out_images": 0,
        "unreadable_images": 0,
        "image_size_px": 16,
        "rounds": 2,
        "best_round": 1,
        "finished": True,
        "notes": [f"note {name}", name],
        "warnings": [f"warning {name}", name],
    }
    numbers = {"train_loss": 0.5, "train_accuracy": 0.7, "choose_loss": 0.6, "choose_accuracy": 0.7, "seconds": 1.0}
    return Report(
        name=f"run {name}",
        result=found,
        detector=Choice(f"detector {name}", f"package {name}", "1", {f"option {name}": f"value {name}"}),
        augmentation=Choice(f"augmentation {name}", "x", "1", {}),
        rounds=[Round(number=number, is_best=number == 1, **numbers) for number in (1, 2)],
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
        "details": {},
    }


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
        "r_withheld": f"withheld {name}",
        "claims": [
            {"claim": f"claim {name}", "holds": None, "agreeing": [features], "contrary": [f"other {name}"], "undecided": []}
        ],
        "not_measured": {f"unmeasured {name}": f"reason {name}"},
        "leaks": [{"kind": f"kind {name}", "detail": f"detail {name}"}],
        "detector": {**DETECTED, "name": f"detector {name}", "protocol": f"protocol {name}"},
        "withheld": None,
        "gates": [{"name": f"gate {name}", "above": True, "bound": 0.1, "passed": False}],
        "notes": [f"note {name}", name],
        "warnings": [f"warning {name}", name],
        "quick": True,
        "seed": 0,
        "seconds": 2.0,
    }


def evaluation(name: str, folder: Path) -> str:
    return evaluation_report(judged(name), {f"gallery {name}": pictures(2)})


def evaluation_without_detector(name: str, folder: Path) -> str:
    return evaluation_report({**judged(name), "detector": None, "withheld": f"withheld {name}"}, {"real": pictures(1)})


def demo(name: str, folder: Path) -> str:
    home = folder / as_file_name(name)
    for place in ("fruit/trainA", "fruit/trainB", "translated", "dataset/predicted", "dataset/origins"):
        (home / place).mkdir(parents=True)
        (home / place / as_file_name(f"0 {name[:40]}.png")).write_bytes(png_bytes(pictures(1)[0]))
    story = Story(
        folder=home,
        trained=result(home, name),
        config=config(name),
        entries=log(name),
        detected={**DETECTED, "detector": f"detector {name}"},
        judged={**judged(name), "kid_colour": number(f"features {name}")},
        seconds=3.0,
    )
    return demo_report(story)


BUILDERS: dict[str, Callable[[str, Path], str]] = {
    builder.__name__: builder for builder in (training, detector, evaluation, evaluation_without_detector, demo)
}


@pytest.fixture(scope="module", params=BUILDERS)
def builder(request: pytest.FixtureRequest) -> Callable[[str, Path], str]:
    return BUILDERS[request.param]


@pytest.fixture(scope="module")
def plain(builder: Callable[[str, Path], str], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page where everything is called plum."""
    return Page(builder(PLAIN, tmp_path_factory.mktemp("plain")))


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_name_is_text_and_nothing_else_in_every_report(
    name: str, builder: Callable[[str, Path], str], plain: Page, tmp_path: Path
) -> None:
    html = builder(name, tmp_path)
    assert html.encode().decode() == html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]", html)
    page = Page(html)
    assert page.elements == plain.elements
    assert page.links == plain.links
    assert page.oddities == plain.oddities
    shown = visible(name)
    told = [word for word in page.words if shown in word]
    assert len(told) >= 5


def test_a_detectors_plots_are_the_same_pictures_whatever_its_name() -> None:
    assert plot_files(detector_inputs(HOSTILE["mathematics"])) == plot_files(detector_inputs(PLAIN))
