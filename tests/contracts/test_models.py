"""What every registered generator and discriminator keeps, a stranger's as well as ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dead_parameters import dead_parameters
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fruitgan.measures.contracts import features, metrics
from fruitgan.networks.contracts import (
    Discriminator,
    Encoder,
    Generator,
    GeneratorParts,
    MaskedGenerator,
    SizeRule,
    detectors,
    discriminators,
    generators,
)
from fruitgan.registry import Registry

pytestmark = pytest.mark.usefixtures("repeatable")

NETWORKS = [pytest.param(registry, name, id=name) for registry in (generators, discriminators) for name in registry.names()]
OWN_NETWORKS = [
    pytest.param(registry, entry.name, id=entry.name)
    for registry in (generators, discriminators)
    for entry in registry.entries()
    if entry.package == "fruitgan"
]


def light(registry: Registry[Callable[..., Any]], name: str) -> Any:
    """The network, narrow where its width can be chosen."""
    builder = registry.get(name)
    options = {"base_channels": 4} if "base_channels" in inspect.signature(builder).parameters else {}
    return builder(**options)


def images(*size: int, n: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand((n, 3, *size), dtype=dtype) * 1.8 - 0.9


def smallest(network: Generator | Discriminator) -> int:
    return network.size_rule.padded(1)


def answer(network: nn.Module, x: Tensor) -> Tensor:
    """All that the network says, in one row an image."""
    out = network(x)
    return torch.cat([part.flatten(1) for part in (out if isinstance(out, tuple) else (out,))], dim=1)


@torch.no_grad()
def shake(network: nn.Module) -> None:
    """Move every parameter a little: a head that starts at zero would hide all before it."""
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.mark.parametrize("registry", [generators, discriminators, detectors, features, metrics], ids=lambda one: one.kind)
def test_the_builders_signatures_are_the_schema(registry: Registry[Any]) -> None:
    for name in registry.names():
        builder = registry.get(name)
        assert inspect.getdoc(builder)
        for parameter in inspect.signature(builder).parameters.values():
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert isinstance(parameter.default, (bool, int, float, str))
        assert registry.choose(name).options == {n: p.default for n, p in inspect.signature(builder).parameters.items()}


@pytest.mark.parametrize("name", generators.names())
def test_a_generator_gives_an_image_of_the_same_shape_in_its_range(name: str) -> None:
    network = light(generators, name)
    assert isinstance(network, Generator)
    side = smallest(network)
    for size in ((side, side), (side, side + network.size_rule.multiple_of_px)):
        x = images(*size)
        before = x.clone()
        y = network(x)
        assert y.shape == x.shape
        assert y.dtype == torch.float32
        assert torch.isfinite(y).all()
        assert y.abs().max() <= 1
        assert torch.equal(x, before)


def those_that_are(kind: type) -> list[str]:
    return [name for name in generators.names() if isinstance(light(generators, name), kind)]


@pytest.mark.parametrize("name", those_that_are(MaskedGenerator))
def test_a_generators_parts_are_its_image_and_a_mask_between_0_and_1(name: str) -> None:
    network = light(generators, name).eval()
    x = images(smallest(network), smallest(network), n=2)
    parts = network.parts(x)
    assert isinstance(parts, GeneratorParts)
    assert torch.equal(parts.image, network(x))
    if parts.mask is not None:
        assert parts.mask.shape == (2, 1, *x.shape[2:])
        assert parts.mask.min() >= 0
        assert parts.mask.max() <= 1


@pytest.mark.parametrize("name", those_that_are(Encoder))
def test_encode_gives_the_points_asked_for_in_their_order(name: str) -> None:
    network = light(generators, name).eval()
    x = images(smallest(network), smallest(network), n=2)
    every = network.encode(x, range(network.encode_points))
    assert len(every) == network.encode_points >= 1
    assert all(point.ndim == 4 and point.shape[0] == 2 for point in every)
    last = network.encode_points - 1
    for asked in ([0], [last], [last, 0]):
        for point, found in zip(asked, network.encode(x, asked), strict=True):
            assert torch.equal(found, every[point])


@pytest.mark.parametrize("name", discriminators.names())
def test_a_discriminator_gives_a_map_of_logits_a_scale(name: str) -> None:
    network = light(discriminators, name)
    assert isinstance(network, Discriminator)
    side = smallest(network)
    for size in ((side, side), (side, side + network.size_rule.multiple_of_px)):
        maps = network(images(*size, n=2))
        assert isinstance(maps, tuple)
        assert maps
        for logits in maps:
            assert logits.ndim == 4
            assert logits.shape[:2] == (2, 1)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("registry", "name"), NETWORKS)
def test_images_are_treated_one_by_one(registry: Registry[Any], name: str) -> None:
    network = light(registry, name).double().eval()
    x = images(smallest(network), smallest(network), n=2, dtype=torch.float64)
    with torch.no_grad():
        together = answer(network, x)
        apart = torch.cat([answer(network, x[:1]), answer(network, x[1:])])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("registry", "name"), NETWORKS)
def test_what_a_size_rule_pads_to_is_accepted_and_is_the_nearest(registry: Registry[Any], name: str) -> None:
    rule = light(registry, name).size_rule
    assert isinstance(rule, SizeRule)
    for side in (1, rule.minimum_px, rule.minimum_px + 1, 3 * rule.multiple_of_px + 1):
        padded = rule.padded(side)
        assert rule.accepts(padded, padded)
        assert padded >= side
        assert not any(rule.accepts(smaller, smaller) for smaller in range(side, padded))


@pytest.mark.parametrize(("registry", "name"), OWN_NETWORKS)
def test_a_size_that_the_rule_refuses_cannot_work(registry: Registry[Any], name: str) -> None:
    network = light(registry, name)
    rule, side = network.size_rule, smallest(network)
    refused = {side - 1, side - rule.multiple_of_px, side + rule.multiple_of_px // 2, side + 1} - {0}
    refused = {other for other in refused if not rule.accepts(other, other)}
    assert refused or rule.accepts(1, 1)  # a rule that takes one pixel takes everything
    for other in refused:
        for size in ((other, side), (side, other), (other, other)):
            assert not rule.accepts(*size)
            try:
                out = network(images(*size))
            except (RuntimeError, ValueError):
                continue
            assert isinstance(out, Tensor)
            assert out.shape[2:] != size


@pytest.mark.parametrize(("registry", "name"), NETWORKS)
def test_the_dead_parameters_are_those_and_only_those_that_no_gradient_reaches(registry: Registry[Any], name: str) -> None:
    network = light(registry, name).double().train()
    shake(network)
    x = images(smallest(network), smallest(network), n=2, dtype=torch.float64)
    out = answer(network, x)
    torch.autograd.backward((out * torch.randn_like(out)).sum())
    reached = {key: float(p.grad.abs().max()) if p.grad is not None else 0.0 for key, p in network.named_parameters()}
    dead = {key for key, size in reached.items() if size < 1e-9 * max(reached.values())}
    assert dead == dead_parameters(network)


@pytest.mark.parametrize(("registry", "name"), NETWORKS)
def test_a_network_survives_a_safetensors_file(registry: Registry[Any], name: str, tmp_path: Path) -> None:
    network = light(registry, name)
    shake(network)
    x = images(smallest(network), smallest(network))
    network(x)  # in training, so that what is estimated on the way differs from its start
    network.eval()
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    other = light(registry, name).eval()
    assert not torch.equal(answer(other, x), answer(network, x))
    other.load_state_dict(load_file(tmp_path / "network.safetensors"))
    assert torch.equal(answer(other, x), answer(network, x))


@pytest.mark.parametrize(("registry", "name"), NETWORKS)
def test_the_same_seed_starts_the_same_network(registry: Registry[Any], name: str) -> None:
    starts = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        starts.append(torch.cat([p.detach().flatten() for p in light(registry, name).parameters()]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize(("registry", "name"), NETWORKS)
def test_a_network_works_in_bf16(registry: Registry[Any], name: str) -> None:
    network = light(registry, name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = answer(network, images(smallest(network), smallest(network)))
    assert torch.isfinite(out).all()
    if isinstance(network, Generator):
        assert out.abs().max() <= 1
