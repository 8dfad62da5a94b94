"""What `train_gan` is asked, what it tells while it works, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from fruitgan.device import Precision
from fruitgan.errors import UsageError
from fruitgan.train_gan.trainer import StepReport

OUT = Path("runs/train-gan")
OnNan = Literal["stop", "rollback"]


@dataclass(frozen=True, kw_only=True)
class TrainGanSettings:
    """None means: what the recipe says, or what suits the machine."""

    data: str | None = None
    data_a: Path | None = None
    data_b: Path | None = None
    domains: tuple[str, str] | None = None
    recipe: str | None = None
    generator: str | None = None
    generator_options: Mapping[str, Any] = field(default_factory=dict)
    discriminator: str | None = None
    discriminator_options: Mapping[str, Any] = field(default_factory=dict)
    objective: str | None = None
    augment: str | None = None
    image_size: int | None = None
    batch_size: int | None = None
    epochs: int | None = None
    steps: int | None = None
    precision: Precision | None = None
    seed: int | None = None
    init_from: str | None = None
    teacher: str | None = None
    """The file of the bundle whose pictures an objective of imitation imitates."""
    max_seconds: float | None = None
    name: str | None = None
    out: Path = OUT
    resume: str | None = None
    """A run's name or folder, or `newest`."""
    sample_every: int | None = None
    save_every: int | None = None
    log_every: int | None = None
    keep: int | None = None
    on_nan: OnNan | None = None
    gpu: str | None = None
    device: str | None = None
    threads: int | None = None
    """Of the CPU; None: what is fastest here, found by a trial, or what a resumed run has."""
    deterministic: bool = False
    compile: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        counts = ("threads", "batch_size", "epochs", "steps", "sample_every", "save_every", "log_every", "keep")
        for name, least in {"image_size": 8, **dict.fromkeys(counts, 1)}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value}: {least} or more is needed")
        if self.on_nan not in (None, *get_args(OnNan)):
            raise UsageError(f"--on-nan {self.on_nan}: expected {' or '.join(get_args(OnNan))}")
        if self.epochs is not None and self.steps is not None:
            raise UsageError("--epochs and --steps say the same thing; give one of them")
        if self.name is not None and (self.name in ("", ".", "..") or "/" in self.name or "\\" in self.name):
            raise UsageError(f"--name {self.name!r}: a name, not a path; the folder above it is --out")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How often a run tells, shows and saves, in steps; how many checkpoints it keeps; what it does if a loss is not finite."""

    sample_every: int = 500
    save_every: int = 500
    log_every: int = 25
    keep: int = 2
    on_nan: OnNan = "stop"

    @classmethod
    def of(cls, *settings: TrainGanSettings) -> Habits:
        """From the first of the settings that says something: the new ones, then those of the run that is resumed."""
        found: dict[str, Any] = {}
        for given in settings:
            for habit in fields(cls):
                if (value := getattr(given, habit.name)) is not None:
                    found.setdefault(habit.name, value)
        return cls(**found)


# What decides the mathematics: a resumed run cannot change these.
FIXED = (
    "data", "data_a", "data_b", "domains", "recipe", "generator", "generator_options", "discriminator", "discriminator_options",
    "objective", "augment", "image_size", "batch_size", "precision", "seed", "init_from", "teacher",
)  # fmt: skip


@dataclass(frozen=True)
class Loading:
    """Images are being fetched, drawn or decoded."""

    label: str
    done: int
    total: int


@dataclass(frozen=True)
class Started:
    """The run folder stands and training begins."""

    run: Path
    step: int
    total_steps: int
    notes: tuple[str, ...]
    threads: str | None
    """How many CPU threads compute, and why; None on another device."""


@dataclass(frozen=True)
class Stepped:
    """One step is done."""

    report: StepReport
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Saved:
    """A checkpoint and a bundle of this step are on the disk."""

    step: int
    checkpoint: Path


@dataclass(frozen=True)
class Noted:
    """Something that one should know and perhaps act on: a warning of the watch, a rollback."""

    step: int
    text: str


Event = Loading | Started | Stepped | Saved | Noted
OnProgress = Callable[[Event], bool | None]
"""Called with each event; if it returns True, the job finishes its step, saves and returns unfinished."""


@dataclass(frozen=True)
class TrainGanResult:
    """What cli.md promises as JSON."""

    run: Path
    step: int
    finished: bool
    images: int
    seconds: float
    images_per_second: float
    bundle: Path
    final_losses: Mapping[str, float]
    weights_sha256: str
