"""`fruitgan train-gan`: two folders of images in, a run folder with a bundle out."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fruitgan.console import Console, names, options
from fruitgan.console.signals import PoliteStop, polite_stop
from fruitgan.errors import Stopped, UsageError
from fruitgan.progress import Event, OnProgress, Progress, duration

if TYPE_CHECKING:
    from fruitgan.train_gan.settings import TrainGanResult, TrainGanSettings

LONG_SECONDS = 24 * 3600
STEPS_BEFORE_A_FORECAST = 5
LIGHT_RECIPES = ("fast", "lesson")
ADVERSARIES = {"adversarial": "G", "discriminator": "D"}
SHOWN_LOSSES = 3

network = functools.partial(options.option, panel="Recipe and networks")


def train_gan(
    context: options.Context,
    data: options.Data = None,
    data_a: options.DataA = None,
    data_b: options.DataB = None,
    domains: options.Domains = None,
    background: options.Background = None,
    value_range: options.ValueRange = None,
    fit: options.Fit = None,
    allow_overlap: bool = options.of_data("--allow-overlap", "Train even where a picture is in both domains.", default=False),
    recipe: str | None = network(
        "--recipe NAME|FILE.toml",
        'What is computed; a file may begin with extends = "fast". fruitgan show recipe NAME prints one.',
        "fast on a CPU, else fruit",
        **names.registered("recipes"),
    ),
    set_field: list[str] | None = network(
        "--set KEY=VALUE",
        "A field of the recipe by its dotted name: weights.cycle=5, optimizers.generators.learning_rate=1e-4.",
    ),
    learning_rate: float | None = network(
        "--learning-rate", "The generators'; the discriminators' is scaled alike.", "the recipe's"
    ),
    cycle_weight: str | None = network(
        "--cycle-weight W|START:END",
        "Weight of the cycle loss: 5, or 8:2 for one that falls linearly.",
        "the recipe's",
    ),
    generator: str | None = network(
        "--generator", "Another than the recipe's; `fruitgan list generators` names them.", **names.registered("generators")
    ),
    generator_option: list[str] | None = network(
        "--generator-option KEY=VALUE", "An option of the generator: base_channels=32."
    ),
    discriminator: str | None = network(
        "--discriminator",
        "Another than the recipe's; see `fruitgan list discriminators`.",
        **names.registered("discriminators"),
    ),
    discriminator_option: list[str] | None = network("--discriminator-option KEY=VALUE", "An option of the discriminator."),
    objective: str | None = network(
        "--objective", "Another than the recipe's; see `fruitgan list objectives`.", **names.registered("objectives")
    ),
    objective_option: list[str] | None = network("--objective-option KEY=VALUE", "An option of the objective: pool_size=50."),
    augment: str | None = network(
        "--augment", "Another than the recipe's; see `fruitgan list augmentations`.", **names.registered("augmentations")
    ),
    image_size: options.ImageSize = None,
    batch_size: options.BatchSize = None,
    init_from: str | None = network("--init-from BUNDLE", "Start from the generators of a bundle."),
    epochs: int | None = options.of_length("--epochs", "How long.", "the recipe's", min=1),
    steps: options.Steps = None,
    max_time: options.MaxTime = None,
    name: options.Name = None,
    out: options.Out = Path("runs/train-gan"),
    resume: options.ResumeAt = None,
    sample_every: int | None = options.of_length("--sample-every STEPS", "A grid of samples this often.", "500", min=1),
    evaluate_every: int | None = options.of_length(
        "--evaluate-every STEPS",
        "KID on a tenth of the training images this often; these are then kept out of training.",
        "never",
        min=1,
    ),
    save_every: options.SaveEvery = None,
    keep: int | None = options.of_length("--keep", "How many checkpoints stay.", "2", min=1),
    keep_every: int | None = options.of_length("--keep-every STEPS", "A checkpoint this often stays for good.", min=1),
    on_nan: Literal["stop", "rollback"] | None = options.of_length(
        "--on-nan",
        "When a loss is not finite: stop, or go back to the last checkpoint with another seed, at most 3 times.",
        "stop",
    ),
    track: options.Track = None,
    dry_run: bool = options.option(
        "--dry-run", "Print parameters, multiply-adds, memory and time here; train nothing.", default=False
    ),
    profile: bool = options.option(
        "--profile",
        "Write where a step's time goes to RUN/profile/: summary.txt, and trace.json for ui.perfetto.dev or chrome://tracing.",
        default=False,
    ),
    seed: options.Seed = None,
    gpu: options.Gpus = None,
    processes: options.Processes = None,
    device: options.Device = None,
    threads: options.Threads = None,
    precision: options.Precision = None,
    force: options.Force = False,
    compile: bool = options.of_machine(
        "--compile",
        "The networks through torch.compile: minutes at the start, then faster steps on some machines.",
        default=False,
    ),
    deterministic: options.Deterministic = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Train an unpaired translation between two folders of images.

    Example: fruitgan train-gan --data apple2orange --gpu 0
    """
    given = locals()
    console = Console(json=json, quiet=quiet)
    from fruitgan.train_gan.recipe import resolve_recipe
    from fruitgan.train_gan.settings import OF_RUN, TrainGanSettings

    check_places(data, resume, out)
    if resume is not None:
        given = options.without_environment(context, given, (*OF_RUN, "set_field"))
    changes = options.pairs("--set", given["set_field"])
    if resume is None:
        resolve_recipe(recipe or LIGHT_RECIPES[0], changes)  # the fields of the other default, fruit, have the same names
    if data is None and data_a is None and data_b is None and resume is None:
        raise UsageError("what to train on? Give --data NAME|DIR (--data demo needs nothing), or --data-a DIR --data-b DIR")
    settings = options.settings_of(TrainGanSettings, given, recipe_changes=changes)
    if dry_run and resume is not None:
        raise UsageError("--dry-run is for a training that has not begun; fruitgan show RUN tells of one that has")
    if dry_run:
        _dry_run(settings, console)
    else:
        _train(settings, console)


