"""Pictures of fixed images on the way: source, fake, cycled."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fruitgan.train_gan.samples import sample_rows, translate_batch

CPU = torch.device("cpu")


class Half(nn.Module):
    """Half the contrast, and noise while it is being trained."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.rand_like(x) if self.training else x / 2


class Negative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x


PICTURES = [np.full((8, 8, 3), value, np.uint8) for value in (0, 100, 255)]


def test_pictures_are_translated_in_evaluation_mode_and_the_generator_is_left_as_it_was() -> None:
    for training in (True, False):
        generator = Half().train(training)
        out = translate_batch(generator, PICTURES, CPU)
        assert generator.training == training
        assert [picture.dtype for picture in out] == [np.uint8] * 3
        assert [int(picture[0, 0, 0]) for picture in out] == [64, 114, 191]  # rounded, not truncated
        assert all(picture.shape == (8, 8, 3) for picture in out)


def test_a_row_is_source_fake_and_cycled_for_each_direction() -> None:
    generators = {"a2b": Negative(), "b2a": Half().eval()}
    rows = sample_rows(generators, {"a2b": PICTURES[:2], "b2a": PICTURES[2:]}, CPU)
    values = [[int(picture[0, 0, 0]) for picture in row] for row in rows]
    assert values == [[0, 255, 191], [100, 155, 141], [255, 191, 64]]


def test_with_one_direction_nothing_is_cycled() -> None:
    rows = sample_rows({"a2b": Negative()}, {"a2b": PICTURES[:1]}, CPU)
    assert [len(row) for row in rows] == [2]
