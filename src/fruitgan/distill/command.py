"""`fruitgan distill`: trains small student generators on a teacher's images, and measures them beside the teacher."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from fruitgan.console import Console, options
from fruitgan.errors import GateFailed, UsageError
from fruitgan.train_gan.command import check_places, network, stopped, training_display


def distill(
    context: options.Context,
    teacher: str | None = network(
        "--teacher RUN|FILE|NAME", "What the student imitates: a run or a bundle.", **options.BUNDLE_NAMES
    ),
    student: Literal["lite-u", "lite", "mobile-resnet"] | None = network("--student", "The small generator.", "lite-u"),
    student_option: list[str] | None = network("--student-option KEY=VALUE", "An option of the student: base_channels=24."),
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
    strict: bool = options.option("--strict", "Exit code 5 if a check fails.", default=False),
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

    Example: fruitgan distill --teacher runs/train-gan/fruit --data apple2orange
    """
    given = locals()
    from fruitgan.bundle import locate
    from fruitgan.train_gan.settings import OF_RUN, TrainGanSettings

    if resume is not None:
        given = options.without_environment(context, given, (*OF_RUN, "student", "student_option"))
        teacher = given["teacher"]
    if teacher is None and resume is None:
        raise UsageError("which teacher? Give --teacher RUN, or --resume to go on with a run")
    if teacher is not None:
        locate(teacher)  # and so on: what the job would refuse after seconds of imports, refused at once
    check_places(data, resume, out)
    from fruitgan.distill.job import DistillSettings
    from fruitgan.distill.job import distill as job

    console = Console(json=json, quiet=quiet)
    training = options.settings_of(
        TrainGanSettings,
        given,
        generator=given["student"],
        generator_options=options.pairs("--student-option", given["student_option"]),
    )
    with training_display(console, training) as display:
        result = job(DistillSettings(teacher=teacher, training=training), display)
    console.result({**vars(result.training), "gates": result.gates})
    console.out(f"{result.training.run}: step {result.training.step}")
    if not result.training.finished:
        raise stopped(result.training, training, display.stop.exit_code)
    console.table(
        "the student beside its teacher", ("gate", "value", "limit", "", "what"), [gate.cells for gate in result.gates]
    )
    console.out(f"  translate with it: fruitgan translate photo.jpg --bundle {shlex.quote(str(result.training.run))}")
    failed = [gate.name for gate in result.gates if gate.passed is False]
    if strict and failed:
        raise GateFailed(f"the student's {', '.join(failed)} did not pass")
