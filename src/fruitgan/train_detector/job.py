"""The job `train_detector`: split, train and test a detector, and leave a run folder with it, its scores and a report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import fruitgan
from fruitgan.data.augment import augmentations
from fruitgan.data.labelled import LabelledImage, read_dataset
from fruitgan.data.preprocessing import AS_USUAL, with_found_range
from fruitgan.device import choose_device, chosen_threads, own_randomness, shared_threads, using_threads
from fruitgan.distributed import own_gpu, own_threads, ranks
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.files import write_atomically
from fruitgan.measures.statistics import wilson
from fruitgan.networks.contracts import Detector, LinearDetector, detectors
from fruitgan.progress import Listener, Note, OnProgress, Progress
from fruitgan.registry import Choice
from fruitgan.runs.checkpoint import Checkpoints, SaveClock
from fruitgan.runs.resume import DETECTOR, METRICS, environment, find_run, keep_environment, run_of_launch
from fruitgan.runs.run import CHECKPOINTS, LOCK, LOG, Run, check_new, free_name, of_first
from fruitgan.runs.trackers import Trackers
from fruitgan.settings import to_json
from fruitgan.train_detector.calibration import by_source_split, calibration, calibration_slope, judge
from fruitgan.train_detector.detector import (
    DetectorBundle,
    DetectorCard,
    LabelledImageDataset,
    choose_detector,
    open_image_dataset,
    save_detector,
    size_notes,
    sizes_of,
)
from fruitgan.train_detector.fit import Training, fitting_augmentation
from fruitgan.train_detector.page import write_report
from fruitgan.train_detector.protocols import PROTOCOLS, Split, explained
from fruitgan.train_detector.regression import Round
from fruitgan.train_detector.seen import seen_by
from fruitgan.train_detector.settings import (
    DEFAULT_DETECTOR,
    DEFAULT_PROTOCOL,
    LENGTHS,
    FitSettings,
    RunConfig,
    TrainDetectorResult,
    TrainDetectorSettings,
    finished_result,
    keep_settings,
    read_config,
    settings_of_resumed,
)

SMALL_TEST_SET = 100


def train_detector(settings: TrainDetectorSettings, on_progress: OnProgress | None = None) -> TrainDetectorResult:
    """Train a detector on a dataset folder, or resume a run, and test it by the protocol asked for.

    The run's `metrics.json` is written last, and only if the training came to its end. One that was stopped has tested the best
    weights so far, and is resumed at the end of its last epoch. A finished run that is resumed gives its result again, unless
    it is asked for more epochs, or more patience, than it had.

    `on_progress` gets the parts `loading images` and `training`; details of the latter are `run` and `epoch` at the start, and
    the line of the log after each epoch. Within `process_group.joined` it is one of the processes that train together.

    Raises:
        UsageError, DataError, EnvironmentProblem: as docs/exit-codes.md says.
        NoRoundDone: stopped before the end of the first epoch, so that there is nothing to test.
        FruitganError: the loss is not finite, the run folder cannot be written, or another process works in it.
    """
    with ExitStack() as stack:
        if (again := run_of_launch(settings.out)) is not None:
            settings = replace(settings, resume=again, name=None)
            Listener(on_progress).warn(f"the processes were started anew, and go on from the last checkpoint of {again}")
        if settings.resume is None:
            check_new(settings.out, settings.name)
            return _Job(on_progress, settings=settings.filled(), stack=stack).train(None)
        wanted = settings.resume
        run = of_first(lambda: find_run(settings.out, wanted, METRICS))
        merged = settings_of_resumed(settings, run)
        if (result := finished_result(run, merged)) is not None:
            if (run.path / LOCK).is_file():  # left by a death right after its end
                with suppress(FruitganError), run.taken():  # such a run need not be writable
                    return result
            return result
        noticed = [*run.notes, *stack.enter_context(run.taken())]
        merged = settings_of_resumed(settings, run)  # another process may have gone on with it until now
        return finished_result(run, merged) or _Job(on_progress, settings=merged, stack=stack, resuming=noticed).train(run)


@dataclass(kw_only=True)
class _Job(Listener):
    settings: TrainDetectorSettings
    """With every default filled in."""
    stack: ExitStack
    resuming: list[str] = field(default_factory=list)
    """What to know about how it goes on; told, and not part of the result, which is that of a run that was never stopped."""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Known once the device is chosen."""

    def train(self, run: Run | None) -> TrainDetectorResult:
        began = time.monotonic()
        device = choose_device(own_gpu(self.settings.gpu, self.settings.device), self.settings.device)
        trackers = Trackers(self.settings.track if ranks().is_first else (), self, is_new=run is None)
        if device.type == "cpu":
            asked = self.settings.threads
            threads = shared_threads(asked, own_threads()) if ranks().is_group else chosen_threads(asked)
            self.stack.enter_context(using_threads(threads.number))
            self.settings = replace(self.settings, threads=threads.number)
        self.environment = environment(device)
        settings, data = self.settings, self.settings.data
        assert data is not None
        if run is not None and not data.exists():
            raise UsageError(f"{data}: not here, and {run.path} was trained on it; give --data DIR to resume it")
        detectors.owner(settings.detector or DEFAULT_DETECTOR)  # a wrong name is said before a thousand images are read
        if settings.augment is not None:
            augmentations.owner(settings.augment)
        labelled = read_dataset(data)
        self.warnings += labelled.warnings
        paths = [image.path for image in labelled.images]
        how = with_found_range(AS_USUAL, paths, self.tell)
        choice, size_px = self._choose(run, labelled.images)
        dataset = ranks().in_turn(lambda: open_image_dataset(labelled.images, size_px, how=how, tell=self.tell))
        split = self._split(dataset)
        seen = seen_by(paths, split, self.tell) | {"value_range": how.value_range}
        config = RunConfig(
            settings=replace(settings, out=Path(settings.out.name)),
            detector=choice,
            data_fingerprint=dataset.decoded.fingerprint,
            split=split.sha256,
            launch=ranks().launch,
        )
        versions = {"fruitgan": fruitgan.__version__, "torch": torch.__version__, "device": device.type}
        facts = {"the images": config.data_fingerprint, "their split": config.split, "detector": to_json(choice)}
        ranks().agree(versions | facts | {"settings": to_json(settings.fitting)})
        if run is None:
            name = settings.name or free_name(settings.out, f"{data.resolve().name}-{choice.name}")
            run = of_first(lambda: Run.create(settings.out / name, config, self.environment))
            self.resuming += self.stack.enter_context(run.taken())
        else:
            kept = read_config(run)
            if (kept.data_fingerprint, kept.split) != (config.data_fingerprint, config.split):
                raise DataError(
                    f"{run.path}: the images, or how they are grouped, are not those of the run; resume with the same dataset"
                )
            if ranks().is_first:
                (run.path / METRICS).unlink(missing_ok=True)
        with own_randomness(device):
            training = Training(choice, dataset, split, settings.fitting, device, self.tell)
            self._train(run, training, trackers)
            best = training.load_best()
        if training.is_over:  # perhaps before all epochs that it might have had
            self.tell(Progress("training", training.total_steps, training.total_steps))
        return self._finish(run, training, best, seen, began)

    def _train(self, run: Run, training: Training, trackers: Trackers) -> None:
        """Go on from the newest checkpoint until the training is over, or it was asked to stop and loses nothing by it."""
        checkpoints, clock, total = Checkpoints(run.path / CHECKPOINTS), SaveClock(0.0), training.total_steps
        trackers.begin(run, (run.path / LOG).read_text().count("\n") if (run.path / LOG).is_file() else 0)
        self.stack.callback(trackers.end)
        self._begin(run, training, checkpoints)
        is_saved = True
        for found in training.run():
            if found is None:
                # An epoch whose start is in no checkpoint is worth finishing: epochs are short where not each end is saved.
                self.tell(Progress("training", training.step, total))
                if ranks().any(self.stopped and is_saved)[0]:
                    return
                continue
            line = _log_line(training.rounds)
            run.log(line)
            trackers.line(found.number, line)
            self.tell(Progress("training", training.step, total, line))
            stop, is_saved = ranks().any(self.stopped, self.stopped or training.is_over or clock.is_due)
            if is_saved and ranks().is_first:
                with clock.saving():
                    run.log_to_disk()
                    checkpoints.save(training.step, {"training": training})
            if stop:
                return

    def _begin(self, run: Run, training: Training, checkpoints: Checkpoints) -> None:
        """Take up the newest checkpoint, and tell all that is to know before the training."""
        step, noticed = checkpoints.restore_newest({"training": training})
        entries = [_log_line(training.rounds[: number + 1]) for number in range(len(training.rounds))]
        lines = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries)
        if ranks().is_first:
            write_atomically(run.path / LOG, lines.encode())  # without what was logged after the checkpoint
        ranks().agree({"the checkpoint's step": step})
        ranks().begin(training.device)
        changed = [*keep_settings(run, self.settings), *keep_environment(run, step, self.environment)]
        self.warn(*self.warnings, *noticed, *self.resuming, *changed)
        split, epoch = training.split, len(training.rounds)
        counts = f"{run.path}: {len(split.train)} train, {len(split.val)} val and {len(split.test)} test images"
        for note in (*self.notes, counts, *([f"resumed after epoch {epoch}"] if epoch else [])):
            self.tell(Note(note))
        self.tell(Progress("training", training.step, training.total_steps, {"run": run.path, "epoch": epoch}))

    def _choose(self, run: Run | None, images: Sequence[LabelledImage]) -> tuple[Choice, int]:
        """The detector and its image size; what does not fit it is refused before anything is made."""
        settings, sizes = self.settings, sizes_of(images)
        name = settings.detector or DEFAULT_DETECTOR
        choice = choose_detector(name, settings.detector_options, settings.image_size, sizes)
        if run is not None:
            choice = read_config(run).detector
        with torch.device("meta"):  # to ask it, without its weights
            detector: Detector = detectors.build(choice)
        fitting_augmentation(choice, detector, settings.augment)
        if isinstance(detector, LinearDetector) and settings.learning_rate is not None:
            raise UsageError(f"--learning-rate: the detector {choice.name} is a logistic regression, which has none")
        usual = FitSettings()
        idle = [name for name in (*LENGTHS, "batch_size") if getattr(settings, name) not in (None, getattr(usual, name))]
        if isinstance(detector, LinearDetector) and idle:
            given = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
            self.warnings.append(f"{given}: without effect, since the detector {choice.name} is a logistic regression")
        self.notes += size_notes(sizes, detector.image_size_px)
        return choice, detector.image_size_px

    def _split(self, dataset: LabelledImageDataset) -> Split:
        protocol = self.settings.protocol or DEFAULT_PROTOCOL
        split = PROTOCOLS[protocol](dataset.images, self.settings.fitting.seed)
        self.notes = [*explained(protocol, dataset.images, split), *self.notes]
        if (n := len(split.test)) < SMALL_TEST_SET:
            low, high = wilson(n // 2, n)
            needed = -(-500 * len(dataset) // max(1, n) // 50) * 50  # 500 test images give 4.4 points either way
            self.notes.append(
                f"{n} test images: chance alone moves such an accuracy by up to {50 * (high - low):.0f} points either way; "
                f"about {needed:,} images in all would make it 4"
            )
        return split

    def _finish(self, run: Run, training: Training, best: Round, seen: dict[str, Any], began: float) -> TrainDetectorResult:
        """Test the detector and write the files; `metrics.json`, which marks a finished run, comes last and only for one."""
        settings, dataset, split = self.settings, training.dataset, training.split
        logits, truth = dataset.logits(training.detector, split.test, training.device), dataset.generated[split.test]
        verdict = judge(logits, truth, [dataset.images[i].group for i in split.test])
        slope = calibration_slope(dataset.logits(training.detector, split.val, training.device), dataset.generated[split.val])
        assert settings.data is not None
        data, protocol = settings.data.resolve().name, settings.protocol or DEFAULT_PROTOCOL
        card = DetectorCard(
            name=run.path.name,
            detector=training.choice,
            image_size_px=dataset.size_px,
            protocol=protocol,
            verdict=verdict,
            training_images=len(split.train),
            rounds=len(training.rounds),
            data=data,
            data_fingerprint=dataset.decoded.fingerprint,
            seed=settings.fitting.seed,
            fruitgan_version=fruitgan.__version__,
            calibration_slope=slope,
            **seen,
        )
        if ranks().is_first:
            save_detector(DetectorBundle(card, training.detector), run.path / DETECTOR)
        result = TrainDetectorResult(
            **vars(verdict),
            run=run.path,
            detector=training.choice.name,
            protocol=protocol,
            calibration_error=calibration(slope * logits, truth).error,
            parts=by_source_split([dataset.images[i] for i in split.test], logits),
            train_images=len(split.train),
            val_images=len(split.val),
            left_out_images=len(split.left_out),
            image_size_px=dataset.size_px,
            rounds=len(training.rounds),
            best_round=best.number,
            finished=training.is_over,
            seconds=round(time.monotonic() - began, 3),
            file=run.path / DETECTOR,
            notes=tuple(self.notes),
            warnings=tuple(self.warnings),
        )
        if not ranks().is_first:
            return result
        # A report is passed on, and where its maker keeps files is nobody's business.
        warnings = [warning.replace(str(settings.data), data) for warning in self.warnings]
        write_report(run.path, {**to_json(result), "warnings": warnings}, training, logits, self.environment)
        if result.finished:
            run.write(METRICS, result)
        return result


def _log_line(rounds: Sequence[Round]) -> dict[str, Any]:
    """The last of these rounds as a line of the log; a regression's has its penalty."""
    last = rounds[-1]
    line = {key: value for key, value in to_json(last).items() if value is not None}
    line["seconds"] = round(last.seconds, 3)
    is_best = all(last.val_loss < before.val_loss for before in rounds[:-1])
    return {"epoch" if last.penalty is None else "trial": line.pop("number"), **line, "is_best": is_best}
