"""The job: split, train, judge, and leave a folder with the detector, its numbers and a report."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fruitgan.data.augment import augmentations
from fruitgan.data.labelled import read_dataset
from fruitgan.device import choose_device
from fruitgan.errors import DataError
from fruitgan.files import write_atomically
from fruitgan.measures.statistics import wilson
from fruitgan.networks.contracts import Detector, LinearDetector, detectors
from fruitgan.registry import Choice
from fruitgan.runs.checkpoint import Checkpoints
from fruitgan.runs.resume import environment, keep_environment
from fruitgan.runs.run import CHECKPOINTS, LOG, Run, refuse_existing
from fruitgan.threads import chosen_threads, using_threads
from fruitgan.train_detector.checkpoint import CheckpointKeeper
from fruitgan.train_detector.detector import (
    LabelledImageDataset,
    Sizes,
    choose_detector,
    open_image_dataset,
    size_notes,
    sizes_of,
)
from fruitgan.train_detector.epochs import Round
from fruitgan.train_detector.findings import log_line
from fruitgan.train_detector.fit import fit, fitting_augmentation
from fruitgan.train_detector.outcome import Outcome
from fruitgan.train_detector.protocols import PROTOCOLS, Split
from fruitgan.train_detector.regression import PENALTIES
from fruitgan.train_detector.resume import (
    FORMAT,
    KIND,
    METRICS,
    RunConfig,
    data_folder,
    found_result,
    merged_settings,
    named_run,
    read_config,
    refuse_other_images,
    split_sha256,
    take_up,
    tidy,
)
from fruitgan.train_detector.settings import (
    DEFAULT_DETECTOR,
    DEFAULT_PROTOCOL,
    Event,
    Loading,
    OnProgress,
    Rounded,
    Started,
    Stepped,
    TrainDetectorResult,
    TrainDetectorSettings,
)

NAMED_FILES = 3
FEW_JUDGED = 100
MANY_PARAMETERS = 20_000_000


def train_detector(settings: TrainDetectorSettings, on_progress: OnProgress | None = None) -> TrainDetectorResult:
    """Train a detector on a dataset folder, or go on with a run, and judge it by the protocol asked for.

    The run's `metrics.json` is written last, and only if the training came to its end. One that was stopped has judged the best
    weights so far, and goes on from where it was. A finished run that is resumed gives its result again, unless it is asked
    for more epochs, or more patience, than it had.

    Raises:
        UsageError, DataError, EnvironmentProblem: as cli.md's table of exit codes says.
        NothingToJudge: stopped in the first epoch; what was trained is saved.
        FruitganError: the loss is not finite, the run folder cannot be written, or another process works in it.
    """
    return _Job(settings, on_progress).run()


@dataclass
class _Job:
    settings: TrainDetectorSettings
    on_progress: OnProgress | None
    stopped: bool = False
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    resuming: list[str] = field(default_factory=list)
    """What to know about how it goes on; said, and not part of the result, which is that of a run that was never stopped."""

    def tell(self, event: Event) -> bool:
        if self.on_progress is not None and self.on_progress(event):
            self.stopped = True
        return self.stopped

    def run(self) -> TrainDetectorResult:
        with ExitStack() as mine:
            if self.settings.resume is None:
                if self.settings.name is not None:
                    refuse_existing(self.settings.out / self.settings.name)
                return self._train(None, mine)
            asked, run = self.settings, named_run(self.settings)
            self.settings = merged_settings(asked, run)
            if (result := found_result(run, self.settings)) is not None:  # such a run need not be writable
                tidy(run)
                return result
            self.resuming += (*run.notes, *mine.enter_context(run.taken()))
            self.settings = merged_settings(asked, run)  # another process may have gone on with it until now
            return found_result(run, self.settings) or self._train(run, mine)

    def _train(self, run: Run | None, mine: ExitStack) -> TrainDetectorResult:
        began = time.monotonic()
        settings = self.settings
        device = choose_device(settings.gpu, settings.device)
        if device.type == "cpu":
            threads = chosen_threads(settings.threads).number
            mine.enter_context(using_threads(threads))
            self.settings = settings = dataclasses.replace(settings, threads=threads)
        data = data_folder(settings)
        detectors.owner(settings.detector or DEFAULT_DETECTOR)  # a wrong name is said before a thousand images are read
        if settings.augment is not None:
            augmentations.owner(settings.augment)
        dataset = read_dataset(data)
        self.warnings += dataset.warnings
        sizes = sizes_of(dataset.images)
        choice = read_config(run).detector if run is not None else self._choice(sizes)
        with torch.device("meta"):  # to ask it, without its weights
            detector = detectors.build(choice)
        fitting_augmentation(choice, detector, settings.augment)  # what does not fit is said before anything is made
        size_px = detector.image_size_px
        self.notes += size_notes(sizes, size_px)
        self._warn_of_size(choice, detector, device)
        with open_image_dataset(dataset.images, size_px, on_progress=self._loading) as album:
            self._note_broken(album)
            parts = self._split(album)
            if run is None:
                run = self._create(choice, device, album, parts, data)
                self.resuming += mine.enter_context(run.taken())
            else:
                refuse_other_images(run, album, parts)
                (run.path / METRICS).unlink(missing_ok=True)
            sitting = _Sitting(self, run, device, parts, len(PENALTIES) if isinstance(detector, LinearDetector) else None)
            fitted = fit(
                choice, album, parts, settings.fitting, device=device, on_round=sitting.on_round, keeper=sitting.keeper()
            )
            return Outcome(
                run=run,
                settings=self.settings,
                data=data,
                album=album,
                parts=parts,
                fitted=fitted,
                logits=fitted.logits(album, parts.test),
                notes=self.notes,
                warnings=self.warnings,
                seconds=time.monotonic() - began,
            ).leave()

    def _choice(self, sizes: Sizes) -> Choice:
        settings = self.settings
        return choose_detector(settings.detector or DEFAULT_DETECTOR, settings.detector_options, settings.image_size, sizes)

    def _split(self, album: LabelledImageDataset) -> Split:
        protocol = PROTOCOLS[self.settings.protocol or DEFAULT_PROTOCOL]
        parts = protocol.split(album.images, self.settings.fitting.seed)
        self.notes = [*protocol.explained(album.images, parts), *self.notes]
        if len(parts.test) < FEW_JUDGED:
            self._note_few(len(parts.test), len(album))
        return parts

    def _loading(self, done: int, total: int) -> None:
        self.tell(Loading(done, total))

    def _warn_of_size(self, choice: Choice, detector: Detector, device: torch.device) -> None:
        parameters = sum(parameter.numel() for parameter in detector.parameters())
        if device.type == "cpu" and parameters > MANY_PARAMETERS:
            self.warnings.append(
                f"{choice.name} at {detector.image_size_px} px has {parameters / 1e6:.0f} million weights: on a CPU an epoch "
                "takes minutes to hours; --image-size 64, or --detector small-cnn, is far quicker"
            )

    def _note_broken(self, album: LabelledImageDataset) -> None:
        if gone := [path for path, _ in album.broken if not os.path.lexists(path)]:
            raise DataError(f"{gone[0]}: disappeared while the dataset was read; see to the folder and give the command again")
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

    def _create(self, choice: Choice, device: torch.device, album: LabelledImageDataset, parts: Split, data: Path) -> Run:
        settings, fitting = self.settings, self.settings.fitting
        name = settings.name or _free_name(settings.out, f"{data.resolve().name}-{choice.name}")
        filled = dataclasses.replace(
            settings,
            data=data.resolve(),
            out=Path(settings.out.name),
            detector=choice.name,
            protocol=settings.protocol or DEFAULT_PROTOCOL,
            epochs=fitting.epochs,
            patience=fitting.patience,
            seed=fitting.seed,
        )
        config = RunConfig(
            format=FORMAT,
            kind=KIND,
            settings=filled,
            detector=choice,
            data_fingerprint=album.fingerprint,
            split=split_sha256(parts),
        )
        self.settings = dataclasses.replace(filled, out=settings.out)
        return Run.create(settings.out / name, config, environment(device))


@dataclass
class _Sitting:
    """From the newest checkpoint to wherever it gets."""

    job: _Job
    run: Run
    device: torch.device
    parts: Split
    trials: int | None
    """Of a regression, how many there are."""

    def keeper(self) -> CheckpointKeeper:
        return CheckpointKeeper(
            Checkpoints(self.run.path / CHECKPOINTS),
            self.job.settings.save_every_seconds,
            on_taken_up=self.on_taken_up,
            on_step=lambda: self.job.tell(Stepped()),
        )

    def on_taken_up(self, rounds: Sequence[Round], step: int, noticed: Sequence[str]) -> None:
        job, run, parts = self.job, self.run, self.parts
        lines = "".join(_line(found) for found in rounds)
        write_atomically(run.path / LOG, lines.encode())  # without what was logged after the checkpoint
        notes = [*noticed, *job.resuming, *take_up(run, job.settings), *keep_environment(run, step, environment(self.device))]
        total = self.trials or job.settings.fitting.epochs
        job.tell(
            Started(
                run.path,
                len(rounds),
                total,
                len(parts.train),
                len(parts.val),
                len(parts.test),
                tuple(job.notes),
                (*job.warnings, *notes),
            )
        )

    def on_round(self, found: Round) -> bool:
        self.run.log(log_line(found))
        return self.job.tell(Rounded(found))


def _line(found: Round) -> str:
    return json.dumps(log_line(found), allow_nan=False) + "\n"


def _free_name(out: Path, stem: str) -> str:
    numbers = (f"{stem}-{number}" for number in range(1, 10_000))
    return next(name for name in (stem, *numbers) if not (out / name).exists())
