"""What every registered objective, augmentation and recipe keeps, a stranger's as well as ours."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
from typing import Any

import pytest
import torch
from trainings import RandomImages, differences

from fruitgan.data.augment import Augmentation, augmentations
from fruitgan.networks.contracts import SizeRule, discriminators, generators
from fruitgan.registry import Registry
from fruitgan.settings import from_json, to_json
from fruitgan.train_gan.objectives.contracts import Objective, objectives
from fruitgan.train_gan.recipe import Clock, Part, Recipe, recipes

SIDE_PX = 48
DIRECTIONS = {"a2b", "b2a"}


def objective(name: str) -> Objective:
    torch.manual_seed(0)
    made: Objective = objectives.get(name)()(
        lambda: generators.get("mobile")(base_channels=4, blocks=1),
        lambda: discriminators.get("patch-multiscale")(base_channels=4),
    )
    for network in made.networks.values():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0, 0.1)
    return made


def prepared(made: Objective, seed: int = 5) -> Any:
    batch = RandomImages(SIDE_PX).batch(seed, made.draws)
    return made.prepare(batch, made.variant({name: float(w) for name, w in made.weights.items()}))


@pytest.mark.parametrize("name", objectives.names())
def test_an_objectives_players_share_out_all_its_networks(name: str) -> None:
    made = objective(name)
    owned = [network for player in made.players for network in player.networks]
    assert sorted(owned) == sorted(made.networks)
    assert len({player.name for player in made.players}) == len(made.players)
    assert made.generators
    assert set(made.generators) <= DIRECTIONS
    assert set(made.generators.values()) <= set(made.networks)
    assert all(weight.shape == () for weight in made.weights.values())


@pytest.mark.parametrize("name", objectives.names())
def test_every_term_is_a_finite_scalar_and_no_two_players_share_a_graph(name: str) -> None:
    made = objective(name)
    step = prepared(made)
    seen: set[str] = set()
    for player in made.players:
        terms = player.loss(step)
        assert terms
        assert not seen & set(terms)
        seen |= set(terms)
        for term in terms.values():
            assert term.shape == ()
            assert torch.isfinite(term)
        own = [p for network in player.networks for p in made.networks[network].parameters()]
        # Frees the graph: a player that comes later and needs it would raise.
        torch.autograd.backward(torch.stack(list(terms.values())).sum(), inputs=own)
        for network in player.networks:
            assert any(p.grad is not None and p.grad.any() for p in made.networks[network].parameters())


@pytest.mark.parametrize("name", objectives.names())
def test_an_objective_draws_nothing_itself_from_torchs_random_state(name: str) -> None:
    made = objective(name)
    made.networks.eval()
    before = torch.get_rng_state()
    for player in made.players:
        player.loss(prepared(made))
    assert torch.equal(torch.get_rng_state(), before)


def stored(made: Objective) -> dict[str, dict[str, Any]]:
    """The extras' states, copied as for a checkpoint."""
    return {name: copy.deepcopy(dict(extra.state())) for name, extra in made.extras.items()}


@pytest.mark.parametrize("name", objectives.names())
def test_extras_take_back_a_step_that_does_not_count_and_survive_a_checkpoint(name: str) -> None:
    made = objective(name)
    prepared(made, seed=1)
    for extra in made.extras.values():
        extra.settle(torch.ones(()))
    kept = stored(made)
    prepared(made, seed=2)
    for extra in made.extras.values():
        extra.settle(torch.zeros(()))
    assert all(differences(kept[key], state) == [] for key, state in stored(made).items())
    other = objective(name)
    for key, extra in other.extras.items():
        extra.restore(kept[key])
    assert all(differences(kept[key], state) == [] for key, state in stored(other).items())


