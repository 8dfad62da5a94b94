"""What a training leaves behind: the detector, its numbers, its plots and its page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fruitgan
from fruitgan.files import write_atomically
from fruitgan.runs.resume import environment
from fruitgan.runs.run import PLOTS, Run
from fruitgan.settings import to_json
from fruitgan.train_detector.calibration import Verdict, judge
from fruitgan.train_detector.detector import FILE_NAME, DetectorBundle, DetectorCard, LabelledImageDataset, save_detector
from fruitgan.train_detector.findings import by_split, examples
from fruitgan.train_detector.fit import FittedDetector
from fruitgan.train_detector.page import Report, detector_report, plot_files
from fruitgan.train_detector.protocols import Split
from fruitgan.train_detector.resume import METRICS, forget_place
from fruitgan.train_detector.settings import DEFAULT_PROTOCOL, TrainDetectorResult, TrainDetectorSettings

REPORT = "report.html"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that the files are made of."""

    run: Run
    settings: TrainDetectorSettings
    data: Path
    album: LabelledImageDataset
    parts: Split
    fitted: FittedDetector
    logits: NDArray[np.float64]
    """[n] of the judged images."""
    notes: Sequence[str]
    warnings: Sequence[str]
    seconds: float

    def leave(self) -> TrainDetectorResult:
        """Write the files; `metrics.json`, which marks a finished run, comes last and only for one.

        Raises:
            FruitganError: they cannot be written.
        """
        run, album, truth = self.run, self.album, self.album.generated[self.parts.test]
        verdict = judge(self.logits, truth)
        save_detector(DetectorBundle(self._card(verdict), self.fitted.detector), run.path / FILE_NAME)
        result = self._result(verdict)
        report = Report(
            name=run.path.name,
            result=to_json(result) | {"warnings": [self._without_places(warning) for warning in self.warnings]},
            detector=self.fitted.choice,
            augmentation=self.fitted.augmentation,
            rounds=self.fitted.rounds,
            logits=self.logits,
            generated=truth,
            examples=examples(album, self.parts, self.logits),
            settings=self.settings.fitting,
            environment=environment(self.fitted.device),
        )
        for name, picture in plot_files(report).items():
            write_atomically(run.path / PLOTS / name, picture)
        write_atomically(run.path / REPORT, detector_report(report).encode())
        if result.finished:
            write_atomically(run.path / METRICS, json.dumps(to_json(result), indent=1, allow_nan=False).encode())
            forget_place(run)
        return result

    def _result(self, verdict: Verdict) -> TrainDetectorResult:
        judged = [self.album.images[i] for i in self.parts.test]
        return TrainDetectorResult(
            run=self.run.path,
            detector=self.fitted.choice.name,
            protocol=self._protocol,
            accuracy=verdict.accuracy,
            interval=verdict.interval,
            auc=verdict.auc,
            p_value=verdict.p_value,
            chance=verdict.chance,
            n=verdict.n,
            confusion=verdict.confusion,
            parts=by_split(judged, self.logits),
            train_images=len(self.parts.train),
            choose_images=len(self.parts.val),
            left_out_images=len(self.parts.left_out),
            unreadable_images=len(self.album.broken),
            image_size_px=self.album.size_px,
            rounds=len(self.fitted.rounds),
            best_round=self.fitted.best.number,
            finished=self.fitted.finished,
            seconds=round(self.seconds, 3),
            file=self.run.path / FILE_NAME,
            notes=tuple(self.notes),
            warnings=tuple(self.warnings),
        )

    @property
    def _protocol(self) -> str:
        return self.settings.protocol or DEFAULT_PROTOCOL

    def _without_places(self, text: str) -> str:
        """A report is passed on, and where its maker keeps files is nobody's business."""
        return text.replace(str(self.data), self.data.resolve().name)

    def _card(self, verdict: Verdict) -> DetectorCard:
        return DetectorCard(
            name=self.run.path.name,
            detector=self.fitted.choice,
            image_size_px=self.album.size_px,
            protocol=self._protocol,
            verdict=verdict,
            training_images=len(self.parts.train),
            rounds=len(self.fitted.rounds),
            data=self.data.resolve().name,
            data_fingerprint=self.album.fingerprint,
            seed=self.settings.fitting.seed,
            fruitgan_version=fruitgan.__version__,
        )
