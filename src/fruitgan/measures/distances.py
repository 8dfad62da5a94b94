"""Kernel and Frechet distances between two sets of feature vectors, and differences of such distances, in float64.

Everything takes weights [B, n] too: how often each image counts in each of B resamples. So a bootstrap or a random halving
costs a few matrix products instead of computing all kernels anew. n and m images, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fruitgan.measures.statistics import Difference, Weights, normal_difference, resample_weights

Array = NDArray[np.float64]
Distances = Callable[[Array, Array, Weights, Weights], Array]

BLOCK_ROWS = 1024


def polynomial_kernel(x: Array, y: Array) -> Array:
    """(x.y / D + 1)^3 of all pairs, [n, m] (Binkowski et al. 2018, section 4)."""
    base: Array = x @ y.T / x.shape[1] + 1
    return base * base * base


def squared_distances(x: Array, y: Array) -> Array:
    """[n, m]: the squared Euclidean distance of all pairs."""
    squared: Array = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * (x @ y.T)
    return np.maximum(squared, 0.0)


def mean_within(x: Array, weights: Array) -> Array:
    """[B]: the mean kernel over pairs of *different* images, each pair counted as often as both were drawn.

    A pair of an image with its own copy in a resample is left out: it would count as a pair of images that are alike, and push
    every resample up.
    """
    total = np.zeros(len(weights))
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        kernel = polynomial_kernel(x[rows], x)  # [b, n]
        diagonal = np.take_along_axis(kernel, np.arange(start, start + len(kernel))[:, None], axis=1)[:, 0]  # [b]
        total += ((weights[:, rows] @ kernel) * weights).sum(1) - (weights[:, rows] ** 2) @ diagonal
    pairs: Array = weights.sum(1) ** 2 - (weights**2).sum(1)
    return total / pairs


def mean_between(x: Array, y: Array, weights_x: Array, weights_y: Array) -> Array:
    """[B]: the mean kernel over pairs of one image of each set."""
    total = np.zeros(len(weights_x))
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        total += ((weights_x[:, rows] @ polynomial_kernel(x[rows], y)) * weights_y).sum(1)
    mean: Array = total / (weights_x.sum(1) * weights_y.sum(1))
    return mean


def kernel_distances(x: Array, y: Array, weights_x: Array, weights_y: Array) -> Array:
    """[B]: the unbiased squared maximum mean discrepancy of each resample (Gretton et al. 2012, equation 3)."""
    return mean_within(x, weights_x) + mean_within(y, weights_y) - 2 * mean_between(x, y, weights_x, weights_y)


def kernel_distance(x: Array, y: Array) -> float:
    """The same for the images as they are: a U-statistic over all of them, whose expectation is 0 for one distribution."""
    return float(kernel_distances(x, y, np.ones((1, len(x))), np.ones((1, len(y))))[0])


def frechet_distances(x: Array, y: Array, weights_x: Array, weights_y: Array) -> Array:
    """[B]: the Frechet distance of each resample (Heusel et al. 2017, equation 6)."""
    x, y = _in_few_dimensions(x, y)
    return np.array([_frechet(*_drawn(x, wx), *_drawn(y, wy)) for wx, wy in zip(weights_x, weights_y, strict=True)])


def frechet_distance(x: Array, y: Array) -> float:
    """|mean_x - mean_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)) of the two sets' means and covariances.

    It is biased upwards, the more so the fewer images there are: two samples of one distribution do not give 0.
    """
    return float(frechet_distances(x, y, np.ones((1, len(x))), np.ones((1, len(y))))[0])


def _in_few_dimensions(x: Array, y: Array) -> tuple[Array, Array]:
    """The same points, up to a rotation, in the space that they span: at most n + m dimensions instead of D."""
    if x.shape[1] <= len(x) + len(y):
        return x, y
    points = np.concatenate([x, y])
    points = points - points.mean(0)
    rotated = np.asarray(np.linalg.qr(points.T, mode="r")).T  # [n + m, n + m]
    return rotated[: len(x)], rotated[len(x) :]


def _drawn(x: Array, weights: Array) -> tuple[Array, Array]:
    """Mean [D] of the drawn images, and rows C with C^T C their unbiased covariance."""
    chosen = weights > 0
    x, weights = x[chosen], weights[chosen]
    count = weights.sum()
    mean = weights @ x / count
    return mean, np.sqrt(weights / (count - 1))[:, None] * (x - mean)


def _frechet(mean_x: Array, rows_x: Array, mean_y: Array, rows_y: Array) -> float:
    """tr (S_x S_y)^(1/2) is the nuclear norm of C_x C_y^T: exact, no square root of a nearly singular D x D matrix."""
    traces = (rows_x**2).sum() + (rows_y**2).sum()
    cross = np.linalg.svd(_thin(rows_x) @ _thin(rows_y).T, compute_uv=False).sum()
    return float(((mean_x - mean_y) ** 2).sum() + traces - 2 * cross)


def _thin(rows: Array) -> Array:
    """At most D rows with the same C^T C; the nuclear norm of the product stays what it is."""
    return np.asarray(np.linalg.qr(rows, mode="r")) if rows.shape[0] > rows.shape[1] else rows


def affordable(resamples: int, images: int) -> int:
    """Fewer resamples where each is dear (it costs the cube of the number of images), but at least 20."""
    return max(20, min(resamples, int(resamples * (600 / images) ** 3)))


def kid_difference(real: Array, first: Array, second: Array, *, resamples: int = 1000, seed: int = 0) -> Difference:
    """Of kernel distances, from [N, D] and twice [M, D]: below 0 the second set is nearer to the real images.

    These are resampled once for both, and both images of a source are drawn together.
    """
    return _difference(kernel_distances, real, first, second, resamples, seed)


def fid_difference(real: Array, first: Array, second: Array, *, resamples: int = 200, seed: int = 0) -> Difference:
    """Of Frechet distances; at one number of images their biases, which are much alike, cancel."""
    resamples = affordable(resamples, max(len(real), len(first)))
    return _difference(frechet_distances, real, first, second, resamples, seed)


def ratio_difference(
    real: Array, first: Array, second: Array, source: Array, *, sources_paired: bool, resamples: int = 1000, seed: int = 0
) -> Difference:
    """Of R = KID(fakes, reals) / KID(sources, reals), from [N, D], twice [M, D], and [S, D].

    `sources_paired` says that source i is what both fakes i were made of, so that all three are drawn together.
    """

    def over_sources(x: Array, y: Array, weights_x: Array, weights_y: Array) -> Array:
        below = kernel_distances(x, source, weights_x, weights_y if sources_paired else weights_source)
        return kernel_distances(x, y, weights_x, weights_y) / below

    weights_source = all_then_resampled(len(source), resamples, seed, "source")
    return _difference(over_sources, real, first, second, resamples, seed)


def _difference(distances: Distances, real: Array, first: Array, second: Array, resamples: int, seed: int) -> Difference:
    weights_real = all_then_resampled(len(real), resamples, seed, "real")
    weights_pair = all_then_resampled(len(first), resamples, seed, "fake")
    found = distances(real, second, weights_real, weights_pair) - distances(real, first, weights_real, weights_pair)
    return normal_difference(float(found[0]), found[1:], len(first))


def all_then_resampled(n: int, resamples: int, seed: int, stream: str) -> Weights:
    """[1 + B, n]: each image once, then the resamples."""
    return np.concatenate([np.ones((1, n)), resample_weights(n, resamples, seed, stream)])
