"""What an evaluation claims of its sources: nothing where a mere change of hue would have got as far."""

from __future__ import annotations

import pytest

from fruitgan.evaluate.numbers import claims
from fruitgan.evaluate.results import Numbers, RatioResult


def ratio(features: str, interval: tuple[float, float]) -> RatioResult:
    return RatioResult(
        value=sum(interval) / 2,
        interval=interval,
        n_real=100,
        n_fake=100,
        features=features,
        resize="",
        seconds=0.0,
        n_source=100,
        source_value=0.2,
        source_interval=(0.1, 0.3),
        paired=True,
    )


@pytest.mark.parametrize(
    ("embed", "holds"), [((0.4, 0.8), True), ((0.88, 0.99), None), ((0.85, 0.92), None), ((0.91, 1.1), None)]
)
def test_nearer_is_claimed_from_a_tenth_of_the_way_on(embed: tuple[float, float], holds: bool | None) -> None:
    numbers = Numbers(ratios={"r": ratio("fruit-embed", embed), "r_random": ratio("random", (0.3, 0.5))})
    (claim,) = claims(numbers)
    assert "by a tenth of the way or more" in claim.claim
    assert claim.holds is holds


def test_what_got_less_than_a_tenth_of_the_way_on_two_kinds_of_features_is_denied() -> None:
    numbers = Numbers(ratios={"r": ratio("fruit-embed", (0.92, 1.1)), "r_random": ratio("random", (0.95, 1.2))})
    assert claims(numbers)[0].holds is False


def test_where_no_ratio_can_be_had_nothing_is_claimed() -> None:
    assert claims(Numbers(ratios={"r": None})) == ()
