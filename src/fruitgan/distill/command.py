"""`fruitgan distill`: trains small student generators on a teacher's images, and measures them beside the teacher."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from fruitgan.console import Console, names, options
from fruitgan.console.signals import INTERRUPTED, PoliteStop
from fruitgan.errors import GateFailed, Stopped, UsageError
from fruitgan.train_gan.command import TrainingDisplay, network


def distill(
    teacher: Annotated[
        str | None,
        network(
            metavar="RUN|FILE|NAME",
            help="What the student imitates: a run or a bundle.",
            **names.completed(names.bundles, names.runs("train-gan")),
        ),
    ] = None,
    student: Annotated[
        Literal["lite-u", "lite", "mobile-resnet"] | None,
        network(help="The small generator.", show_default="lite-u"),
    ] = None,
    student_option: Annotated[
        list[str] | None,
        network(metavar="KEY=VALUE", help="An option of the student: base_channels=24."),
    ] = None,
    data: options.Data = None,
    data_a: options.DataA = None,
    data_b: options.DataB = None,
    domains: options.Domains = None,
    image_size: options.ImageSize = None,
    batch_size: options.BatchSize = None,
    steps: options.Steps = None,
    max_time: options.MaxTime = None,
    name: options.Name = None,
    out: options.Out = Path("runs/distill"),
    resume: options.ResumeAt = None,
    save_every: options.SaveEvery = None,
    track: options.Track = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 5 if a check fails.")] = False,
    seed: options.Seed = None,
    gpu: options.Gpu = None,
    device: options.Device = None,
    threads: options.Threads = None,
    precision: options.Precision = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Train a small generator (student) to imitate a large one (teacher), and measure it beside its teacher.

    Example: fruitgan distill --teacher apple2orange-fruit --data apple2orange
    """
    given = locals()
    from fruitgan.bundle import locate
    from fruitgan.data.sources import check_name, parse_domains
    from fruitgan.runs.resume import find_run

    if teacher is None and resume is None:
        raise UsageError("which teacher? Give --teacher RUN, or --resume to go on with a run")
    if teacher is not None:
        locate(teacher)  # and so on: what the job would refuse after seconds of imports, refused at once
    if data is not None:
        check_name(data)
    if resume is not None and "@" not in resume:
        find_run(out, resume)
    from fruitgan.distill.job import DistillSettings
    from fruitgan.distill.job import distill as job
    from fruitgan.train_gan.settings import TrainGanSettings

    console = Console(json=json, quiet=quiet)
    training = options.settings_of(
        TrainGanSettings,
        given,
        domains=parse_domains(domains),
        generator=student,
        generator_options=options.pairs("--student-option", student_option),
        max_seconds=options.seconds_of(max_time),
        track=tuple(track or ()),
    )
    with PoliteStop() as stop, console.events("") as show:
        display = TrainingDisplay(console, stop, show)
        try:
            result = job(DistillSettings(teacher=teacher, training=training), display)
        except KeyboardInterrupt:
            raise Stopped(
                "stopped at once; the last checkpoint stays; go on with: fruitgan distill --resume", INTERRUPTED
            ) from None
    run = shlex.quote(str(result.training.run))
    console.result({**vars(result.training), "gates": result.gates})
    console.out(f"{result.training.run}: step {result.training.step}")
    if not result.training.finished:
        raise Stopped(f"stopped, saved; go on with: fruitgan distill --resume {run}", stop.exit_code)
    console.table(
        "the student beside its teacher", ("gate", "value", "limit", "", "what"), [gate.cells for gate in result.gates]
    )
    console.out(f"  translate with it: fruitgan translate photo.jpg --bundle {run}")
    if strict and not result.passed:
        failed = ", ".join(gate.name for gate in result.gates if gate.passed is False)
        raise GateFailed(f"the student's {failed} did not pass")
