"""The training watch: every known collapse is seen on a network made to collapse so, said once, and never where all is well."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from training_events import step_of, warnings_of

from fruitgan.cli import main
from fruitgan.images import Pixels
from fruitgan.networks.contracts import generators
from fruitgan.progress import Event
from fruitgan.train_gan import monitor as watching
from fruitgan.train_gan import segment
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.monitor import PATIENCE, SENTENCES, Monitor, swings
from fruitgan.train_gan.samples import describe, translate_batch
from fruitgan.train_gan.settings import TrainGanSettings

REPORT = segment.training_report
RECORDED = Path(__file__).parent / "recorded"
TOTAL = 100_000

# Networks as a plug-in's author could make them. Each has a parameter, since all are trained.
NETWORKS = """
import math
import torch
from torch import nn
from fruitgan.networks.contracts import Discriminator, Generator, SizeRule


class Made(Generator):
    size_rule = SizeRule(minimum_px=8, multiple_of_px=1)

    def __init__(self, translate):
        super().__init__()
        self.translate = translate
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return (self.translate(x) + 1e-3 * torch.tanh(self.offset)).clamp(-1, 1)


def still():
    return Made(lambda x: x)

def grey():
    return Made(torch.zeros_like)

def negative():
    return Made(torch.neg)

def tinting():
    return Made(lambda x: 0.7 * x + 0.2)


class Judge(Discriminator):
    size_rule = SizeRule(minimum_px=8, multiple_of_px=1)

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        light = x.mean((1, 2, 3), keepdim=True)
        return (0.5 + self.answer(light, 100 * self.weight, self.calls) + 0 * self.weight * light,)


def fair():
    return Judge(lambda light, weight, calls: 0 * light)

def knowing():  # light or dark: the domains differ in nothing else; learns in some tens of steps which is which
    return Judge(lambda light, weight, calls: weight * torch.sign(light))

def swinging():  # called twice a step: up and down in 8 steps
    return Judge(lambda light, weight, calls: 0.5 * torch.sin(2 * math.pi * calls / 16))
"""
MADE = {"generators": ("still", "grey", "negative", "tinting"), "discriminators": ("fair", "knowing", "swinging")}
# Generator, discriminator, and the one warning that they deserve.
COLLAPSES = {
    "unchanged": ("still", "fair", "a2b: for 40 steps the outputs have been the inputs"),
    "constant": ("grey", "fair", "a2b: for 40 steps all inputs have given nearly one output"),
    "inverted": ("negative", "fair", "a2b: for 40 steps light has come out dark"),
    "discriminator-won": ("still", "knowing", "discriminator_a has lost next to nothing for 40 steps"),
    "oscillating": ("tinting", "swinging", "has swung up and down for"),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Where a job runs, it is to be short: see at once what takes a thousand steps."""
    if "made" not in request.fixturenames:
        return
    for kind in PATIENCE:
        monkeypatch.setitem(PATIENCE, kind, (0.0, 40, 40))
    monkeypatch.setattr(watching, "LEAST_SPAN_STEPS", 40)
    monkeypatch.setattr(segment, "OBSERVE_STEPS", 10)
    monkeypatch.setattr(segment, "training_report", lambda *_: "")


