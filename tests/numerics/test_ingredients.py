"""What the recipes are made of beyond the reference, against naive loops in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trainings import RandomImages

from fruitgan.errors import UsageError
from fruitgan.networks.discriminators import MultiscalePatchDiscriminator
from fruitgan.networks.layers import BilinearUpsample, composed, spectral_norm
from fruitgan.networks.mobile import Mobile
from fruitgan.networks.resnet import AntialiasedGenerator
from fruitgan.train_gan.objectives.cyclegan import cyclegan, mask_area, mask_roughness

pytestmark = pytest.mark.usefixtures("repeatable")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def images(n: int, side_px: int) -> Tensor:
    return torch.rand((n, 3, side_px, side_px), dtype=torch.float64) * 2 - 1


def shaken(network: nn.Module) -> nn.Module:
    for parameter in network.double().parameters():
        nn.init.normal_(parameter, 0, 0.2)
    return network


@pytest.mark.parametrize("sides", [(3, 4), (1, 2), (1, 1)])
def test_an_enlarged_image_is_torchs_and_so_is_its_gradient(sides: tuple[int, int]) -> None:
    x = noise(2, 3, *sides).requires_grad_()
    ours, torchs = BilinearUpsample()(x), F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-12)
    given = torch.randn_like(torchs)
    (expected,) = torch.autograd.grad(torchs, x, given)
    torch.testing.assert_close(torch.autograd.grad(ours, x, given)[0], expected, rtol=0, atol=1e-12)


def test_a_composed_picture_equals_the_formula_pixel_by_pixel() -> None:
    x, maps = images(1, 3), noise(1, 4, 3, 3)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 1.0, -1.0
    parts = composed(x, maps)
    assert parts.mask is not None
    for c, row, column in itertools.product(range(3), range(3), range(3)):
        source = float(x[0, c, row, column])
        changed = math.tanh(float(maps[0, c, row, column]) + math.atanh(min(max(source, -0.97), 0.97)))
        mask = 1 / (1 + math.exp(-float(maps[0, 3, row, column]) - 1))
        assert float(parts.mask[0, 0, row, column]) == pytest.approx(mask, abs=1e-12)
        assert float(parts.image[0, c, row, column]) == pytest.approx(mask * changed + (1 - mask) * source, abs=1e-12)
    alone = composed(x, maps[:, :3])
    assert alone.mask is None
    torch.testing.assert_close(alone.image, torch.tanh(maps[:, :3] + torch.atanh(x.clamp(-0.97, 0.97))))


@pytest.mark.parametrize("mask", [False, True])
def test_a_residual_generator_starts_as_the_identity_and_learns_from_there(mask: bool) -> None:
    network = AntialiasedGenerator(base_channels=4, blocks=1, mask=mask).double()
    x = images(1, 16) * 0.97
    out = network(x)
    torch.testing.assert_close(out, x, rtol=0, atol=1e-12)
    torch.autograd.backward((out - 1).square().mean())
    assert network.head.weight.grad is not None
    assert network.head.weight.grad.any()


def test_without_its_change_of_the_source_it_is_a_tanh_and_starts_elsewhere() -> None:
    network = AntialiasedGenerator(base_channels=4, blocks=1, residual=False).double()
    x = images(1, 16)
    assert network.parts(x).mask is None
    assert network.head.out_channels == 3
    assert (network(x) - x).abs().mean() > 0.1
    assert network(x).abs().max() < 1


@pytest.mark.parametrize(
    ("norm", "instance_scales", "spectral"),
    [
        ("spectral", [], True),
        ("instance", [0, 1, 2], False),
        ("spectral-instance", [0, 1, 2], True),
        ("mixed", [0, 1], False),
        ("none", [], False),
    ],
)
def test_the_norm_of_the_scales_is_the_one_asked_for(norm: str, instance_scales: list[int], spectral: bool) -> None:
    network = MultiscalePatchDiscriminator(base_channels=2, scales=3, norm=norm)
    kinds = [{type(module).__name__ for module in scale.modules()} for scale in network.scales]
    assert [level for level, names in enumerate(kinds) if "InstanceNorm" in names] == instance_scales
    assert all(("SpectralNorm" in names) == spectral for names in kinds)
    (alone,) = MultiscalePatchDiscriminator(base_channels=2, scales=1, norm=norm).scales
    assert any(type(module).__name__ == "InstanceNorm" for module in alone.modules()) == bool(instance_scales)
    with pytest.raises(UsageError, match="layer"):
        MultiscalePatchDiscriminator(norm="layer")


def test_spectral_norm_is_computed_in_full_precision_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU autocast would have the products in bf16, which a CPU's leaves alone."""
    seen: list[bool] = []
    product = torch.mv

    def watched(matrix: Tensor, vector: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return product(matrix, vector)

    layer = nn.Conv2d(3, 5, 4)
    spectral_norm(layer)
    monkeypatch.setattr(torch, "mv", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(torch.ones(1, 3, 6, 6))
    assert seen == [False] * 3


def test_a_masks_costs_equal_naive_loops() -> None:
    mask = torch.rand(2, 1, 3, 4, dtype=torch.float64)
    down = [abs(float(mask[n, 0, i + 1, j] - mask[n, 0, i, j])) for n in range(2) for i in range(2) for j in range(4)]
    right = [abs(float(mask[n, 0, i, j + 1] - mask[n, 0, i, j])) for n in range(2) for i in range(3) for j in range(3)]
    assert float(mask_roughness(mask)) == pytest.approx(sum(down) / len(down) + sum(right) / len(right))
    assert float(mask_area(mask)) == pytest.approx(sum(mask.flatten().tolist()) / 24)


def test_a_steps_mask_terms_are_those_of_each_direction_with_their_weights() -> None:
    made = cyclegan(pool_size=0, mask_losses=True)(
        lambda: Mobile(base_channels=2, blocks=1), lambda: MultiscalePatchDiscriminator(base_channels=2, scales=1)
    )
    shaken(made.networks.eval())
    batch = RandomImages(24, dtype=torch.float64).batch(5, made.draws)
    weights = {name: float(weight.fill_(value)) for value, (name, weight) in enumerate(made.weights.items(), start=2)}
    step = made.prepare(batch, made.variant(weights))
    found = {name: float(term.detach()) for player in made.players for name, term in player.loss(step).items()}
    for way, source in (("ab", batch.a), ("ba", batch.b)):
        mask = made.networks[f"generator_{way}"].parts(source).mask
        for term, cost in (("mask_roughness", mask_roughness), ("mask_area", mask_area)):
            assert found[f"{term}_{way}"] == pytest.approx(weights[term] * float(cost(mask).detach()), rel=1e-9)
