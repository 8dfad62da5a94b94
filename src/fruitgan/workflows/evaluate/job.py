"""The job: leaks first, then features, numbers with intervals and floors, a detector, and a folder with what came out."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fruitgan import randomness
from fruitgan.atomic import write_atomically
from fruitgan.data.decode import decode
from fruitgan.data.labelled import ORIGINS, PREDICTED, LabelledImage, read_folders
from fruitgan.device import choose_device
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluation.contracts import Features, FeatureSet, MetricResult, SetMetric, features, metrics
from fruitgan.evaluation.extraction import extract
from fruitgan.evaluation.leaks import Leak, find_leaks, inspect
from fruitgan.evaluation.metrics import translation_ratio
from fruitgan.images import Pixels
from fruitgan.models.catalog import detectors
from fruitgan.registry import suggestion
from fruitgan.report.evaluation import evaluation_report
from fruitgan.workflows.evaluate.judging import FOLDS, QUICK_FOLDS, is_path, judge_by_given, judge_on_the_spot, need
from fruitgan.workflows.evaluate.settings import (
    DEFAULT_DETECTOR,
    INCEPTION,
    NO_DETECTOR,
    OUT,
    DetectorResult,
    EvaluateProgress,
    EvaluateResult,
    EvaluateSettings,
    FloorResult,
    Gate,
    OnProgress,
    RatioResult,
)
from fruitgan.workflows.evaluate.sources import Sources, find_sources

FILE = "evaluation.json"
REPORT = "report.html"
RATIO = "r"
DETECTOR_NUMBERS = ("accuracy", "auc")
RESAMPLES = {"kid": (1000, 200), "fid": (200, 50)}
"""Of the bootstrap: usually, and with `quick`. Metrics of other packages keep their own."""
GALLERY = 12
SMALL_SET = 100
"""With fewer images of a class, intervals are so wide that a note says so."""


def evaluate(settings: EvaluateSettings, on_progress: OnProgress | None = None) -> EvaluateResult:
    """Judge the generated images, and write `evaluation.json` and `report.html`.

    A gate that fails is in the result, and raises nothing: the folder is written all the same.

    Raises:
        UsageError: an unknown name of features, metrics, detector or gate.
        DataError: a folder is missing or empty or holds too few images for a number, or both are one; weights that are not the
            right ones or cannot be had; a file that is not a detector.
        EnvironmentProblem: no such device, or a missing extra.
        FruitganError: the results cannot be written.
    """
    return _Job(settings, on_progress).run()


@dataclass
class _Job:
    settings: EvaluateSettings
    on_progress: OnProgress | None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def tell(self, what: str, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(EvaluateProgress(what, done, total))

    def run(self) -> EvaluateResult:
        began = time.monotonic()
        settings = self.settings
        device = choose_device(settings.gpu, settings.device)
        chosen_metrics = self._metrics()  # names first: a wrong one is said before a thousand images are read
        self._check_names()
        backends = [self._backend(name) for name in settings.features]
        real_dir = _real_dir(settings)
        found = read_folders(settings.fake_dir, real_dir)
        self.warnings += found.warnings
        fakes = [image for image in found.images if image.generated]
        reals = [image for image in found.images if not image.generated]
        for metric in chosen_metrics.values():
            metric.check_counts(len(reals), len(fakes))
        self._note_few(len(fakes), len(reals))
        sources = self._sources(fakes, real_dir, chosen_metrics)
        leaks = self._leaks(found.images)
        numbers: dict[str, MetricResult] = {}
        floor: dict[str, FloorResult] = {}
        ratios: dict[str, RatioResult | None] = {}
        for backend in backends:
            real = self._extract(backend, [image.path for image in reals], device, "real")
            fake = self._extract(backend, [image.path for image in fakes], device, "generated")
            for name, metric in chosen_metrics.items():
                self.tell(f"{name} on {backend.name}", 0, 1)
                key = settings.key(name, backend.name)
                numbers[key] = metric(real, fake)
                floor[key] = _floor(metric, real, fake)
            if sources is not None:
                source = self._extract(backend, sources.paths, device, "source")
                ratios[_ratio_key(settings, backend.name)] = self._ratio(real, fake, source, sources.paired)
        detector, withheld = self._detector(found.images, leaks, device)
        result = self._result(numbers, floor, ratios, leaks, detector, withheld, len(fakes), len(reals), real_dir, began)
        self._leave(result, fakes, reals)
        return result

    def _metrics(self) -> dict[str, SetMetric]:
        found: dict[str, SetMetric] = {}
        for name in self.settings.metrics:
            options = {}
            if name in RESAMPLES:
                options = {"resamples": RESAMPLES[name][self.settings.quick], "seed": self.settings.seed}
            found[name] = metrics.build(metrics.choose(name, options))
        return found

    def _check_names(self) -> None:
        """Raises: UsageError for features, a detector or a gate that there is not."""
        settings = self.settings
        for name in settings.features:
            features.owner(name)
        if settings.detector != NO_DETECTOR and not is_path(settings.detector):
            try:
                detectors.owner(settings.detector)
            except UsageError as error:
                raise UsageError(f"{error} (or {NO_DETECTOR}, or a detector's file)") from error
        known = {settings.key(metric, name) for metric in settings.metrics for name in settings.features} | set(
            settings.metrics
        )
        known |= {_ratio_key(settings, name) for name in settings.features} | set(DETECTOR_NUMBERS)
        for option, bounds in (("--fail-above", settings.fail_above), ("--fail-below", settings.fail_below)):
            for name in bounds:
                if name not in known:
                    raise UsageError(f"{option}: no number named {name!r}: {suggestion(name, sorted(known))}")

    def _backend(self, name: str) -> Features:
        options: dict[str, Any] = {}
        if name == INCEPTION and self.settings.weights is not None:
            options["weights"] = str(self.settings.weights)
        backend: Features = features.build(features.choose(name, options))
        return backend

    def _note_few(self, fakes: int, reals: int) -> None:
        if min(fakes, reals) < SMALL_SET:
            self.notes.append(
                f"{fakes} generated and {reals} real images are few: expect wide intervals, and compare no FID with one "
                "of another number of images"
            )

    def _sources(self, fakes: list[LabelledImage], real_dir: Path, chosen_metrics: Mapping[str, SetMetric]) -> Sources | None:
        settings = self.settings
        if settings.source_dir is None:
            return None
        sources = find_sources(settings.source_dir, fakes, real_dir, settings.fake_dir)
        least = max(metric.minimum_images for metric in chosen_metrics.values())
        if len(sources.paths) < least:
            raise DataError(f"{settings.source_dir}: R needs at least {least} source images, found {len(sources.paths)}")
        if sources.note:
            self.notes.append(sources.note)
        return sources

    def _leaks(self, images: tuple[LabelledImage, ...]) -> tuple[Leak, ...]:
        facts = []
        for done, fact in enumerate(inspect([image.path for image in images], [image.generated for image in images]), start=1):
            facts.append(fact)
            self.tell("looking for leaks", done, len(images))
        return find_leaks(facts)

    def _extract(self, backend: Features, paths: tuple[Path, ...] | list[Path], device: torch.device, what: str) -> FeatureSet:
        label = f"features {backend.name} of the {what} images"
        return extract(backend, paths, device, lambda done: self.tell(label, done, len(paths)))

    def _ratio(self, real: FeatureSet, fake: FeatureSet, source: FeatureSet, paired: bool) -> RatioResult | None:
        """R, or None with a note where the sources cannot be told from the real images."""
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

    def _detector(
        self, images: tuple[LabelledImage, ...], leaks: tuple[Leak, ...], device: torch.device
    ) -> tuple[DetectorResult | None, str | None]:
        """The detector's result, or why there is none."""
        settings = self.settings
        if settings.detector == NO_DETECTOR:
            return None, "no detector was asked for"
        if spoiled := [leak.kind for leak in leaks if leak.spoils_detector]:
            return None, (
                f"its accuracy would measure the leak ({', '.join(spoiled)}) and not the pictures; "
                "make both classes by one path with export-dataset"
            )
        if is_path(settings.detector):
            result, notes = judge_by_given(Path(settings.detector), images, device, settings.seed, self.tell)
            self.notes += notes
            return result, None
        if settings.detector == DEFAULT_DETECTOR and (reason := need(images)):
            return None, reason
        folds = QUICK_FOLDS if settings.quick else FOLDS
        return judge_on_the_spot(settings.detector, images, device, settings.seed, folds, self.tell), None

    def _result(
        self,
        numbers: Mapping[str, MetricResult],
        floor: Mapping[str, FloorResult],
        ratios: Mapping[str, RatioResult | None],
        leaks: tuple[Leak, ...],
        detector: DetectorResult | None,
        withheld: str | None,
        n_fake: int,
        n_real: int,
        real_dir: Path,
        began: float,
    ) -> EvaluateResult:
        settings = self.settings
        out = settings.out or OUT / _slug(settings.fake_dir)
        without = EvaluateResult(
            fake_dir=settings.fake_dir,
            real_dir=real_dir,
            source_dir=settings.source_dir,
            n_fake=n_fake,
            n_real=n_real,
            numbers=numbers,
            floor=floor,
            ratios=ratios or {RATIO: None},
            r_withheld=_why_no_ratio(settings, ratios),
            leaks=leaks,
            detector=detector,
            withheld=withheld,
            gates=(),
            notes=tuple(self.notes),
            warnings=tuple(self.warnings),
            quick=settings.quick,
            seed=settings.seed,
            seconds=round(time.monotonic() - began, 3),
            out=out,
            file=out / FILE,
            report=out / REPORT,
        )
        return _with_gates(without, settings)

    def _leave(self, result: EvaluateResult, fakes: list[LabelledImage], reals: list[LabelledImage]) -> None:
        values = result.as_json()
        galleries = {"generated": self._gallery(fakes), "real": self._gallery(reals)}
        page = evaluation_report(values, galleries)
        write_atomically(result.report, page.encode())
        write_atomically(result.file, (json.dumps(_finite(values), indent=2, allow_nan=False) + "\n").encode())

    def _gallery(self, images: list[LabelledImage]) -> list[Pixels]:
        order = randomness.permutation(self.settings.seed, 0, len(images), "evaluate/gallery")
        return [decode(images[i].path).pixels for i in sorted(order[:GALLERY])]


