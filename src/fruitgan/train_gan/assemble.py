"""From settings to a trainer and from a trainer to a bundle: names resolved, sizes checked, networks built, weights loaded."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn

import fruitgan
from fruitgan import bundle as bundles
from fruitgan import randomness
from fruitgan.data.augment import augmentations
from fruitgan.data.groups import pairs_in_both
from fruitgan.data.image_dataset import DecodeSettings, ImageDataset, cached_dataset
from fruitgan.data.loader import BatchLoader, Loader, Sampler
from fruitgan.data.preprocessing import AS_USUAL
from fruitgan.data.sources import Source
from fruitgan.device import has_fast_bf16, has_room_for, keep_freed_memory
from fruitgan.engines.torch_engine import arrays_of
from fruitgan.errors import DataError, EnvironmentProblem, UsageError, shown
from fruitgan.networks.backbones import trained_against
from fruitgan.networks.contracts import SizeRule, breach, discriminators, generators
from fruitgan.networks.weights import build_for, load_arrays
from fruitgan.progress import OnProgress
from fruitgan.registry import OWN_PACKAGE, Registry, suggestion
from fruitgan.settings import to_json
from fruitgan.train_gan.cuda_graphs import CudaGraphs
from fruitgan.train_gan.objectives.contracts import Objective, objectives
from fruitgan.train_gan.objectives.distillation import Distillation
from fruitgan.train_gan.recipe import Part, constant, resolve_recipe
from fruitgan.train_gan.settings import Plan, TrainGanSettings
from fruitgan.train_gan.trainer import Trainer

MOST_NAMED = 3
"""Pairs of pictures that a message names."""


def default_recipe(device: torch.device) -> str:
    """The recipe for a machine: the light one where there is no GPU."""
    return "fast" if device.type == "cpu" else "fruit"


def make_plan(settings: TrainGanSettings, device: torch.device) -> Plan:
    """Resolve the settings against the recipe.

    Raises:
        UsageError: an unknown name or option, or an augmentation that gives images of another size.
    """
    asked = settings.recipe or default_recipe(device)
    recipe_name, recipe = resolve_recipe(asked, settings.recipe_changes, settings.learning_rate, settings.cycle_weight)
    asked_for: dict[str, tuple[Registry[Any], str | None, Mapping[str, Any]]] = {
        "objective": (objectives, settings.objective, settings.objective_options),
        "generator": (generators, settings.generator, settings.generator_options),
        "discriminator": (discriminators, settings.discriminator, settings.discriminator_options),
        "augmentation": (augmentations, settings.augment, {}),
    }
    parts: dict[str, Any] = {}
    choices: dict[str, Any] = {}
    for kind, (registry, name, options) in asked_for.items():
        part: Part = getattr(recipe, kind)
        # Options of the recipe belong to the recipe's own choice alone.
        given = {**part.options, **options} if name in (None, part.name) else options
        choices[kind] = registry.choose(name or part.name, given)
        parts[kind] = Part(name=name or part.name, options={key: choices[kind].options[key] for key in given})
    recipe = dataclasses.replace(
        recipe,
        **parts,
        fit=settings.fit or recipe.fit,
        image_size_px=settings.image_size or recipe.image_size_px,
        batch_size=settings.batch_size or recipe.batch_size,
        epochs=settings.epochs if settings.steps is None and settings.epochs is not None else recipe.epochs,
        steps=settings.steps if settings.steps is not None or settings.epochs is not None else recipe.steps,
    )
    if augmentations.build(choices["augmentation"]).gives_size_px(recipe.image_size_px) != recipe.image_size_px:
        raise UsageError(
            f"--augment {recipe.augmentation.name} shows parts of a picture, which only detectors take; choose another"
        )
    precision = settings.precision or recipe.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return Plan(
        recipe_name=recipe_name,
        recipe=recipe,
        **choices,
        precision=precision,
        seed=settings.seed or 0,
        preprocessing=AS_USUAL.asked(settings.background, settings.value_range, recipe.fit),
    )


@dataclass(frozen=True)
class Datasets:
    """The training images of both domains, decoded."""

    a: ImageDataset
    b: ImageDataset
    notes: tuple[str, ...] = ()
    """On how they were decoded or cached."""
    held_out: tuple[ImageDataset, ...] = ()
    """Of both domains, those that are kept out of training, if it is to be judged."""

    @property
    def fingerprint(self) -> str:
        return "/".join(dataset.fingerprint for dataset in (self.a, self.b, *self.held_out))


def load_datasets(plan: Plan, source: Source, tell: OnProgress) -> Datasets:
    """The training images at the size that the augmentation crops from: decoded, or out of the cache.

    Raises:
        DataError: there are only test images.
    """
    for domain in (source.a, source.b):
        if not domain.train:
            raise DataError(f"{source.name}: has only test images of {domain.name}; training needs trainA and trainB")
    settings = DecodeSettings(
        load_size_px=augmentations.build(plan.augmentation).load_size_px(plan.recipe.image_size_px),
        how=plan.preprocessing,
        resample=Image.Resampling[plan.recipe.resample.upper()],
    )

    (a, note_a), (b, note_b) = (
        cached_dataset(domain.train, settings, what=f"decoding {domain.name}", tell=tell) for domain in (source.a, source.b)
    )
    notes = [note for note in (note_a, note_b) if note is not None]
    for domain, dataset in ((source.a, a), (source.b, b)):
        notes += dataset.tally.notes(domain.name, plan.preprocessing)
    return Datasets(a, b, tuple(notes))


def refuse_overlap(source: Source, datasets: Datasets) -> None:
    """Raises: DataError if a picture is in both domains, as a file (one folder within the other) or by its look."""
    a, b = ({path.resolve() for path in (*domain.train, *domain.test)} for domain in (source.a, source.b))
    if shared := sorted(a & b):
        found, example = len(shared), f"{shared[0]} (does one folder lie within the other?)"
    else:
        # What is held out of one domain must not be trained on as the other either.
        held_a, held_b = datasets.held_out or (None, None)
        sides = [(datasets.a, datasets.b), (held_a, datasets.b), (datasets.a, held_b)]
        pairs = [
            (one.names[i], other.names[j])
            for one, other in sides
            if one is not None and other is not None
            for i, j in pairs_in_both(one.pixels, other.pixels)
        ]
        found, example = len(pairs), "; ".join(f"{first} and {second}" for first, second in pairs[:MOST_NAMED])
    if found:
        raise DataError(
            f"{found} picture{'s are' if found > 1 else ' is'} in both domains, {source.a.name} and {source.b.name}, such as "
            f"{example}: take what is in both out of one of them, or train all the same with --allow-overlap"
        )


def make_objective(plan: Plan) -> Objective:
    """The objective with fresh networks, the same for the same seed, whatever torch drew before.

    Raises:
        UsageError: the recipe does not fit the objective, or the image size a network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(randomness.torch_seed(plan.seed, 0, "initial weights"))
        objective: Objective = objectives.build(plan.objective)(
            lambda: generators.build(plan.generator), lambda: discriminators.build(plan.discriminator)
        )
    _check_fit(plan, objective)
    size = plan.recipe.image_size_px
    rules = {
        name: rule for name, it in objective.networks.items() if isinstance(rule := getattr(it, "size_rule", None), SizeRule)
    }
    for name, rule in rules.items():
        if not rule.accepts(size, size):
            choice = plan.discriminator if name.startswith("discriminator") else plan.generator
            following = size
            while (further := max(rule.padded(following) for rule in rules.values())) > following:
                following = further
            raise UsageError(
                f"--image-size {size}: {choice.name} takes {rule.minimum_px} px or more, in multiples of "
                f"{rule.multiple_of_px}; the next that all networks take is {following}"
            )
    for name, network in objective.networks.items():
        for kind, choice in (("generator", plan.generator), ("discriminator", plan.discriminator)):
            if name.startswith(kind) and choice.package != OWN_PACKAGE and (odd := breach(kind, network, size)):
                raise UsageError(f"the {kind} {choice.name} of {choice.package} {odd}; see fruitgan.networks.contracts")
    return objective


