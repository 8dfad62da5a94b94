"""Numbers of an evaluation: features once for each backend, then metric by metric, each with its interval and its floor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fruitgan.cluster import Cluster
from fruitgan.data.parallel import in_order
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.results import FloorResult, Numbers, RatioResult
from fruitgan.evaluate.settings import (
    ALL,
    DEFAULT_METRICS,
    INCEPTION_KEYS,
    NETWORK_FAMILIES,
    RATIO,
    SHAPELESS,
    EvaluateSettings,
    Tell,
)
from fruitgan.evaluate.sources import Sources, images_of
from fruitgan.images import resize
from fruitgan.measures.contracts import (
    Features,
    FeatureSet,
    Metric,
    PairMetric,
    SetMetric,
    TrainingMetric,
    features,
    metrics,
)
from fruitgan.measures.distances import Claim, claim_of
from fruitgan.measures.features import Pictures, extract
from fruitgan.measures.metrics.fid_kid import translation_ratio
from fruitgan.progress import Progress

RESAMPLES = {
    **dict.fromkeys(("kid", "kid-subsets", "structure", "background", "nearest-training"), (1000, 200)),
    **dict.fromkeys(("fid", "precision", "recall", "density", "coverage"), (200, 50)),
    **dict.fromkeys(("colour-lab", "spectrum", "upsampling-peaks"), (200, 50)),
}
"""Usually, and with `quick`. Metrics of other packages keep their own."""
DIFFERENT = "the generated images differ from the real ones"
NEARER = "the generated images are nearer to the real ones than their sources are, by a tenth of the way or more"
NEARER_RATIO = 0.9
"""The R that is a tenth of the way: apples of another hue alone get nearly as far on features that should not see it."""


def build_metrics(settings: EvaluateSettings) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics asked for, by name, and why those that cannot be measured here are left out.

    Raises:
        UsageError: one that there is not, or one that was named and lacks the images that it needs.
    """
    names = tuple(metrics.names()) if settings.metrics == (ALL,) else settings.metrics
    is_named = settings.metrics not in ((ALL,), DEFAULT_METRICS)
    found: dict[str, Metric] = {}
    left_out: dict[str, str] = {}
    for name in names:
        options = {"resamples": RESAMPLES[name][settings.quick], "seed": settings.seed} if name in RESAMPLES else {}
        metric = metrics.build(metrics.choose(name, options))
        reason = None
        if isinstance(metric, PairMetric) and settings.source_dir is None:
            reason = "needs the images that the generated ones were made of: --source-dir DIR"
        elif isinstance(metric, TrainingMetric) and settings.training_dir is None:
            reason = "needs the real images that the generator was trained on: --training-dir DIR"
        if reason is None:
            found[name] = metric
        elif is_named:
            raise UsageError(f"--metrics {name}: {reason}")
        else:
            left_out[name] = reason
    return found, left_out


def number_keys(settings: EvaluateSettings, chosen: Mapping[str, Metric]) -> set[str]:
    """The names of all numbers that these metrics and R will have, with the short names that a gate may use."""
    keys = {ratio_key(settings, name) for name in settings.features} | set(chosen)
    for name, metric in chosen.items():
        every = isinstance(metric, SetMetric) and metric.every_features
        keys |= {settings.key(name, backend) for backend in (settings.features if every else settings.features[:1])}
    return keys


def build_features(settings: EvaluateSettings, name: str) -> Features:
    """One feature backend.

    Raises:
        UsageError: there is no such one.
        DataError, EnvironmentProblem: its weights or its package are missing.
    """
    if name in NETWORK_FAMILIES:
        raise UsageError(f"--features {name}: which network? Such as {name}:resnet50")
    options = {"weights": str(settings.weights[name])} if name in settings.weights else {}
    backend: Features = features.build(features.choose(name, options))
    return backend


def ratio_key(settings: EvaluateSettings, name: str) -> str:
    """`r` on the first features, `r_colour` and so on for others."""
    return RATIO if name == settings.features[0] else f"{RATIO}_{name}"


def claims(found: Numbers, dependent: frozenset[str] = frozenset()) -> tuple[Claim, ...]:
    """Sentences on which several backends agree; those of `dependent` alone support none."""
    kid_keys = ("kid", INCEPTION_KEYS["kid"])
    kids = {n.features: n.interval for key, n in found.numbers.items() if key in kid_keys or key.startswith("kid_")}
    ratios = {ratio.features: ratio.interval for ratio in found.ratios.values() if ratio is not None}
    below_zero = {
        DIFFERENT: {name: (-high, -low) for name, (low, high) in kids.items()},
        NEARER: {name: (low - NEARER_RATIO, high - NEARER_RATIO) for name, (low, high) in ratios.items()},
    }
    return tuple(claim_of(claim, sides, SHAPELESS, dependent) for claim, sides in below_zero.items() if sides)


def why_no_ratio(found: Numbers, settings: EvaluateSettings) -> str | None:
    """The reason where an R is missing."""
    if not found.ratios:
        return "R needs the images that the generated ones were made of: --source-dir DIR"
    if missing := [key for key, ratio in found.ratios.items() if ratio is None]:
        names = [settings.features[0] if key == RATIO else key.removeprefix(f"{RATIO}_") for key in missing]
        return (
            f"on {' and '.join(names)} the sources cannot be distinguished from the real images (the interval of their "
            "distance is not above 0), so there is nothing to divide by; more images may help"
        )
    return None


