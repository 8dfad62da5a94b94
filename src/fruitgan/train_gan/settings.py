"""Settings, plan and result of the job `train_gan`, the config of its run, and the settings of a run that is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fruitgan import bundle as bundles
from fruitgan.data.preprocessing import AS_USUAL, Preprocessing
from fruitgan.data.sources import pinned_data
from fruitgan.errors import DataError, UsageError
from fruitgan.images import Fit
from fruitgan.registry import Choice
from fruitgan.runs.resume import merged_settings
from fruitgan.runs.run import CONFIG, Run, check_name
from fruitgan.settings import Precision, Settings, typed
from fruitgan.train_gan.recipe import LENGTHS, Recipe

OUT = Path("runs/train-gan")
TRAINING = "training"
"""What the events of a training's steps are called."""
OnNan = Literal["stop", "rollback"]
INTERVALS = ("sample_every", "save_every", "log_every", "evaluate_every", "keep", "keep_every")
DEFAULTS: Mapping[str, Any] = {"sample_every": 500, "log_every": 25, "keep": 2, "on_nan": "stop"}
"""Of a new run, where nothing else is asked for; intervals are in steps."""


@dataclass(frozen=True, kw_only=True)
class TrainGanSettings(Settings):
    """None means: what the recipe says, or what suits the machine."""

    data: str | None = None
    data_a: str | Path | None = None
    data_b: str | Path | None = None
    domains: tuple[str, str] | None = None
    background: str | None = None
    """What transparent pixels lie on; None: white."""
    value_range: str | None = None
    """LOW,HIGH of grey images of more than 8 bits; None or `auto`: from the training images."""
    fit: Fit | None = None
    """How rectangles become squares."""
    recipe: str | None = None
    """A name, or a TOML file."""
    recipe_changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe by dotted name, as values or as texts of `--set`; a resumed run may change what only affects later
    steps."""
    learning_rate: float | None = None
    """Of the generators; the discriminators' keeps its ratio to it."""
    cycle_weight: str | None = None
    """`5`, or `8:2` for a weight that falls linearly."""
    generator: str | None = None
    generator_options: Mapping[str, Any] = field(default_factory=dict)
    discriminator: str | None = None
    discriminator_options: Mapping[str, Any] = field(default_factory=dict)
    objective: str | None = None
    objective_options: Mapping[str, Any] = field(default_factory=dict)
    augment: str | None = None
    image_size: int | None = None
    batch_size: int | None = None
    epochs: int | None = None
    steps: int | None = None
    precision: Precision | None = None
    seed: int | None = None
    init_from: str | None = None
    teacher: str | None = None
    """The bundle's file whose generators teach the objective `distillation`."""
    max_seconds: float | None = None
    name: str | None = None
    out: Path = OUT
    resume: str | None = None
    """A run's name or folder, `newest`, or RUN@STEP for a new run from that checkpoint."""
    sample_every: int | None = None
    save_every: int | None = None
    """In steps; None: by time, see `runs.checkpoint.SaveClock`."""
    log_every: int | None = None
    evaluate_every: int | None = None
    """In steps, rounded up to whole lines of the log; None: no image is held out, and there is no KID."""
    keep: int | None = None
    keep_every: int | None = None
    """In steps; None: no checkpoint is kept for good."""
    on_nan: OnNan | None = None
    track: tuple[str, ...] = ()
    """Names of trackers."""
    gpu: str | None = None
    device: str | None = None
    threads: int | None = None
    """Of the CPU; None: what is fastest here, found by a trial, or what a resumed run has."""
    allow_overlap: bool = False
    """Train even where a picture is in both domains."""
    force: bool = False
    """Train even where the memory for a step is estimated to be too little."""
    deterministic: bool = False
    compile: bool = False
    profile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = dict.fromkeys((*INTERVALS, "threads", "batch_size", "epochs", "steps"), 1)
        for name, least in {"image_size": 8, **counts}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value}: {least} or more is needed")
        if self.learning_rate is not None and not 0 < self.learning_rate <= 1:
            raise UsageError(f"--learning-rate {self.learning_rate:g}: expected more than 0 and at most 1, such as 2e-4")
        if self.epochs is not None and self.steps is not None:
            raise UsageError("--epochs and --steps say the same thing; give one of them")
        check_name(self.name)
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: 0 or more is needed")


