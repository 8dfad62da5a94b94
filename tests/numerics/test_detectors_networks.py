"""The detectors' sizes and formulas against counts by hand and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fruitgan.errors import UsageError
from fruitgan.networks.detectors import FLOOR, OPPONENT, SeedCnn, Spectrum

pytestmark = pytest.mark.usefixtures("repeatable")


def test_seed_cnn_has_the_lab_reports_layers_parameters_and_statistics() -> None:
    with torch.device("meta"):
        network = SeedCnn(image_size_px=256)
    statistics = [buffer for name, buffer in network.named_buffers() if name.endswith(("running_mean", "running_var"))]
    assert sum(parameter.numel() for parameter in network.parameters()) == 135_035_554
    assert sum(buffer.numel() for buffer in statistics) == 3_968
    pair = ["Conv2d", "ReLU", "BatchNorm2d"] * 2
    block = [*pair, "MaxPool2d", "Dropout"]
    assert [type(module).__name__ for module in network.convolutions] == block * 3
    assert [type(module).__name__ for module in network.dense] == ["Linear", "ReLU", "BatchNorm1d", "Dropout"] * 2 + ["Linear"]
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.2, 0.3, 0.5, 0.4, 0.5]
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert all(norm.eps == 1e-3 and norm.momentum == 0.01 for norm in norms)


def test_seed_cnn_starts_as_keras_starts_it() -> None:
    network = SeedCnn(image_size_px=16)
    for module in network.modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        fan_in = module.weight[0].numel()
        limit = math.sqrt(6 / fan_in)  # he_uniform
        if module is network.dense[-1]:
            limit = math.sqrt(6 / (fan_in + 2))  # glorot_uniform
        assert 0.9 * limit < float(module.weight.detach().abs().max()) <= limit
        assert float(module.weight.detach().mean().abs()) < 0.1 * limit
        assert module.bias is not None
        assert not module.bias.any()


def test_seed_cnns_logit_has_the_softmaxs_cross_entropy_and_gradient() -> None:
    network = SeedCnn(image_size_px=16).double().eval()
    x = torch.rand(4, 3, 16, 16, dtype=torch.float64)
    truth = torch.tensor([0, 1, 1, 0])
    two = nn.functional.cross_entropy(network.outputs(x), truth)
    one = nn.functional.binary_cross_entropy_with_logits(network(x), truth.double())
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    weight = network.dense[-1].weight
    gradients = [torch.autograd.grad(loss, weight)[0] for loss in (one, two)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_seed_cnn_flattens_height_width_channels() -> None:
    network = SeedCnn(image_size_px=16).eval()
    seen: list[Tensor] = []
    network.dense.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.rand(2, 3, 16, 16)
    network(x)
    maps = network.convolutions(x).detach()  # [2, 128, 2, 2]
    naive = [[float(maps[n, c, h, w]) for h in range(2) for w in range(2) for c in range(128)] for n in range(2)]
    torch.testing.assert_close(seen[0], torch.tensor(naive), rtol=0, atol=0)


def test_the_power_spectrum_is_numpys_folded_over_upwards_and_downwards() -> None:
    side, half = 16, 9
    detector = Spectrum(image_size_px=side, bins=half).double()
    x = torch.rand(1, 3, side, side, dtype=torch.float64)
    grey = np.einsum("c,chw->hw", OPPONENT[0], x[0].numpy())
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * i / side) for i in range(side)]
    window = np.outer(hann, hann)
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2 / (window**2).sum()
    upwards = np.roll(power[::-1], 1, axis=0)  # frequency -k where k stands
    expected = ((power + upwards) / 2)[:half, :half]
    np.testing.assert_allclose(detector.power(x)[0, 0].numpy(), expected, rtol=1e-4, atol=1e-9)
    first = detector.features(x)[0, : half**2].numpy()
    np.testing.assert_allclose(first, np.log(expected.flatten() + FLOOR), rtol=1e-3, atol=1e-3)


def test_mirroring_and_brightness_do_not_change_the_spectrum() -> None:
    detector = Spectrum(image_size_px=32, bins=8).double()
    x = torch.rand(1, 3, 32, 32, dtype=torch.float64) * 0.5
    # The window begins with its zero and so is symmetric about pixel 16, not about the middle: mirror about that pixel.
    turned = x.flip(3).roll(1, 3)
    torch.testing.assert_close(detector.features(turned), detector.features(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(detector.features(x + 0.3), detector.features(x), rtol=0, atol=1e-5)


def test_a_spectrum_of_more_bins_than_frequencies_is_refused() -> None:
    with pytest.raises(UsageError, match="option bins: 10 is not within 1 to 9"):
        Spectrum(image_size_px=16, bins=10)
