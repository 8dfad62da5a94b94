"""The measures that need no weights, against loops in float64, other libraries and pictures whose answer is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance

from fruitgan.measures.contracts import Features
from fruitgan.measures.features.weightless import lab_of_srgb
from fruitgan.measures.metrics import spectrum, structure, wasserstein

RANDOM = np.random.default_rng(0)


def described(features: Features, images: np.ndarray) -> np.ndarray:
    """[N, H, W, 3] in [0, 1] to [N, D]."""
    with torch.inference_mode():
        return features(torch.from_numpy(images).permute(0, 3, 1, 2)).double().numpy()


def test_power_is_that_of_the_sum_over_all_pixels() -> None:
    size = 8
    image = RANDOM.uniform(size=(1, size, size, 3))
    luma = image[0] @ np.array([0.299, 0.587, 0.114])
    window = [0.5 - 0.5 * math.cos(2 * math.pi * i / size) for i in range(size)]
    total = sum((a * b) ** 2 for a in window for b in window)
    found = spectrum.power(torch.from_numpy(image).permute(0, 3, 1, 2))[0].numpy()
    for u, v in itertools.product(range(size), repeat=2):
        amplitude = sum(
            (luma[y, x] - luma.mean()) * window[y] * window[x] * np.exp(-2j * math.pi * (u * y + v * x) / size)
            for y in range(size)
            for x in range(size)
        )
        assert found[u, v] == pytest.approx(abs(amplitude) ** 2 / total)


def test_the_radial_mean_is_that_over_the_places_of_a_ring() -> None:
    size = 128
    plane = RANDOM.normal(size=(size, size))
    found = spectrum.radial_means(torch.from_numpy(plane)[None])[0].numpy()
    for k in (1, 5, 40, 64):
        ring = [
            plane[y, x] for y in range(size) for x in range(size) if round(math.hypot(min(y, size - y), min(x, size - x))) == k
        ]
        assert found[k - 1] == pytest.approx(np.mean(ring))


def test_white_noise_has_a_flat_spectrum_at_its_own_power_whatever_its_size() -> None:
    for size in (64, 128):
        noise = 0.5 + RANDOM.normal(0, 0.1, size=(80, size, size, 1)).repeat(3, axis=3)
        mean = described(spectrum.PowerSpectrum(), noise).mean(0)
        # The mean of the logarithm of an exponential variable is minus Euler's constant.
        expected = 10 * math.log10(0.01) - 10 / math.log(10) * 0.5772
        assert np.abs(mean[8:64] - expected).max() < 0.6  # the innermost rings hold few places
        half = described(spectrum.PowerSpectrum(), (noise - 0.5) / 2 + 0.5)  # a quarter of the power
        metric = spectrum.SpectrumMetric(resamples=20)
        assert metric.compute(described(spectrum.PowerSpectrum(), noise), half) == pytest.approx(6.02, abs=0.01)
        # The logarithm of a mean of some three independent powers lies about 1 dB too low.
        assert (mean[64:] > -1.6).all()
        assert (mean[64:] < 0.5).all()


@pytest.mark.parametrize(("period", "place"), [(2, 0), (4, 1)])
def test_an_upsampler_that_leaves_a_checkerboard_shows_its_peak_and_a_smooth_one_does_not(period: int, place: int) -> None:
    noise = np.random.default_rng(period).normal(size=(12, 64, 64, 1))  # the same whichever tests ran before
    smooth = gaussian_filter(noise, (0, 1, 1, 0)).repeat(3, axis=3) * 0.3 + 0.5
    board = smooth.copy()
    board[:, ::period, ::period] += 0.03
    found = [described(spectrum.PowerSpectrum(), images) for images in (smooth, board)]
    excess = found[1][:, 64 + place].mean() - found[0][:, 64 + place].mean()
    assert excess > 10
    metric = spectrum.UpsamplingPeaks(resamples=20)
    assert metric.compute(found[0], found[1]) == pytest.approx(max(excess, metric.compute(found[0], found[1])))
    assert abs(metric.compute(found[0][:6], found[0][6:])) < 3


def test_the_colour_distance_is_scipys_along_each_direction() -> None:
    images = [RANDOM.uniform(0, 0.8, size=(3, 64, 64, 3)), RANDOM.uniform(0.1, 1, size=(4, 64, 64, 3)) ** 2]
    real, fake = (described(wasserstein.LabDistribution(), side) for side in images)
    pixels = [lab_of_srgb(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).reshape(-1, 3).numpy() for x in images]
    found = wasserstein._distances(real, fake)
    for value, direction in zip(found, wasserstein.directions(), strict=True):
        assert np.linalg.norm(direction) == pytest.approx(1)
        assert value == pytest.approx(wasserstein_distance(pixels[0] @ direction, pixels[1] @ direction), abs=0.1)
    metric = wasserstein.LabDistance(resamples=20)
    assert metric.compute(real, fake) == pytest.approx(found[3:].mean())
    assert metric.compute(real, real) == 0


def test_no_colour_lies_beyond_the_ends_of_the_colour_distance() -> None:
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3))).T.reshape(1, 3, 1, 8)
    lab = lab_of_srgb(corners)[0, :, 0] - torch.tensor([50.0, 0, 0])[:, None]
    assert float(lab.norm(dim=0).max()) < wasserstein.HIGH


def test_self_similarity_is_that_of_a_double_loop_and_blind_to_a_change_of_all_places_alike() -> None:
    x, y = (torch.from_numpy(RANDOM.normal(size=(6, 3, 4))) for _ in range(2))

    def cosine(maps: torch.Tensor, i: int, j: int) -> float:
        a, b = maps.flatten(1)[:, i], maps.flatten(1)[:, j]
        return float(a @ b / (a.norm() * b.norm()))

    naive = np.mean([(cosine(x, i, j) - cosine(y, i, j)) ** 2 for i in range(12) for j in range(12)])
    assert structure.structure_distance(x, y) == pytest.approx(naive)
    assert structure.structure_distance(x, 2.5 * x) == pytest.approx(0, abs=1e-12)


def test_the_way_from_the_border_is_the_cheapest_of_all() -> None:
    lab = RANDOM.uniform(0, 20, size=(7, 9, 3))
    found = structure.border_distances(lab)
    best = np.full((7, 9), math.inf)
    best[[0, -1]] = 0
    best[:, [0, -1]] = 0
    for _ in range(63):  # Bellman and Ford
        for y, x in itertools.product(range(7), range(9)):
            for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= v < 7 and 0 <= u < 9:
                    cost = max(0, float(np.linalg.norm(lab[y, x] - lab[v, u])) - structure.LIGHTEST_STEP)
                    best[y, x] = min(best[y, x], best[v, u] + cost)
    assert np.allclose(found, best, atol=1e-6)


def test_the_threshold_is_that_of_the_greatest_variance_between_classes() -> None:
    values = np.concatenate([RANDOM.normal(1, 0.2, 300), RANDOM.normal(4, 0.5, 100)])
    counts, edges = np.histogram(values, 128)
    centres = (edges[:-1] + edges[1:]) / 2

    def between(t: int) -> float:
        low, high = counts[: t + 1].sum(), counts[t + 1 :].sum()
        if not low or not high:
            return 0.0
        means = [np.average(centres[part], weights=counts[part]) for part in (slice(0, t + 1), slice(t + 1, None))]
        return low * high * (means[0] - means[1]) ** 2

    best = max(between(t) for t in range(127))
    chosen = int(np.flatnonzero(np.isclose(edges[1:], structure.otsu(values)))[0])
    assert between(chosen) == pytest.approx(best)
    assert structure.otsu(np.full(10, 2.0)) >= 2.0


def test_a_background_left_alone_scores_nothing_however_the_fruit_changes() -> None:
    y, x = np.mgrid[:128, :128]
    disc = np.hypot(y - 64, x - 64) < 30
    source = np.where(disc[:, :, None], [200, 40, 30], [90, 110, 120]).astype(np.uint8)
    recoloured = np.where(disc[:, :, None], [240, 150, 20], source).astype(np.uint8)
    tinted = np.where(disc[:, :, None], source, [120, 110, 90]).astype(np.uint8)
    metric = structure.Background()
    assert metric.of_pair(source, recoloured) < 0.5
    assert metric.of_pair(source, tinted) > 10