def picture_size_px(plan: Plan) -> int:
    """The side of the whole pictures that the generators are for, which may be more than that of what they train on."""
    return int(augmentations.build(plan.augmentation).picture_size_px(plan.recipe.image_size_px))


def shown_size_px(plan: Plan, objective: Objective) -> int:
    """That side, or the next that the generators take as it is: of sample sheets and of KID on held-out images."""
    rules: list[Any] = [objective.networks[name].size_rule for name in objective.generators.values()]
    return max(int(rule.padded(picture_size_px(plan))) for rule in rules)


def _check_fit(plan: Plan, objective: Objective) -> None:
    """Raises: UsageError unless the recipe has what the objective weighs and optimises, and nothing that it does not know."""
    players = [player.name for player in objective.players]
    for kind, given, known, example in (
        ("loss weight", plan.recipe.weights, list(objective.weights), "weights.{}=1"),
        ("optimizer", plan.recipe.optimizers, players, "optimizers.{}.learning_rate=2e-4"),
    ):
        # A weight of 0 takes away what the recipe has and the objective, with other options, has not.
        for unknown in (name for name, value in given.items() if name not in known and value != constant(0.0)):
            advice = suggestion(unknown, sorted(known))
            if kind == "loss weight" and "mean" not in advice:
                advice += f"; --set weights.{unknown}=0 leaves it out"
            raise UsageError(
                f"the objective {plan.objective.name} has no {kind} {shown(unknown)}, which the recipe {plan.recipe_name} "
                f"sets: {advice}"
            )
        for missing in (name for name in known if name not in given):
            raise UsageError(
                f"the recipe {plan.recipe_name} has no {kind} {shown(missing)}, which the objective {plan.objective.name} "
                f"needs: choose another recipe, or give it with --set {example.format(missing)}"
            )


