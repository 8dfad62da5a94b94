"""CUT's losses against plain loops in float64, and the paths of their gradients."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from trainings import RandomImages

from fruitgan.data.loader import Batch
from fruitgan.errors import UsageError
from fruitgan.networks.contracts import Generator
from fruitgan.networks.discriminators import patch_70
from fruitgan.networks.mobile import Mobile
from fruitgan.networks.resnet import resnet_6
from fruitgan.networks.unet import Pix2PixUNet
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.objectives.cut import CUT, CutStep, channels_of, cut, drawn_places, patch_nce

pytestmark = pytest.mark.usefixtures("repeatable")

SIDE_PX = 32
WEIGHTS = {"adversarial": 1.0, "nce": 3.0, "identity_nce": 5.0}
TEMPERATURE = 0.2


def naive_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Of [N, P, C], one place of one image at a time."""
    losses = []
    for image_queries, image_keys in zip(queries, keys, strict=True):
        for place, query in enumerate(image_queries):
            likeness = torch.stack([(query * key).sum() / temperature for key in image_keys])
            losses.append(-(likeness[place].exp() / likeness.exp().sum()).log())
    return torch.stack(losses).mean()


def make(generator: Generator, **options: Any) -> CUT:
    """In float64, with weights that matter."""
    made = cut(**{"positions": 6, "temperature": TEMPERATURE, **options})(lambda: generator, lambda: patch_70(base_channels=2))
    assert isinstance(made, CUT)
    made.networks.double()
    for parameter in made.networks.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    for name, weight in made.weights.items():
        weight.fill_(WEIGHTS.get(name, 1.0))
    return made


def batch_of(made: Objective, n: int = 2) -> Batch:
    return RandomImages(SIDE_PX, n=n, dtype=torch.float64).batch(5, made.draws)


def prepared(made: Objective, batch: Batch) -> CutStep:
    step = made.prepare(batch, made.variant({name: float(weight) for name, weight in made.weights.items()}))
    assert isinstance(step, CutStep)
    return step


