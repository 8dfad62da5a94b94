"""From a training to a bundle, and from a bundle to the start of a training."""

from __future__ import annotations

import datetime

import fruitgan
from fruitgan import bundle as bundles
from fruitgan.data.augment import augmentations
from fruitgan.data.sources import Source
from fruitgan.engines.torch_engine import arrays_of
from fruitgan.errors import UsageError, shown
from fruitgan.networks.backbones import trained_against
from fruitgan.networks.contracts import generators
from fruitgan.networks.weights import build_for, load_arrays
from fruitgan.train_gan.assemble import Plan
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.objectives.distillation import Distillation
from fruitgan.train_gan.trainer import Trainer


def make_bundle(name: str, trainer: Trainer, plan: Plan, source: Source, data_fingerprint: str) -> bundles.Bundle:
    """The generators as they are now, averaged where the recipe averages, with their card."""
    trained = {direction: trainer.generator(direction) for direction in trainer.objective.generators}
    rule = next(iter(trained.values())).size_rule
    card = bundles.Card(
        name=name,
        domains=(source.a.name, source.b.name),
        generator=plan.generator,
        directions=tuple(trained),
        image_size_px=augmentations.build(plan.augmentation).picture_size_px(plan.recipe.image_size_px),
        size_minimum_px=rule.minimum_px,
        size_multiple_px=rule.multiple_of_px,
        recipe=plan.recipe_name,
        steps=trainer.step,
        images=trainer.step * plan.recipe.batch_size,
        data=source.name,
        data_fingerprint=data_fingerprint,
        trained_against=trained_against(trainer.objective.networks),
        licence="that of the training images",
        fruitgan_version=fruitgan.__version__,
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    return bundles.Bundle(card, {direction: arrays_of(generator) for direction, generator in trained.items()})


def load_generators(objective: Objective, name: str, plan: Plan) -> None:
    """Start from a bundle's weights.

    Raises:
        UsageError: its generator is another than the plan's.
    """
    found = bundles.load(bundles.locate(name))
    theirs, ours = found.card.generator, plan.generator
    if (theirs.name, dict(theirs.options)) != (ours.name, dict(ours.options)):
        raise UsageError(
            f"--init-from {name}: its generator is {theirs.name} {shown(dict(theirs.options))}, this training's is {ours.name} "
            f"{dict(ours.options)}; give the same with --generator and --generator-option"
        )
    for direction, weights in found.weights.items():
        load_arrays(objective.networks[objective.generators[direction]], weights, f"generator {ours.name}")


def give_teacher(objective: Objective, name: str | None) -> None:
    """Let an objective of imitation imitate a bundle; nothing, where neither is wanted.

    Raises:
        UsageError: one is there without the other, or the bundle has one direction alone.
    """
    if not isinstance(objective, Distillation):
        if name is not None:
            raise UsageError(f"the teacher {name}: this objective imitates nobody; fruitgan distill does")
        return
    if name is None:
        raise UsageError("the objective distillation needs a teacher: fruitgan distill --teacher RUN")
    found = bundles.load(bundles.locate(name))
    if missing := set(objective.generators) - set(found.weights):
        raise UsageError(f"--teacher {name}: has no {' and no '.join(sorted(missing))}; a teacher needs both directions")
    teachers = {way: build_for(generators, found.card.generator, weights) for way, weights in found.weights.items()}
    objective.take_teachers(teachers, bundles.weights_sha256(found))
