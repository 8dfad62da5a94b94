"""What `train_detector` is asked, what it tells while it works, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fruitgan.errors import UsageError
from fruitgan.registry import suggestion
from fruitgan.train_detector.calibration import Confusion
from fruitgan.train_detector.epochs import Round
from fruitgan.train_detector.fit import FitSettings
from fruitgan.train_detector.protocols import PROTOCOLS

OUT = Path("runs/train-detector")
DEFAULT_DETECTOR = "small-cnn"
DEFAULT_PROTOCOL = "grouped"
SAVE_EVERY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class TrainDetectorSettings:
    """None means: what a resumed run has, else the default, what the detector says, or what suits the images."""

    data: Path | None = None
    """A folder with `predicted/` (generated) and `origins/` (real); needed unless a run is resumed."""
    detector: str | None = None
    detector_options: Mapping[str, str] = field(default_factory=dict)
    protocol: str | None = None
    augment: str | None = None
    image_size: int | None = None
    epochs: int | None = None
    patience: int | None = None
    batch_size: int | None = None
    name: str | None = None
    out: Path = OUT
    resume: str | None = None
    """The run to go on with: `newest`, a name under `out`, or a folder."""
    save_every_seconds: float = SAVE_EVERY_SECONDS
    """At the least so long lies between two checkpoints within an epoch; 0 saves after every step, whatever that costs."""
    seed: int | None = None
    gpu: str | None = None
    device: str | None = None
    threads: int | None = None
    """Of the CPU; None: what is fastest here, found by a trial, or what a resumed run has."""

    def __post_init__(self) -> None:
        if self.data is None and self.resume is None:
            raise UsageError(
                "which images? Give --data DIR, a folder with predicted and origins (fruitgan export-dataset makes one)"
            )
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise UsageError(f"no protocol named {self.protocol!r}: {suggestion(self.protocol, sorted(PROTOCOLS))}")
        if self.image_size is not None and self.image_size < 1:
            raise UsageError(f"--image-size {self.image_size}: 1 or more is needed")
        if self.image_size is not None and "image_size_px" in self.detector_options:
            raise UsageError("--image-size and --detector-option image_size_px say the same thing; give one of them")
        if self.name is not None and (self.name in ("", ".", "..") or "/" in self.name or "\\" in self.name):
            raise UsageError(f"--name {self.name!r}: a name, not a path; the folder above it is --out")
        self.fitting  # noqa: B018 - it checks the numbers

    @property
    def fitting(self) -> FitSettings:
        """Raises: UsageError, naming the option."""
        names = ("epochs", "patience", "batch_size", "augment", "seed")
        return FitSettings(**{name: value for name in names if (value := getattr(self, name)) is not None})


@dataclass(frozen=True)
class Loading:
    """Images are being decoded."""

    done: int
    total: int


@dataclass(frozen=True)
class Started:
    """The run folder stands and training begins."""

    run: Path
    done: int
    """Rounds that an earlier sitting has done."""
    rounds: int
    """At most so many it will be in all."""
    train: int
    choose: int
    judge: int
    notes: tuple[str, ...]
    """What this number will and will not mean."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Stepped:
    """One step within an epoch is done."""


@dataclass(frozen=True)
class Rounded:
    """One epoch is over, or one penalty tried."""

    round: Round


Event = Loading | Started | Stepped | Rounded
OnProgress = Callable[[Event], bool | None]
"""Called with each event; if it returns True, training is saved and stops there, and the best weights so far are judged."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Of the judged fakes, those from one split of the generator's data, with the real images judged. Shares in [0, 1]."""

    split: str
    n: int
    found: float
    """The share of them that was recognised as generated."""
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class TrainDetectorResult:
    """What `--json` prints and `metrics.json` holds. Shares are in [0, 1], intervals are 95% (Wilson)."""

    run: Path
    detector: str
    protocol: str
    accuracy: float
    interval: tuple[float, float]
    auc: float
    p_value: float
    chance: float
    n: int
    confusion: Confusion
    parts: tuple[Part, ...]
    train_images: int
    choose_images: int
    left_out_images: int
    unreadable_images: int
    image_size_px: int
    rounds: int
    best_round: int
    finished: bool
    seconds: float
    file: Path
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