@dataclass(frozen=True)
class Measuring:
    """The images and how they are measured; `numbers` does it."""

    settings: EvaluateSettings
    metrics: Mapping[str, Metric]
    reals: Sequence[Path]
    fakes: Sequence[Path]
    sources: Sources | None
    device: torch.device
    tell: Tell
    pictures: Pictures
    cluster: Cluster | None
    """Whose actors compute features; None is this process."""
    extracted: dict[tuple[str, str], FeatureSet] = field(default_factory=dict)
    """By backend and kind of images."""

    def numbers(self, backends: Sequence[Features]) -> Numbers:
        """All numbers on these backends, the first of which gives the headline.

        Raises:
            DataError: an image cannot be decoded, too few of a kind, features that are not finite, no training images.
        """
        found = Numbers()
        for name, metric in self.metrics.items():
            if isinstance(metric, SetMetric):
                own = metric.own_features()
                for backend in [own] if own else backends if metric.every_features else backends[:1]:
                    self._measure(name if own else self.settings.key(name, backend.name), metric, backend, found)
            elif isinstance(metric, TrainingMetric):
                training = images_of("--training-dir", self.settings.training_dir or Path())
                seen = self._extract(backends[0], training, "training")
                found.numbers[name] = metric(*self._both(backends[0]), seen)
        if self.sources is not None:
            for backend in backends:
                found.ratios[ratio_key(self.settings, backend.name)] = self._ratio(backend, self.sources)
        self._pairs(found)
        return found

    def _both(self, backend: Features) -> tuple[FeatureSet, FeatureSet]:
        """Features of the real and of the generated images."""
        return self._extract(backend, self.reals, "real"), self._extract(backend, self.fakes, "generated")

    def _measure(self, key: str, metric: SetMetric, backend: Features, found: Numbers) -> None:
        """The metric, and its floor between halves of the real images."""
        real, fake = self._both(backend)
        label = f"{metric.name} on {backend.name}"
        self.tell(Progress(label, 0, 1))
        found.numbers[key] = metric(real, fake)
        began = time.monotonic()
        value, interval = metric.floor(real.values)
        found.floor[key] = FloorResult(
            value=value,
            interval=interval,
            n_real=len(real) // 2,
            n_fake=len(real) // 2,
            features=real.features,
            resize=real.resize,
            seconds=round(time.monotonic() - began, 3),
            value_at_size=metric.at_floor_size(real.values, fake.values),
        )
        self.tell(Progress(label, 1, 1))

    def _ratio(self, backend: Features, sources: Sources) -> RatioResult | None:
        """R, or None where the sources cannot be distinguished from the real images."""
        real, fake = self._both(backend)
        source = self._extract(backend, sources.paths, "source")
        label = f"R on {backend.name}"
        self.tell(Progress(label, 0, 1))
        began = time.monotonic()
        resampling = {"resamples": RESAMPLES["kid"][self.settings.quick], "seed": self.settings.seed}
        ratio = translation_ratio(real.values, fake.values, source.values, paired=sources.paired, **resampling)
        self.tell(Progress(label, 1, 1))
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
            paired=sources.paired,
        )

    def _extract(self, backend: Features, paths: Sequence[Path], what: str) -> FeatureSet:
        """Features of one kind of images, computed once."""
        key = backend.name, what
        if key not in self.extracted:
            label, total = f"features {backend.name} of the {what} images", len(paths)
            asked: dict[str, Any] = {"read": self.pictures, "cluster": self.cluster}
            self.extracted[key] = extract(backend, paths, self.device, lambda n: self.tell(Progress(label, n, total)), **asked)
        return self.extracted[key]

    def _pairs(self, found: Numbers) -> None:
        """Metrics of each source and its translation; none where a translation's source is not known."""
        chosen = {name: metric for name, metric in self.metrics.items() if isinstance(metric, PairMetric)}
        if self.sources is None:
            return
        if not self.sources.paired:
            reason = f"needs to know which image each generated one was made of, and {self.sources.missing}"
            found.not_measured |= dict.fromkeys(chosen, reason)
            return
        pairs = list(zip(self.sources.paths, self.fakes, strict=True))
        for name, metric in chosen.items():
            began = time.monotonic()
            label = f"{name} of sources and their translations"
            values = [value for _, value in in_order(partial(self._of_pair, metric), pairs, what=label, tell=self.tell)]
            try:
                found.numbers[name] = metric.result(values, time.monotonic() - began)
            except DataError as error:
                found.not_measured[name] = str(error)

    def _of_pair(self, metric: PairMetric, pair: tuple[Path, Path]) -> float:
        """The metric of one pair; the source is brought to its translation's size."""
        source, fake = (self.pictures(path) for path in pair)
        height_px, width_px = fake.shape[:2]
        return metric.of_pair(resize(source, height_px, width_px, Image.Resampling.LANCZOS), fake)
