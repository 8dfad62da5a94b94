from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fruitgan.registry import Choice
from fruitgan.report.grid import grid, png_bytes
from fruitgan.train_gan.curves import Story, loss_panels
from fruitgan.train_gan.page import training_report
from fruitgan.train_gan.recipe import Clock, Part, Recipe, Schedule, constant, until
from fruitgan.train_gan.recipes import fast
from fruitgan.train_gan.settings import Plan, RunConfig, TrainGanSettings

STEPS_PER_EPOCH = 50
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def recipe_of(steps: int = 400, base: Recipe = fast) -> Recipe:
    weights = {"adversarial": constant(1.0), "cycle": Schedule(start=8.0, end=2.0), "identity": until(0.35, 5.0)}
    return dataclasses.replace(
        base, steps=steps, epochs=None, image_size_px=8, **({"weights": weights} if base is fast else {})
    )


def config_of(recipe: Recipe, **plan: Any) -> RunConfig:
    def choice(part: Part, **options: Any) -> Choice:
        return Choice(part.name, "fruitgan", "0.1.0", {**part.options, **options})

    known: dict[str, Any] = {
        "objective": choice(recipe.objective),
        "generator": choice(recipe.generator, mask=True),
        "discriminator": choice(recipe.discriminator, scales=2),
        "augmentation": choice(recipe.augmentation),
    }
    return RunConfig(
        settings=TrainGanSettings(data="/home/somebody/fruit"),
        plan=Plan(recipe_name="fast", recipe=recipe, precision="fp32", seed=3, **known | plan),
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
    errors = {
        "adversarial_ab": 0.6,
        "adversarial_ba": 0.7,
        "cycle_a": 0.1,
        "cycle_b": 0.2,
        "identity_a": 0.03,
        "identity_b": 0.04,
    }
    total, entries = recipe.total_steps(STEPS_PER_EPOCH), []
    for end in range(every, until_step + 1, every):
        clocks = [Clock(step, total, STEPS_PER_EPOCH) for step in range(end - every, end)]
        weight = {name: float(np.mean([s.at(c) for c in clocks])) for name, s in recipe.weights.items()}
        terms = {term: error * weight[term.split("_")[0]] for term, error in errors.items() if weight[term.split("_")[0]]}
        entries.append(
            {
                "step": end,
                "losses": terms | {"discriminator_a": 0.4, "discriminator_b": 0.3},
                "learning_rate": 2e-4 * recipe.learning_rate.at(clocks[-1]),
            }
        )
    return entries


def result_of(run: Path, step: int, total: int = 400) -> dict[str, Any]:
    return {
        "run": str(run),
        "step": step,
        "finished": step >= total,
        "images": step * 4,
        "seconds": step * 0.5,
        "images_per_second": 8.0,
        "bundle": str(run / "bundle.safetensors"),
        "final_losses": {},
        "weights_sha256": "ab" * 32,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "my run"
    (path / "samples").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for step in (100, 200, 300):
        rows = [list(row) for row in rng.integers(0, 256, (4, 3, 8, 8, 3), dtype=np.uint8)]
        (path / "samples" / f"step-{step:08d}.png").write_bytes(png_bytes(grid(rows)))
    (path / "environment.json").write_text(json.dumps({"python": "3.11.7", "packages": {"torch": "2.15.0"}, "gpu": None}))
    return path


def report(run: Path, step: int = 400) -> str:
    recipe = recipe_of()
    return training_report(run, config_of(recipe), log_of(recipe, step), result_of(run, step))


def test_the_page_says_what_came_out_and_how_to_use_it(run: Path) -> None:
    text = Page(report(run)).text
    for said in ("my run", "apple ⇄ orange", "finished", "All 400 steps took 3 min 20 s", "1,600", "8.0 epochs"):
        assert said in text
    assert f"fruitgan translate photo.jpg --bundle '{run}'" in text
    assert f"fruitgan train-gan --resume '{run}' --steps 800" in text


def test_the_page_of_a_training_that_goes_on_loads_itself_anew_and_says_when_it_was_written(run: Path) -> None:
    recipe, now = recipe_of(), datetime(2026, 3, 4, 5, 6, 7)
    page = Page(training_report(run, config_of(recipe), log_of(recipe, 200), result_of(run, 200), written=now))
    assert [each["content"] for each in page.all("meta") if each.get("http-equiv") == "refresh"] == ["60"]
    assert "2026-03-04 05:06:07" in page.text
    for ended in (report(run), report(run, step=200)):
        assert "refresh" not in ended


def test_a_stopped_run_says_how_to_go_on(run: Path) -> None:
    text = Page(report(run, step=150)).text
    assert "150 of 400 steps" in text
    assert re.search(r"fruitgan train-gan --resume '[^']+'\n", text)


def test_settings_and_machine_are_listed_with_short_fingerprints_and_without_paths(run: Path) -> None:
    page = report(run)
    text = Page(page).text
    for said in (
        "options = { mask = true }",
        "1,995 apple, 1,019 orange",
        "0123456789ab / fedcba987654",
        "abababababab",
        "torch 2.15.0",
    ):
        assert said in text
    assert "somebody" not in page
    assert "None" not in text


def test_no_request_leaves_the_page(run: Path) -> None:
    html = report(run)
    page = Page(html)
    for _, attributes in page.elements:
        for name in LOADING & set(attributes):
            assert (attributes[name] or "").startswith(("data:", "#"))
    assert not page.all("script")
    assert not re.search(r"@import|url\((?!#)", html)
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in (policy["content"] or "")


def test_every_picture_and_plot_is_described_and_no_id_stands_twice(run: Path) -> None:
    page = Page(report(run))
    assert len(page.all("img")) == 3
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("svg")) == 5  # four kinds of losses, and the learning rate
    assert all(plot["aria-label"] for plot in page.all("svg"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    assert report(run) == report(run)


def test_a_run_without_log_samples_and_environment_still_has_a_page(tmp_path: Path) -> None:
    recipe = recipe_of()
    result = result_of(tmp_path, 0) | {"seconds": 0.0}
    text = Page(training_report(tmp_path, config_of(recipe), [], result)).text
    assert "No samples yet" in text
    assert "No line in the log yet" in text
    assert "0 of 400 steps" in text


def test_a_run_of_one_log_line_has_a_page(run: Path) -> None:
    assert "the mean of 10 steps" in Page(report(run, step=10)).text


def test_large_samples_and_a_long_log_stay_below_three_megabytes(run: Path) -> None:
    recipe = dataclasses.replace(recipe_of(20_000), image_size_px=200)
    rows = [list(row) for row in np.random.default_rng(0).integers(0, 256, (8, 3, 200, 200, 3), dtype=np.uint8)]
    for path in (run / "samples").iterdir():
        path.write_bytes(png_bytes(grid(rows)))
    entries = log_of(recipe, 20_000)
    html = training_report(run, config_of(recipe), entries, result_of(run, 20_000, 20_000))
    assert len(html.encode()) < 3_000_000


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
    torch = pytest.importorskip("torch")
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


def test_a_projected_discriminator_has_a_map_a_stride_and_a_pixel_scale() -> None:
    found = story(
        recipe_of(),
        objective=Choice("cyclegan", "fruitgan", "0.1.0", {"gan_mode": "hinge"}),
        discriminator=Choice("projected", "fruitgan", "0.1.0", {"strides": "4,8,16", "pixel_scales": 2}),
    )
    assert found.undecided == 5.0


def test_the_terms_of_a_strangers_objective_are_shown_by_their_names() -> None:
    found = story(recipe_of(), objective=Choice("other", "fruitgan-other", "1", {}))
    log = [{"step": 10, "losses": {"hue_a": 3.0, "hue_b": 2.0, "total": 1.0}, "learning_rate": 1.0}]
    panels = loss_panels(log, found)
    assert [(panel.title, [track.label for track in panel.tracks]) for panel in panels] == [
        ("hue", ["hue_a", "hue_b"]),
        ("total", ["total"]),
    ]
    assert not any(panel.level for panel in panels)


def test_a_discriminator_of_a_stranger_has_no_level_since_its_maps_are_unknown() -> None:
    found = story(recipe_of(), discriminator=Choice("other", "fruitgan-other", "1", {}))
    assert found.undecided is None


def test_far_peaks_are_cut_and_counted() -> None:
    recipe = recipe_of()
    log = log_of(recipe, 400)
    log[20]["losses"]["discriminator_a"] = 1000.0
    (panel,) = [panel for panel in loss_panels(log, story(recipe)) if panel.title == "Discriminators"]
    assert "Cut off by the frame: 1 of 80 raw values" in panel.caption
