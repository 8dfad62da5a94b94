"""Feature backends and the metrics with features of their own: against loops, other libraries and what their weights were."""

from __future__ import annotations

import hashlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import wasserstein_distance

from fruitgan.errors import DataError
from fruitgan.files import file_sha256
from fruitgan.images import resize
from fruitgan.measures.contracts import Features
from fruitgan.measures.features import fruit_embed as embed
from fruitgan.measures.features.weightless import (
    CHANNELS,
    CHROMA_BINS,
    LIGHTNESS_BINS,
    NETWORKS,
    Colour,
    NeighbourRelations,
    RandomNetworks,
    lab_of_srgb,
    neighbour_relations,
    random_filters,
)
from fruitgan.measures.metrics import own_features, structure


def test_lab_is_that_of_kornia() -> None:
    from kornia.color import rgb_to_lab

    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images[0, :, 0, :4] = torch.tensor([[0.0, 1.0, 0.04045, 0.01]] * 3, dtype=torch.float64)
    assert torch.allclose(lab_of_srgb(images), rgb_to_lab(images), atol=2e-2)


def test_a_plain_picture_lies_in_one_bin_of_each_histogram() -> None:
    values = Colour()(torch.full((1, 3, 8, 8), 0.5))[0]
    lightness, chroma = values[:LIGHTNESS_BINS], values[LIGHTNESS_BINS : LIGHTNESS_BINS + CHROMA_BINS]
    assert torch.isclose(lightness.max(), torch.tensor(LIGHTNESS_BINS**0.5))
    assert int((lightness > 0).sum()) == int((chroma > 0).sum()) == 1
    assert torch.isfinite(values).all()


def test_the_random_weights_are_what_they_always_were() -> None:
    """If this fails, every number on these features is of another kind: give the features another name instead."""
    filters = [random_filters(network, layer) for network in range(NETWORKS) for layer in range(len(CHANNELS))]
    digest = hashlib.sha256(b"".join(x.astype("<f4").tobytes() for x in filters)).hexdigest()
    assert digest == "c774a57d6ba1562ca5cfd4df02e653dd76f30d9c3e0cc5ea05fda94dacfb0f3c"


def test_the_ensemble_is_its_networks_one_by_one() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = RandomNetworks()(images)
    x = images * 2 - 1
    filters = torch.from_numpy(3.0 * random_filters(NETWORKS - 1, 0)).float()
    maps = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), filters, stride=2).relu()
    first = (NETWORKS - 1) * CHANNELS[0]
    assert torch.allclose(found[:, first : first + CHANNELS[0]], maps.mean((2, 3)).sqrt(), atol=1e-4)
    spread_at = NETWORKS * CHANNELS[0] + first
    assert torch.allclose(found[:, spread_at : spread_at + CHANNELS[0]], maps.std((2, 3), correction=0).sqrt(), atol=1e-3)


