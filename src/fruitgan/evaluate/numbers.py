"""Numbers of an evaluation: features once for each backend, then metric by metric, each with its interval and its floor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from fruitgan.data.parallel import in_order
from fruitgan.data.sources import image_files
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.results import FloorResult, RatioResult
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
from fruitgan.evaluate.sources import Sources
from fruitgan.images import resize
from fruitgan.measures.contracts import (
    Features,
    FeatureSet,
    Metric,
    MetricResult,
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
    "kid": (1000, 200),
    "kid-subsets": (1000, 200),
    "fid": (200, 50),
    "swd": (20, 10),
    **dict.fromkeys(("precision", "recall", "density", "coverage"), (200, 50)),
    **dict.fromkeys(("colour-lab", "spectrum", "upsampling-peaks"), (200, 50)),
    **dict.fromkeys(("structure", "background", "nearest-training"), (1000, 200)),
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
        options = {}
        if name in RESAMPLES:
            options = {"resamples": RESAMPLES[name][settings.quick], "seed": settings.seed}
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


@dataclass
class Numbers:
    """The results, by the number's key."""

    values: dict[str, MetricResult] = field(default_factory=dict)
    floor: dict[str, FloorResult] = field(default_factory=dict)
    ratios: dict[str, RatioResult | None] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)

    def claims(self, sharing: frozenset[str] = frozenset()) -> tuple[Claim, ...]:
        """Sentences on which several backends agree; those of `sharing` alone support none."""
        kid_keys = ("kid", INCEPTION_KEYS["kid"])
        kids = {n.features: n.interval for key, n in self.values.items() if key in kid_keys or key.startswith("kid_")}
        ratios = {ratio.features: ratio.interval for ratio in self.ratios.values() if ratio is not None}
        claims = []
        if kids:
            below = {name: (-high, -low) for name, (low, high) in kids.items()}
            claims.append(claim_of(DIFFERENT, below, SHAPELESS, sharing))
        if ratios:
            left = {name: (low - NEARER_RATIO, high - NEARER_RATIO) for name, (low, high) in ratios.items()}
            claims.append(claim_of(NEARER, left, SHAPELESS, sharing))
        return tuple(claims)

    def why_no_ratio(self) -> str | None:
        """The reason where an R is missing."""
        if not self.ratios:
            return "R needs the images that the generated ones were made of: --source-dir DIR"
        if missing := [key for key, ratio in self.ratios.items() if ratio is None]:
            return (
                f"{', '.join(missing)}: on these features the sources cannot be distinguished from the real images (the "
                "interval of their distance reaches 0), so there is nothing to divide by; more images may help"
            )
        return None


@dataclass(frozen=True, kw_only=True)
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

    def numbers(self, backends: Sequence[Features]) -> Numbers:
        """All numbers on these backends, the first of which gives the headline.

        Raises:
            DataError: an image cannot be decoded, too few of a kind, features that are not finite, no training images.
        """
        found = Numbers()
        for backend in backends:
            self._on_backend(backend, found, is_headline=backend is backends[0])
        described: dict[str, tuple[FeatureSet, FeatureSet]] = {}
        for name, metric in self.metrics.items():
            own = metric.own_features() if isinstance(metric, SetMetric) else None
            if isinstance(metric, SetMetric) and own is not None:
                if own.name not in described:
                    described[own.name] = self._extract(own, self.reals, "real"), self._extract(own, self.fakes, "generated")
                self._measure(name, metric, *described[own.name], found)
        self._pairs(found)
        return found

    def _on_backend(self, backend: Features, found: Numbers, *, is_headline: bool) -> None:
        real = self._extract(backend, self.reals, "real")
        fake = self._extract(backend, self.fakes, "generated")
        for name, metric in self.metrics.items():
            if isinstance(metric, SetMetric) and metric.own_features() is None and (is_headline or metric.every_features):
                self._measure(self.settings.key(name, backend.name), metric, real, fake, found)
            elif isinstance(metric, TrainingMetric) and is_headline:
                found.values[name] = metric(real, fake, self._training(backend))
        if self.sources is not None:
            self.tell(Progress(f"R on {backend.name}", 0, 1))
            source = self._extract(backend, self.sources.paths, "source")
            found.ratios[ratio_key(self.settings, backend.name)] = self._ratio(real, fake, source, self.sources.paired)
            self.tell(Progress(f"R on {backend.name}", 1, 1))

    def _measure(self, key: str, metric: SetMetric, real: FeatureSet, fake: FeatureSet, found: Numbers) -> None:
        """The metric, and its floor between halves of the real images."""
        label = f"{metric.name} on {real.features}"
        self.tell(Progress(label, 0, 1))
        found.values[key] = metric(real, fake)
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

    def _ratio(self, real: FeatureSet, fake: FeatureSet, source: FeatureSet, paired: bool) -> RatioResult | None:
        """R, or None where the sources cannot be distinguished from the real images."""
        began = time.monotonic()
        ratio = translation_ratio(
            real.values,
            fake.values,
            source.values,
            paired=paired,
            resamples=RESAMPLES["kid"][self.settings.quick],
            seed=self.settings.seed,
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

    def _training(self, backend: Features) -> FeatureSet:
        folder = self.settings.training_dir
        assert folder is not None
        if not folder.is_dir():
            raise DataError(f"--training-dir {folder}: {'not a folder' if folder.exists() else 'no such folder'}")
        paths = image_files(folder)
        if not paths:
            raise DataError(f"--training-dir {folder}: holds no images")
        return self._extract(backend, paths, "training")

    def _extract(self, backend: Features, paths: Sequence[Path], what: str) -> FeatureSet:
        label, total = f"features {backend.name} of the {what} images", len(paths)
        return extract(backend, paths, self.device, lambda n: self.tell(Progress(label, n, total)), read=self.pictures)

    def _pairs(self, found: Numbers) -> None:
        """Metrics of each source and its translation; none where a translation's source is not known."""
        chosen = {name: metric for name, metric in self.metrics.items() if isinstance(metric, PairMetric)}
        if not chosen or self.sources is None:
            return
        if not self.sources.paired:
            reason = "needs to know which image each generated one was made of: equal file names, or a manifest"
            found.not_measured |= dict.fromkeys(chosen, reason)
            return
        pairs = list(zip(self.sources.paths, self.fakes, strict=True))
        values: dict[str, list[float]] = {name: [] for name in chosen}
        seconds = dict.fromkeys(chosen, 0.0)
        for done, (_, measured) in enumerate(in_order(lambda pair: self._of_pair(chosen, *pair), pairs), start=1):
            for name, (value, took) in measured.items():
                values[name].append(value)
                seconds[name] += took
            self.tell(Progress("sources beside their translations", done, len(pairs)))
        for name, metric in chosen.items():
            try:
                found.values[name] = metric.summary(values[name], seconds[name])
            except DataError as error:
                found.not_measured[name] = str(error)

    def _of_pair(self, chosen: Mapping[str, PairMetric], source_path: Path, fake_path: Path) -> dict[str, tuple[float, float]]:
        """Each metric's number of one pair and its seconds; the source is brought to its translation's size."""
        fake = self.pictures(fake_path)
        height_px, width_px = fake.shape[:2]
        source = resize(self.pictures(source_path), height_px, width_px, Image.Resampling.LANCZOS)
        found = {}
        for name, metric in chosen.items():
            began = time.monotonic()
            value = metric.of_pair(source, fake)
            found[name] = value, time.monotonic() - began
        return found
