"""What a step is estimated to take, against sums by hand; what is in two collections, against copies made here."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from picture_files import noise
from PIL import Image

from fruitgan import distributed
from fruitgan.data.groups import pairs_in_both
from fruitgan.images import Pixels
from fruitgan.train_gan.assemble import make_objective, make_plan
from fruitgan.train_gan.estimate import Counting, sketched_step
from fruitgan.train_gan.settings import TrainGanSettings


def test_the_most_bytes_alive_at_one_time_are_those_of_the_tensors_that_are() -> None:
    with Counting() as counting:
        a = torch.ones(1000, device="meta")  # 4,000 bytes
        b = (a * 2).view(10, 100)  # as many more; the view is no memory of its own
        del a
        c = b.add_(1)[:5] + 1  # half as many, in place of what was let go
        del b, c
        torch.ones(1900, device="meta")
    assert counting.peak_bytes == 8000


def test_a_layers_step_keeps_weights_gradients_moments_and_what_its_gradient_needs() -> None:
    """Of a linear layer, number by number: its input is kept for the weight's gradient, its output's gradient is made."""
    weight, x = torch.ones(30, 20, device="meta", requires_grad=True), torch.ones(7, 20, device="meta")
    with Counting([weight, x]) as counting:
        y = x @ weight.t()  # 7 x 30
        loss = y.square().sum()
        torch.autograd.backward(loss)
    given, outputs, gradients = 30 * 20 + 7 * 20, 7 * 30, 30 * 20
    assert counting.multiply_adds == 2 * 7 * 30 * 20  # forward, and the weight's gradient
    # The output is kept, its gradient is made of a product of the same size, and the weight's from that.
    assert 4 * (given + 2 * outputs + gradients) <= counting.peak_bytes <= 4 * (given + 3 * outputs + gradients) + 100


def test_the_memory_of_a_step_grows_evenly_with_the_batch() -> None:
    asked = {"generator": "resnet-6", "generator_options": {"base_channels": 2}, "discriminator_options": {"base_channels": 2}}
    plan = make_plan(TrainGanSettings(recipe="cyclegan", image_size=24, precision="fp32", **asked), torch.device("cpu"))
    one, two, nine = (sketched_step(plan, n).peak_bytes for n in (1, 2, 9))
    assert two - one > 0
    assert abs((nine - one) - 8 * (two - one)) < 0.02 * (nine - one)


def test_copies_are_found_however_scaled_and_encoded_and_other_pictures_are_not() -> None:
    def soft(seed: int) -> Pixels:
        return np.array(Image.fromarray(noise(6, 6, seed)).resize((90, 70), Image.Resampling.BICUBIC))

    a = [soft(seed) for seed in range(12)]
    by_night = (a[0] // 3).astype(np.uint8)
    scaled = np.array(Image.fromarray(a[5]).resize((41, 57)))
    assert pairs_in_both(a, [by_night, *(soft(seed) for seed in range(50, 60))]) == []
    assert pairs_in_both(a, [by_night, a[3], soft(70), scaled]) == [(3, 1), (5, 3)]


def test_a_step_is_sketched_as_of_one_process_and_bf16_keeps_weights_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(distributed.Ranks):
        world, rows = 2, 8

    given = {"recipe": "cyclegan", "generator_options": {"base_channels": "4"}, "image_size": 32, "batch_size": 8}
    plan = make_plan(TrainGanSettings(**given), torch.device("cpu"))
    alone = sketched_step(plan, 1).peak_bytes
    monkeypatch.setattr(distributed, "_ranks", Two())
    assert sketched_step(plan, 1).peak_bytes == alone
    assert isinstance(distributed.ranks(), Two)
    weights = sum(p.nbytes for p in make_objective(plan).networks.parameters())
    assert 4 * weights < sketched_step(dataclasses.replace(plan, precision="bf16"), 1).peak_bytes < alone