PLACES = ("data", "data_a", "data_b")
"""Where the images lie; a resumed run may find the same ones elsewhere."""
# What decides the mathematics from the first step on: a resumed run cannot change these.
FIXED = (
    "domains", "background", "value_range", "fit", "recipe", "generator",
    "generator_options", "discriminator", "discriminator_options", "objective", "objective_options", "augment",
    "image_size", "batch_size", "precision", "seed", "init_from", "teacher",
)  # fmt: skip
KEPT = (*INTERVALS, "on_nan", "track", "deterministic", "threads")
"""A resumed run keeps these unless they are given anew; on the same machine the last two decide the bits."""
OF_RUN = (*FIXED, *KEPT, *PLACES, *LENGTHS, "learning_rate", "cycle_weight", "name")
"""What a run has of its own: no variable of the environment changes it when the run is resumed."""


@dataclass(frozen=True)
class TrainGanResult:
    """What `--json` prints."""

    run: Path
    step: int
    finished: bool
    images: int
    seconds: float
    images_per_second: float
    bundle: Path
    final_losses: Mapping[str, float]
    weights_sha256: str


def located(settings: TrainGanSettings) -> TrainGanSettings:
    """With whole paths of the data and commits of the Hub, so that a run can be resumed elsewhere and later; a name stays."""

    def whole(place: str | Path | None) -> str | None:
        if place is None or not Path(place).exists():
            return None if place is None else pinned_data(str(place))
        return str(Path(place).resolve())

    places: dict[str, Any] = {place: whole(getattr(settings, place)) for place in PLACES}
    if (init := settings.init_from) is not None:
        init = bundles.pinned(init) or str(bundles.locate(init).resolve())
    return dataclasses.replace(settings, init_from=init, **places)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the mathematics, resolved: what a resumed run reads."""

    recipe_name: str
    recipe: Recipe
    """With the settings' own wishes put in."""
    objective: Choice
    generator: Choice
    discriminator: Choice
    augmentation: Choice
    precision: Precision
    seed: int
    preprocessing: Preprocessing = AS_USUAL


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training's `config.json`."""

    format: int = 1
    settings: TrainGanSettings
    """As the run was made, or last resumed."""
    plan: Plan
    total_steps: int
    steps_per_epoch: int
    domains: tuple[str, str]
    training_images: tuple[int, int]
    data_fingerprint: str
    held_out_images: tuple[int, int] | None = None
    init_sha256: str | None = None
    """Of the weights of `init_from`: a run it named may have trained on since."""
    launch: str | None = None
    """See `runs.run.LAUNCH`."""
    launch_began: float | None = None
    """When these processes first began to train, in seconds since 1970."""


def read_config(run: Run) -> RunConfig:
    """Raises: DataError if it is missing, damaged, of another kind of run, or has what this version does not compute."""
    try:
        return typed(RunConfig, run.config, run.path / CONFIG)
    except DataError as error:
        raise DataError(f"{error}; is {run.path} the run of a training?") from error


def resumed_settings(run: Run, asked: TrainGanSettings) -> TrainGanSettings:
    """The run's settings with what may change taken from those asked for.

    Raises:
        UsageError: something that decides the mathematics was given another value, or the run another name.
    """
    stored = read_config(run).settings
    if asked.evaluate_every is not None and stored.evaluate_every is None:
        raise UsageError(f"--evaluate-every with --resume: {run.path} has trained on all images; begin a new run for it")
    here = located(asked)
    if here.precision == "auto":  # the run has what the machine's choice was when it began
        here = dataclasses.replace(here, precision=None)
    has_length = asked.steps is not None or asked.epochs is not None
    if here.data is None:
        a, b = here.data_a or stored.data_a, here.data_b or stored.data_b
        here = dataclasses.replace(here, data_a=a, data_b=b, data=stored.data if here.data_a is None else None)
    merged = merged_settings(run, here, stored, fixed=FIXED, kept=KEPT)
    return merged if has_length else dataclasses.replace(merged, steps=stored.steps, epochs=stored.epochs)