def check_places(data: str | None, resume: str | None, out: Path) -> None:
    """What a training would refuse after seconds of imports, refused at once."""
    from fruitgan.data.sources import check_name
    from fruitgan.runs.resume import find_run

    if resume is None and data is not None:
        check_name(data)
    elif resume is not None and "@" not in resume:
        find_run(out, resume)


class TrainingDisplay:
    """Shows a training's events, warns once of one that takes days, and asks the job to stop on a signal."""

    def __init__(self, console: Console, stop: PoliteStop, show: OnProgress) -> None:
        self.console = console
        self.stop = stop
        self.show = show
        self.run: Path | None = None
        """Known when training begins."""
        self.recipe = ""
        self.first_step = 0
        self.losses: Mapping[str, str] = {}
        """As they are shown."""

    def __call__(self, event: Event) -> bool:
        if isinstance(event, Progress):
            self.losses = brief_losses(event.details.get("losses") or {}) or self.losses
            event = replace(event, details={**event.details, "shown": self.losses})
        self.show(event)
        if isinstance(event, Progress):
            details: Mapping[str, Any] = event.details
            if "run" in details:
                self.run, self.recipe, self.first_step = details["run"], details["recipe"], event.done
            if self.run is None and self.stop.signal is not None:
                raise Stopped("stopped before the first step; nothing was changed", self.stop.exit_code)
            if event.done - self.first_step == STEPS_BEFORE_A_FORECAST and details.get("seconds_left", 0) > LONG_SECONDS:
                # A word in time: the reference recipes take weeks on a CPU.
                is_light = self.recipe in LIGHT_RECIPES
                shorter = "fewer --steps" if is_light else "--recipe fast, which is made for machines without a GPU,"
                time_left = duration(details["seconds_left"])
                self.console.warn(f"at this pace it takes {time_left}; {shorter} or a smaller --image-size takes less")
        return self.stop.signal is not None