def test_neighbour_relations_are_the_differences_from_the_first_pixel_of_each_block() -> None:
    images = torch.rand(1, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = neighbour_relations(images)
    for c, y, x in itertools.product(range(3), range(6), range(8)):
        assert found[0, c, y, x] == images[0, c, y, x] - images[0, c, y // 2 * 2, x // 2 * 2]


def test_npr_sees_an_upsampling_and_keeps_the_blocks_of_pictures_of_any_size() -> None:
    small = np.random.default_rng(0).integers(0, 256, size=(100, 100, 3), dtype=np.uint8)
    doubled = small.repeat(2, axis=0).repeat(2, axis=1)
    backend = NeighbourRelations()
    rows = []
    for picture in (small, doubled, doubled.repeat(2, axis=0)):  # repeated to fill the square, and cut from the middle
        prepared = backend.prepare(picture)
        assert prepared.shape == (256, 256, 3)
        rows.append(backend(torch.from_numpy(prepared).permute(2, 0, 1)[None].float() / 255)[0])
    assert float(rows[0][:9].min()) > 3  # the logarithm of differences of some 80 levels
    assert float(rows[1][:18].abs().max()) == float(rows[2][:18].abs().max()) == 0  # nearest neighbours leave no difference


def test_pictures_are_shrunk_with_antialiasing() -> None:
    stripes = np.zeros((1024, 1024, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    for features in (RandomNetworks(), Colour()):
        small = features.prepare(stripes)
        assert np.ptp(small[8:-8, 8:-8].astype(int)) <= 2
        assert (small == resize(stripes, *small.shape[:2], Image.Resampling.LANCZOS)).all()


def test_the_shipped_file_is_small_and_any_other_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert embed.FILE.stat().st_size <= 1_000_000
    assert file_sha256(embed.FILE) == embed.SHA256
    other = tmp_path / "fruit_embed.safetensors"
    changed = bytearray(embed.FILE.read_bytes())
    changed[-1] ^= 1
    other.write_bytes(bytes(changed))
    monkeypatch.setattr(embed, "FILE", other)
    with pytest.raises(DataError, match="install fruitgan anew"):
        embed.FruitEmbed()


def striped(period_px: int, colours: tuple[tuple[int, int, int], tuple[int, int, int]]) -> np.ndarray:
    stripes = (np.arange(128) // period_px % 2)[:, None, None]
    return np.where(stripes, colours[0], colours[1]).astype(np.uint8).repeat(128, axis=1)


def test_a_change_of_hue_moves_the_features_less_than_a_change_of_texture() -> None:
    features = embed.FruitEmbed().eval()
    red = (200, 60, 40), (120, 30, 30)
    turned = tuple((b, r, g) for r, g, b in red)
    pictures = [striped(8, red), striped(8, turned), striped(3, red)]
    batch = torch.from_numpy(np.stack([features.prepare(x) for x in pictures])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        plain, hue, texture = features(batch)
    assert (hue - plain).norm() < 0.6 * (texture - plain).norm()


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
    found = own_features.power(torch.from_numpy(image).permute(0, 3, 1, 2))[0].numpy()
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
    found = own_features.radial_means(torch.from_numpy(plane)[None])[0].numpy()
    for k in (1, 5, 40, 64):
        ring = [
            plane[y, x] for y in range(size) for x in range(size) if round(math.hypot(min(y, size - y), min(x, size - x))) == k
        ]
        assert found[k - 1] == pytest.approx(np.mean(ring))


def test_white_noise_has_a_flat_spectrum_at_its_own_power_whatever_its_size() -> None:
    for size in (64, 128):
        noise = 0.5 + RANDOM.normal(0, 0.1, size=(80, size, size, 1)).repeat(3, axis=3)
        mean = described(own_features.PowerSpectrum(), noise).mean(0)
        # The mean of the logarithm of an exponential variable is minus Euler's constant.
        expected = 10 * math.log10(0.01) - 10 / math.log(10) * 0.5772
        assert np.abs(mean[8:64] - expected).max() < 0.6  # the innermost rings hold few places
        half = described(own_features.PowerSpectrum(), (noise - 0.5) / 2 + 0.5)  # a quarter of the power
        metric = own_features.SpectrumMetric(resamples=20)
        assert metric.compute(described(own_features.PowerSpectrum(), noise), half) == pytest.approx(6.02, abs=0.01)
        # The logarithm of a mean of some three independent powers lies about 1 dB too low.
        assert (mean[64:] > -1.6).all()
        assert (mean[64:] < 0.5).all()


@pytest.mark.parametrize(("period", "place"), [(2, 0), (4, 1)])
def test_an_upsampler_that_leaves_a_checkerboard_shows_its_peak_and_a_smooth_one_does_not(period: int, place: int) -> None:
    noise = np.random.default_rng(period).normal(size=(12, 64, 64, 1))  # the same whichever tests ran before
    smooth = gaussian_filter(noise, (0, 1, 1, 0)).repeat(3, axis=3) * 0.3 + 0.5
    board = smooth.copy()
    board[:, ::period, ::period] += 0.03
    found = [described(own_features.PowerSpectrum(), images) for images in (smooth, board)]
    excess = found[1][:, 64 + place].mean() - found[0][:, 64 + place].mean()
    assert excess > 10
    metric = own_features.UpsamplingPeaks(resamples=20)
    assert metric.compute(found[0], found[1]) == pytest.approx(max(excess, metric.compute(found[0], found[1])))
    assert abs(metric.compute(found[0][:6], found[0][6:])) < 3


def test_the_colour_distance_is_scipys_along_each_direction() -> None:
    images = [RANDOM.uniform(0, 0.8, size=(3, 64, 64, 3)), RANDOM.uniform(0.1, 1, size=(4, 64, 64, 3)) ** 2]
    real, fake = (described(own_features.LabDistribution(), side) for side in images)
    pixels = [lab_of_srgb(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).reshape(-1, 3).numpy() for x in images]
    found = own_features.lab_distances(real, fake)
    for value, direction in zip(found, own_features.directions(), strict=True):
        assert np.linalg.norm(direction) == pytest.approx(1)
        assert value == pytest.approx(wasserstein_distance(pixels[0] @ direction, pixels[1] @ direction), abs=0.1)
    metric = own_features.LabDistance(resamples=20)
    assert metric.compute(real, fake) == pytest.approx(found[3:].mean())
    assert metric.compute(real, real) == 0


def test_no_colour_lies_beyond_the_ends_of_the_colour_distance() -> None:
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3))).T.reshape(1, 3, 1, 8)
    lab = lab_of_srgb(corners)[0, :, 0] - torch.tensor([50.0, 0, 0])[:, None]
    assert float(lab.norm(dim=0).max()) < own_features.LAB_HIGH


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
