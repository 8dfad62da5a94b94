"""From settings to a trainer: every choice resolved, every name looked up, every size checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from fruitgan import randomness
from fruitgan.data.augment import augmentations
from fruitgan.data.decoded_cache import DecodeSettings, cached_dataset
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.loader import BatchLoader, Sampler
from fruitgan.data.sources import Domain, Source
from fruitgan.device import Precision, has_fast_bf16, has_room_for, keep_freed_memory
from fruitgan.errors import UsageError
from fruitgan.networks.contracts import SizeRule, discriminators, generators
from fruitgan.registry import Choice, Registry
from fruitgan.train_gan.cuda_graphs import CudaGraphs
from fruitgan.train_gan.objectives.contracts import Objective, objectives
from fruitgan.train_gan.recipe import Part, Recipe, recipes
from fruitgan.train_gan.settings import TrainGanSettings
from fruitgan.train_gan.trainer import Trainer

DEFAULT_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the mathematics, resolved: what `config.json` keeps and a resumed run reads."""

    recipe_name: str
    recipe: Recipe
    """With the settings' own wishes put in."""
    objective: Choice
    generator: Choice
    discriminator: Choice
    augmentation: Choice
    precision: Precision
    seed: int


def default_recipe(device: torch.device) -> str:
    """The recipe for a machine: the light one where there is no GPU."""
    return "fast" if device.type == "cpu" else "fruit"


def make_plan(settings: TrainGanSettings, device: torch.device) -> Plan:
    """Resolve the settings against the recipe.

    Raises:
        UsageError: an unknown name or option, or an augmentation that gives images of another size.
    """
    recipe_name = settings.recipe or default_recipe(device)
    recipe = recipes.get(recipe_name)
    recipe = dataclasses.replace(
        recipe,
        generator=_part(recipe.generator, settings.generator, settings.generator_options),
        discriminator=_part(recipe.discriminator, settings.discriminator, settings.discriminator_options),
        objective=_part(recipe.objective, settings.objective, {}),
        augmentation=_part(recipe.augmentation, settings.augment, {}),
        image_size_px=settings.image_size or recipe.image_size_px,
        batch_size=settings.batch_size or recipe.batch_size,
        epochs=settings.epochs if settings.steps is None and settings.epochs is not None else recipe.epochs,
        steps=settings.steps if settings.steps is not None or settings.epochs is not None else recipe.steps,
    )
    chosen = _choice(augmentations, recipe.augmentation)
    if augmentations.build(chosen).gives_size_px(recipe.image_size_px) != recipe.image_size_px:
        raise UsageError(f"--augment {chosen.name} shows parts of a picture, which only detectors take; choose another")
    precision = settings.precision or recipe.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return Plan(
        recipe_name=recipe_name,
        recipe=recipe,
        objective=_choice(objectives, recipe.objective),
        generator=_choice(generators, recipe.generator),
        discriminator=_choice(discriminators, recipe.discriminator),
        augmentation=chosen,
        precision=precision,
        seed=DEFAULT_SEED if settings.seed is None else settings.seed,
    )


def _part(part: Part, name: str | None, options: Mapping[str, Any]) -> Part:
    """The recipe's part with the user's wishes; options of the recipe belong to the recipe's own choice alone."""
    if name is None or name == part.name:
        return Part(name=part.name, options={**part.options, **options})
    return Part(name=name, options=dict(options))


def _choice(registry: Registry[Any], part: Part) -> Choice:
    return registry.choose(part.name, part.options)


@dataclass(frozen=True)
class Banks:
    """The training images of both domains, decoded."""

    a: ImageDataset
    b: ImageDataset
    notes: tuple[str, ...] = ()
    """What is to be known of how they were had."""

    @property
    def fingerprint(self) -> str:
        return f"{self.a.fingerprint}/{self.b.fingerprint}"


def load_banks(plan: Plan, source: Source, on_loading: Callable[[str, int, int], None]) -> Banks:
    """The training images at the size that the augmentation crops from: decoded, or out of the cache."""
    making = DecodeSettings(
        load_size_px=augmentations.build(plan.augmentation).load_size_px(plan.recipe.image_size_px),
        fit=plan.recipe.fit,
        resample=Image.Resampling[plan.recipe.resample.upper()],
    )

    def load(domain: Domain) -> tuple[ImageDataset, str | None]:
        return cached_dataset(
            domain.train, making, on_progress=lambda done, total: on_loading(f"decoding {domain.name}", done, total)
        )

    (a, note_a), (b, note_b) = load(source.a), load(source.b)
    return Banks(a, b, tuple(note for note in (note_a, note_b) if note is not None))


def make_objective(plan: Plan) -> Objective:
    """The objective with fresh networks, the same for the same seed, whatever torch drew before.

    Raises:
        UsageError: the image size does not fit a network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.torch_seed(plan.seed, 0, "initial weights"))
        objective: Objective = objectives.build(plan.objective)(
            lambda: generators.build(plan.generator), lambda: discriminators.build(plan.discriminator)
        )
    size = plan.recipe.image_size_px
    for name, network in objective.networks.items():
        rule = getattr(network, "size_rule", None)
        if isinstance(rule, SizeRule) and not rule.accepts(size, size):
            choice = plan.discriminator if name.startswith("discriminator") else plan.generator
            raise UsageError(
                f"--image-size {size}: {choice.name} takes {rule.minimum_px} px or more, in multiples of "
                f"{rule.multiple_of_px}; the next is {rule.padded(size)}"
            )
    return objective


def make_sampler(plan: Plan, n_a: int, n_b: int) -> Sampler:
    """Which images each step sees."""
    return Sampler(n_a, n_b, plan.recipe.batch_size, plan.seed, plan.recipe.pairing)


def make_trainer(plan: Plan, banks: Banks, objective: Objective, device: torch.device, log_every: int) -> Trainer:
    """The trainer at step 0."""
    if device.type == "cpu":
        keep_freed_memory()
    sampler = make_sampler(plan, len(banks.a), len(banks.b))
    feed = BatchLoader(
        banks.a,
        banks.b,
        sampler,
        augmentations.build(plan.augmentation),
        image_size_px=plan.recipe.image_size_px,
        seed=plan.seed,
        device=device,
        images_on_device=has_room_for(device, banks.a.flat.size + banks.b.flat.size),
    )
    return Trainer(
        objective,
        plan.recipe,
        feed,
        total_steps=plan.recipe.total_steps(sampler.steps_per_epoch),
        steps_per_epoch=sampler.steps_per_epoch,
        seed=plan.seed,
        device=device,
        precision=plan.precision,
        log_every=log_every,
        capture=CudaGraphs(device) if device.type == "cuda" else None,
    )
