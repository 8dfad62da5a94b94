"""The job: leaks first, then features, numbers with intervals and floors, a detector, and a folder with what came out."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fruitgan.data.labelled import ORIGINS, PREDICTED, LabelledImage, read_folders
from fruitgan.device import choose_device
from fruitgan.errors import DataError, FruitganError, reason_of
from fruitgan.evaluate.compare_settings import Comparison
from fruitgan.evaluate.detection import Detection, detect
from fruitgan.evaluate.detector_results import ReadingResult
from fruitgan.evaluate.leaks import Facts, Leak, find_leaks, inspect, merged_groups
from fruitgan.evaluate.metrics import RATIO, build_features, build_metrics, check_names, why_no_ratio, with_gates
from fruitgan.evaluate.numbers import Measuring, Numbers
from fruitgan.evaluate.page import Exhibits, evaluation_report
from fruitgan.evaluate.page_images import exhibits
from fruitgan.evaluate.settings import (
    FRUIT_EMBED,
    OUT,
    SHAPELESS,
    EvaluateProgress,
    EvaluateResult,
    EvaluateSettings,
    OnProgress,
)
from fruitgan.evaluate.sources import Sources, find_sources
from fruitgan.evaluate.target_share import read_as_target
from fruitgan.files import remove_abandoned, write_atomically
from fruitgan.measures.contracts import Metric
from fruitgan.measures.features import Pictures
from fruitgan.runs.resume import environment
from fruitgan.threads import chosen_threads, using_threads

FILE = "evaluation.json"
REPORT = "report.html"
SMALL_SET = 100
"""With fewer images of a class, intervals are so wide that a note says so."""
Beside = Callable[[EvaluateResult], tuple[Comparison, ...]]


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
    return evaluate_beside(settings, None, on_progress)


def evaluate_beside(settings: EvaluateSettings, beside: Beside | None, on_progress: OnProgress | None = None) -> EvaluateResult:
    """The same, with comparisons among the results; `beside` makes them of what was found."""
    device = choose_device(settings.gpu, settings.device)
    with using_threads(chosen_threads(settings.threads).number) if device.type == "cpu" else nullcontext():
        return _Job(settings, on_progress, beside).run()


@dataclass
class _Job:
    settings: EvaluateSettings
    on_progress: OnProgress | None
    beside: Beside | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def tell(self, what: str, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(EvaluateProgress(what, done, total))

    def run(self) -> EvaluateResult:
        began = time.monotonic()
        settings = self.settings
        device = choose_device(settings.gpu, settings.device)
        chosen_metrics, left_out = build_metrics(settings)  # names first: a wrong one is said before a thousand images are read
        check_names(settings, chosen_metrics)
        backends = [build_features(settings, name) for name in settings.features]
        real_dir = _real_dir(settings)
        found = read_folders(settings.fake_dir, real_dir)
        self.warnings += found.warnings
        fakes = [image for image in found.images if image.generated]
        reals = [image for image in found.images if not image.generated]
        for metric in chosen_metrics.values():
            metric.check_counts(len(reals), len(fakes))
        self._note_limits(len(fakes), len(reals))
        self._note_seen(fakes, reals)
        sources = self._sources(fakes, real_dir, chosen_metrics)
        facts = self._facts(found.images)
        images = self._grouped(found.images, facts)
        leaks = find_leaks(facts, [image.group for image in images], [image.split for image in images])
        pictures = Pictures()
        numbers = Measuring(
            settings=settings,
            metrics=chosen_metrics,
            reals=[image.path for image in reals],
            fakes=[image.path for image in fakes],
            sources=sources,
            device=device,
            tell=self.tell,
            pictures=pictures,
        ).numbers(backends)
        numbers.not_measured |= left_out
        out = settings.out or OUT / _slug(settings.fake_dir)
        grouped = ([image for image in images if not image.generated], [image for image in images if image.generated])
        readings: tuple[ReadingResult, ...] = ()
        if sources is not None:
            readings = read_as_target(backends[0], *grouped, sources, pictures, device, settings.seed, self.tell)
        detection = detect(settings, images, facts, leaks, backends, pictures, device, out, self.tell)
        self.notes += detection.notes
        made_with = environment(device)
        result = self._result(numbers, leaks, detection, readings, len(fakes), len(reals), real_dir, out, began, made_with)
        if self.beside is not None:
            result = replace(result, compare=self.beside(result), seconds=round(time.monotonic() - began, 3))
        self._leave(result, exhibits(result, fakes, reals, sources, device))
        return result

    def _note_limits(self, fakes: int, reals: int) -> None:
        """What these numbers cannot say."""
        if SHAPELESS.issuperset(self.settings.features):
            self.notes.append(
                "these features see colours and textures, not things: a distance or an R near 0 says that those fit, not that "
                "the pictures show what they should; look at them, and add --features inception where its weights can be had"
            )
        if self.settings.features[0] == FRUIT_EMBED:
            self.notes.append(
                "fruit-embed learnt from photographs of apples and oranges: of other things it knows textures at best"
            )
        if min(fakes, reals) < SMALL_SET:
            self.notes.append(
                f"{fakes} generated and {reals} real images are few: expect wide intervals, and compare no FID with one "
                "of another number of images"
            )

    def _note_seen(self, fakes: list[LabelledImage], reals: list[LabelledImage]) -> None:
        """Where the manifest knows: how many images the generator's training had to do with."""
        seen = [sum(image.split == "train" for image in side) for side in (fakes, reals)]
        if any(seen):
            self.notes.append(
                f"the generator was trained on the sources of {seen[0]} of {len(fakes)} generated images and on {seen[1]} of "
                f"{len(reals)} real ones; a number for unseen pictures needs test images alone"
            )

    def _sources(self, fakes: list[LabelledImage], real_dir: Path, chosen_metrics: Mapping[str, Metric]) -> Sources | None:
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

    def _facts(self, images: tuple[LabelledImage, ...]) -> list[Facts]:
        facts = []
        for done, fact in enumerate(inspect([image.path for image in images], [image.generated for image in images]), start=1):
            facts.append(fact)
            self.tell("looking for leaks", done, len(images))
        return facts

    def _grouped(self, images: tuple[LabelledImage, ...], facts: list[Facts]) -> tuple[LabelledImage, ...]:
        """The images with near-duplicates in one group, which no split takes apart."""
        groups, joined = merged_groups(facts, [image.group for image in images])
        if joined:
            self.notes.append(
                f"{joined} images are near-duplicates of others, or made of one source with them, and stay together"
            )
        return tuple(replace(image, group=group) for image, group in zip(images, groups, strict=True))

    def _result(
        self,
        numbers: Numbers,
        leaks: tuple[Leak, ...],
        detection: Detection,
        readings: tuple[ReadingResult, ...],
        n_fake: int,
        n_real: int,
        real_dir: Path,
        out: Path,
        began: float,
        made_with: Mapping[str, Any],
    ) -> EvaluateResult:
        settings = self.settings
        without = EvaluateResult(
            fake_dir=settings.fake_dir,
            real_dir=real_dir,
            source_dir=settings.source_dir,
            n_fake=n_fake,
            n_real=n_real,
            numbers=numbers.values,
            floor=numbers.floor,
            ratios=numbers.ratios or {RATIO: None},
            r_withheld=why_no_ratio(settings, numbers.ratios),
            differences=numbers.differences,
            claims=numbers.claims(),
            not_measured=numbers.not_measured,
            leaks=leaks,
            detector=detection.detector,
            withheld=detection.withheld,
            controls=detection.controls,
            attackers=detection.attackers,
            judged=detection.judged,
            robustness=detection.robustness,
            saliency=detection.saliency,
            reads_as_target=readings,
            detection_seconds=detection.seconds,
            compare=(),
            gates=(),
            notes=tuple(self.notes),
            warnings=tuple(self.warnings),
            quick=settings.quick,
            seed=settings.seed,
            environment=made_with,
            seconds=round(time.monotonic() - began, 3),
            out=out,
            file=out / FILE,
            report=out / REPORT,
        )
        return with_gates(without, settings)

    def _leave(self, result: EvaluateResult, shown: Exhibits) -> None:
        values = result.as_json()
        page = evaluation_report(values, shown)
        remove_abandoned(result.out)
        self._remove_earlier(result.file)
        write_atomically(result.report, page.encode())
        write_atomically(result.file, (json.dumps(_finite(values), indent=2, allow_nan=False) + "\n").encode())

    def _remove_earlier(self, file: Path) -> None:
        """Killed between the two files, it must not leave numbers beside the report of others."""
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise FruitganError(f"{file}: cannot be replaced ({reason_of(error)})") from error


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


def _finite(value: Any) -> Any:
    """JSON has no infinities: they become null."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
