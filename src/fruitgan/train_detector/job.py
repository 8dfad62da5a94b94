"""The job `train_detector`: split, train and test a detector, and leave a run folder with it, its scores and a report."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fruitgan
from fruitgan.data.augment import augmentations
from fruitgan.data.labelled import LabelledImage, read_dataset
from fruitgan.device import choose_device
from fruitgan.errors import DataError, UsageError
from fruitgan.files import write_atomically
from fruitgan.measures.statistics import wilson
from fruitgan.networks.contracts import Detector, LinearDetector, detectors
from fruitgan.progress import Event, Note, OnProgress, Progress
from fruitgan.registry import Choice
from fruitgan.runs.checkpoint import Checkpoints, SaveClock
from fruitgan.runs.resume import environment, find_run, keep_environment
from fruitgan.runs.run import CHECKPOINTS, LOG, Run, refuse_existing
from fruitgan.settings import to_json
from fruitgan.threads import chosen_threads, using_threads
from fruitgan.train_detector.calibration import by_source_split, judge
from fruitgan.train_detector.detector import (
    FILE_NAME,
    DetectorBundle,
    DetectorCard,
    LabelledImageDataset,
    choose_detector,
    open_image_dataset,
    save_detector,
    size_notes,
    sizes_of,
)
from fruitgan.train_detector.fit import FittedDetector, Monitor, Training, fit, fitting_augmentation
from fruitgan.train_detector.page import Report, examples, write_report
from fruitgan.train_detector.protocols import PROTOCOLS, Split
from fruitgan.train_detector.regression import Round
from fruitgan.train_detector.settings import (
    DEFAULT_DETECTOR,
    DEFAULT_PROTOCOL,
    FORMAT,
    KIND,
    METRICS,
    RunConfig,
    TrainDetectorResult,
    TrainDetectorSettings,
    data_folder,
    finished_result,
    forget_place,
    keep_settings,
    read_config,
    refuse_other_images,
    settings_of_resumed,
    split_sha256,
    tidy,
)

NAMED_FILES = 3
SMALL_TEST_SET = 100
MANY_PARAMETERS = 20_000_000
SLOW_EPOCH_SECONDS = 60


def train_detector(settings: TrainDetectorSettings, on_progress: OnProgress | None = None) -> TrainDetectorResult:
    """Train a detector on a dataset folder, or resume a run, and test it by the protocol asked for.

    The run's `metrics.json` is written last, and only if the training came to its end. One that was stopped has tested the best
    weights so far, and is resumed at the end of its last epoch. A finished run that is resumed gives its result again, unless
    it is asked for more epochs, or more patience, than it had.

    `on_progress` gets the parts `loading images` and `training`; details of the latter are `run` and `epoch` at the start, and
    the line of the log after each epoch.

    Raises:
        UsageError, DataError, EnvironmentProblem: as cli.md's table of exit codes says.
        NoRoundDone: stopped before the end of the first epoch, so that there is nothing to test.
        FruitganError: the loss is not finite, the run folder cannot be written, or another process works in it.
    """
    with ExitStack() as stack:
        if settings.resume is None:
            if settings.name is not None:
                refuse_existing(settings.out / settings.name)
            return _Job(settings, on_progress, stack).train(None)
        run = find_run(settings.out, settings.resume, METRICS)
        merged = settings_of_resumed(settings, run)
        if (result := finished_result(run, merged)) is not None:  # such a run need not be writable
            tidy(run)
            return result
        noticed = [*run.notes, *stack.enter_context(run.taken())]
        merged = settings_of_resumed(settings, run)  # another process may have gone on with it until now
        return finished_result(run, merged) or _Job(merged, on_progress, stack, resuming=noticed).train(run)


@dataclass
class _Job:
    settings: TrainDetectorSettings
    on_progress: OnProgress | None
    stack: ExitStack
    resuming: list[str] = field(default_factory=list)
    """What to know about how it goes on; told, and not part of the result, which is that of a run that was never stopped."""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stopped: bool = False

    def tell(self, event: Event) -> bool:
        """Whether it was asked to stop, now or before."""
        if self.on_progress is not None and self.on_progress(event):
            self.stopped = True
        return self.stopped

    def train(self, run: Run | None) -> TrainDetectorResult:
        began = time.monotonic()
        device = choose_device(self.settings.gpu, self.settings.device)
        if device.type == "cpu":
            threads = chosen_threads(self.settings.threads).number
            self.stack.enter_context(using_threads(threads))
            self.settings = dataclasses.replace(self.settings, threads=threads)
        data = data_folder(self.settings)
        self.settings = settings = dataclasses.replace(self.settings, data=data.resolve())
        detectors.owner(settings.detector or DEFAULT_DETECTOR)  # a wrong name is said before a thousand images are read
        if settings.augment is not None:
            augmentations.owner(settings.augment)
        labelled = read_dataset(data)
        self.warnings += labelled.warnings
        choice, size_px = self._choose(run, labelled.images, device)
        with open_image_dataset(labelled.images, size_px, tell=self.tell) as dataset:
            self._note_broken(dataset)
            split = self._split(dataset)
            if run is None:
                run = self._create(choice, device, dataset, split, data)
            else:
                refuse_other_images(run, dataset.fingerprint, split)
                (run.path / METRICS).unlink(missing_ok=True)
            fitted = fit(choice, dataset, split, settings.fitting, device=device, monitor=_Recorder(self, run, device, split))
            return self._finish(run, data, dataset, split, fitted, began)

    def _choose(self, run: Run | None, images: Sequence[LabelledImage], device: torch.device) -> tuple[Choice, int]:
        """The detector and its image size; what does not fit it is refused before anything is made."""
        settings, sizes = self.settings, sizes_of(images)
        if run is not None:
            choice = read_config(run).detector
        else:
            name = settings.detector or DEFAULT_DETECTOR
            choice = choose_detector(name, settings.detector_options, settings.image_size, sizes)
        with torch.device("meta"):  # to ask it, without its weights
            detector: Detector = detectors.build(choice)
        fitting_augmentation(choice, detector, settings.augment)
        if isinstance(detector, LinearDetector) and settings.learning_rate is not None:
            raise UsageError(f"--learning-rate: the detector {choice.name} is a logistic regression, which has none")
        self.notes += size_notes(sizes, detector.image_size_px)
        parameters = sum(parameter.numel() for parameter in detector.parameters())
        if device.type == "cpu" and parameters > MANY_PARAMETERS:
            self.warnings.append(
                f"{choice.name} at {detector.image_size_px} px has {parameters / 1e6:.0f} million weights: on a CPU an epoch "
                "takes minutes to hours; --image-size 64, or --detector small-cnn, is far quicker"
            )
        return choice, detector.image_size_px

    def _split(self, dataset: LabelledImageDataset) -> Split:
        protocol = PROTOCOLS[self.settings.protocol or DEFAULT_PROTOCOL]
        split = protocol.split(dataset.images, self.settings.fitting.seed)
        self.notes = [*protocol.explained(dataset.images, split), *self.notes]
        if (n := len(split.test)) < SMALL_TEST_SET:
            low, high = wilson(n // 2, n)
            needed = -(-500 * len(dataset) // max(1, n) // 50) * 50  # 500 test images give 4.4 points either way
            self.notes.append(
                f"{n} test images: chance alone moves such an accuracy by up to {50 * (high - low):.0f} points either way; "
                f"about {needed:,} images in all would make it 4"
            )
        return split

    def _note_broken(self, dataset: LabelledImageDataset) -> None:
        if gone := [path for path, _ in dataset.broken if not os.path.lexists(path)]:
            raise DataError(f"{gone[0]}: disappeared while the dataset was read; see to the folder and give the command again")
        if dataset.broken:
            named = "; ".join(f"{path}: {reason}" for path, reason in dataset.broken[:NAMED_FILES])
            more = f" and {len(dataset.broken) - NAMED_FILES} more" if len(dataset.broken) > NAMED_FILES else ""
            total = len(dataset) + len(dataset.broken)
            self.warnings.append(f"{len(dataset.broken)} of {total} images cannot be decoded and are left out: {named}{more}")

    def _create(self, choice: Choice, device: torch.device, dataset: LabelledImageDataset, split: Split, data: Path) -> Run:
        settings, fitting = self.settings, self.settings.fitting
        filled = dataclasses.replace(
            settings,
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
            data_fingerprint=dataset.fingerprint,
            split=split_sha256(split),
        )
        self.settings = dataclasses.replace(filled, out=settings.out)
        name = settings.name or _free_name(settings.out, f"{data.resolve().name}-{choice.name}")
        run = Run.create(settings.out / name, config, environment(device))
        self.resuming += self.stack.enter_context(run.taken())
        return run

    def _finish(
        self, run: Run, data: Path, dataset: LabelledImageDataset, split: Split, fitted: FittedDetector, began: float
    ) -> TrainDetectorResult:
        """Test the detector and write the files; `metrics.json`, which marks a finished run, comes last and only for one."""
        logits = fitted.logits(dataset, split.test)
        protocol, verdict = self.settings.protocol or DEFAULT_PROTOCOL, judge(logits, dataset.generated[split.test])
        card = DetectorCard(
            name=run.path.name,
            detector=fitted.choice,
            image_size_px=dataset.size_px,
            protocol=protocol,
            verdict=verdict,
            training_images=len(split.train),
            rounds=len(fitted.rounds),
            data=data.resolve().name,
            data_fingerprint=dataset.fingerprint,
            seed=self.settings.fitting.seed,
            fruitgan_version=fruitgan.__version__,
        )
        save_detector(DetectorBundle(card, fitted.detector), run.path / FILE_NAME)
        result = TrainDetectorResult(
            **vars(verdict),
            run=run.path,
            detector=fitted.choice.name,
            protocol=protocol,
            parts=by_source_split([dataset.images[i] for i in split.test], logits),
            train_images=len(split.train),
            val_images=len(split.val),
            left_out_images=len(split.left_out),
            unreadable_images=len(dataset.broken),
            image_size_px=dataset.size_px,
            rounds=len(fitted.rounds),
            best_round=fitted.best.number,
            finished=fitted.finished,
            seconds=round(time.monotonic() - began, 3),
            file=run.path / FILE_NAME,
            notes=tuple(self.notes),
            warnings=tuple(self.warnings),
        )
        self._report(run, data, dataset, split, fitted, logits, to_json(result))
        if result.finished:
            write_atomically(run.path / METRICS, json.dumps(to_json(result), indent=1, allow_nan=False).encode())
            forget_place(run)
        return result

    def _report(
        self,
        run: Run,
        data: Path,
        dataset: LabelledImageDataset,
        split: Split,
        fitted: FittedDetector,
        logits: NDArray[np.float64],
        result: dict[str, Any],
    ) -> None:
        # A report is passed on, and where its maker keeps files is nobody's business.
        result["warnings"] = [warning.replace(str(data), data.resolve().name) for warning in self.warnings]
        report = Report(
            name=run.path.name,
            result=result,
            detector=fitted.choice,
            augmentation=fitted.augmentation,
            rounds=fitted.rounds,
            logits=logits,
            generated=dataset.generated[split.test],
            examples=examples(dataset, split, logits),
            settings=self.settings.fitting,
            environment=environment(fitted.device),
        )
        write_report(report, run.path)


class _Recorder(Monitor):
    """Resumes the training from the newest checkpoint, and keeps its log and checkpoints; tells the job's caller."""

    def __init__(self, job: _Job, run: Run, device: torch.device, split: Split) -> None:
        self.job = job
        self.run = run
        self.device = device
        self.split = split
        self.checkpoints = Checkpoints(run.path / CHECKPOINTS)
        self.clock = SaveClock(0.0)
        self.is_saved = True
        """Whether the end of the last epoch is in a checkpoint."""

    def begin(self, training: Training) -> None:
        job, run, split = self.job, self.run, self.split
        step, noticed = self.checkpoints.restore_newest({"training": training})
        entries = [_log_line(training.rounds[: number + 1]) for number in range(len(training.rounds))]
        lines = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries)
        write_atomically(run.path / LOG, lines.encode())  # without what was logged after the checkpoint
        changed = [*keep_settings(run, job.settings), *keep_environment(run, step, environment(self.device))]
        for warning in (*job.warnings, *noticed, *job.resuming, *changed):
            job.tell(Note(warning, is_warning=True))
        for note in job.notes:
            job.tell(Note(note))
        job.tell(Note(f"{run.path}: {len(split.train)} train, {len(split.val)} val and {len(split.test)} test images"))
        epoch = len(training.rounds)
        if epoch:
            job.tell(Note(f"resumed after epoch {epoch}"))
        job.tell(Progress("training", training.step, training.total_steps, {"run": run.path, "epoch": epoch}))

    def step_done(self, training: Training) -> bool:
        # An epoch whose start is in no checkpoint is worth finishing: epochs are short where not each end is saved.
        return self.job.tell(Progress("training", training.step, training.total_steps)) and self.is_saved

    def round_done(self, training: Training) -> bool:
        line = _log_line(training.rounds)
        self.run.log(line)
        stop = self.job.tell(Progress("training", training.step, training.total_steps, line))
        if len(training.rounds) == 1 and training.rounds[0].seconds > SLOW_EPOCH_SECONDS:
            slow = f"an epoch takes {training.rounds[0].seconds:.0f} seconds; a smaller --image-size is faster"
            self.job.tell(Note(f"{slow}; Ctrl-C tests the best weights so far", is_warning=True))
        self.is_saved = stop or training.is_over or self.clock.is_due
        if self.is_saved:
            with self.clock.saving():
                self.checkpoints.save(training.step, {"training": training})
        return stop


def _log_line(rounds: Sequence[Round]) -> dict[str, Any]:
    """The last of these rounds as a line of the log; a regression's has its penalty."""
    last = rounds[-1]
    line = {key: value for key, value in to_json(last).items() if value is not None}
    line["seconds"] = round(last.seconds, 3)
    is_best = all(last.val_loss < before.val_loss for before in rounds[:-1])
    return {"epoch" if last.penalty is None else "trial": line.pop("number"), **line, "is_best": is_best}


def _free_name(out: Path, stem: str) -> str:
    numbers = (f"{stem}-{number}" for number in range(1, 10_000))
    return next(name for name in (stem, *numbers) if not (out / name).exists())
