"""The reference networks against their papers' tables: parameters counted by hand, map sizes, receptive fields."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fruitgan.networks.discriminators import MultiscalePatchDiscriminator, PatchDiscriminator, patch_70, patch_70_affine
from fruitgan.networks.layers import InstanceNorm, Upsample
from fruitgan.networks.mobile import Mobile
from fruitgan.networks.resnet import AntialiasedGenerator, resnet_6, resnet_9
from fruitgan.networks.unet import UNetGenerator, unet_128, unet_256
from fruitgan.networks.weights import _Undrawn

pytestmark = pytest.mark.usefixtures("repeatable")

UNET_256 = (1, 2, 4, 8, 8, 8, 8, 8)


@pytest.mark.parametrize(
    ("network", "published"),
    [
        pytest.param(resnet_9, 11_378_179, id="resnet-9"),
        pytest.param(resnet_6, 7_837_699, id="resnet-6"),
        pytest.param(AntialiasedGenerator, 8_721_388, id="resnet-aa"),
        pytest.param(unet_256, 54_414_979, id="unet-256"),
        pytest.param(unet_128, 41_830_019, id="unet-128"),
        pytest.param(patch_70, 2_764_737, id="patch-70"),
        pytest.param(patch_70_affine, 2_765_569, id="patch-70-affine"),
        pytest.param(MultiscalePatchDiscriminator, 2 * 2_764_737, id="patch-multiscale"),
        pytest.param(Mobile, 293_744, id="mobile"),
    ],
)
def test_a_network_has_exactly_its_published_number_of_parameters(network: Callable[[], nn.Module], published: int) -> None:
    """Counted by hand, layer by layer, where no paper or reference code publishes one."""
    with torch.device("meta"), _Undrawn():  # without memory, and without the time that drawing takes
        assert sum(parameter.numel() for parameter in network().parameters()) == published


@pytest.mark.parametrize("discriminator", [patch_70, patch_70_affine])
def test_a_discriminator_gives_30_x_30_logits_at_256_px(discriminator: Callable[..., PatchDiscriminator]) -> None:
    network = discriminator(base_channels=4)
    sizes = []
    for layer in network.layers:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _module, _inputs, out: sizes.append(tuple(out.shape[1:])))
    (logits,) = network(torch.rand(1, 3, 256, 256))
    assert logits.shape == (1, 1, 30, 30)
    assert sizes == [(4, 128, 128), (8, 64, 64), (16, 32, 32), (32, 31, 31), (1, 30, 30)]


def test_the_resnets_maps_have_the_papers_sizes() -> None:
    maps = resnet_9(base_channels=4).encode(torch.rand(1, 3, 256, 256), range(12))
    assert [tuple(point.shape[1:]) for point in maps] == [(4, 256, 256), (8, 128, 128), *[(16, 64, 64)] * 10]


def test_the_unets_maps_have_the_tutorials_sizes() -> None:
    maps = unet_256(base_channels=4).encode(torch.rand(1, 3, 256, 256), range(8))
    assert [point.shape[1] // 4 for point in maps] == list(UNET_256)
    assert [point.shape[2] for point in maps] == [128, 64, 32, 16, 8, 4, 2, 1]


def test_dropout_stands_in_the_first_three_doublings_before_their_relu() -> None:
    network = unet_256(base_channels=4)
    kinds = [[type(layer) for layer in up.children()] for up in network.ups]
    assert kinds[:3] == [[Upsample, InstanceNorm, nn.Dropout, nn.ReLU]] * 3
    assert kinds[3:] == [[Upsample, InstanceNorm, nn.ReLU]] * 4
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} == {0.5}
    assert not [module for module in unet_256(base_channels=4, dropout=0.0).modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize("builder", [resnet_6, unet_128, patch_70_affine])
@torch.no_grad()
def test_weights_start_normal_with_deviation_002_and_biases_at_0(builder: Callable[..., nn.Module]) -> None:
    network = builder(base_channels=16)
    weights = torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))])
    assert abs(float(weights.mean())) < 3 * 0.02 / len(weights) ** 0.5
    assert float(weights.std()) == pytest.approx(0.02, rel=0.02)
    assert all(not parameter.any() for name, parameter in network.named_parameters() if name.endswith("bias"))
    scales: list[Tensor] = [m.weight for m in network.modules() if isinstance(m, InstanceNorm) and m.weight is not None]
    if scales:
        assert float(torch.cat(scales).mean()) == pytest.approx(1, abs=0.005)
        assert float(torch.cat(scales).std()) == pytest.approx(0.02, rel=0.15)


def without_norm(network: nn.Module) -> None:
    """Take every norm out (each would let all pixels see each other) and leave nothing that could cancel."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
        for name, child in module.named_children():
            if isinstance(child, InstanceNorm):
                setattr(module, name, nn.Identity())
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.01)
    network.double()


def seen_by(logits: Tensor, x: Tensor) -> tuple[int, int, int, int]:
    """Top, left, height and width of the pixels that one logit in the middle depends on."""
    middle = logits.shape[-1] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    rows, columns = torch.nonzero(gradient[0].abs().sum(0), as_tuple=True)
    assert len(rows) == (int(rows.max() - rows.min()) + 1) * (int(columns.max() - columns.min()) + 1)  # no holes
    return (
        int(rows.min()),
        int(columns.min()),
        int(rows.max() - rows.min()) + 1,
        int(columns.max() - columns.min()) + 1,
    )


@pytest.mark.parametrize("discriminator", [patch_70, patch_70_affine])
def test_one_logit_sees_70_x_70_pixels(discriminator: Callable[..., PatchDiscriminator]) -> None:
    network = discriminator(base_channels=2)
    without_norm(network)
    layers = [(m.kernel_size[0], m.stride[0]) for m in network.layers if isinstance(m, nn.Conv2d)]
    assert layers == [(4, 2), (4, 2), (4, 2), (4, 1), (4, 1)]
    x = torch.rand(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    # A padding of 1 in front of each layer moves the patch by 1 + 2 + 4 + 8 + 8 pixels; logits are 8 apart.
    assert seen_by(network(x)[0], x) == (15 * 8 - 23, 15 * 8 - 23, 70, 70)


def test_a_coarser_scale_sees_the_image_averaged() -> None:
    network = MultiscalePatchDiscriminator(base_channels=4, scales=3).eval()
    x = torch.rand(1, 3, 96, 96)
    half = x.view(1, 3, 48, 2, 48, 2).mean((3, 5))
    quarter = x.view(1, 3, 24, 4, 24, 4).mean((3, 5))
    for logits, scale, image in zip(network(x), network.scales, (x, half, quarter), strict=True):
        torch.testing.assert_close(logits, scale(image))


@pytest.mark.parametrize(("unet", "side_px"), [(unet_256, 256), (unet_128, 128)])
def test_the_unets_innermost_map_is_the_same_for_every_image(unet: Callable[..., UNetGenerator], side_px: int) -> None:
    network = unet(base_channels=4)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    one, other = torch.rand(1, 3, side_px, side_px), torch.rand(1, 3, side_px, side_px)
    last = network.encode_points - 1
    before, innermost = network.encode(one, [last - 1, last])
    assert torch.equal(innermost, network.encode(other, [last])[0])
    offset = network.get_parameter(f"downs.{last}.1.bias")
    torch.testing.assert_close(innermost.flatten(), nn.functional.leaky_relu(offset, 0.3), rtol=0, atol=0)
    assert not torch.equal(before, network.encode(other, [last - 1])[0])
    assert "dead bottleneck" in (unet_256.__doc__ or "")
