"""From settings to a trainer: what is asked for wins, and what cannot be is said before anything is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from picture_files import noise, smooth
from PIL import Image
from torch import Tensor, nn
from toy_bundles import save_toy

from fruitgan import registry
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.preprocessing import Preprocessing
from fruitgan.data.sources import Domain, Source, folder_source
from fruitgan.errors import DataError, UsageError
from fruitgan.networks.contracts import Discriminator, Generator, SizeRule, discriminators, generators
from fruitgan.progress import silent
from fruitgan.runs.run import Run
from fruitgan.settings import from_json, to_json
from fruitgan.train_gan import assemble
from fruitgan.train_gan.assemble import (
    Datasets,
    give_teacher,
    load_datasets,
    make_objective,
    make_plan,
    refuse_overlap,
    shown_size_px,
)
from fruitgan.train_gan.settings import Plan, RunConfig, TrainGanSettings, located, read_config

pytestmark = pytest.mark.usefixtures("repeatable")

CPU = torch.device("cpu")


def plan(**settings: Any) -> Plan:
    return make_plan(TrainGanSettings(**settings), CPU)


def small(**settings: Any) -> Plan:
    given: dict[str, Any] = {"generator_options": {"base_channels": "4"}, "discriminator_options": {"base_channels": "4"}}
    return plan(**given | settings)


def test_the_default_recipe_is_the_light_one_on_a_cpu_and_fruit_elsewhere() -> None:
    assert plan().recipe_name == "fast"
    assert make_plan(TrainGanSettings(precision="fp32"), torch.device("cuda")).recipe_name == "fruit"


def test_a_plan_has_every_option_of_every_part() -> None:
    size: dict[str, Any] = {"image_size": 512, "batch_size": 2}
    made = plan(recipe="cyclegan", generator_options={"base_channels": "32"}, seed=7, precision="bf16", **size)
    assert made.generator.options == {"base_channels": 32}
    assert made.discriminator.options == {"base_channels": 64}
    assert made.objective.options == {
        "gan_mode": "lsgan",
        "pool_size": 50,
        "mask_losses": False,
        "shift": 0.0,
        "cutout": 0.0,
    }
    assert made.augmentation.options == {"load_ratio": 286 / 256, "mirror": True}
    assert made.recipe.generator.options == {"base_channels": 32}  # what was typed, in its own type
    assert (made.recipe.image_size_px, made.recipe.batch_size, made.precision, made.seed) == (512, 2, "bf16", 7)
    assert (plan(recipe="cyclegan").precision, plan().seed) == ("fp32", 0)


def test_a_recipes_options_stay_with_the_recipes_own_choice() -> None:
    own = {"backbone": "efficientnet-lite1", "strides": "4,8,16", "base_channels": 32, "pixel_scales": 2, "mix": False}
    assert plan(recipe="fast").discriminator.options == own
    assert plan(recipe="fast", discriminator_options={"pixel_scales": "1"}).discriminator.options == {**own, "pixel_scales": 1}
    assert plan(recipe="fast", discriminator="patch-70").discriminator.options == {"base_channels": 64}


@pytest.mark.parametrize(
    ("recipe", "asked", "total"),
    [
        ("cyclegan", {}, 2000),
        ("cyclegan", {"steps": 7}, 7),
        ("fast", {}, 12_000),
        ("fast", {"epochs": 3}, 30),
    ],
)
def test_the_length_is_the_one_asked_for_or_the_recipes(recipe: str, asked: dict[str, int], total: int) -> None:
    assert plan(recipe=recipe, **asked).recipe.total_steps(10) == total


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"recipe": "seed-unet", "image_size": 128},
            "unet-256 takes 256 px or more, in multiples of 256; the next that all networks take is 256",
        ),
        (
            {"recipe": "cyclegan", "image_size": 30},
            "resnet-9 takes 8 px or more, in multiples of 4; the next that all networks take is 32",
        ),
        ({"recipe": "fast", "image_size": 28}, "projected takes 32 px or more, in multiples of 1; the next that .* is 32"),
        ({"recipe": "fast", "image_size": 30, "discriminator": "patch-multiscale"}, "mobile takes 8 px .* networks take is 48"),
    ],
)
def test_an_image_size_that_a_network_does_not_take_is_refused_with_the_next(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"--image-size {settings['image_size']}: {message}"):
        make_objective(small(**settings))


def test_the_first_weights_depend_on_the_seed_alone_and_no_two_networks_start_alike() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        networks = make_objective(small(seed=seed, discriminator="patch-70")).networks
        return {name: torch.cat([p.detach().flatten() for p in it.parameters()]) for name, it in networks.items()}

    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = weights(3)
    assert torch.equal(torch.get_rng_state(), before)  # and the caller's random state is not touched
    torch.manual_seed(2)
    same, other = weights(3), weights(4)
    assert all(torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["generator_ab"], one["generator_ba"])
    assert not torch.equal(one["discriminator_a"], one["discriminator_b"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 7}, "--image-size 7: 8 or more"),
        ({"batch_size": 0}, "--batch-size 0: 1 or more"),
        ({"epochs": -1}, "--epochs -1: 1 or more"),
        ({"save_every": 0}, "--save-every 0: 1 or more"),
        ({"name": ".."}, "a name, not a path"),
        ({"seed": -1}, "--seed -1"),
        ({"on_nan": "ignore"}, "on_nan: 'ignore' is not one of stop, rollback"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainGanSettings(**settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda recipe: recipe["weights"]["cycle"].update(every=8), "unknown key 'every'"),
        (lambda recipe: recipe.pop("weights"), "'weights' is missing"),
        (lambda recipe: recipe.update(weights=[1]), "expected a table"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    made = plan(recipe="fast")
    config = RunConfig(
        settings=TrainGanSettings(),
        plan=made,
        total_steps=1,
        steps_per_epoch=1,
        domains=("apple", "orange"),
        training_images=(1, 1),
        data_fingerprint="",
    )
    table = to_json(config)
    change(table["plan"]["recipe"])
    (tmp_path / "config.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=said) as refused:
        read_config(Run(tmp_path))
    assert "\n" not in str(refused.value)


def test_images_are_read_as_asked_and_the_odd_ones_are_said_before_training(tmp_path: Path) -> None:
    for folder in ("trainA", "trainB"):
        (tmp_path / folder.replace("train", "test")).mkdir()  # else one of the images would be cut off for it
        (tmp_path / folder).mkdir()
        Image.fromarray(noise(8, 12, 1)).save(tmp_path / folder / "wide.png")
    Image.fromarray(np.full((8, 12), 900, dtype=np.uint16)).save(tmp_path / "trainB" / "deep.png")
    made = plan(background="#102030", value_range="0,4095", fit="pad", image_size=48)
    assert made.preprocessing == Preprocessing(background="#102030", value_range=(0, 4095), fit="pad")
    assert made.recipe.fit == "pad"
    assert from_json(Plan, json.loads(json.dumps(to_json(made))), "x").preprocessing == made.preprocessing
    datasets = load_datasets(made, folder_source(tmp_path), silent)
    assert (datasets.a.pixels[:, 0] == (16, 32, 48)).all()
    assert datasets.notes == (
        "a: the median image is 1.50 times as wide as high and is made a square with borders of #102030 (--fit pad)",
        "b: 1 of 2 images have more than 8 bits; 0 to 4095 become 0 to 255 (--value-range)",
        "b: the median image is 1.50 times as wide as high and is made a square with borders of #102030 (--fit pad)",
    )
    for folder in ("A", "B"):
        (tmp_path / f"test{folder}").rmdir()
        (tmp_path / f"train{folder}").rename(tmp_path / f"test{folder}")
    with pytest.raises(DataError, match="has only test images of a; training needs trainA and trainB"):
        load_datasets(made, folder_source(tmp_path), silent)


def test_a_picture_that_is_held_out_of_one_domain_may_not_train_as_the_other() -> None:
    def images(*seeds: int) -> ImageDataset:
        return ImageDataset(
            np.stack([smooth(seed, 64, 64) for seed in seeds]), tuple(Path(f"{seed}.png") for seed in seeds), ()
        )

    source = Source("x2y", Domain("x", (), (), ()), Domain("y", (), (), ()))
    apart = Datasets(images(1, 2), images(3, 4), held_out=(images(5), images(6)))
    refuse_overlap(source, apart)
    for held_out in ((images(4), images(6)), (images(5), images(1))):
        with pytest.raises(DataError, match="1 picture is in both domains"):
            refuse_overlap(source, replace(apart, held_out=held_out))


def test_a_teacher_that_takes_no_images_of_this_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="large", size_minimum_px=256, size_multiple_px=256, padded=lambda side_px: 256)
    monkeypatch.setattr(assemble, "_generators_of", lambda *_: SimpleNamespace(card=card))
    objective = make_objective(small(recipe="lesson", image_size=64))
    with pytest.raises(UsageError, match="--image-size 64: the teacher large takes sides of 256 px or more"):
        give_teacher(objective, "large", 64)


def test_the_bundle_that_a_run_starts_from_is_found_from_other_folders_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_toy(Path("a.safetensors"))
    assert located(TrainGanSettings(data="demo", init_from=str(path))).init_from == str(tmp_path / "a.safetensors")


@pytest.mark.parametrize(("recipe", "size", "shown"), [("fast", 96, 256), ("fast", 64, 172), ("cyclegan", 64, 64)])
def test_samples_are_as_large_as_the_bundles_pictures_or_the_next_that_fits(recipe: str, size: int, shown: int) -> None:
    made = small(recipe=recipe, image_size=size)
    assert shown_size_px(made, make_objective(made)) == shown


class Tint(Generator):
    size_rule = SizeRule(minimum_px=1, multiple_of_px=1)

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.mix(x))


class NoRule(Tint):
    size_rule = None  # type: ignore[assignment]


class Halving(Tint):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., ::2]


class Failing(Tint):
    def forward(self, x: Tensor) -> Tensor:
        raise AttributeError("no stone")


class OneMap(Discriminator):
    size_rule = SizeRule(minimum_px=1, multiple_of_px=1)

    def __init__(self) -> None:
        super().__init__()
        self.judge = nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.judge(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (NoRule, "has no size_rule"),
        (Halving, "gives no"),
        (Failing, "no stone"),
        (OneMap, "no tuple of"),
        (Tint, None),
    ],
)
def test_a_network_of_another_package_that_breaks_its_contract_is_named(
    thing: Any, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_own", {})
    kind = "discriminator" if issubclass(thing, Discriminator) else "generator"
    {"generator": generators, "discriminator": discriminators}[kind].register("odd", thing)  # type: ignore[attr-defined]
    made = plan(recipe="cyclegan", image_size=32, **{kind: "odd"})
    if said is None:
        assert make_objective(made).networks["generator_ab"].training
        return
    with pytest.raises(UsageError, match=f"the {kind} odd of .*{said}"):
        make_objective(made)