@pytest.mark.parametrize("name", objectives.names())
def test_a_weight_of_0_leaves_its_part_of_the_step_out(name: str) -> None:
    made = objective(name)
    least = made.variant(dict.fromkeys(made.weights, 0.0))
    step = made.prepare(RandomImages(SIDE_PX).batch(5, made.draws), least)
    terms = [term for player in made.players for term in player.loss(step).values()]
    assert len(terms) <= len([term for player in made.players for term in player.loss(prepared(made)).values()])
    assert all(torch.isfinite(term) for term in terms)
    assert made.variant(dict.fromkeys(made.weights, 1.0)) == made.variant(dict.fromkeys(made.weights, 0.5))


def augmentation(name: str) -> Augmentation:
    made = augmentations.get(name)()
    assert isinstance(made, Augmentation)
    return made


@pytest.mark.parametrize("name", augmentations.names())
@pytest.mark.parametrize("side_px", [16, 33])
def test_an_augmentation_gives_images_of_the_size_that_it_says_between_0_and_1(name: str, side_px: int) -> None:
    made = augmentation(name)
    load_px = made.load_size_px(side_px)
    assert load_px >= side_px
    for numbers in (torch.zeros, torch.rand, lambda size, **kind: torch.full(size, 1 - 2**-53, **kind)):
        images = torch.rand(4, 3, load_px, load_px)
        out = made.apply(images, numbers((4, made.draws), dtype=torch.float64), side_px)
        assert out.shape == (4, 3, made.gives_size_px(side_px), made.gives_size_px(side_px))
        assert out.dtype == torch.float32
        assert out.min() >= 0
        assert out.max() <= 1


@pytest.mark.parametrize("name", augmentations.names())
def test_an_augmentation_applies_what_was_drawn_image_by_image_and_draws_nothing_itself(name: str) -> None:
    made = augmentation(name)
    load_px = made.load_size_px(16)
    images, numbers = torch.rand(4, 3, load_px, load_px), torch.rand((4, made.draws), dtype=torch.float64)
    kept, before = images.clone(), torch.get_rng_state()
    out = made.apply(images, numbers, 16)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, kept)
    for n in range(4):
        alone = made.apply(images[n : n + 1], numbers[n : n + 1], 16)[0]
        torch.testing.assert_close(alone, out[n], rtol=0, atol=1e-5)  # sums are taken in another order


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_names_registered_things_with_options_that_they_have_and_a_size_that_they_take(name: str) -> None:
    recipe = recipes.get(name)
    assert objectives.choose(recipe.objective.name, recipe.objective.options).name == recipe.objective.name
    assert augmentations.choose(recipe.augmentation.name, recipe.augmentation.options).name == recipe.augmentation.name
    parts: list[tuple[Registry[Any], Part]] = [(generators, recipe.generator), (discriminators, recipe.discriminator)]
    for registry, part in parts:
        narrow = {"base_channels": 4} if "base_channels" in inspect.signature(registry.get(part.name)).parameters else {}
        rule = registry.build(registry.choose(part.name, {**part.options, **narrow})).size_rule
        assert isinstance(rule, SizeRule)
        assert rule.accepts(recipe.image_size_px, recipe.image_size_px)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_a_value_that_explains_itself_and_survives_json(name: str) -> None:
    recipe = recipes.get(name)
    assert from_json(Recipe, json.loads(json.dumps(to_json(recipe)))) == recipe
    assert recipe.summary.endswith(".")
    assert recipe.why
    assert set(recipe.why) <= {field.name for field in dataclasses.fields(Recipe)}
    assert (recipe.epochs is None) != (recipe.steps is None)
    assert recipe.total_steps(10) >= 1


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipes_schedules_stay_at_or_above_0_throughout(name: str) -> None:
    recipe = recipes.get(name)
    total = recipe.total_steps(7)
    for schedule in (*recipe.weights.values(), recipe.learning_rate):
        values = [schedule.at(Clock(step, total, 7)) for step in range(0, total, max(1, total // 500))]
        assert min(values) >= 0
    # A step that cannot move anything would be a step wasted.
    assert all(recipe.learning_rate.at(Clock(step, total, 7)) > 0 for step in (0, total // 2, total - 1))
