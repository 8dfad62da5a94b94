"""Which numbers there are, under which names, and how each is computed for one backend's features."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fruitgan.errors import UsageError
from fruitgan.evaluate.detectors import attackers_named
from fruitgan.evaluate.given_detector import is_path
from fruitgan.evaluate.settings import (
    ALL_METRICS,
    DEFAULT_METRICS,
    NETWORK_FAMILIES,
    NO_DETECTOR,
    EvaluateResult,
    EvaluateSettings,
    FloorResult,
    Gate,
    RatioResult,
)
from fruitgan.measures.contracts import Features, FeatureSet, Metric, PairMetric, SetMetric, TrainingMetric, features, metrics
from fruitgan.measures.metrics.fid_kid import translation_ratio
from fruitgan.networks.contracts import detectors
from fruitgan.registry import suggestion

RATIO = "r"
DETECTOR_NUMBERS = ("accuracy", "auc")
RESAMPLES = {
    "kid": (1000, 200),
    "kid-subsets": (1000, 200),
    "fid": (200, 50),
    "fid-infinity": (20, 10),
    "swd": (20, 10),
    **dict.fromkeys(("precision", "recall", "density", "coverage"), (200, 50)),
    **dict.fromkeys(("colour-lab", "spectrum", "spectrum-high", "upsampling-peaks"), (200, 50)),
    **dict.fromkeys(("structure", "gradient-ssim", "background", "nearest-training"), (1000, 200)),
}
"""Usually, and with `quick`. Metrics of other packages keep their own."""


def build_metrics(settings: EvaluateSettings) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics asked for, by name, and why those that cannot be measured here are left out.

    Raises:
        UsageError: one that there is not, or one that was named and lacks the images that it needs.
    """
    names = tuple(metrics.names()) if settings.metrics == (ALL_METRICS,) else settings.metrics
    is_named = settings.metrics not in ((ALL_METRICS,), DEFAULT_METRICS)
    found: dict[str, Metric] = {}
    left_out: dict[str, str] = {}
    for name in names:
        options = {}
        if name in RESAMPLES:
            options = {"resamples": RESAMPLES[name][settings.quick], "seed": settings.seed}
        metric = metrics.build(metrics.choose(name, options))
        if reason := _lacking(metric, settings):
            if is_named:
                raise UsageError(f"--metrics {name}: {reason}")
            left_out[name] = reason
        else:
            found[name] = metric
    return found, left_out


def _lacking(metric: Metric, settings: EvaluateSettings) -> str | None:
    if isinstance(metric, PairMetric) and settings.source_dir is None:
        return "needs the images that the generated ones were made of: --source-dir DIR"
    if isinstance(metric, TrainingMetric) and settings.training_dir is None:
        return "needs the real images that the generator was trained on: --training-dir DIR"
    return None


def number_keys(settings: EvaluateSettings, chosen: Mapping[str, Metric]) -> set[str]:
    """What the numbers of these metrics are called."""
    keys = set()
    for name, metric in chosen.items():
        every = isinstance(metric, SetMetric) and metric.every_features
        keys |= {settings.key(name, backend) for backend in (settings.features if every else settings.features[:1])}
    return keys


def check_names(settings: EvaluateSettings, chosen: Mapping[str, Metric]) -> None:
    """Raises: UsageError for features, a detector or a gate that there is not."""
    for name in settings.features:
        family, colon, network = name.partition(":")
        if family in NETWORK_FAMILIES and not network:
            raise UsageError(f"--features {name}: which network? Such as {family}:resnet50")
        if colon and family not in NETWORK_FAMILIES:
            raise UsageError(f"--features {name}: only {' and '.join(NETWORK_FAMILIES)} go on with a network's name")
        features.owner(family)
    attackers_named(settings.attackers, settings.quick)
    if settings.detector not in (None, NO_DETECTOR) and not is_path(settings.detector):
        try:
            detectors.owner(settings.detector)
        except UsageError as error:
            raise UsageError(f"{error} (or {NO_DETECTOR}, or a detector's file)") from error
    known = number_keys(settings, chosen) | set(chosen)
    known |= {ratio_key(settings, name) for name in settings.features} | set(DETECTOR_NUMBERS)
    for option, bounds in (("--fail-above", settings.fail_above), ("--fail-below", settings.fail_below)):
        for name in bounds:
            if name not in known:
                raise UsageError(f"{option}: no number named {name!r}: {suggestion(name, sorted(known))}")


def build_features(settings: EvaluateSettings, name: str) -> Features:
    """One backend; what it raises without its weights or its package is its own to say."""
    family, colon, network = name.partition(":")
    options: dict[str, Any] = {"network": network} if colon else {}
    if name in settings.weights:
        options["weights"] = str(settings.weights[name])
    backend: Features = features.build(features.choose(family, options))
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
