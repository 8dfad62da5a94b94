"""Which of two sets of images is nearer to the real ones: differences of distances, and what may be claimed of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fruitgan.measures.distances import Array, frechet_distance, frechet_distances, kernel_distance, kernel_distances
from fruitgan.measures.metrics.fid_kid import affordable
from fruitgan.measures.statistics import CONFIDENCE, Interval, Weights, normal_interval, resample_weights

LEAST_AGREEING = 2
"""How many feature backends have to agree before anything is claimed."""

Resampled = Callable[[Array, Array, Weights, Weights], Array]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The distance of a first set from the real images, less that of a second; below 0 the first is nearer."""

    value: float
    interval: tuple[float, float]
    n_real: int
    n_first: int
    n_second: int
    features: str
    paired: bool
    """Whether image i of both sets was made of one source (or is it), and they were drawn together."""

    @property
    def p_value(self) -> float:
        """Two-sided, of no difference, by the normal distribution that the interval is of."""
        from scipy.stats import norm

        reach = self.interval[1] - self.value
        if not reach:
            return 1.0 if not self.value else 0.0
        return float(2 * norm.sf(abs(self.value) / reach * norm.ppf(0.5 + CONFIDENCE / 2)))


def kid_difference(
    real: Array, first: Array, second: Array, *, features: str, paired: bool, resamples: int = 1000, seed: int = 0
) -> Difference:
    """Of kernel distances, from [N, D], [M, D] and [K, D]; the real images are resampled once for both."""
    value = kernel_distance(real, first) - kernel_distance(real, second)
    return _difference(kernel_distances, value, real, first, second, features, paired, resamples, seed)


def fid_difference(
    real: Array, first: Array, second: Array, *, features: str, paired: bool, resamples: int = 200, seed: int = 0
) -> Difference:
    """Of Frechet distances; at one number of images their biases, which are much alike, cancel.

    Raises:
        ValueError: the two sets hold different numbers of images.
    """
    if len(first) != len(second):
        raise ValueError(f"Frechet distances of {len(first)} and {len(second)} images cannot be compared")
    value = frechet_distance(real, first) - frechet_distance(real, second)
    count = affordable(resamples, max(len(real), len(first)))
    return _difference(frechet_distances, value, real, first, second, features, paired, count, seed)


def ratio_difference(
    real: Array,
    first: Array,
    second: Array,
    source: Array,
    *,
    features: str,
    sources_paired: bool,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Of R = KID(fakes, reals) / KID(sources, reals), from [N, D], twice [M, D], and [S, D]; the fakes are pairs.

    `sources_paired` says that source i is what both fakes i were made of, so that all three are drawn together.

    Raises:
        ValueError: the fakes are no pairs.
    """

    def over_sources(x: Array, y: Array, weights_x: Array, weights_y: Array) -> Array:
        below = kernel_distances(x, source, weights_x, weights_y if sources_paired else weights_source)
        return kernel_distances(x, y, weights_x, weights_y) / below

    weights_source = resample_weights(len(source), resamples, seed, "source")
    value = (kernel_distance(real, first) - kernel_distance(real, second)) / kernel_distance(real, source)
    return _difference(over_sources, value, real, first, second, features, True, resamples, seed)


def _difference(
    distances: Resampled,
    value: float,
    real: Array,
    first: Array,
    second: Array,
    features: str,
    paired: bool,
    resamples: int,
    seed: int,
) -> Difference:
    if paired and len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} images are no pairs")
    weights_real = resample_weights(len(real), resamples, seed, "real")
    weights_first = resample_weights(len(first), resamples, seed, "fake")
    weights_second = weights_first if paired else resample_weights(len(second), resamples, seed, "source")
    drawn = distances(real, first, weights_real, weights_first) - distances(real, second, weights_real, weights_second)
    return Difference(
        value=value,
        interval=normal_interval(value, drawn),
        n_real=len(real),
        n_first=len(first),
        n_second=len(second),
        features=features,
        paired=paired,
    )


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence that may be said only where several feature backends say the same and none the contrary."""

    claim: str
    """In words, as it holds where `holds` is true."""
    holds: bool | None
    """True or false where it may be said that it does or does not; None where nothing may be claimed."""
    agreeing: tuple[str, ...]
    """The backends whose interval lies on the claim's side of 0."""
    contrary: tuple[str, ...]
    undecided: tuple[str, ...]
    """The backends whose interval holds 0."""


def claim_of(
    claim: str, below_zero: Mapping[str, Interval | tuple[float, float]], alike: frozenset[str] = frozenset()
) -> Claim:
    """What the intervals of one difference, by backend, allow to be said; the claim is that the difference is below 0.

    Those of `alike` see the same kind of thing, and count as one witness however many of them agree.
    """

    def witnesses(names: tuple[str, ...]) -> int:
        return len(set(names) - alike) + bool(alike.intersection(names))

    agreeing = tuple(name for name, (_, high) in below_zero.items() if high < 0)
    contrary = tuple(name for name, (low, _) in below_zero.items() if low > 0)
    undecided = tuple(name for name in below_zero if name not in agreeing and name not in contrary)
    holds = None
    if witnesses(agreeing) >= LEAST_AGREEING and not contrary:
        holds = True
    elif witnesses(contrary) >= LEAST_AGREEING and not agreeing:
        holds = False
    return Claim(claim=claim, holds=holds, agreeing=agreeing, contrary=contrary, undecided=undecided)
