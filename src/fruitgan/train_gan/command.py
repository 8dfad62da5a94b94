"""`fruitgan train-gan`: two folders of images in, a run folder with a bundle out."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fruitgan.console import Console, duration, options
from fruitgan.console.signals import INTERRUPTED, PoliteStop
from fruitgan.errors import Stopped, UsageError
from fruitgan.train_gan.progress_display import LENGTH_PANEL, NETWORKS_PANEL, MaxTime, Resume, SaveEvery, Steps, Telling

if TYPE_CHECKING:
    from fruitgan.train_gan.settings import TrainGanSettings

Name = Annotated[str | None, typer.Option("--name", help="Name of the run.", show_default="from the data and the recipe")]


def train_gan(
    data: options.Data = None,
    data_a: options.DataA = None,
    data_b: options.DataB = None,
    domains: options.Domains = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="What is computed.", show_default="fast on a CPU, else fruit", rich_help_panel=NETWORKS_PANEL),
    ] = None,
    generator: Annotated[
        str | None, typer.Option(help="Another generator than the recipe's.", rich_help_panel=NETWORKS_PANEL)
    ] = None,
    generator_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of the generator: base_channels=32.", rich_help_panel=NETWORKS_PANEL),
    ] = None,
    discriminator: Annotated[
        str | None, typer.Option(help="Another discriminator than the recipe's.", rich_help_panel=NETWORKS_PANEL)
    ] = None,
    discriminator_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of the discriminator.", rich_help_panel=NETWORKS_PANEL),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="Another objective than the recipe's.", rich_help_panel=NETWORKS_PANEL)
    ] = None,
    augment: Annotated[
        str | None, typer.Option(help="Another augmentation than the recipe's.", rich_help_panel=NETWORKS_PANEL)
    ] = None,
    image_size: options.ImageSize = None,
    batch_size: options.BatchSize = None,
    init_from: Annotated[
        str | None,
        typer.Option(metavar="BUNDLE", help="Start from the generators of a bundle.", rich_help_panel=NETWORKS_PANEL),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How long.", show_default="the recipe's", rich_help_panel=LENGTH_PANEL)
    ] = None,
    steps: Steps = None,
    max_time: MaxTime = None,
    name: Name = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder of the run folders.", rich_help_panel=LENGTH_PANEL)
    ] = Path("runs/train-gan"),
    resume: Resume = None,
    sample_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEPS",
            help="A grid of samples this often.",
            show_default="500",
            rich_help_panel=LENGTH_PANEL,
        ),
    ] = None,
    save_every: SaveEvery = None,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="How many checkpoints stay.", show_default="2", rich_help_panel=LENGTH_PANEL),
    ] = None,
    on_nan: Annotated[
        Literal["stop", "rollback"] | None,
        typer.Option(
            help="When a loss is not finite: stop, or go back to the last checkpoint with another seed, at most 3 times.",
            show_default="stop",
            rich_help_panel=LENGTH_PANEL,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print parameters, multiply-adds, memory and time here; train nothing.")
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Write where a step's time goes to RUN/profile/: summary.txt, and trace.json for ui.perfetto.dev or "
            "chrome://tracing.",
        ),
    ] = False,
    seed: options.Seed = None,
    gpu: options.Gpu = None,
    device: options.Device = None,
    threads: options.Threads = None,
    precision: options.Precision = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="The networks through torch.compile: minutes at the start, then faster steps on some machines.",
            rich_help_panel=options.MACHINE_PANEL,
        ),
    ] = False,
    deterministic: options.Deterministic = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Train an unpaired translation between two folders of images."""
    console = Console(json=json, quiet=quiet)
    from fruitgan.data.sources import parse_domains
    from fruitgan.train_gan.settings import TrainGanSettings

    if data is None and data_a is None and data_b is None and resume is None:
        raise UsageError("what to train on? Give --data NAME|DIR (--data demo needs nothing), or --data-a DIR --data-b DIR")
    settings = TrainGanSettings(
        data=data,
        data_a=data_a,
        data_b=data_b,
        domains=parse_domains(domains),
        recipe=recipe,
        generator=generator,
        generator_options=options.pairs("--generator-option", generator_option),
        discriminator=discriminator,
        discriminator_options=options.pairs("--discriminator-option", discriminator_option),
        objective=objective,
        augment=augment,
        image_size=image_size,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        precision=precision,
        seed=seed,
        init_from=init_from,
        max_seconds=options.seconds_of(max_time) if max_time is not None else None,
        name=name,
        out=out,
        resume=resume,
        sample_every=sample_every,
        save_every=save_every,
        keep=keep,
        on_nan=on_nan,
        gpu=gpu,
        device=device,
        threads=options.parse_threads(threads),
        deterministic=deterministic,
        compile=compile,
        profile=profile,
    )
    if dry_run and resume is not None:
        raise UsageError("--dry-run is for a training that has not begun; fruitgan show RUN tells of one that has")
    if dry_run:
        _dry_run(settings, console)
    else:
        _train(settings, console)


def _train(settings: TrainGanSettings, console: Console) -> None:
    from fruitgan.train_gan.job import train_gan as job
    from fruitgan.train_gan.resume import resume_line

    with PoliteStop() as stop, ExitStack() as stack:
        telling = Telling(console, stop, stack)
        try:
            result = job(settings, telling)
        except KeyboardInterrupt:
            raise Stopped(_left_at_once(telling.run, settings), INTERRUPTED) from None
    console.result(result)
    console.out(f"{result.run}: step {result.step}, {result.images_per_second:.2f} images/s")
    console.out(f"  translate with it: fruitgan translate photo.jpg --bundle {shlex.quote(str(result.run))}")
    if not result.finished:
        raise Stopped(f"stopped, saved; go on with: {resume_line(result.run, settings)}", stop.exit_code)


def _left_at_once(run: Path | None, settings: TrainGanSettings) -> str:
    """What to say after a second Ctrl-C."""
    from fruitgan.runs.run import Run
    from fruitgan.train_gan.resume import resume_line

    if run is None:
        return "stopped at once, before the first step; nothing was changed"
    step = Run(run).saved_step
    kept = f"the checkpoint of step {step} stays" if step else "before the first checkpoint"
    return f"stopped at once; {kept}; go on with: {resume_line(run, settings)}"


def _dry_run(settings: TrainGanSettings, console: Console) -> None:
    from fruitgan.train_gan.estimate import estimate

    console.say("measuring a few steps ...")
    found = estimate(settings)
    console.result(found)
    rows = [
        ("recipe", found.recipe),
        ("device, precision", f"{found.device}, {found.precision}{f', {found.threads} threads' if found.threads else ''}"),
        ("generator", f"{found.generator}: {found.generator_parameters:,} parameters each of two"),
        ("discriminator", f"{found.discriminator}: {found.discriminator_parameters:,} parameters each of two"),
        (
            "images",
            " and ".join(map(str, found.training_images)) + f", {found.image_size_px} px, {found.batch_size} of each a step",
        ),
        ("multiply-adds a step", f"{found.multiply_adds_per_step / 1e9:.1f} G"),
        ("memory for a step", f"{found.memory_bytes / 2**20:,.0f} MiB"),
        ("time a step, here", f"{found.seconds_per_step:.3f} s"),
        ("steps", f"{found.steps:,}"),
        ("time in all, here", duration(found.seconds_total)),
        ("suggested for this machine", f"--recipe {found.suggested_recipe}: {found.suggested_why}"),
    ]
    console.table("", ("what", "how much"), rows)