def _real_dir(settings: EvaluateSettings) -> Path:
    """Raises: DataError if none was given and there is none beside the generated images."""
    if settings.real_dir is not None:
        return settings.real_dir
    fake_dir = settings.fake_dir
    if (fake_dir / PREDICTED).is_dir() and (fake_dir / ORIGINS).is_dir():
        raise DataError(f"{fake_dir}: is a dataset folder; give --fake-dir {fake_dir / PREDICTED}")
    beside = fake_dir.absolute().parent / ORIGINS
    if not fake_dir.is_dir() or beside.is_dir():
        return beside  # a missing folder of generated images is told of first
    raise DataError(f"{fake_dir}: there is no folder {ORIGINS} beside it; give the real images with --real-dir DIR")


def _slug(folder: Path) -> str:
    """A name for the results of these images: `dataset-predicted`."""
    names = [name for name in folder.absolute().resolve().parts[-2:] if name.strip("/\\:")]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(names)).strip(".") or "images"


def _ratio_key(settings: EvaluateSettings, name: str) -> str:
    return RATIO if name == settings.features[0] else f"{RATIO}_{name}"


def _why_no_ratio(settings: EvaluateSettings, ratios: Mapping[str, RatioResult | None]) -> str | None:
    if settings.source_dir is None:
        return "R needs the images that the generated ones were made of: --source-dir DIR"
    if missing := [key for key, ratio in ratios.items() if ratio is None]:
        return (
            f"{', '.join(missing)}: on these features the sources cannot be told from the real images (the interval of their "
            "distance reaches 0), so there is nothing to divide by; more images may help"
        )
    return None


def _floor(metric: SetMetric, real: FeatureSet, fake: FeatureSet) -> FloorResult:
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


def _with_gates(result: EvaluateResult, settings: EvaluateSettings) -> EvaluateResult:
    gates = []
    for above, bounds in ((True, settings.fail_above), (False, settings.fail_below)):
        for name, bound in bounds.items():
            value = result.value(settings.alias(name))
            passed = value is not None and math.isfinite(value) and (value <= bound if above else value >= bound)
            gates.append(Gate(name=name, above=above, bound=bound, value=value, passed=passed))
    return replace(result, gates=tuple(gates))


def _finite(value: Any) -> Any:
    """JSON has no infinities: they become null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