def make_trainer(plan: Plan, datasets: Datasets, objective: Objective, device: torch.device, log_every: int) -> Trainer:
    """The trainer at step 0."""
    sampler = Sampler(len(datasets.a), len(datasets.b), plan.recipe.batch_size, plan.seed, plan.recipe.pairing)
    loader = BatchLoader(
        datasets.a,
        datasets.b,
        sampler,
        augmentations.build(plan.augmentation),
        image_size_px=plan.recipe.image_size_px,
        device=device,
        images_on_device=has_room_for(device, datasets.a.pixels.size + datasets.b.pixels.size),
    )
    return bare_trainer(plan, objective, loader, sampler.steps_per_epoch, device, log_every)


def bare_trainer(
    plan: Plan, objective: Objective, loader: Loader, steps_per_epoch: int, device: torch.device, log_every: int
) -> Trainer:
    """The trainer at step 0, on the batches of any loader."""
    if device.type == "cpu":
        keep_freed_memory()
    return Trainer(
        objective,
        plan.recipe,
        loader,
        total_steps=plan.recipe.total_steps(steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
        seed=plan.seed,
        device=device,
        precision=plan.precision,
        log_every=log_every,
        capture=CudaGraphs(device) if device.type == "cuda" else None,
    )


def compile_networks(networks: nn.Module, device: torch.device) -> None:
    """Compile each of the networks in a ModuleDict with torch.compile at its first call; parameters keep their names.

    Raises:
        EnvironmentProblem: torch's compiler does not work here, found out on a sum of two numbers.
    """
    try:
        torch.compile(lambda x: x + x * x, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # the compiler's own errors, and those of what it calls, have no base of theirs
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        needed = "triton" if device.type == "cuda" else "a C++ compiler, such as g++ (apt install g++)"
        raise EnvironmentProblem(
            f"--compile: torch cannot compile for {device} here ({reason}); it needs {needed}; or leave --compile out"
        ) from error
    for network in networks.children():
        network.compile(dynamic=False)  # a step calls with two sizes of batch at most


def make_bundle(name: str, trainer: Trainer, plan: Plan, source: Source, data_fingerprint: str) -> bundles.Bundle:
    """The generators as they are now, EMA weights where the recipe has them, with their card."""
    trained = {direction: trainer.generator(direction) for direction in trainer.objective.generators}
    rule = next(iter(trained.values())).size_rule
    card = bundles.Card(
        name=name,
        domains=(source.a.name, source.b.name),
        generator=plan.generator,
        directions=tuple(trained),
        image_size_px=picture_size_px(plan),
        size_minimum_px=rule.minimum_px,
        size_multiple_px=rule.multiple_of_px,
        recipe=plan.recipe_name,
        resolved_recipe=to_json(dataclasses.replace(plan.recipe, why={})),
        steps=trainer.step,
        images=trainer.step * plan.recipe.batch_size,
        data=source.name,
        data_fingerprint=data_fingerprint,
        trained_against=trained_against(trainer.objective.networks),
        value_range=plan.preprocessing.value_range,
        background=plan.preprocessing.background,
        licence="that of the training images",
        fruitgan_version=fruitgan.__version__,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    return bundles.Bundle(card, {direction: arrays_of(generator) for direction, generator in trained.items()})


def load_generators(objective: Objective, name: str, plan: Plan) -> str:
    """Start from a bundle's weights; a direction that is not trained here is left aside. Returns: the sum of the weights.

    Raises:
        UsageError: its generator is another than the plan's, or it lacks a direction.
    """
    found = _generators_of(f"--init-from {name}", name, objective)
    theirs, ours = found.card.generator, plan.generator
    if (theirs.name, dict(theirs.options)) != (ours.name, dict(ours.options)):
        raise UsageError(
            f"--init-from {name}: its generator is {theirs.name} {shown(dict(theirs.options))}, this training's is {ours.name} "
            f"{dict(ours.options)}; give the same with --generator and --generator-option"
        )
    for direction, network in objective.generators.items():
        load_arrays(objective.networks[network], found.weights[direction], f"generator {ours.name}")
    return bundles.weights_sha256(found)


def give_teacher(objective: Objective, name: str | None, side_px: int) -> None:
    """Give the generators of a bundle to the objective `distillation`, as its teachers; nothing for other objectives.

    Raises:
        UsageError: one is there without the other, or the bundle has one direction alone or takes no images of this size.
    """
    if not isinstance(objective, Distillation):
        if name is not None:
            raise UsageError(f"the teacher {name}: this objective has no teacher; fruitgan distill has")
        return
    if name is None:
        raise UsageError("the objective distillation needs a teacher: fruitgan distill --teacher RUN")
    found = _generators_of(f"--teacher {name}", name, objective)
    if found.card.padded(side_px) != side_px:
        raise UsageError(
            f"--image-size {side_px}: the teacher {found.card.name} takes sides of {found.card.size_minimum_px} px or more, in "
            f"multiples of {found.card.size_multiple_px}"
        )
    teachers = {way: build_for(generators, found.card.generator, weights) for way, weights in found.weights.items()}
    objective.take_teachers(teachers, bundles.weights_sha256(found))


def _generators_of(what: str, name: str, objective: Objective) -> bundles.Bundle:
    """A bundle with a generator for each direction of the objective."""
    found = bundles.load(bundles.locate(name))
    if missing := set(objective.generators) - set(found.weights):
        raise UsageError(f"{what}: has no {' and no '.join(sorted(missing))}, which this training needs")
    return found