def brief_losses(losses: Mapping[str, float]) -> dict[str, str]:
    """The first kinds of losses for one line: the generators' (G) and discriminators' (D) adversarial ones, then the others.

    A kind, such as `cycle`, is the mean of its terms, `cycle_a` and `cycle_b`.
    """
    kinds: dict[str, list[float]] = {}
    for term, value in losses.items():
        kinds.setdefault(term.rpartition("_")[0] or term, []).append(value)
    order = [*(kind for kind in ADVERSARIES if kind in kinds), *(kind for kind in kinds if kind not in ADVERSARIES)]
    means = {kind: f"{sum(kinds[kind]) / len(kinds[kind]):.3g}" for kind in order[:SHOWN_LOSSES]}
    return {ADVERSARIES.get(kind, kind): mean for kind, mean in means.items()}


@contextmanager
def training_display(console: Console, settings: TrainGanSettings) -> Iterator[TrainingDisplay]:
    """Of a job that trains generators, which a signal stops after the step, and a second Ctrl-C at once."""
    from fruitgan.runs.resume import resume_command
    from fruitgan.runs.run import Run

    def at_once() -> str:
        if (run := display.run) is None:
            return "before the first step; nothing was changed"
        step = Run(run).saved_step
        kept = f"the checkpoint of step {step} stays" if step else "before the first checkpoint"
        return f"{kept}; go on with: {resume_command(run, settings.gpu, settings.device)}"

    with polite_stop(at_once) as stop, console.events("") as show:
        display = TrainingDisplay(console, stop, show)
        yield display


def stopped(result: TrainGanResult, settings: TrainGanSettings, exit_code: int) -> Stopped:
    """How a command ends whose training was asked to stop before its last step."""
    from fruitgan.runs.resume import resume_command

    again = resume_command(result.run, settings.gpu, settings.device)
    return Stopped(f"stopped, saved; go on with: {again}", exit_code)


def _train(settings: TrainGanSettings, console: Console) -> None:
    from fruitgan.train_gan.job import train_gan as job

    with training_display(console, settings) as display:
        result = job(settings, display)
    console.result(result)
    console.out(f"{result.run}: step {result.step}, {result.images_per_second:.2f} images/s")
    console.out(f"  translate with it: fruitgan translate photo.jpg --bundle {shlex.quote(str(result.run))}")
    if not result.finished:
        raise stopped(result, settings, display.stop.exit_code)


def _dry_run(settings: TrainGanSettings, console: Console) -> None:
    from fruitgan.train_gan.estimate import estimate

    console.say("measuring a few steps ...")
    found = estimate(settings)
    console.result(found)
    threads = f", {found.threads} thread{'s' * (found.threads > 1)}" if found.threads else ""
    rows = [
        ("recipe", found.recipe),
        ("device, precision", f"{found.device}, {found.precision}{threads}"),
        ("generator", f"{found.generator}: {found.generator_parameters:,} parameters"),
        ("discriminator", f"{found.discriminator}: {found.discriminator_parameters:,} parameters"),
        (
            "images",
            " and ".join(map(str, found.training_images)) + f", {found.image_size_px} px, {found.batch_size} of each a step",
        ),
        ("multiply-adds a step", f"{found.multiply_adds_per_step / 1e9:.1f} G"),
        ("memory for a step", f"{found.memory_bytes / 2**20:,.0f} MiB"),
        ("time a step, here", f"{found.seconds_per_step:.3f} s"),
        ("steps", f"{found.steps:,}"),
        ("time in all, here", duration(found.seconds_total)),
    ]
    if found.suggested_recipe != found.recipe:
        rows.append(("suggested for this machine", f"--recipe {found.suggested_recipe}: {found.suggested_why}"))
    console.table("", ("what", "how much"), rows)
