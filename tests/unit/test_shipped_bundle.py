"""The bundle that ships: it is what its card says, and it works with the code beside it."""

from __future__ import annotations

import numpy as np
import pytest

from fruitgan import bundle as bundles
from fruitgan.demo.fruit import draw
from fruitgan.engines.padding import translate_pixels
from fruitgan.engines.torch_engine import TorchEngine


def shipped() -> bundles.Bundle:
    return bundles.load(bundles.shipped())


def test_it_fits_into_the_wheel_in_half_precision() -> None:
    assert bundles.shipped().stat().st_size <= 6_000_000
    for arrays in shipped().weights.values():
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
        assert sum(array.size for array in arrays.values()) <= 1_000_000


def test_its_card_is_honest() -> None:
    card = shipped().card
    assert card.domains == ("apple", "orange")
    assert set(card.directions) == {"a2b", "b2a"}
    assert card.image_size_px >= 128
    assert "Research only" in card.licence
    assert "Known failures" in card.notes
    assert {"protocol", "r_a2b", "r_b2a", "read_as_orange_after"} <= set(card.measured)


@pytest.mark.parametrize(("direction", "kind", "to_red"), [("a2b", "apple", False), ("b2a", "orange", True)])
def test_it_changes_drawn_fruit_in_the_right_direction(direction: str, kind: str, to_red: bool) -> None:
    bundle = shipped()
    engine = TorchEngine(generator=bundle.card.generator, weights=bundle.weights[direction], gpu="none")
    greener = []
    for index in range(4):
        source = draw(kind, 128, 3, index)  # type: ignore[arg-type]
        fake = translate_pixels(engine, bundle.card, source).astype(float)
        assert fake.shape == source.shape
        greener.append(
            (fake[..., 1] - source[..., 1].astype(float)).mean() - (fake[..., 2] - source[..., 2].astype(float)).mean()
        )
    # Orange is red with more green than blue: towards it green gains on blue, away from it green loses.
    assert (np.mean(greener) < 0) == to_red
    assert abs(np.mean(greener)) > 1
