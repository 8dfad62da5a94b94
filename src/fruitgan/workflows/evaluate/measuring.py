"""Which numbers there are, under which names, and how each is computed for one backend's features."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fruitgan.errors import UsageError
from fruitgan.evaluation.contracts import Features, FeatureSet, SetMetric, features, metrics
from fruitgan.evaluation.metrics import translation_ratio
from fruitgan.models.catalog import detectors
from fruitgan.registry import suggestion
from fruitgan.workflows.evaluate.judging import is_path
from fruitgan.workflows.evaluate.settings import (
    INCEPTION,
    NO_DETECTOR,
    EvaluateResult,
    EvaluateSettings,
    FloorResult,
    Gate,
    RatioResult,
)

RATIO = "r"
DETECTOR_NUMBERS = ("accuracy", "auc")
RESAMPLES = {"kid": (1000, 200), "fid": (200, 50)}
"""Of the bootstrap: usually, and with `quick`. Metrics of other packages keep their own."""


def build_metrics(settings: EvaluateSettings) -> dict[str, SetMetric]:
    """The metrics asked for, by name; Raises: UsageError for one that there is not."""
    found: dict[str, SetMetric] = {}
    for name in settings.metrics:
        options = {}
        if name in RESAMPLES:
            options = {"resamples": RESAMPLES[name][settings.quick], "seed": settings.seed}
        found[name] = metrics.build(metrics.choose(name, options))
    return found


def check_names(settings: EvaluateSettings) -> None:
    """Raises: UsageError for features, a detector or a gate that there is not."""
    for name in settings.features:
        features.owner(name)
    if settings.detector != NO_DETECTOR and not is_path(settings.detector):
        try:
            detectors.owner(settings.detector)
        except UsageError as error:
            raise UsageError(f"{error} (or {NO_DETECTOR}, or a detector's file)") from error
    known = {settings.key(metric, name) for metric in settings.metrics for name in settings.features} | set(settings.metrics)
    known |= {ratio_key(settings, name) for name in settings.features} | set(DETECTOR_NUMBERS)
    for option, bounds in (("--fail-above", settings.fail_above), ("--fail-below", settings.fail_below)):
        for name in bounds:
            if name not in known:
                raise UsageError(f"{option}: no number named {name!r}: {suggestion(name, sorted(known))}")


def build_features(settings: EvaluateSettings, name: str) -> Features:
    """One backend; what it raises without its weights or its package is its own to say."""
    options: dict[str, Any] = {}
    if name == INCEPTION and settings.weights is not None:
        options["weights"] = str(settings.weights)
    backend: Features = features.build(features.choose(name, options))
    return backend


def measure_ratio(
    settings: EvaluateSettings, real: FeatureSet, fake: FeatureSet, source: FeatureSet, paired: bool
) -> RatioResult | None:
    """R, or None where the sources cannot be told from the real images."""
    began = time.monotonic()
    ratio = translation_ratio(
        real.values,
        fake.values,
        source.values,
        paired=paired,
        resamples=RESAMPLES["kid"][settings.quick],
        seed=settings.seed,
    )
    if ratio.sources_interval.low <= 0:
        return None
    return RatioResult(
        value=ratio.value,
        interval=ratio.interval,
        n_real=len(real),
        n_fake=len(fake),
        features=real.features,
        resize=real.resize,
        seconds=round(time.monotonic() - began, 3),
        n_source=len(source),
        source_value=ratio.sources_distance,
        source_interval=ratio.sources_interval,
        paired=paired,
    )


def measure_floor(metric: SetMetric, real: FeatureSet, fake: FeatureSet) -> FloorResult:
    """The metric between halves of the real images."""
    began = time.monotonic()
    value, interval = metric.floor(real.values)
    half = len(real) // 2
    return FloorResult(
        value=value,
        interval=interval,
        n_real=half,
        n_fake=half,
        features=real.features,
        resize=real.resize,
        seconds=round(time.monotonic() - began, 3),
        value_at_size=metric.at_floor_size(real.values, fake.values),
    )


def ratio_key(settings: EvaluateSettings, name: str) -> str:
    """`r` on the first features, `r_colour` and so on for others."""
    return RATIO if name == settings.features[0] else f"{RATIO}_{name}"


def why_no_ratio(settings: EvaluateSettings, ratios: Mapping[str, RatioResult | None]) -> str | None:
    """The reason where an R is missing."""
    if settings.source_dir is None:
        return "R needs the images that the generated ones were made of: --source-dir DIR"
    if missing := [key for key, ratio in ratios.items() if ratio is None]:
        return (
            f"{', '.join(missing)}: on these features the sources cannot be told from the real images (the interval of their "
            "distance reaches 0), so there is nothing to divide by; more images may help"
        )
    return None


def with_gates(result: EvaluateResult, settings: EvaluateSettings) -> EvaluateResult:
    """The result with every gate looked at; a number that was withheld passes none."""
    gates = []
    for above, bounds in ((True, settings.fail_above), (False, settings.fail_below)):
        for name, bound in bounds.items():
            value = result.value(settings.alias(name))
            passed = value is not None and math.isfinite(value) and (value <= bound if above else value >= bound)
            gates.append(Gate(name=name, above=above, bound=bound, value=value, passed=passed))
    return replace(result, gates=tuple(gates))
