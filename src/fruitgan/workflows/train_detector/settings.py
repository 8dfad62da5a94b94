"""What `train_detector` is asked, what it tells while it works, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fruitgan.errors import UsageError
from fruitgan.registry import suggestion
from fruitgan.training.detection import PROTOCOLS, Confusion, FitSettings, Round

OUT = Path("runs/train-detector")
DEFAULT_DETECTOR = "small-cnn"
DEFAULT_PROTOCOL = "grouped"


@dataclass(frozen=True, kw_only=True)
class TrainDetectorSettings:
    """None means: what the detector says, or what suits the images."""

    data: Path
    """A folder with `predicted/` (generated) and `origins/` (real)."""
    detector: str = DEFAULT_DETECTOR
    detector_options: Mapping[str, str] = field(default_factory=dict)
    protocol: str = DEFAULT_PROTOCOL
    augment: str | None = None
    image_size: int | None = None
    epochs: int = FitSettings.epochs
    patience: int = FitSettings.patience
    batch_size: int | None = None
    name: str | None = None
    out: Path = OUT
    seed: int = 0
    gpu: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
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
        return FitSettings(
            epochs=self.epochs, patience=self.patience, batch_size=self.batch_size, augment=self.augment, seed=self.seed
        )


@dataclass(frozen=True)
class Loading:
    """Images are being decoded."""

    done: int
    total: int


@dataclass(frozen=True)
class Started:
    """The run folder stands and training begins."""

    run: Path
    rounds: int
    """At most so many follow."""
    train: int
    choose: int
    judge: int
    notes: tuple[str, ...]
    """What this number will and will not mean."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Rounded:
    """One epoch is over, or one penalty tried."""

    round: Round


Event = Loading | Started | Rounded
OnProgress = Callable[[Event], bool | None]
"""Called with each event; if it returns True, training ends after the epoch, and the best weights so far are judged."""


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
