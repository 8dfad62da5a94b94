"""The sampler: what a step sees depends on the seed and the step and nothing else."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fruitgan.data.loader import Pairing, Sampler
from fruitgan.errors import DataError, UsageError

PAIRINGS: tuple[Pairing, ...] = get_args(Pairing)
sizes = st.integers(1, 30)


def epoch(sampler: Sampler, number: int) -> tuple[list[int], list[int]]:
    """Both domains' images of one epoch, the filling of the last batch cut off."""
    first = number * sampler.steps_per_epoch
    steps = [sampler.indices(step) for step in range(first, first + sampler.steps_per_epoch)]
    a, b = (np.concatenate([step[side] for step in steps])[: sampler.epoch_items].tolist() for side in (0, 1))
    return a, b


@given(sizes, sizes, st.integers(1, 9), st.integers(0, 2**40), st.sampled_from(PAIRINGS), st.integers(0, 500))
@settings(max_examples=150, deadline=None)
def test_a_step_does_not_depend_on_the_steps_before_it(
    n_a: int, n_b: int, batch: int, seed: int, pairing: Pairing, step: int
) -> None:
    walked = Sampler(n_a, n_b, batch, seed, pairing)
    for earlier in (step + 7, 0, max(step - 1, 0)):
        walked.indices(earlier)
    for one, other in zip(walked.indices(step), Sampler(n_a, n_b, batch, seed, pairing).indices(step), strict=True):
        assert one.dtype == np.int64
        assert np.array_equal(one, other)


@given(sizes, sizes, st.integers(1, 40), st.sampled_from(PAIRINGS), st.integers(0, 100))
@settings(max_examples=150, deadline=None)
def test_batches_are_full_and_in_range(n_a: int, n_b: int, batch: int, pairing: Pairing, step: int) -> None:
    a, b = Sampler(n_a, n_b, batch, 3, pairing).indices(step)
    assert a.shape == b.shape == (batch,)
    assert 0 <= a.min() <= a.max() < n_a
    assert 0 <= b.min() <= b.max() < n_b


@pytest.mark.parametrize(("pairing", "items"), [("random-b", 19), ("zip", 10), ("passes", 19)])
def test_steps_per_epoch_are_rounded_up(pairing: Pairing, items: int) -> None:
    assert Sampler(10, 19, 4, 0, pairing).steps_per_epoch == -(-items // 4)


def test_random_b_shows_the_larger_domain_once_an_epoch_and_the_smaller_evenly() -> None:
    sampler = Sampler(19, 10, 4, 0, "random-b")
    for number in range(3):
        assert sorted(epoch(sampler, number)[0]) == list(range(19))
    sampler = Sampler(10, 19, 4, 0, "random-b")
    assert Counter(epoch(sampler, 1)[0]) == {item: 2 if item < 9 else 1 for item in range(10)}


def test_random_b_draws_b_uniformly() -> None:
    sampler = Sampler(4, 8, 10, 0, "random-b")
    drawn = np.concatenate([sampler.indices(step)[1] for step in range(2000)])
    counts = np.bincount(drawn, minlength=8)
    # Chi-squared with 7 degrees of freedom: 24.3 is exceeded once in a thousand.
    assert ((counts - 2500) ** 2 / 2500).sum() < 24.3


def test_zip_shows_no_image_twice_in_an_epoch() -> None:
    sampler = Sampler(19, 10, 4, 0, "zip")
    for number in range(3):
        a, b = epoch(sampler, number)
        assert len(set(a)) == 10
        assert sorted(b) == list(range(10))
    assert set(epoch(sampler, 0)[0]) != set(epoch(sampler, 1)[0])


def test_passes_show_every_image_of_both_domains_equally_often() -> None:
    sampler = Sampler(6, 10, 4, 0, "passes")
    steps = [sampler.indices(step) for step in range(30)]
    for side, n in ((0, 6), (1, 10)):
        seen = np.concatenate([step[side] for step in steps])
        for first in range(0, 120, n):
            assert sorted(seen[first : first + n].tolist()) == list(range(n))


@pytest.mark.parametrize("pairing", ["random-b", "zip"])
def test_a_short_last_batch_is_filled_from_the_next_epoch(pairing: Pairing) -> None:
    sampler = Sampler(10, 10, 4, 0, pairing)
    last, first = sampler.indices(2)[0], sampler.indices(3)[0]
    assert np.array_equal(last[2:], first[:2])


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_epochs_and_seeds_differ(pairing: Pairing) -> None:
    sampler = Sampler(50, 50, 10, 0, pairing)
    assert epoch(sampler, 0) != epoch(sampler, 1)
    assert epoch(sampler, 0) != epoch(Sampler(50, 50, 10, 1, pairing), 0)
    assert epoch(sampler, 0)[0] != epoch(sampler, 0)[1]


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0)])
def test_an_empty_domain_is_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="has no images"):
        Sampler(*sizes, 1, 0, "zip")


def test_wrong_batch_size_and_pairing_are_refused() -> None:
    with pytest.raises(UsageError, match="batch size"):
        Sampler(3, 3, 0, 0, "zip")
    with pytest.raises(UsageError, match="random-b, zip, passes"):
        Sampler(3, 3, 1, 0, "zipped")  # type: ignore[arg-type]
