"""The report of a training: what it says, what a browser finds in it, and how its curves come about."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import named_reports
import numpy as np
import pytest
from named_reports import Page

from fruitgan.registry import Choice
from fruitgan.report.page import grid, png_bytes
from fruitgan.train_gan.curves import Story, loss_panels
from fruitgan.train_gan.page import training_report
from fruitgan.train_gan.recipe import Clock, Part, Recipe, Schedule, constant, until
from fruitgan.train_gan.recipes import fast
from fruitgan.train_gan.settings import RunConfig

STEPS_PER_EPOCH = 50
ERRORS = {"adversarial_ab": 0.6, "adversarial_ba": 0.7, "cycle_a": 0.1, "cycle_b": 0.2, "identity_a": 0.03, "identity_b": 0.04}


def recipe_of(steps: int = 400) -> Recipe:
    weights = {"adversarial": constant(1.0), "cycle": Schedule(start=8.0, end=2.0), "identity": until(0.35, 5.0)}
    return dataclasses.replace(fast, steps=steps, epochs=None, image_size_px=8, weights=weights)


def config_of(recipe: Recipe, **plan: Any) -> RunConfig:
    def choice(part: Part, **options: Any) -> Choice:
        return Choice(part.name, "fruitgan", "0.1.0", {**part.options, **options})

    known: dict[str, Any] = {
        "objective": choice(recipe.objective),
        "generator": choice(recipe.generator, mask=True),
        "discriminator": choice(recipe.discriminator, scales=2),
    }
    base = named_reports.config("somebody")
    return dataclasses.replace(
        base,
        plan=dataclasses.replace(base.plan, recipe=recipe, **known | plan),
        total_steps=recipe.total_steps(STEPS_PER_EPOCH),
        steps_per_epoch=STEPS_PER_EPOCH,
        domains=("apple", "orange"),
        training_images=(1995, 1019),
        data_fingerprint="0123456789abcdef/fedcba9876543210",
    )


def story(recipe: Recipe, **plan: Any) -> Story:
    return Story(config_of(recipe, **plan))


def log_of(recipe: Recipe, until_step: int, every: int = 10) -> list[dict[str, Any]]:
    """As the trainer logs: each term the mean over the lines' steps of an error, here always the same, times its weight."""
    total, entries = recipe.total_steps(STEPS_PER_EPOCH), []
    for end in range(every, until_step + 1, every):
        clocks = [Clock(step, total, STEPS_PER_EPOCH) for step in range(end - every, end)]
        weight = {name: float(np.mean([s.at(c) for c in clocks])) for name, s in recipe.weights.items()}
        terms = {term: error * weight[term.split("_")[0]] for term, error in ERRORS.items() if weight[term.split("_")[0]]}
        losses = terms | {"discriminator_a": 0.4, "discriminator_b": 0.3}
        entries.append({"step": end, "losses": losses, "learning_rate": 2e-4 * recipe.learning_rate.at(clocks[-1])})
    return entries


def write_run(path: Path, side_px: int = 8) -> Path:
    """A run's samples and environment."""
    (path / "samples").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for step in (100, 200, 300):
        rows = [list(row) for row in rng.integers(0, 256, (4, 3, side_px, side_px, 3), dtype=np.uint8)]
        (path / "samples" / f"step-{step:08d}.png").write_bytes(png_bytes(grid(rows)))
    (path / "config.json").write_text('{"settings": {}}')
    (path / "environment.json").write_text(json.dumps({"python": "3.11.7", "packages": {"torch": "2.15.0"}, "gpu": None}))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "my run")


def report(run: Path, step: int = 400, recipe: Recipe | None = None, **more: Any) -> str:
    recipe = recipe or recipe_of()
    result = named_reports.result(run, "ab" * 32) | {"step": step, "finished": step >= recipe.steps}
    result |= {"images": step * 4, "seconds": step * 0.5}
    return training_report(run, config_of(recipe), log_of(recipe, step), result, **more)


def test_a_finished_run_says_what_came_out_of_which_settings_and_how_to_use_it_and_tells_no_place(run: Path) -> None:
    html = report(run)
    page = Page(html)
    for said in (
        *("my run", "apple ⇄ orange", "finished", "All 400 steps took 3 min 20 s", "1,600", "8.0 epochs"),
        *(
            "options = { mask = true }",
            "1,995 apple, 1,019 orange",
            "0123456789ab / fedcba987654",
            "abababababab",
            "torch 2.15.0",
        ),
        f"fruitgan translate photo.jpg --bundle '{run}'",
        f"fruitgan train-gan --resume '{run}' --steps 800",
    ):
        assert said in page.text
    assert "/home" not in html
    assert "None" not in page.text
    assert len(page.all("img")) == 3
    assert len(page.all("svg")) == 5  # four kinds of losses, and the learning rate
    assert report(run) == html


def test_a_stopped_run_says_how_to_go_on_and_one_that_goes_on_loads_itself_anew(run: Path) -> None:
    now = datetime(2026, 3, 4, 5, 6, 7)
    page, stopped = Page(report(run, 200, written=now)), Page(report(run, 150))
    assert [each["content"] for each in page.all("meta") if each.get("http-equiv") == "refresh"] == ["60"]
    assert "2026-03-04 05:06:07" in page.text
    assert "150 of 400 steps" in stopped.text
    assert re.search(r"fruitgan train-gan --resume '[^']+'\n", stopped.text)
    assert not [each for each in stopped.all("meta") if each.get("http-equiv") == "refresh"]


