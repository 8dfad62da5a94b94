"""The recipes that come with fruitgan, field by field against their sources."""

from __future__ import annotations

import functools

import torch

from fruitgan.train_gan.assemble import make_plan
from fruitgan.train_gan.estimate import SAMPLED_STEPS, sketched_step
from fruitgan.train_gan.recipe import Adam, Part, Recipe, Schedule, constant, recipes
from fruitgan.train_gan.settings import TrainGanSettings


@functools.cache
def multiply_adds(recipe: str) -> int:
    """Of a step at the end of the training, when all its losses count."""
    plan = make_plan(TrainGanSettings(recipe=recipe, precision="fp32"), torch.device("cpu"))
    return sketched_step(plan, plan.recipe.batch_size, SAMPLED_STEPS - 1).multiply_adds


def common(recipe: Recipe) -> None:
    """What the paper and the tutorial have in common."""
    assert recipe.objective.name == "cyclegan"
    assert recipe.augmentation == Part(name="jitter-mirror")  # to 286 for 256, a random crop, half of them mirrored
    assert recipe.weights == {"adversarial": constant(1.0), "cycle": constant(10.0), "identity": constant(5.0)}
    assert (recipe.image_size_px, recipe.batch_size, recipe.fit) == (256, 1, "squash")
    assert recipe.ema_decay is None
    assert recipe.precision == "fp32"
    assert recipe.steps is None


def test_cyclegan_is_the_papers() -> None:
    recipe = recipes.get("cyclegan")
    common(recipe)
    assert recipe.objective.options == {"gan_mode": "lsgan", "pool_size": 50}
    assert recipe.generator == Part(name="resnet-9")
    assert recipe.discriminator == Part(name="patch-70")
    adam = Adam(learning_rate=2e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-8)
    assert recipe.optimizers == {"generators": adam, "discriminators": adam}
    assert recipe.learning_rate == Schedule(start=1.0, end=0.0, begin=0.5, finish=1.0, shape="linear", unit="epoch")
    assert (recipe.epochs, recipe.pairing, recipe.resample) == (200, "random-b", "bicubic")
    assert recipe.total_steps(1019) == 203_800


def test_seed_unet_is_the_lab_reports() -> None:
    recipe = recipes.get("seed-unet")
    common(recipe)
    assert recipe.objective.options == {"gan_mode": "lsgan", "pool_size": 0}
    assert recipe.generator == Part(name="unet-256")  # with dropout of a half
    assert recipe.discriminator == Part(name="patch-70-affine")
    adam = Adam(learning_rate=2e-4, beta_1=0.5, beta_2=0.999, epsilon=1e-7)
    assert recipe.optimizers == {"generators": adam, "discriminators": adam}
    assert recipe.learning_rate == constant(1.0)
    assert (recipe.epochs, recipe.pairing, recipe.resample) == (40, "zip", "nearest")
    assert recipe.total_steps(995) == 39_800


def test_fruit_takes_no_more_work_than_cyclegan() -> None:
    recipe, reference = recipes.get("fruit"), recipes.get("cyclegan")
    assert recipe.generator == Part(name="resnet-aa")
    lengths = (recipe.epochs, recipe.image_size_px, recipe.batch_size)
    assert lengths == (reference.epochs, reference.image_size_px, reference.batch_size)
    assert multiply_adds("fruit") <= multiply_adds("cyclegan")


def test_the_work_of_cyclegan_is_that_of_its_layers() -> None:
    def convolution(channels_in: int, channels_out: int, kernel: int, side: int) -> int:
        return channels_in * channels_out * kernel**2 * side**2

    ends = convolution(3, 64, 7, 256) + convolution(64, 3, 7, 256)
    halvings = convolution(64, 128, 3, 128) + convolution(128, 256, 3, 64)
    doublings = convolution(256, 128, 3, 64) + convolution(128, 64, 3, 128)
    generator = ends + halvings + doublings + 18 * convolution(256, 256, 3, 64)
    layers = [(3, 64, 128), (64, 128, 64), (128, 256, 32), (256, 512, 31), (512, 1, 30)]
    first, *others = (convolution(c, d, 4, side) for c, d, side in layers)
    # Forward, and backward to the input and to the weights; the first layer of what images enter passes nothing back.
    fakes_and_identities = 4 * (3 * generator - convolution(3, 64, 7, 256))
    cycles = 2 * 3 * generator
    fooled = 2 * 2 * (first + sum(others))  # backward to the input alone
    learning = 4 * (2 * first + 3 * sum(others))
    assert multiply_adds("cyclegan") == fakes_and_identities + cycles + fooled + learning
