"""Everything random, as a function of (seed, step, stream): nothing to carry along, nothing to lose.

Philox is a counter-based generator (Salmon et al. 2011): the key is made of the seed and the stream's name, the counter of
the step, so that any step's numbers can be had without those before it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, step: int, stream: str) -> np.random.Generator:
    """A fresh numpy generator for one use in one step."""
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    key = int.from_bytes(digest[:16], "little")
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))


def sample(seed: int, step: int, n: int, stream: str) -> NDArray[np.float64]:
    """`n` numbers, uniform in [0, 1)."""
    return generator(seed, step, stream).random(n)


def permutation(seed: int, step: int, n: int, stream: str) -> NDArray[np.int64]:
    """The numbers 0 to n-1 in a random order."""
    return generator(seed, step, stream).permutation(n)


def another_seed(seed: int, number: int) -> int:
    """The seed itself for number 0; for 1, 2 and so on others, each the same every time."""
    return seed if number == 0 else torch_seed(seed, number, "another seed")


def torch_seed(seed: int, step: int, stream: str) -> int:
    """A 63-bit number for `torch.manual_seed`."""
    return int(generator(seed, step, stream).integers(2**63 - 1))