def test_a_loss_that_begins_late_is_a_panel_from_its_first_line_on(run: Path) -> None:
    weights = {**recipe_of().weights, "identity": Schedule(start=0.0, end=5.0, begin=0.95, finish=0.95)}
    late = Page(report(run, recipe=dataclasses.replace(recipe_of(), weights=weights)))
    assert len(late.all("svg")) == 5
    assert "Generators: identity" in late.text


def test_a_distilling_goes_on_by_its_own_command(tmp_path: Path) -> None:
    run = write_run(tmp_path / "lesson")
    (run / "config.json").write_text('{"settings": {"teacher": "fruit"}}')
    assert f"fruitgan distill --resume {run}\n" in Page(report(run, 150)).text


def test_a_run_without_log_samples_and_environment_or_of_one_line_still_has_a_page(run: Path, tmp_path: Path) -> None:
    text = Page(report(tmp_path, 0)).text
    for said in ("No samples yet", "No line in the log yet", "0 of 400 steps"):
        assert said in text
    assert "the mean of 10 steps" in Page(report(run, 10)).text


def test_large_samples_and_a_long_log_stay_below_three_megabytes(tmp_path: Path) -> None:
    recipe = recipe_of(8000)
    assert len(report(write_run(tmp_path, 290), 8000, recipe).encode()) < 3_000_000


def test_curves_of_a_scheduled_weight_show_the_error_without_it() -> None:
    recipe = recipe_of()
    panels = {panel.title: panel for panel in loss_panels(log_of(recipe, 400), story(recipe))}
    assert list(panels) == ["Generators: adversarial", "Discriminators", "Generators: cycle", "Generators: identity"]
    a, b = panels["Generators: cycle"].tracks
    assert (a.label, b.label) == ("apple", "orange")
    np.testing.assert_allclose(a.values, 0.1)
    np.testing.assert_allclose(b.values, 0.2)
    assert "Divided by its weight" in panels["Generators: cycle"].caption
    assert panels["Generators: identity"].tracks[0].steps[-1] == 140
    assert "Off after step 140" in panels["Generators: identity"].caption


def test_a_lengthened_run_whose_old_weights_are_unknown_is_plotted_as_minimised() -> None:
    log = log_of(recipe_of(400), 400)
    panels = {panel.title: panel for panel in loss_panels(log, story(recipe_of(800)))}
    assert panels["Generators: cycle"].tracks[0].values == [entry["losses"]["cycle_a"] for entry in log]
    assert "as minimised" in panels["Generators: cycle"].caption


@pytest.mark.parametrize(
    ("mode", "scales", "undecided"),
    [("lsgan", 1, 0.25), ("lsgan", 2, 0.5), ("bce", 1, 0.6931), ("bce", 3, 2.0794), ("hinge", 2, 2.0)],
)
def test_the_undecided_level_is_the_loss_of_a_discriminator_that_cannot_tell(mode: str, scales: int, undecided: float) -> None:
    import torch

    from fruitgan.train_gan.objectives.adversarial import discriminator_loss, generator_loss

    maps = [torch.full((2, 1, 3, 3), 0.5 if mode == "lsgan" else 0.0)] * scales
    found = story(
        recipe_of(),
        objective=Choice("cyclegan", "fruitgan", "0.1.0", {"gan_mode": mode}),
        discriminator=Choice("patch", "fruitgan", "0.1.0", {"scales": scales}),
    )
    assert found.undecided == pytest.approx(undecided, abs=1e-4)
    assert float(discriminator_loss(mode, maps, maps)) == pytest.approx(undecided, abs=1e-4)
    assert float(generator_loss(mode, maps)) == pytest.approx(0 if mode == "hinge" else undecided, abs=1e-4)


def test_a_projected_discriminator_has_a_map_a_stride_and_a_pixel_scale_and_a_strangers_are_not_known() -> None:
    hinge = Choice("cyclegan", "fruitgan", "0.1.0", {"gan_mode": "hinge"})
    projected = Choice("projected", "fruitgan", "0.1.0", {"strides": "4,8,16", "pixel_scales": 2})
    assert story(recipe_of(), objective=hinge, discriminator=projected).undecided == 5.0
    assert story(recipe_of(), discriminator=Choice("other", "fruitgan-other", "1", {})).undecided is None


def test_the_terms_of_a_strangers_objective_are_shown_by_their_names() -> None:
    found = story(recipe_of(), objective=Choice("other", "fruitgan-other", "1", {}))
    log = [{"step": 10, "losses": {"hue_a": 3.0, "hue_b": 2.0, "total": 1.0}, "learning_rate": 1.0}]
    panels = loss_panels(log, found)
    labels = [(panel.title, [track.label for track in panel.tracks]) for panel in panels]
    assert labels == [("hue", ["hue_a", "hue_b"]), ("total", ["total"])]
    assert not any(panel.level for panel in panels)


def test_far_peaks_are_cut_and_counted() -> None:
    recipe = recipe_of()
    log = log_of(recipe, 400)
    log[20]["losses"]["discriminator_a"] = 1000.0
    (panel,) = [panel for panel in loss_panels(log, story(recipe)) if panel.title == "Discriminators"]
    assert "Cut off by the frame: 1 of 80 raw values" in panel.caption
