"""Layers, the light generators and what a mask costs, against torch's own and formulas in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trainings import RandomImages

from fruitgan.errors import UsageError
from fruitgan.networks import layers
from fruitgan.networks.discriminators import MultiscalePatchDiscriminator
from fruitgan.networks.layers import (
    BilinearUpsample,
    BlurPool,
    Downsample,
    InstanceNorm,
    Reflect,
    ReflectConv2d,
    Upsample,
    composed,
    spectral_norm,
)
from fruitgan.networks.mobile import Mobile
from fruitgan.networks.resnet import AntialiasedGenerator
from fruitgan.train_gan.objectives.cyclegan import cyclegan, mask_area, mask_roughness

pytestmark = pytest.mark.usefixtures("repeatable")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def images(n: int, side_px: int) -> Tensor:
    return torch.rand((n, 3, side_px, side_px), dtype=torch.float64) * 2 - 1


def assert_same_with_gradients(layer: nn.Module, torchs: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """The layer's output is torch's, and so are the gradients of all its parameters and of x."""
    parts = [*layer.double().parameters(), x.requires_grad_()]
    expected, found = torchs(x), layer(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    given = torch.randn_like(expected)
    wanted, gradients = (torch.autograd.grad(out, parts, given) for out in (expected, found))
    torch.testing.assert_close(gradients, wanted, rtol=0, atol=1e-11)


# Layers


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("size", [(5, 3), (2, 2), (1, 7)])
def test_instance_norm_is_torchs(affine: bool, size: tuple[int, int]) -> None:
    layer = InstanceNorm(3, affine=affine).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = noise(2, 3, *size) * 5 + 2
    assert_same_with_gradients(layer, lambda x: F.instance_norm(x, weight=layer.weight, bias=layer.bias), x)
    expected = layer(x).float()
    torch.testing.assert_close(layer.float()(x.float()), expected, rtol=1e-4, atol=1e-5)


def test_a_1_x_1_map_becomes_exactly_its_offset_and_passes_no_gradient() -> None:
    layer = InstanceNorm(4, affine=True)
    assert layer.weight is not None
    assert layer.bias is not None
    nn.init.normal_(layer.bias)
    x = (torch.randn(2, 4, 1, 1) * 1000).requires_grad_()
    out = layer(x)
    assert torch.equal(out, layer.bias.view(1, 4, 1, 1).expand(2, -1, -1, -1))
    torch.autograd.backward((out * torch.randn_like(out)).sum())
    assert x.grad is not None
    assert not x.grad.any()
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()
    assert InstanceNorm(4)(x).abs().max() == 0
    assert InstanceNorm(1)(torch.full((1, 1, 1, 1), torch.inf)).isnan().all()


@pytest.mark.parametrize("kind", [Downsample, Upsample])
@pytest.mark.parametrize(("size", "bias"), [((2, 2), True), ((4, 6), False)])
def test_resampling_as_a_matrix_product_equals_the_convolution(
    kind: type[Downsample | Upsample], size: tuple[int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "MATMUL_WEIGHTS", 0)
    monkeypatch.setattr(layers, "MATMUL_SIDE_PX", 16)
    layer, convolve = kind(3, 5, bias=bias).double(), F.conv2d if kind is Downsample else F.conv_transpose2d
    for name in ("conv2d", "conv_transpose2d"):
        monkeypatch.setattr(F, name, None)
    assert_same_with_gradients(layer, lambda x: convolve(x, layer.weight, layer.bias, stride=2, padding=1), noise(2, 3, *size))


@pytest.mark.parametrize("sides", [(3, 4), (1, 2), (1, 1)])
def test_an_enlarged_image_is_torchs(sides: tuple[int, int]) -> None:
    torchs = nn.Upsample(scale_factor=2, mode="bilinear")
    assert_same_with_gradients(BilinearUpsample(), torchs, noise(2, 3, *sides))


@pytest.mark.parametrize(("shape", "border"), [((2, 3, 5, 4), 1), ((1, 2, 9, 4), 3), ((1, 1, 2, 2), 1)])
def test_a_reflected_border_is_torchs(shape: tuple[int, ...], border: int) -> None:
    assert_same_with_gradients(Reflect(border), nn.ReflectionPad2d(border), noise(*shape))


def smoothed(x: Tensor) -> Tensor:
    """Each number of a map with its neighbours, weighted 1, 2, 1 in both directions; beyond an edge it is reflected."""
    row = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])


@pytest.mark.parametrize(("stride", "size"), [(1, (5, 7)), (2, (6, 4)), (1, (2, 2))])
def test_smoothing_is_a_convolution_and_takes_the_finest_grid_away(stride: int, size: tuple[int, int]) -> None:
    assert_same_with_gradients(BlurPool(stride), lambda x: smoothed(x)[..., ::stride, ::stride], noise(2, 3, *size))
    checkers = (torch.arange(8).view(-1, 1) + torch.arange(8)).remainder(2).double() * 2 - 1
    assert BlurPool(stride)(checkers.view(1, 1, 8, 8)).abs().max() == 0


@pytest.mark.parametrize("options", [{}, {"kernel_px": 7}, {"stride": 2, "bias": False}, {"groups": 3}])
def test_a_reflected_convolution_is_torchs(options: dict[str, Any]) -> None:
    ours = ReflectConv2d(3, 6, **options).double()
    size = options.pop("kernel_px", 3)
    torchs = nn.Conv2d(3, 6, size, padding=size // 2, padding_mode="reflect", **options).double()
    torchs.load_state_dict(ours.state_dict())  # the same names
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    torch.testing.assert_close(ours(x), torchs(x), rtol=0, atol=1e-12)


def test_a_reflected_border_stays_in_half_precision_under_autocast() -> None:
    x = torch.randn(2, 3, 6, 7).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bordered = Reflect(2)(x)
    assert bordered.dtype == torch.bfloat16
    assert torch.equal(bordered.float(), F.pad(x.float(), (2,) * 4, mode="reflect"))


def test_spectral_norm_holds_the_largest_singular_value_at_1() -> None:
    network = MultiscalePatchDiscriminator(base_channels=4).train()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 3)  # far from where the estimate began
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions:
        for _ in range(100):
            _ = module.weight  # each look in training is one iteration
    network.eval()
    weights = [module.weight.detach() for module in convolutions]
    assert len(weights) == 10
    for weight in weights:
        assert float(torch.linalg.svdvals(weight.flatten(1))[0]) == pytest.approx(1, abs=2e-3)


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


# Light generators and their masks


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


def test_the_light_generator_starts_as_the_identity() -> None:
    network = Mobile(base_channels=4)
    inside = torch.rand(2, 3, 16, 16) * 1.94 - 0.97
    torch.testing.assert_close(network(inside), inside, rtol=0, atol=1e-6)
    parts = network.parts(inside)
    assert parts.mask is not None
    torch.testing.assert_close(parts.mask, torch.full((2, 1, 16, 16), 1 / (1 + math.exp(-1))))
    # Outside it differs by the clipping alone, as far as the mask lets it.
    edge = torch.full((1, 3, 8, 8), 1.0)
    expected = 0.97 / (1 + math.exp(-1)) + 1 - 1 / (1 + math.exp(-1))
    torch.testing.assert_close(network(edge), edge * expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(Mobile(base_channels=4, mask=False)(-edge), -edge * 0.97, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mask", [True, False])
def test_the_light_generator_composes_its_source_with_its_shuffled_and_smoothed_maps(mask: bool) -> None:
    network = Mobile(base_channels=4, mask=mask).double()
    for parameter in network.head.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    heads = []
    network.head.register_forward_hook(lambda _module, _inputs, out: heads.append(out.detach()))
    x = torch.rand(1, 3, 8, 12, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        parts = network.parts(x)
    expected = composed(x, smoothed(F.pixel_shuffle(heads[0], 2)))
    torch.testing.assert_close(parts.image, expected.image, rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.mask, expected.mask, rtol=0, atol=1e-12)
    assert (parts.mask is not None) == mask


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
    for parameter in made.networks.double().eval().parameters():
        nn.init.normal_(parameter, 0, 0.2)
    batch = RandomImages(24, dtype=torch.float64).batch(5, made.draws)
    weights = {name: float(weight.fill_(value)) for value, (name, weight) in enumerate(made.weights.items(), start=2)}
    step = made.prepare(batch, made.variant(weights))
    found = {name: float(term.detach()) for player in made.players for name, term in player.loss(step).items()}
    for way, source in (("ab", batch.a), ("ba", batch.b)):
        mask = made.networks[f"generator_{way}"].parts(source).mask
        for term, cost in (("mask_roughness", mask_roughness), ("mask_area", mask_area)):
            assert found[f"{term}_{way}"] == pytest.approx(weights[term] * float(cost(mask).detach()), rel=1e-9)
