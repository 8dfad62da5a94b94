"""What every registered feature backend and metric must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fruitgan.errors import DataError
from fruitgan.evaluation.contracts import Features, FeatureSet, MetricResult, SetMetric, features, metrics

NEED_WEIGHTS = {"inception"}
OFFLINE = [name for name in features.names() if name not in NEED_WEIGHTS]


@pytest.fixture(params=OFFLINE)
def backend(request: pytest.FixtureRequest) -> Features:
    return features.build(features.choose(request.param)).eval()


@pytest.fixture(params=metrics.names())
def metric(request: pytest.FixtureRequest) -> SetMetric:
    return metrics.build(metrics.choose(request.param))


def pictures(n: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(256, size=(70 + 3 * i, 90, 3), dtype=np.uint8) for i in range(n)]


def batch(backend: Features, n: int) -> torch.Tensor:
    prepared = np.stack([backend.prepare(picture) for picture in pictures(n)])
    return torch.from_numpy(prepared).permute(0, 3, 1, 2).float() / 255


def test_features_are_named_and_say_how_they_resize(backend: Features) -> None:
    assert backend.name in features.names()
    assert backend.resize


def test_features_are_finite_rows_of_the_promised_width(backend: Features) -> None:
    with torch.no_grad():
        values = backend(batch(backend, 3))
    assert values.shape == (3, backend.dimensions)
    assert torch.isfinite(values).all()


def test_features_of_an_image_do_not_depend_on_its_neighbours(backend: Features) -> None:
    images = batch(backend, 4)
    with torch.no_grad():
        assert torch.allclose(backend(images)[2:3], backend(images[2:3]), atol=1e-3, rtol=1e-3)


def test_features_leave_their_input_alone_and_are_the_same_each_time(backend: Features) -> None:
    images = batch(backend, 2)
    before = images.clone()
    with torch.no_grad():
        first, second = backend(images), features.build(features.choose(backend.name)).eval()(images)
    assert torch.equal(images, before)
    assert torch.equal(first, second)


def sets(n: int, m: int, shift: float) -> tuple[FeatureSet, FeatureSet]:
    random = np.random.default_rng(0)
    return (
        FeatureSet(random.normal(size=(n, 6)), "test", "none"),
        FeatureSet(random.normal(size=(m, 6)) + shift, "test", "none"),
    )


def test_a_metric_gives_its_number_with_its_protocol(metric: SetMetric) -> None:
    found = metric(*sets(30, 25, 0.5))
    assert isinstance(found, MetricResult)
    assert math.isfinite(found.value)
    assert found.interval.low <= found.value <= found.interval.high
    assert (found.n_real, found.n_fake, found.features, found.resize) == (30, 25, "test", "none")
    assert found.seconds >= 0


def test_a_metric_is_the_same_each_time_and_larger_for_what_is_farther(metric: SetMetric) -> None:
    near, far = metric(*sets(30, 25, 0.2)), metric(*sets(30, 25, 1.0))
    assert far.value > near.value
    again = metric(*sets(30, 25, 0.2))
    assert (again.value, again.interval) == (near.value, near.interval)


def test_a_metric_has_a_floor_of_real_images(metric: SetMetric) -> None:
    real, _ = sets(40, 8, 0)
    value, interval = metric.floor(real.values)
    assert interval.low <= value <= interval.high


def test_a_metric_says_how_many_images_it_needs(metric: SetMetric) -> None:
    with pytest.raises(DataError, match=f"{metric.name} needs at least {metric.minimum_images} generated images, found 3"):
        metric(*sets(metric.minimum_images, 3, 0))


def test_a_metric_refuses_what_is_not_finite_or_of_another_kind(metric: SetMetric) -> None:
    real, fake = sets(30, 30, 0)
    broken = FeatureSet(np.where(np.arange(6) == 0, np.nan, fake.values), "test", "none")
    with pytest.raises(DataError, match="not all finite"):
        metric(real, broken)
    with pytest.raises(ValueError, match="two kinds"):
        metric(real, FeatureSet(fake.values, "other", "none"))
