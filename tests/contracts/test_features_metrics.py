"""What every registered feature backend and metric must do."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch

from fruitgan.errors import DataError
from fruitgan.measures.contracts import Features, FeatureSet, PairMetric, SetMetric, TrainingMetric, features, metrics

NEED_WEIGHTS = {"inception", "torchvision", "timm", "clip", "dinov2"}
OFFLINE = [name for name in features.names() if name not in NEED_WEIGHTS]


@pytest.fixture(params=OFFLINE)
def backend(request: pytest.FixtureRequest) -> Features:
    return features.build(features.choose(request.param)).eval()


BUILT = {name: metrics.build(metrics.choose(name)) for name in metrics.names()}
OF_SETS = [name for name, metric in BUILT.items() if isinstance(metric, SetMetric)]
OF_PAIRS = [name for name, metric in BUILT.items() if isinstance(metric, PairMetric)]
OF_TRAINING = [name for name, metric in BUILT.items() if isinstance(metric, TrainingMetric)]


@pytest.fixture(params=OF_SETS, scope="module")
def metric(request: pytest.FixtureRequest) -> SetMetric:
    return metrics.build(metrics.choose(request.param, {"resamples": 20}))


def pictures(n: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(256, size=(70 + 3 * i, 90, 3), dtype=np.uint8) for i in range(n)]


def batch(backend: Features, n: int) -> torch.Tensor:
    prepared = np.stack([backend.prepare(picture) for picture in pictures(n)])
    return torch.from_numpy(prepared).permute(0, 3, 1, 2).float() / 255


def test_features_are_finite_rows_that_depend_on_one_image_alone_and_are_the_same_each_time(backend: Features) -> None:
    assert backend.name in features.names()
    assert backend.resize
    images = batch(backend, 4)
    before = images.clone()
    with torch.no_grad():
        values, alone = backend(images), backend(images[2:3])
        again = features.build(features.choose(backend.name)).eval()(images)
    assert values.shape == (4, backend.dimensions)
    assert torch.isfinite(values).all()
    assert torch.allclose(values[2:3], alone, atol=1e-3, rtol=1e-3)
    assert torch.equal(values, again)
    assert torch.equal(images, before)


@functools.cache
def sets(metric: SetMetric, n: int, m: int, shift: float) -> tuple[FeatureSet, FeatureSet]:
    """Two sets whose distance grows with the shift: of vectors, or of the metric's own description of brighter noise."""
    random = np.random.default_rng(0)
    own = metric.own_features() if metric.own_features else None
    if own is None:
        x, y = random.normal(size=(n, 6)), random.normal(size=(m, 6)) + shift
        return FeatureSet(x, "test", "none"), FeatureSet(y, "test", "none")
    described = []
    for count, change in ((n, 0.0), (m, shift)):
        rows = []
        for _ in range(count):
            noise = random.uniform(20, 150, size=(64, 64, 3))
            noise[::2, ::2] += 60 * change  # brighter, and with the grid that an upsampling leaves
            rows.append(own.prepare(noise.clip(0, 255).astype(np.uint8)))
        with torch.inference_mode():
            values = own(torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 255)
        described.append(FeatureSet(values.double().numpy(), own.name, own.resize))
    return described[0], described[1]


def test_every_metric_is_of_one_of_the_three_kinds_and_says_how_many_images_it_needs() -> None:
    assert sorted(OF_SETS + OF_PAIRS + OF_TRAINING) == metrics.names()
    for name, metric in BUILT.items():
        assert metric.name == name
        assert metric.minimum_images >= 2


def test_a_metric_gives_its_number_with_its_protocol_the_same_each_time_and_worse_for_what_is_farther(
    metric: SetMetric,
) -> None:
    real, fake = sets(metric, 20, 16, 0.2)
    near, again, far = metric(real, fake), metric(real, fake), metric(*sets(metric, 20, 16, 3.0))
    assert math.isfinite(near.value)
    assert near.interval.low <= near.value <= near.interval.high
    assert (near.n_real, near.n_fake, near.features, near.resize) == (20, 16, real.features, real.resize)
    assert dataclasses.replace(again, seconds=near.seconds) == near
    assert (far.value > near.value) if metric.lower_is_better else (far.value < near.value)


def test_a_metric_has_a_floor_of_real_images(metric: SetMetric) -> None:
    found = metric.floor(*sets(metric, 20, 8, 0))
    assert found.interval.low <= found.value <= found.interval.high


def test_a_metric_says_how_many_images_it_needs(metric: SetMetric) -> None:
    with pytest.raises(DataError, match=f"{metric.name} needs at least {metric.minimum_images} generated images, found 3"):
        metric(*sets(metric, metric.minimum_images, 3, 0))


def test_a_metric_refuses_what_is_not_finite_or_of_another_kind(metric: SetMetric) -> None:
    real, fake = sets(metric, 9, 9, 0)
    broken = FeatureSet(np.where(np.arange(fake.values.shape[1]) == 0, np.nan, fake.values), fake.features, fake.resize)
    with pytest.raises(DataError, match="not all finite"):
        metric(real, broken)
    with pytest.raises(ValueError, match="two kinds"):
        metric(real, FeatureSet(fake.values, "other", "none"))


@pytest.fixture(params=OF_PAIRS)
def pair_metric(request: pytest.FixtureRequest) -> PairMetric:
    return metrics.build(metrics.choose(request.param))


def framed(seed: int) -> np.ndarray:
    """A bright disc on a dark, slightly noisy ground."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    disc = (np.hypot(y - random.uniform(40, 56), x - 48) < random.uniform(18, 28))[:, :, None]
    return np.clip(np.where(disc, [200, 60, 40], [60, 70, 80]) + random.normal(0, 3, (96, 96, 3)), 0, 255).astype(np.uint8)


def test_a_generator_that_changes_nothing_scores_no_change(pair_metric: PairMetric) -> None:
    picture = framed(0)
    assert abs(pair_metric.of_pair(picture, picture.copy())) < 1e-9


def test_a_picture_turned_upside_down_and_recoloured_scores_a_change(pair_metric: PairMetric) -> None:
    picture = framed(0)
    picture[:30] = picture[:30] // 2
    assert pair_metric.of_pair(picture, 255 - picture[::-1]) > 0.01


def test_pairs_give_their_mean_with_an_interval_and_too_few_are_refused(pair_metric: PairMetric) -> None:
    values = [0.1 * i for i in range(10)]
    found = pair_metric.result([*values, math.nan], seconds=1.0)
    assert math.isclose(found.value, 0.45)
    assert found.interval.low < 0.45 < found.interval.high
    assert found.details["pairs_without"] == 1
    with pytest.raises(DataError, match="needs at least"):
        pair_metric.result([math.nan] * 20, seconds=1.0)


@pytest.mark.parametrize("name", OF_TRAINING)
def test_copies_of_training_images_are_nearer_than_unseen_ones(name: str) -> None:
    metric = metrics.build(metrics.choose(name))
    random = np.random.default_rng(0)
    training, real, fresh = (FeatureSet(random.normal(size=(60, 8)), "test", "none") for _ in range(3))
    copied = FeatureSet(training.values[:30] + 0.01 * random.normal(size=(30, 8)), "test", "none")
    unseen, stolen = metric(real, fresh, training), metric(real, copied, training)
    assert unseen.interval.low < 1 < unseen.interval.high
    assert stolen.interval.high < 0.1
    with pytest.raises(DataError, match="not trained on"):
        metric(FeatureSet(training.values, "test", "none"), fresh, training)