@pytest.fixture
def made(install: Callable[..., Path]) -> None:
    points = {kind: {f"made-{name}": f"made:{name}" for name in names} for kind, names in MADE.items()}
    install("made", points, NETWORKS)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark images and light ones."""
    folder = tmp_path_factory.mktemp("data") / "dark2light"
    random = np.random.default_rng(1)
    for split, n, light in (("trainA", 4, 20), ("trainB", 4, 150), ("testA", 1, 20), ("testB", 1, 150)):
        (folder / split).mkdir(parents=True)
        for number in range(n):
            pixels = np.kron(random.random((4, 4, 3)), np.ones((3, 3, 1))) * 85 + light
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / f"{number}.png")
    return folder


def settings(data: Path, out: Path, generator: str, discriminator: str, **changes: Any) -> TrainGanSettings:
    given: dict[str, Any] = {
        "data": str(data), "out": out, "name": "run", "recipe": "cyclegan", "augment": "none", "image_size": 12,
        "batch_size": 2, "generator": f"made-{generator}", "discriminator": f"made-{discriminator}",
        "steps": 120, "log_every": 1,
        "save_every": 1000, "sample_every": 1000, "gpu": "none", "seed": 1,
    }  # fmt: skip
    return TrainGanSettings(**given | changes)


def warned(run: Path) -> list[tuple[int, str, str]]:
    """Step, kind and text of every warning in the log."""
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(entry["step"], kind, text) for entry in entries for kind, text in entry.get("warnings", {}).items()]


@pytest.mark.parametrize("kind", COLLAPSES)
def test_each_collapse_is_seen_on_networks_made_to_collapse_so_and_said_once_with_its_remedy(
    kind: str, made: None, data: Path, tmp_path: Path
) -> None:
    generator, discriminator, said = COLLAPSES[kind]
    events: list[Event] = []
    if kind == "discriminator-won":  # its fakes are the inputs, which is another warning's business
        PATIENCE["unchanged"] = (0.0, 1000, 1000)
    steps = 60 if discriminator == "fair" else 120  # the others have to learn, or to be seen for longer
    result = train_gan(settings(data, tmp_path, generator, discriminator, steps=steps), events.append)
    found = warned(result.run)
    assert [(kind, said in text) for _, kind, text in found] == [(kind, True)]
    assert warnings_of(events) == [f"step {found[0][0]}: {found[0][2]}"]
    assert "\n" not in found[0][2]
    assert any(word in found[0][2] for word in ("help", "lets more change"))


def test_networks_that_do_nothing_wrong_are_not_warned_of(made: None, data: Path, tmp_path: Path) -> None:
    assert warned(train_gan(settings(data, tmp_path, "tinting", "fair")).run) == []


def test_a_resumed_run_neither_repeats_nor_forgets_a_warning(made: None, data: Path, tmp_path: Path) -> None:
    whole = train_gan(settings(data, tmp_path / "whole", "still", "swinging")).run
    asked = settings(data, tmp_path, "still", "swinging")
    for split in (25, 55, None):  # amid the steps of patience, behind the warning
        result = train_gan(asked, lambda event, split=split: step_of(event) == split)  # type: ignore[misc]
        assert result.finished == (split is None)
        asked = TrainGanSettings(resume="run", out=tmp_path, gpu="none")
    assert [kind for _, kind, _ in warned(whole)] == ["unchanged", "oscillating"]
    assert warned(result.run) == warned(whole)


def test_a_warning_is_told_on_stderr_shown_later_and_stands_in_the_report(
    made: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(segment, "training_report", REPORT)
    asked = ["--recipe", "cyclegan", "--augment", "none", "--image-size", "12", "--generator", "made-still"]
    more = ["--discriminator", "made-fair", "--steps", "100", "--gpu", "none", "--name", "run", "--out", str(tmp_path)]
    monkeypatch.setattr(segment, "OBSERVE_STEPS", 25)
    assert main(["train-gan", "--data", str(data), *asked, *more]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: step ")]
    assert [line[:60] for line in told] == ["warning: step 75: a2b: for 50 steps the outputs have been th"]
    assert "a2b: for 50 steps the outputs have been the inputs; a new run" in (tmp_path / "run" / "report.html").read_text()
    assert main(["show", str(tmp_path / "run")]) == 0
    assert "step 75: a2b: for 50 steps the outputs have been the inputs" in capsys.readouterr().out


# What is measured of the outputs


def noise(seed: int, n: int = 3) -> list[Pixels]:
    return list(np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8))


def test_outputs_are_described_as_their_closed_forms_say() -> None:
    sources = noise(1)
    halved = [(image // 2).astype(np.uint8) for image in sources]
    assert describe(sources, sources) == {"changed": 0.0, "variety": 1.0, "likeness": 1.0}
    assert describe(sources, [255 - image for image in sources])["likeness"] == -1.0
    assert describe(sources, [255 - image for image in sources])["variety"] == 1.0
    assert describe(sources, halved)["variety"] == pytest.approx(0.5, abs=0.01)
    assert describe(sources, halved)["changed"] == pytest.approx(np.mean(sources) / 255 / 2, abs=0.002)
    grey = [np.full_like(image, 100) for image in sources]
    assert describe(sources, grey).keys() == {"changed", "variety"}
    assert describe(sources, grey)["variety"] == 0.0
    assert describe(sources, noise(2))["likeness"] == pytest.approx(0.0, abs=0.2)


def test_one_input_or_inputs_that_are_alike_say_nothing_of_variety() -> None:
    assert "variety" not in describe(noise(1, n=1), noise(2, n=1))
    same = noise(1, n=1) * 3
    assert "variety" not in describe(same, noise(2))


# When it is said


def lines(steps: range, outputs: Mapping[str, float] | None = None, **losses: float) -> Iterator[dict[str, Any]]:
    for step in steps:
        yield {"step": step, "losses": losses} | ({"outputs": {"a2b": outputs}} if outputs else {})


def first_warning(watch: Monitor, entries: Iterator[dict[str, Any]]) -> tuple[int, list[str]] | None:
    return next(((entry["step"], list(found)) for entry in entries if (found := watch.see(entry))), None)


UNCHANGED = {"changed": 0.001, "variety": 1.0, "likeness": 1.0}
CHANGED = {"changed": 0.1, "variety": 0.9, "likeness": 0.8}


@pytest.mark.parametrize(("total", "patience"), [(500, 1000), (4000, 1000), (20_000, 5000), (1_000_000, 20_000)])
def test_patience_is_a_share_of_the_training_within_bounds(total: int, patience: int) -> None:
    found = first_warning(Monitor(total, None), lines(range(100, 30_000, 100), UNCHANGED))
    assert found == (100 + patience, ["unchanged"])


def test_a_collapse_that_passes_is_not_said() -> None:
    watch = Monitor(4000, None)
    for begin in range(0, 20_000, 1000):
        assert first_warning(watch, lines(range(begin + 100, begin + 1000, 100), UNCHANGED)) is None
        assert watch.see(next(lines(range(begin + 1000, begin + 1001), CHANGED))) == {}


def test_a_discriminator_near_zero_is_judged_by_what_it_would_lose_undecided() -> None:
    steps = range(25, 3000, 25)
    assert first_warning(Monitor(4000, 0.25), lines(steps, discriminator_a=0.2, discriminator_b=0.009)) == (
        1000,
        ["discriminator-won"],
    )
    assert first_warning(Monitor(4000, 0.25), lines(steps, discriminator_a=0.011)) is None
    assert first_warning(Monitor(4000, 0.5), lines(steps, discriminator_a=0.011)) == (1000, ["discriminator-won"])
    assert first_warning(Monitor(4000, None), lines(steps, discriminator_a=0.0)) is None  # who knows what the term means
    assert first_warning(Monitor(4000, 0.25), lines(steps, adversarial_ab=0.0, cycle_a=0.0)) is None


def test_every_sentence_names_its_place_and_its_remedy() -> None:
    assert set(SENTENCES) == set(PATIENCE) | {"oscillating"} == set(COLLAPSES)
    page = (Path(__file__).parents[2] / "docs" / "reading-the-curves.md").read_text()
    assert [kind for kind in SENTENCES if f"`{kind}`" not in page] == []


def test_a_watch_that_replayed_the_lines_goes_on_as_one_that_saw_them() -> None:
    random = np.random.default_rng(0)
    entries = []
    for number in range(1, 400):
        swing = 0.2 * (1 + np.sin(2 * np.pi * number / 7)) * (number > 150)
        near = 0.001 if number > 80 else 0.2
        loss = {"discriminator_a": near, "discriminator_b": float(0.1 + swing + 0.01 * random.random())}
        outputs = {"outputs": {"b2a": UNCHANGED if number > 60 else CHANGED}} if number % 4 == 0 else {}
        entries.append({"step": 25 * number, "losses": loss, **outputs})
    straight = Monitor(8000, 0.25)
    expected = [straight.see(entry) for entry in entries]
    assert sorted(kind for found in expected for kind in found) == ["discriminator-won", "oscillating", "unchanged"]
    for split in (1, 100, 130, 200, 260, 398):
        logged = [entry | ({"warnings": found} if found else {}) for entry, found in zip(entries, expected, strict=True)]
        watch = Monitor(8000, 0.25)
        watch.replay(logged[:split])
        assert [watch.see(entry) for entry in entries[split:]] == expected[split:]


# Swings


@pytest.mark.parametrize("period", [3.2, 4, 5.5, 8, 11.5])
@pytest.mark.parametrize("wave", [np.sin, lambda phase: np.sign(np.sin(phase + 0.1))])
def test_a_regular_swing_is_found_with_its_period(period: float, wave: Callable[[NDArray[np.float64]], Any]) -> None:
    random = np.random.default_rng(0)
    values = 0.3 + 0.2 * wave(2 * np.pi * np.arange(48) / period) + 0.02 * random.standard_normal(48)
    found = swings(values)
    assert found is not None
    assert 48 / found == pytest.approx(period, rel=0.1)


def test_drifts_steps_small_swings_and_constants_are_no_swings() -> None:
    times = np.arange(48)
    assert swings(0.5 - 0.01 * times) is None
    assert swings(np.where(times < 20, 1.0, 0.1)) is None
    assert swings(np.exp(-times / 5)) is None
    assert swings(0.5 + 0.1 * np.sin(2 * np.pi * times / 6)) is None
    assert swings(0.5 + 0.5 * np.sin(2 * np.pi * times / 40)) is None
    assert swings(np.zeros(48)) is None


def test_slow_swings_are_seen_in_means_of_lines() -> None:
    watch = Monitor(TOTAL, None)
    entries = ({"step": 25 * n, "losses": {"adversarial_ab": 0.3 + 0.25 * np.sin(2 * np.pi * n / 30)}} for n in range(1, 1000))
    step, kinds = first_warning(watch, entries) or (0, [])
    assert kinds == ["oscillating"]
    assert step == 25 * 4 * (2 * 48 - 1)  # two windows of means of four lines


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_noise_however_strong_is_no_oscillation(memory: float) -> None:
    """Twenty losses of 500 lines that remember so much of the line before."""
    random = np.random.default_rng(7)
    watch = Monitor(TOTAL, None)
    level = np.zeros(20)
    for number in range(1, 501):
        level = memory * level + np.sqrt(1 - memory**2) * random.standard_normal(20)
        values = 0.25 * np.exp(0.6 * level)
        entry = {"step": 25 * number, "losses": {f"discriminator_{name}": float(value) for name, value in enumerate(values)}}
        assert watch.see(entry) == {}


# Where all is well


@pytest.mark.parametrize("recording", ["cyclegan", "fast"])
def test_recorded_trainings_that_went_well_give_no_alarm(recording: str) -> None:
    """Of `--data demo`: every line, and again as if they had been the beginning of a longer or all of a shorter training."""
    found = json.loads((RECORDED / f"{recording}.json").read_text())
    for total in (1000, found["total_steps"], 200_000):
        watch = Monitor(total, found["undecided"])
        for number, step in enumerate(found["steps"]):
            losses = {term: values[number] for term, values in found["losses"].items()}
            observed = {"outputs": found["outputs"][str(step)]} if str(step) in found["outputs"] else {}
            assert watch.see({"step": step, "losses": losses, **observed}) == {}


@pytest.mark.parametrize(("name", "kind"), [("mobile", "unchanged"), ("unet-128", "constant")])
def test_a_generators_beginning_is_no_collapse(name: str, kind: str) -> None:
    """One starts as the identity, another with next to one grey for everything; neither is warned of before its time."""
    torch.manual_seed(0)
    generator = generators.get(name)(base_channels=4)
    random = np.random.default_rng(0)
    sources = [np.kron(image, np.ones((16, 16, 1), np.uint8)) for image in random.integers(0, 256, (4, 8, 8, 3), np.uint8)]
    seen = describe(sources, translate_batch(generator, sources, torch.device("cpu")))
    assert seen["changed"] < watching.SAME if kind == "unchanged" else seen["variety"] < watching.ALIKE
    for total in (200, 4000, 200_000):
        assert first_warning(Monitor(total, 0.25), lines(range(100, 1100, 100), seen)) is None
    assert first_warning(Monitor(4000, 0.25), lines(range(100, 1200, 100), seen)) == (1100, [kind])
