"""Settings and result of the job `train_detector`, the config of its run, and what may change when that is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fruitgan.distributed import ranks
from fruitgan.errors import DataError, UsageError, shown
from fruitgan.registry import Choice, suggestion
from fruitgan.runs.resume import METRICS, changed_settings, merged_settings
from fruitgan.runs.run import CONFIG, LAUNCH, Run, check_name
from fruitgan.settings import Settings, to_json, typed
from fruitgan.train_detector.calibration import Verdict
from fruitgan.train_detector.protocols import PROTOCOLS

OUT = Path("runs/train-detector")
DEFAULT_DETECTOR = "small-cnn"
DEFAULT_PROTOCOL = "grouped"
LARGEST_BATCH = 64
LEAST_BATCH = 8
KIND = "train-detector"
FORMAT = 2
# What decides the mathematics: a resumed run cannot change these.
FIXED = ("detector", "detector_options", "protocol", "augment", "image_size", "batch_size", "learning_rate", "seed")
LENGTHS = ("epochs", "patience")
"""These decide only when to stop, so that a run may be resumed with others."""
KEPT = (*LENGTHS, "data", "threads", "track")
OF_RUN = (*FIXED, *KEPT, "name")
"""What a run has of its own: no variable of the environment changes it when the run is resumed."""
SIZE_OPTION = "image_size_px"
STEPS_PER_EPOCH = 16
"""Batch norm's running statistics need steps: with three an epoch they lag so far behind that patience runs out first."""


