"""What every registered generator, discriminator and detector keeps, a stranger's as well as ours."""

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

from fruitgan.data.augment import augmentations
from fruitgan.errors import UsageError
from fruitgan.measures.contracts import features, metrics
from fruitgan.networks.contracts import (
    Detector,
    Discriminator,
    Encoder,
    Generator,
    GeneratorParts,
    LinearDetector,
    MaskedGenerator,
    SizeRule,
    detectors,
    discriminators,
    generators,
)
from fruitgan.registry import Registry
from fruitgan.train_detector.regression import Logistic

pytestmark = pytest.mark.usefixtures("repeatable")

SLOW = ("resnet18", "resnet50")  # torchvision's family with a network's name, which is tested under its own
LIGHT = {"base_channels": 4, "image_size_px": 32}
LIGHT_MEMBER = "shufflenet_v2_x0_5"


def all_of(*registries: Registry[Any]) -> list[Any]:
    return [
        pytest.param(registry, entry.name, id=entry.name, marks=[pytest.mark.slow] if entry.name in SLOW else [])
        for registry in registries
        for entry in registry.entries()
    ]


def options_of(registry: Registry[Callable[..., Any]], name: str) -> set[str]:
    return set(inspect.signature(registry.get(name)).parameters)


def light(registry: Registry[Callable[..., Any]], name: str) -> Any:
    """The network, narrow and for small images where that can be chosen."""
    member = {"network": LIGHT_MEMBER} if name == "torchvision" else {}
    return registry.get(name)(**{key: LIGHT[key] for key in options_of(registry, name) & set(LIGHT)}, **member)


