"""Layers and the light generator against torch's own, in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.networks import layers
from fruitgan.networks.discriminators import MultiscalePatchDiscriminator
from fruitgan.networks.layers import BlurPool, Downsample, InstanceNorm, Reflect, ReflectConv2d, Upsample, composed
from fruitgan.networks.mobile import Mobile

pytestmark = pytest.mark.usefixtures("repeatable")


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("size", [(5, 3), (2, 2), (1, 7)])
def test_instance_norm_is_torchs(affine: bool, size: tuple[int, int]) -> None:
    layer = InstanceNorm(3, affine=affine).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64) * 5 + 2
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    expected = F.instance_norm(x, weight=layer.weight, bias=layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.float()(x.float()), expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Downsample, Upsample])
@pytest.mark.parametrize(("size", "bias"), [((2, 2), True), ((4, 6), False)])
def test_resampling_as_a_matrix_product_equals_the_convolution(
    kind: type[Downsample | Upsample], size: tuple[int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "MATMUL_WEIGHTS", 0)
    monkeypatch.setattr(layers, "MATMUL_SIDE_PX", 16)
    layer = kind(3, 5, bias=bias).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    convolve = F.conv2d if kind is Downsample else F.conv_transpose2d
    expected = convolve(x, layer.weight, layer.bias, stride=2, padding=1)
    wanted, parts = torch.randn_like(expected), [*layer.parameters(), x]
    gradients = torch.autograd.grad(expected, parts, wanted)
    for name in ("conv2d", "conv_transpose2d"):
        monkeypatch.setattr(F, name, None)
    found = layer(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(found, parts, wanted), gradients, rtol=0, atol=1e-12)


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


def smoothed(x: Tensor) -> Tensor:
    """Each number of a map with its neighbours, weighted 1, 2, 1 in both directions; beyond an edge it is reflected."""
    row = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])


@pytest.mark.parametrize("stride", [1, 2])
def test_smoothing_has_the_gradient_of_its_formula(stride: int) -> None:
    for shape in ((2, 3, 6, 4), (1, 1, 2, 2)):
        assert torch.autograd.gradcheck(BlurPool(stride), torch.randn(shape, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize(("shape", "border"), [((2, 3, 5, 4), 1), ((1, 2, 9, 4), 3), ((1, 1, 2, 2), 1)])
def test_a_reflected_border_is_torchs_and_so_is_its_gradient(shape: tuple[int, ...], border: int) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours, torchs = Reflect(border)(x), F.pad(x, (border,) * 4, mode="reflect")
    assert torch.equal(ours, torchs)
    weights = torch.randn_like(ours)
    gradients = [torch.autograd.grad((way * weights).sum(), x)[0] for way in (ours, torchs)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


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


@pytest.mark.parametrize(("stride", "size"), [(1, (5, 7)), (2, (6, 4))])
def test_smoothing_equals_a_convolution_and_takes_the_finest_grid_away(stride: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(BlurPool(stride)(x), smoothed(x)[..., ::stride, ::stride], rtol=0, atol=1e-12)
    checkers = (torch.arange(8).view(-1, 1) + torch.arange(8)).remainder(2).double() * 2 - 1
    assert BlurPool(stride)(checkers.view(1, 1, 8, 8)).abs().max() == 0


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