@dataclass(frozen=True, kw_only=True)
class FitSettings(Settings):
    """How a detector is trained; batch size, learning rate and epsilon are the lab report's."""

    epochs: int = 100
    patience: int = 10
    """Epochs without a lower validation loss after which it stops."""
    batch_size: int | None = None
    """None: 64, or fewer where an epoch would then have less than 16 steps."""
    learning_rate: float = 1e-3
    epsilon: float = 1e-7
    augment: str | None = None
    """Name of an augmentation; None means what the detector suggests."""
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("epochs", 1), ("patience", 1), ("batch_size", 2), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value < 2**63:
                raise UsageError(f"--{name.replace('_', '-')} {value}: {least} or more is needed, below 2**63")
        if not self.learning_rate > 0:
            raise UsageError(f"--learning-rate {self.learning_rate}: a number above 0 is needed")

    def batch_size_for(self, training_images: int) -> int:
        return self.batch_size or min(LARGEST_BATCH, max(LEAST_BATCH, training_images // STEPS_PER_EPOCH))


@dataclass(frozen=True, kw_only=True)
class TrainDetectorSettings(Settings):
    """None means: what a resumed run has, else the default, what the detector says, or what suits the images."""

    data: Path | None = None
    """A folder with `predicted/` (generated) and `origins/` (real); needed unless a run is resumed."""
    detector: str | None = None
    detector_options: Mapping[str, Any] = field(default_factory=dict)
    protocol: str | None = None
    augment: str | None = None
    image_size: int | None = None
    epochs: int | None = None
    patience: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    name: str | None = None
    out: Path = OUT
    resume: str | None = None
    """The run to go on with: `newest`, a name under `out`, or a folder."""
    seed: int | None = None
    gpu: str | None = None
    device: str | None = None
    threads: int | None = None
    """Of the CPU; None: what is fastest here, found by a trial, or what a resumed run has."""
    track: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data is None and self.resume is None:
            raise UsageError(
                "which images? Give --data DIR, a folder with predicted and origins (fruitgan export-dataset makes one)"
            )
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise UsageError(f"no protocol named {self.protocol!r}: {suggestion(self.protocol, sorted(PROTOCOLS))}")
        if self.image_size is not None and self.image_size < 1:
            raise UsageError(f"--image-size {self.image_size}: 1 or more is needed")
        if self.image_size is not None and SIZE_OPTION in self.detector_options:
            raise UsageError("--image-size and --detector-option image_size_px say the same thing; give one of them")
        check_name(self.name)
        self.fitting  # noqa: B018 - it checks the numbers

    @property
    def fitting(self) -> FitSettings:
        """Raises: UsageError, naming the option."""
        names = (entry.name for entry in dataclasses.fields(FitSettings) if hasattr(self, entry.name))
        return FitSettings(**{name: value for name in names if (value := getattr(self, name)) is not None})

    def filled(self) -> TrainDetectorSettings:
        """With every default that a run keeps."""
        kept = {name: getattr(self.fitting, name) for name in (*LENGTHS, "seed")}
        detector, protocol = self.detector or DEFAULT_DETECTOR, self.protocol or DEFAULT_PROTOCOL
        return dataclasses.replace(self, detector=detector, protocol=protocol, **kept)


@dataclass(frozen=True, kw_only=True)
class TrainDetectorResult(Verdict):
    """What `--json` prints and `metrics.json` holds: the scores on the test set, and what they belong to."""

    run: Path
    detector: str
    protocol: str
    calibration_error: float | None = None
    """Expected calibration error of the probabilities on the test images, too high where they are few; None: not measured."""
    parts: tuple[Mapping[str, Any], ...]
    """See `calibration.by_source_split`."""
    train_images: int
    val_images: int
    left_out_images: int
    image_size_px: int
    rounds: int
    """Epochs, or trials of a logistic regression; `best_round` had the lowest validation loss, and its weights are kept."""
    best_round: int
    finished: bool
    seconds: float
    file: Path
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A detector's `config.json`."""

    format: int = FORMAT
    kind: str = KIND
    settings: TrainDetectorSettings
    """With its defaults filled in."""
    detector: Choice
    data_fingerprint: str
    split: str
    """sha256 of which images are train, val and test."""
    launch: str | None = None
    """See `runs.run.LAUNCH`."""


def read_config(run: Run) -> RunConfig:
    """Raises: DataError if the run is of another kind or of another version's format, or its config is damaged."""
    table = run.config
    if table.get("kind") != KIND:
        raise DataError(f"{run.path}: not a run of {KIND}")
    if (version := table.get("format")) != FORMAT:
        raise DataError(
            f"{run.path}: a run of another fruitgan (format {shown(version)}, here {FORMAT}), which this one cannot resume; "
            "its detector.safetensors works as before"
        )
    return typed(RunConfig, table, run.path / CONFIG)


def settings_of_resumed(asked: TrainDetectorSettings, run: Run) -> TrainDetectorSettings:
    """The settings that the run goes on with.

    Raises:
        UsageError: something that decides the mathematics was given another value, or the run another name.
        DataError: no config of a detector's run.
    """
    config = read_config(run)
    stored = config.settings
    if SIZE_OPTION not in stored.detector_options:
        stored = dataclasses.replace(stored, image_size=config.detector.options.get(SIZE_OPTION))
    return merged_settings(run, asked, stored, fixed=FIXED, kept=KEPT)


def finished_result(run: Run, settings: TrainDetectorSettings) -> TrainDetectorResult | None:
    """The result of the finished run, wherever it lies now; None if it is not finished, or the settings ask for more of it.

    Raises:
        DataError: its file says something else.
    """
    file = run.path / METRICS
    if not file.is_file():
        return None
    result = typed(TrainDetectorResult, run.read(METRICS), file)
    fitting, before = settings.fitting, read_config(run).settings.fitting
    asks = (fitting.epochs, fitting.patience) != (before.epochs, before.patience)
    if asks and result.rounds < fitting.epochs and result.rounds - result.best_round < fitting.patience:
        return None
    return dataclasses.replace(result, run=run.path, file=run.path / result.file.name)


def keep_settings(run: Run, settings: TrainDetectorSettings) -> list[str]:
    """Write into the run's config what may change when it is resumed; what of that is new, in sentences."""
    stored = read_config(run).settings
    kept = dataclasses.replace(stored, **{name: getattr(settings, name) for name in KEPT})
    config = run.config | {"settings": to_json(kept), LAUNCH: ranks().launch}
    if config != run.config:
        run.write(CONFIG, config)
    changed = changed_settings(settings, stored, LENGTHS)
    return [f"goes on with {', '.join(changed)}"] if changed else []
