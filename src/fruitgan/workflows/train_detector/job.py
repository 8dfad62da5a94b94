"""The job: split, train, judge, and leave a folder with the detector, its numbers and a report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import fruitgan
from fruitgan.atomic import write_atomically
from fruitgan.augment.contracts import augmentations
from fruitgan.data.labelled import read_dataset
from fruitgan.device import choose_device
from fruitgan.errors import UsageError
from fruitgan.evaluation.statistics import wilson
from fruitgan.models.catalog import detectors
from fruitgan.models.contracts import LinearDetector
from fruitgan.registry import Choice
from fruitgan.report.detector import Report, detector_report, plot_files
from fruitgan.settings import to_json
from fruitgan.training.detection import (
    PROTOCOLS,
    Album,
    DetectorBundle,
    DetectorCard,
    FittedDetector,
    Parts,
    Round,
    Verdict,
    fit,
    fitting_augmentation,
    judge,
    open_album,
    save_detector,
)
from fruitgan.training.detection.card import FILE_NAME
from fruitgan.training.detection.regression import PENALTIES
from fruitgan.training.run import CONFIG, ENVIRONMENT, LOG, Run
from fruitgan.workflows.environment import environment
from fruitgan.workflows.train_detector.findings import by_split, examples, log_line
from fruitgan.workflows.train_detector.settings import (
    Event,
    Loading,
    OnProgress,
    Rounded,
    Started,
    TrainDetectorResult,
    TrainDetectorSettings,
)
from fruitgan.workflows.train_detector.sizes import choose_detector, size_notes, sizes_of

METRICS = "metrics.json"
REPORT = "report.html"
KIND = "train-detector"
NAMED_FILES = 3
FEW_JUDGED = 100
MANY_PARAMETERS = 20_000_000


def train_detector(settings: TrainDetectorSettings, on_progress: OnProgress | None = None) -> TrainDetectorResult:
    """Train a detector on a dataset folder and judge it by the protocol asked for.

    The run's `metrics.json` is written last: a folder without it was interrupted, and the same command starts it anew.

    Raises:
        UsageError, DataError, EnvironmentProblem: as cli.md's table of exit codes says.
        FruitganError: the loss is not finite, or the run folder cannot be written.
    """
    return _Job(settings, on_progress).run()


@dataclass
class _Job:
    settings: TrainDetectorSettings
    on_progress: OnProgress | None
    stopped: bool = False
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tell(self, event: Event) -> bool:
        if self.on_progress is not None and self.on_progress(event):
            self.stopped = True
        return self.stopped

    def run(self) -> TrainDetectorResult:
        began = time.monotonic()
        settings = self.settings
        device = choose_device(settings.gpu, settings.device)
        detectors.owner(settings.detector)  # a wrong name is said before a thousand images are read
        if settings.augment is not None:
            augmentations.owner(settings.augment)
        if settings.name is not None:
            _refuse_finished(settings.out / settings.name)
        dataset = read_dataset(settings.data)
        self.warnings += dataset.warnings
        sizes = sizes_of(dataset.images)
        choice = choose_detector(settings.detector, settings.detector_options, settings.image_size, sizes)
        with torch.device("meta"):  # to ask it, without its weights
            detector = detectors.build(choice)
        fitting_augmentation(choice, detector, settings.augment)  # what does not fit is said before anything is made
        size_px = detector.image_size_px
        self.notes += size_notes(sizes, size_px)
        parameters = sum(parameter.numel() for parameter in detector.parameters())
        if device.type == "cpu" and parameters > MANY_PARAMETERS:
            self.warnings.append(
                f"{choice.name} at {size_px} px has {parameters / 1e6:.0f} million weights: on a CPU an epoch takes minutes to "
                "hours; --image-size 64, or --detector small-cnn, is far quicker"
            )
        with open_album(dataset.images, size_px, on_progress=self._loading) as album:
            self._note_broken(album)
            protocol = PROTOCOLS[settings.protocol]
            parts = protocol.split(album.images, settings.seed)
            self.notes = [*protocol.explained(album.images, parts), *self.notes]
            if len(parts.judge) < FEW_JUDGED:
                self._note_few(len(parts.judge), len(album))
            run = self._create(choice, device, album, parts)
            self.tell(
                Started(
                    run.path,
                    len(PENALTIES) if isinstance(detector, LinearDetector) else settings.epochs,
                    len(parts.train),
                    len(parts.choose),
                    len(parts.judge),
                    tuple(self.notes),
                    tuple(self.warnings),
                )
            )
            fitted = fit(choice, album, parts, settings.fitting, device=device, on_round=lambda r: self._round(run, r))
            logits = fitted.logits(album, parts.judge)
            return self._leave(run, album, parts, fitted, logits, time.monotonic() - began)

    def _loading(self, done: int, total: int) -> None:
        self.tell(Loading(done, total))

    def _note_broken(self, album: Album) -> None:
        if album.broken:
            named = "; ".join(f"{path}: {reason}" for path, reason in album.broken[:NAMED_FILES])
            more = f" and {len(album.broken) - NAMED_FILES} more" if len(album.broken) > NAMED_FILES else ""
            total = len(album) + len(album.broken)
            self.warnings.append(f"{len(album.broken)} of {total} images cannot be decoded and are left out: {named}{more}")

    def _note_few(self, judged: int, total: int) -> None:
        low, high = wilson(judged // 2, judged)
        needed = -(-500 * total // max(1, judged) // 50) * 50  # 500 judged images give 4.4 points either way
        self.notes.append(
            f"{judged} images judge: chance alone moves such an accuracy by up to {50 * (high - low):.0f} points either way; "
            f"about {needed:,} images in all would make it 4"
        )

    def _create(self, choice: Choice, device: torch.device, album: Album, parts: Parts) -> Run:
        settings = self.settings
        config = {
            "format": 1,
            "kind": KIND,
            "settings": to_json(settings) | {"data": settings.data.resolve().name, "out": settings.out.name},
            "detector": to_json(choice),
            "data_fingerprint": album.fingerprint,
        }
        if settings.name is None:
            stem = f"{settings.data.resolve().name}-{choice.name}"
            numbered = (f"{stem}-{number}" for number in range(1, 10_000))
            name = next(name for name in (stem, *numbered) if not (settings.out / name).exists())
            return Run.create(settings.out / name, config, environment(device))
        path = settings.out / settings.name
        if not path.exists():
            return Run.create(path, config, environment(device))
        _refuse_finished(path)
        run = Run(path)  # somebody stopped it before its end: the same command begins anew
        run.write_config(config)
        write_atomically(path / ENVIRONMENT, json.dumps(environment(device), indent=1).encode())
        write_atomically(path / LOG, b"")
        return run

    def _round(self, run: Run, round_: Round) -> bool:
        run.log(log_line(round_))
        return self.tell(Rounded(round_))

    def _leave(
        self, run: Run, album: Album, parts: Parts, fitted: FittedDetector, logits: NDArray[np.float64], seconds: float
    ) -> TrainDetectorResult:
        judged = [album.images[i] for i in parts.judge]
        truth = album.generated[parts.judge]
        verdict = judge(logits, truth)
        card = self._card(run, album, parts, fitted, verdict)
        save_detector(DetectorBundle(card, fitted.detector), run.path / FILE_NAME)
        result = TrainDetectorResult(
            run=run.path,
            detector=fitted.choice.name,
            protocol=self.settings.protocol,
            accuracy=verdict.accuracy,
            interval=verdict.interval,
            auc=verdict.auc,
            p_value=verdict.p_value,
            chance=verdict.chance,
            n=verdict.n,
            confusion=verdict.confusion,
            parts=by_split(judged, logits),
            train_images=len(parts.train),
            choose_images=len(parts.choose),
            left_out_images=len(parts.left_out),
            unreadable_images=len(album.broken),
            image_size_px=album.size_px,
            rounds=len(fitted.rounds),
            best_round=fitted.best.number,
            finished=fitted.finished,
            seconds=round(seconds, 3),
            file=run.path / FILE_NAME,
            notes=tuple(self.notes),
            warnings=tuple(self.warnings),
        )
        report = Report(
            name=run.path.name,
            result=to_json(result) | {"warnings": [self._without_places(warning) for warning in self.warnings]},
            detector=fitted.choice,
            augmentation=fitted.augmentation,
            rounds=fitted.rounds,
            logits=logits,
            generated=truth,
            examples=examples(album, parts, logits),
            settings=self.settings.fitting,
            environment=environment(fitted.device),
        )
        for name, picture in plot_files(report).items():
            write_atomically(run.path / "plots" / name, picture)
        write_atomically(run.path / REPORT, detector_report(report).encode())
        write_atomically(run.path / METRICS, json.dumps(to_json(result), indent=1, allow_nan=False).encode())
        return result

    def _without_places(self, text: str) -> str:
        """A report is passed on, and where its maker keeps files is nobody's business."""
        return text.replace(str(self.settings.data), self.settings.data.resolve().name)

    def _card(self, run: Run, album: Album, parts: Parts, fitted: FittedDetector, verdict: Verdict) -> DetectorCard:
        return DetectorCard(
            name=run.path.name,
            detector=fitted.choice,
            image_size_px=album.size_px,
            protocol=self.settings.protocol,
            verdict=verdict,
            training_images=len(parts.train),
            rounds=len(fitted.rounds),
            data=self.settings.data.resolve().name,
            data_fingerprint=album.fingerprint,
            seed=self.settings.seed,
            fruitgan_version=fruitgan.__version__,
        )


def _refuse_finished(path: Path) -> None:
    """Raises: UsageError if something else than an interrupted run of this kind stands there."""
    if not path.exists():
        return
    try:
        ours = json.loads((path / CONFIG).read_text(encoding="utf-8")).get("kind") == KIND
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours or (path / METRICS).exists():
        raise UsageError(f"{path} exists; choose another --name, or leave it out")