def naive_contrast(made: CUT, points: list[int], sources: Tensor, outputs: Tensor, draws: Tensor) -> Tensor:
    """NCE(x, G(x)) with a loop over points, images and places."""
    generator = cast(Generator, made.networks["generator_ab"])
    losses = []
    for index, (point, perceptron) in enumerate(zip(points, made.networks["projection"].perceptrons, strict=True)):
        features: dict[str, list[Tensor]] = {"queries": [], "keys": []}
        for end, images in (("queries", outputs), ("keys", sources)):
            (inner,) = generator.encode(images, [point])
            height, width = inner.shape[-2:]
            for image, numbers in zip(inner, draws.view(len(draws), len(points), -1)[:, index].tolist(), strict=True):
                rows = []
                for run, number in enumerate(numbers):
                    first, end_of_run = run * height * width // len(numbers), (run + 1) * height * width // len(numbers)
                    place = first + int(number * (end_of_run - first))
                    hidden = torch.relu(perceptron[0].weight @ image[:, place // width, place % width] + perceptron[0].bias)
                    feature = perceptron[2].weight @ hidden + perceptron[2].bias
                    rows.append(feature / feature.square().sum().sqrt())
                features[end].append(torch.stack(rows))
        losses.append(naive_nce(torch.stack(features["queries"]), torch.stack(features["keys"]).detach(), TEMPERATURE))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_patch_nce_equals_a_naive_loop(temperature: float) -> None:
    queries, keys = (torch.nn.functional.normalize(torch.randn(2, 7, 5, dtype=torch.float64), dim=2) for _ in range(2))
    found = float(patch_nce(queries, keys, temperature))
    assert found == pytest.approx(float(naive_nce(queries, keys, temperature)), rel=1e-12)
    alike = keys[:, :1].expand_as(keys)
    assert float(patch_nce(alike, alike, temperature)) == pytest.approx(math.log(7), rel=1e-12)


def test_the_losses_and_gradients_of_a_step_equal_naive_loops() -> None:
    made = make(resnet_6(base_channels=2), points="0,2,7")
    batch = batch_of(made)
    generator, judge = cast(Generator, made.networks["generator_ab"]), made.networks["discriminator_b"]
    step = prepared(made, batch)
    terms = made.players[0].loss(step)
    own = [p for name in made.players[0].networks for p in made.networks[name].parameters()]
    gradients = torch.autograd.grad(torch.stack(list(terms.values())).sum(), own)
    fake, same = generator(batch.a), generator(batch.b)
    expected = {
        "adversarial_ab": (judge(fake)[0] - 1).square().mean(),
        "nce_a": 3 * 0.5 * naive_contrast(made, [0, 2, 7], batch.a, fake, batch.draws["nce"]),
        "identity_nce_b": 5 * 0.5 * naive_contrast(made, [0, 2, 7], batch.b, same, batch.draws["identity_nce"]),
    }
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term, rtol=1e-10, atol=0)
    assert terms.keys() == expected.keys()
    for found, naive in zip(gradients, torch.autograd.grad(torch.stack(list(expected.values())).sum(), own), strict=True):
        torch.testing.assert_close(found, naive, rtol=1e-8, atol=1e-10)
    (judged,) = made.players[1].loss(step).values()
    torch.testing.assert_close(judged, 0.5 * ((judge(batch.b)[0] - 1).square().mean() + judge(fake)[0].square().mean()))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_reach_the_whole_projection_and_generator(precision: torch.dtype) -> None:
    made = make(Mobile(base_channels=4, blocks=2))
    made.networks.float()
    batch = batch_of(made)
    with torch.autocast("cpu", dtype=precision, enabled=precision is torch.bfloat16):
        step = prepared(made, Batch(batch.a.float(), batch.b.float(), batch.draws))
    with torch.autocast("cpu", dtype=precision, enabled=precision is torch.bfloat16):
        terms = made.players[0].loss(step)
    torch.autograd.backward([term for name, term in terms.items() if name == "nce_a"])
    for name in ("generator_ab", "projection"):
        without = [key for key, p in made.networks[name].named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []


@pytest.mark.parametrize(("positions", "places"), [(256, 256), (256, 257), (6, 1024), (5, 23), (1, 9)])
def test_no_place_is_drawn_twice_and_each_can_be(positions: int, places: int) -> None:
    for number in (0.0, 1 - 2**-24):
        (found,) = drawn_places(torch.full((1, positions), number), places)
        assert len(set(found.tolist())) == positions
        assert 0 <= int(found.min()) <= int(found.max()) < places
    found = drawn_places(torch.rand(4000, positions), places)
    assert sorted(set(found.flatten().tolist())) == list(range(places))


def test_points_are_spread_over_the_generator_or_those_asked_for() -> None:
    assert make(Mobile(base_channels=4)).points == (0, 2, 4, 5, 7)
    assert make(Mobile(base_channels=4, blocks=1)).points == (0, 1, 2)
    assert make(Mobile(base_channels=4), points="3,1").points == (3, 1)
    assert channels_of(Mobile(base_channels=4), (0, 1, 2)) == [4, 16, 16]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": "0;2"}, "points: '0;2' is no list of numbers"),
        ({"points": "0,-1"}, "points: 0,-1 are not different from 0 on"),
        ({"points": "2,2"}, "points: 2,2 are not different"),
        ({"points": "0,3"}, "points: 3 is not one of this generator's, 0 to 2"),
        ({"positions": 1}, "positions: 1 is less than 2"),
        ({"temperature": 0.0}, r"temperature: 0\.0 is not above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(Mobile(base_channels=4, blocks=1), **options)


def test_a_generator_without_inner_maps_to_read_is_refused() -> None:
    with pytest.raises(UsageError, match="inner maps, which this one does not offer"):
        make(Pix2PixUNet(base_channels=4, depth=2))


def test_without_the_weight_of_identity_the_other_domain_is_not_translated() -> None:
    made = make(Mobile(base_channels=4, blocks=1), mask_losses=True)
    made.weights["identity_nce"].zero_()
    batch = batch_of(made)
    seen: list[int] = []
    made.networks["generator_ab"].stem.register_forward_hook(lambda _module, _input, out: seen.append(len(out)))
    terms = made.players[0].loss(prepared(made, batch))
    assert set(terms) == {"adversarial_ab", "nce_a", "mask_roughness_ab", "mask_area_ab"}
    assert seen == [2, 2, 2]  # the translation, the features of the outputs and of the sources
