"""Random numbers against Philox 4x64-10 as its paper writes it (Salmon et al. 2011), in Python's own integers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fruitgan import randomness

MASK = 2**64 - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block of four 64-bit numbers: ten rounds, the key raised by the Weyl constants between them."""
    c, k = counter, key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2E7470EE14C6C93 * c[0], 2**64)
        high_1, low_1 = divmod(0xCA5A826395121157 * c[2], 2**64)
        c = (high_1 ^ c[1] ^ k[0], low_1, high_0 ^ c[3] ^ k[1], low_0)
        k = ((k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK)
    return c


def expected(seed: int, step: int, n: int, stream: str) -> list[float]:
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    key = (int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little"))
    blocks = [philox((block, 0, 0, step), key) for block in range(1, n // 4 + 2)]  # numpy raises the counter before it draws
    return [(number >> 11) / 2**53 for block in blocks for number in block][:n]


@pytest.mark.parametrize(("seed", "step", "n", "stream"), [(0, 0, 1, "a"), (7, 5, 11, "augment/b"), (2**63 - 1, 10**9, 4, "")])
def test_numbers_are_those_that_philox_specifies(seed: int, step: int, n: int, stream: str) -> None:
    assert randomness.sample(seed, step, n, stream).tolist() == expected(seed, step, n, stream)


def test_every_seed_step_and_stream_has_numbers_of_its_own() -> None:
    keys = [(seed, step, stream) for seed in (0, 1, 11) for step in (0, 1, 10, 1000) for stream in ("a", "b", "1/a")]
    draws = [tuple(randomness.sample(seed, step, 400, stream)) for seed, step, stream in keys]
    assert len({number for draw in draws for number in draw}) == 400 * len(keys)
    everything = np.concatenate(draws)
    assert everything.min() >= 0
    assert everything.max() < 1
    assert everything.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * everything.size))


def test_a_permutation_holds_every_number_once() -> None:
    orders = [randomness.permutation(0, epoch, 50, "order").tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_torchs_seeds_are_different_63_bit_numbers() -> None:
    seeds = {randomness.torch_seed(0, step, "dropout") for step in range(100)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
