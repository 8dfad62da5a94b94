"""All numbers of an evaluation: features once for each backend, then metric by metric, then what may be claimed of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from fruitgan.data.parallel import in_order
from fruitgan.data.sources import image_files
from fruitgan.errors import DataError
from fruitgan.evaluate.metrics import RESAMPLES, measure_floor, measure_ratio, ratio_key
from fruitgan.evaluate.settings import SHAPELESS, EvaluateSettings, FloorResult, RatioResult
from fruitgan.evaluate.sources import Sources
from fruitgan.images import resize
from fruitgan.measures.contracts import Features, FeatureSet, Metric, MetricResult, PairMetric, SetMetric, TrainingMetric
from fruitgan.measures.distances import Claim, Difference, claim_of, fid_difference, kid_difference
from fruitgan.measures.features import Pictures, extract

NEARER = "the generated images are nearer to the real ones than their sources are, by a tenth of the way or more"
NEARER_RATIO = 0.9
"""The R that is a tenth of the way: apples of another hue alone get nearly as far on features that should not see it."""
TOLD_APART = "the generated images differ from the real ones"

OnStep = Callable[[str, int, int], None]


@dataclass
class Numbers:
    """What was measured, by the number's key."""

    values: dict[str, MetricResult] = field(default_factory=dict)
    floor: dict[str, FloorResult] = field(default_factory=dict)
    ratios: dict[str, RatioResult | None] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)

    def claims(self) -> tuple[Claim, ...]:
        """What several backends allow to be said."""
        kids = {result.features: result.interval for key, result in self.values.items() if _is_kid(key)}
        ratios = {ratio.features: ratio.interval for ratio in self.ratios.values() if ratio is not None}
        claims = []
        if kids:
            claims.append(claim_of(TOLD_APART, {name: (-high, -low) for name, (low, high) in kids.items()}, SHAPELESS))
        if ratios:
            left = {name: (low - NEARER_RATIO, high - NEARER_RATIO) for name, (low, high) in ratios.items()}
            claims.append(claim_of(NEARER, left, SHAPELESS))
        return tuple(claims)


def _is_kid(key: str) -> bool:
    return key in ("kid", "kernel_inception_distance_mean") or key.startswith("kid_")


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """The images and how they are measured; `numbers` does it."""

    settings: EvaluateSettings
    metrics: Mapping[str, Metric]
    reals: Sequence[Path]
    fakes: Sequence[Path]
    sources: Sources | None
    device: torch.device
    tell: OnStep
    pictures: Pictures

    def numbers(self, backends: Sequence[Features]) -> Numbers:
        """All numbers on these backends, the first of which gives the headline.

        Raises:
            DataError: an image cannot be decoded, too few of a kind, features that are not finite, no training images.
        """
        found = Numbers()
        for backend in backends:
            self._on_backend(backend, found, headline=backend is backends[0])
        described: dict[str, tuple[FeatureSet, FeatureSet]] = {}
        for name, metric in self.metrics.items():
            own = metric.own_features() if isinstance(metric, SetMetric) else None
            if own is not None:
                if own.name not in described:
                    described[own.name] = self._extract(own, self.reals, "real"), self._extract(own, self.fakes, "generated")
                self._measure(name, metric, *described[own.name], found)
        self._pairs(found)
        return found

    def _on_backend(self, backend: Features, found: Numbers, *, headline: bool) -> None:
        real = self._extract(backend, self.reals, "real")
        fake = self._extract(backend, self.fakes, "generated")
        for name, metric in self.metrics.items():
            if isinstance(metric, SetMetric) and metric.own_features() is None and (headline or metric.every_features):
                self._measure(name, metric, real, fake, found)
            elif isinstance(metric, TrainingMetric) and headline:
                found.values[name] = metric(real, fake, self._training(backend))
        if self.sources is not None:
            source = self._extract(backend, self.sources.paths, "source")
            self._against_sources(real, fake, source, self.sources.paired, found)

    def _measure(self, name: str, metric: Metric, real: FeatureSet, fake: FeatureSet, found: Numbers) -> None:
        assert isinstance(metric, SetMetric)
        self.tell(f"{name} on {real.features}", 0, 1)
        key = self.settings.key(name, real.features) if metric.own_features() is None else name
        found.values[key] = metric(real, fake)
        found.floor[key] = measure_floor(metric, real, fake)
        self.tell(f"{name} on {real.features}", 1, 1)

    def _against_sources(self, real: FeatureSet, fake: FeatureSet, source: FeatureSet, paired: bool, found: Numbers) -> None:
        settings = self.settings
        self.tell(f"R on {real.features}", 0, 1)
        found.ratios[ratio_key(settings, real.features)] = measure_ratio(settings, real, fake, source, paired)
        sides = real.values, fake.values, source.values
        found.differences[settings.key("kid", real.features)] = kid_difference(
            *sides, features=real.features, paired=paired, resamples=RESAMPLES["kid"][settings.quick], seed=settings.seed
        )
        if len(fake) == len(source) and "fid" in self.metrics:
            found.differences[settings.key("fid", real.features)] = fid_difference(
                *sides, features=real.features, paired=paired, resamples=RESAMPLES["fid"][settings.quick], seed=settings.seed
            )
        self.tell(f"R on {real.features}", 1, 1)

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
        label = f"features {backend.name} of the {what} images"
        return extract(backend, paths, self.device, lambda done: self.tell(label, done, len(paths)), read=self.pictures)

    def _pairs(self, found: Numbers) -> None:
        """What became of each source; nothing where a translation's source is not known."""
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
            self.tell("sources beside their translations", done, len(pairs))
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