def images(*size: int, n: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand((n, 3, *size), dtype=dtype) * 1.8 - 0.9


def smallest(network: Any) -> int:
    """The smallest side that works; a detector wants its own, but our features of 256 px take what is faster."""
    if isinstance(network, Detector):
        return 64 if isinstance(network, Logistic) else network.image_size_px
    return int(network.size_rule.padded(1))


def fitting(network: nn.Module, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images in the network's range, of the smallest size."""
    x = images(smallest(network), smallest(network), n=n, dtype=dtype)
    return (x + 1) / 2 if isinstance(network, Detector) else x


def answer(network: nn.Module, x: Tensor) -> Tensor:
    """All that the network says, in one row an image."""
    out = network(x)
    return torch.cat([part.reshape(len(x), -1) for part in (out if isinstance(out, tuple) else (out,))], dim=1)


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


# What all three kinds keep


@pytest.mark.parametrize(("registry", "name"), all_of(generators, discriminators, detectors))
def test_images_are_treated_one_by_one(registry: Registry[Any], name: str) -> None:
    network = light(registry, name).double().eval()
    x = fitting(network, 2, torch.float64)
    with torch.no_grad():
        together = answer(network, x)
        apart = torch.cat([answer(network, x[:1]), answer(network, x[1:])])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("registry", "name"), all_of(generators, discriminators, detectors))
def test_the_dead_parameters_are_those_and_only_those_that_no_gradient_reaches(registry: Registry[Any], name: str) -> None:
    network = light(registry, name).double().train()
    shake(network)
    out = answer(network, fitting(network, 4 if registry is detectors else 2, torch.float64))  # batch norm needs more than two
    torch.autograd.backward((out * torch.randn_like(out)).sum())
    reached = {key: float(p.grad.abs().max()) if p.grad is not None else 0.0 for key, p in network.named_parameters()}
    floor = 0.0 if registry is detectors else 1e-9 * max(reached.values())  # batch norm leaves some biases rounding alone
    dead = {key for key, size in reached.items() if size <= floor}
    assert dead == dead_parameters(network)


@pytest.mark.parametrize(("registry", "name"), all_of(generators, discriminators, detectors))
def test_a_network_survives_a_safetensors_file(registry: Registry[Any], name: str, tmp_path: Path) -> None:
    network = light(registry, name)
    shake(network)
    x = fitting(network, 2)
    network(x)  # in training, so that what is estimated on the way differs from its start
    network.eval()
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    other = light(registry, name).eval()
    assert not torch.equal(answer(other, x), answer(network, x))
    other.load_state_dict(load_file(tmp_path / "network.safetensors"))
    assert torch.equal(answer(other, x), answer(network, x))


@pytest.mark.parametrize(("registry", "name"), all_of(generators, discriminators, detectors))
def test_the_same_seed_starts_the_same_network(registry: Registry[Any], name: str) -> None:
    starts = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        starts.append(torch.cat([p.detach().flatten() for p in light(registry, name).parameters()]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


# Generators and discriminators


def autocast(enabled: bool) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


@pytest.mark.parametrize("name", generators.names())
def test_a_generator_gives_an_image_of_the_same_shape_in_its_range_also_in_bf16(name: str) -> None:
    network = light(generators, name)
    assert isinstance(network, Generator)
    side = smallest(network)
    for size, is_half in (((side, side + network.size_rule.multiple_of_px), False), ((side, side), True)):
        x = images(*size)
        before = x.clone()
        with autocast(is_half):
            y = network(x)
        assert y.shape == x.shape
        assert y.dtype == torch.float32 or is_half
        assert torch.isfinite(y).all()
        assert y.abs().max() <= 1
        assert torch.equal(x, before)


def those_that_are(kind: type) -> list[str]:
    return [name for name in generators.names() if isinstance(light(generators, name), kind)]


@pytest.mark.parametrize("name", those_that_are(MaskedGenerator))
def test_a_generators_parts_are_its_image_and_a_mask_between_0_and_1(name: str) -> None:
    network = light(generators, name).eval()
    x = fitting(network, 2)
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
    x = fitting(network, 2)
    every = network.encode(x, range(network.encode_points))
    assert len(every) == network.encode_points >= 1
    assert all(point.ndim == 4 and point.shape[0] == 2 for point in every)
    last = network.encode_points - 1
    for asked in ([0], [last], [last, 0]):
        for point, found in zip(asked, network.encode(x, asked), strict=True):
            assert torch.equal(found, every[point])


@pytest.mark.parametrize("name", discriminators.names())
def test_a_discriminator_gives_a_map_of_logits_a_scale_also_in_bf16(name: str) -> None:
    network = light(discriminators, name)
    assert isinstance(network, Discriminator)
    side = smallest(network)
    for size, is_half in (((side, side + network.size_rule.multiple_of_px), False), ((side, side), True)):
        with autocast(is_half):
            maps = network(images(*size, n=2))
        assert isinstance(maps, tuple)
        assert maps
        for logits in maps:
            assert logits.ndim == 4
            assert logits.shape[:2] == (2, 1)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("registry", "name"), all_of(generators, discriminators))
def test_a_size_rule_pads_to_the_nearest_size_and_what_it_refuses_cannot_work(registry: Registry[Any], name: str) -> None:
    network = light(registry, name)
    rule, side = network.size_rule, smallest(network)
    assert isinstance(rule, SizeRule)
    for wanted in (1, rule.minimum_px, rule.minimum_px + 1, 3 * rule.multiple_of_px + 1):
        padded = rule.padded(wanted)
        assert rule.accepts(padded, padded)
        assert padded >= wanted
        assert not any(rule.accepts(smaller, smaller) for smaller in range(wanted, padded))
    refused = {side - 1, side - rule.multiple_of_px, side + rule.multiple_of_px // 2, side + 1} - {0}
    refused = {other for other in refused if not rule.accepts(other, other)}
    assert refused or rule.accepts(1, 1)  # a rule that takes one pixel takes everything
    for other in refused:
        assert not rule.accepts(other, side)
        assert not rule.accepts(side, other)
        for size in ((other, side), (side, other)) if registry.get(name).__module__.startswith("fruitgan.") else ():
            try:
                out = network(images(*size))
            except (RuntimeError, ValueError):
                continue
            assert isinstance(out, Tensor)
            assert out.shape[2:] != size


# Detectors


@pytest.mark.parametrize(("registry", "name"), all_of(detectors))
def test_a_detector_gives_a_finite_logit_an_image(registry: Registry[Any], name: str) -> None:
    detector = light(registry, name)
    assert isinstance(detector, Detector)
    for mode in (True, False):
        x = torch.rand(3, 3, detector.image_size_px, detector.image_size_px)
        before = x.clone()
        logits = detector.train(mode)(x)
        assert logits.shape == (3,)
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
        assert torch.equal(x, before)
    flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand_as(before)
    assert torch.isfinite(detector(flat)).all()
    assert detector.suggested_augmentation in augmentations.names()
    assert not isinstance(detector, LinearDetector) or detector.suggested_augmentation == "none"


SIZED = [name for name in detectors.names() if "image_size_px" in options_of(detectors, name)]


@pytest.mark.parametrize("name", SIZED)
def test_every_size_that_is_accepted_works_and_the_others_are_refused_with_one_that_does(name: str) -> None:
    more = {"spectrum": {"bins": 4}, "torchvision": {"network": LIGHT_MEMBER}}.get(name, {})
    for side_px in (8, 100):
        with pytest.raises(UsageError, match=rf"{side_px} px is not 16 or more and a multiple of 8; --image-size \d+ would do"):
            detectors.build(detectors.choose(name, {"image_size_px": side_px}))
    for side_px in (16, 24) if name not in SLOW else ():
        detector = detectors.build(detectors.choose(name, {"image_size_px": side_px, **more})).eval()
        assert detector.image_size_px == side_px
        assert detector(torch.rand(2, 3, side_px, side_px)).shape == (2,)
