"""The frozen backbone against the package that its weights come from, and the discriminator that looks through it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import Conv2dSame
from torch import Tensor, nn

from fruitgan.errors import UsageError
from fruitgan.networks import backbones
from fruitgan.networks.backbones import (
    FILE,
    SHA256,
    SameConv2d,
    efficientnet_lite1,
    frozen_sums,
    trained_against,
)
from fruitgan.networks.discriminators import ProjectedDiscriminator
from fruitgan.train_gan.trainer import NetworkState

REFERENCE = Path(__file__).with_name("efficientnet_lite1.safetensors")
STRIDES = (4, 8, 16)


def test_its_maps_are_those_of_the_package_that_the_weights_come_from() -> None:
    reference = load_file(REFERENCE)
    for stride, found in zip(STRIDES, efficientnet_lite1()(reference["picture"], STRIDES), strict=True):
        expected = reference[f"stride {stride}"]
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (5, 4)])
def test_same_padding_is_timms_for_even_and_odd_sides(size: tuple[int, int]) -> None:
    x = torch.rand(1, 2, *size, dtype=torch.float64)
    for kernel, stride in itertools.product((3, 5), (1, 2)):
        layer, theirs = SameConv2d(2, 3, kernel, stride).double(), Conv2dSame(2, 3, kernel, stride).double()
        theirs.load_state_dict(layer.state_dict())
        torch.testing.assert_close(layer(x), theirs(x), rtol=0, atol=1e-12)


def test_the_mean_and_deviation_are_127_and_128_of_255() -> None:
    network, seen = efficientnet_lite1(), list[Tensor]()
    network.stem.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    network(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32), [2])
    assert seen[0][0, :, 0, 0].tolist() == [-127 / 128, 0.5 / 128, 1.0]


def test_frozen_weights_are_in_no_parameter_state_or_gradient_and_stay_in_evaluation_mode() -> None:
    network = ProjectedDiscriminator(base_channels=4).train()
    assert not list(network.backbone.parameters())
    assert not any(name.startswith("backbone") for name in network.state_dict())
    assert not any(module.training for module in network.backbone.modules())
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    torch.stack([logits.mean() for logits in network(image)]).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0


def test_a_checkpoint_holds_the_sum_of_frozen_weights_and_others_are_refused() -> None:
    network = ProjectedDiscriminator(base_channels=4)
    state = NetworkState(network).state()
    assert state["backbone.sha256"] == SHA256
    NetworkState(ProjectedDiscriminator(base_channels=4)).restore(state)
    with pytest.raises(ValueError, match="backbone"):
        NetworkState(network).restore({**state, "backbone.sha256": "0" * 64})
    assert frozen_sums(nn.ModuleDict({"discriminator_a": network})) == {"discriminator_a.backbone.sha256": SHA256}
    assert trained_against(nn.ModuleDict({"a": network, "b": nn.Conv2d(1, 1, 1)})) == ("EfficientNet-Lite1 (ImageNet)",)


def test_a_damaged_file_of_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "weights.safetensors"
    damaged.write_bytes(FILE.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(backbones, "FILE", damaged)
    with pytest.raises(Exception, match="sha256"):
        efficientnet_lite1()


def test_each_logit_map_has_the_size_of_its_stride_and_mixing_is_the_same_every_time() -> None:
    network = ProjectedDiscriminator(strides="16,4", base_channels=4, pixel_scales=1, mix=True)
    x = torch.rand(2, 3, 64, 96) * 2 - 1
    assert [tuple(logits.shape[2:]) for logits in network(x)] == [(16, 24), (4, 6), (8, 12)]
    again = ProjectedDiscriminator(strides="16,4", base_channels=4, pixel_scales=1, mix=True)
    again.load_state_dict(network.state_dict())
    for first, second in zip(network.eval()(x), again.eval()(x), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"strides": "4,x"}, "strides"), ({"strides": "3"}, "stride 3"), ({"backbone": "efficientnet"}, "lite1")],
)
def test_what_a_projected_discriminator_cannot_be_is_said(options: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        ProjectedDiscriminator(**options)  # type: ignore[arg-type]
