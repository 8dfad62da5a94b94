"""The job: train on two folders of images until done, asked to stop, or out of time."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fruitgan import bundle as bundles
from fruitgan.atomic import write_atomically
from fruitgan.data.decode import decode
from fruitgan.data.sources import Source, find_source
from fruitgan.device import choose_device
from fruitgan.errors import DataError, EnvironmentProblem, UsageError
from fruitgan.images import Pixels
from fruitgan.report.grid import fit_square, grid, png_bytes
from fruitgan.report.training import training_report
from fruitgan.settings import from_json, to_json
from fruitgan.training.checkpoint import Checkpoints
from fruitgan.training.run import Run, find_run, refuse_existing
from fruitgan.training.samples import sample_rows
from fruitgan.training.trainer import StepReport, Trainer
from fruitgan.workflows.environment import environment
from fruitgan.workflows.train_gan.assemble import Banks, Plan, load_banks, make_objective, make_plan, make_trainer
from fruitgan.workflows.train_gan.handover import load_generators, make_bundle
from fruitgan.workflows.train_gan.resume import absolute, extends, merged_settings, resumed_plan
from fruitgan.workflows.train_gan.settings import (
    Event,
    Habits,
    Loading,
    OnProgress,
    Saved,
    Started,
    Stepped,
    TrainGanResult,
    TrainGanSettings,
)

SAMPLES_PER_DOMAIN = 4


def train_gan(settings: TrainGanSettings, on_progress: OnProgress | None = None) -> TrainGanResult:
    """Train an unpaired translation, or go on with a run.

    Returns when the steps are done, when `max_seconds` are over, or when `on_progress` returns True; in each case everything
    is saved. A finished run that is resumed without more steps gives its result again.

    Raises:
        UsageError, DataError, EnvironmentProblem: as cli.md's table of exit codes says.
        LossNotFinite: the last checkpoint stays.
    """
    job = _Job(settings, on_progress)
    return job.run()


@dataclass
class _Job:
    settings: TrainGanSettings
    on_progress: OnProgress | None
    stopped: bool = False
    notes: list[str] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        if self.on_progress is not None and self.on_progress(event):
            self.stopped = True

    def run(self) -> TrainGanResult:
        run = find_run(self.settings.out, self.settings.resume) if self.settings.resume is not None else None
        if run is not None:
            self.settings = merged_settings(self.settings, run)
            result = run.result
            if result is not None and not extends(run, self.settings, result):
                return from_json(TrainGanResult, result)
        elif self.settings.name is not None:
            refuse_existing(self.settings.out / self.settings.name)
        device = choose_device(self.settings.gpu, self.settings.device)
        if self.settings.deterministic:
            _be_deterministic(device)
        plan = make_plan(self.settings, device) if run is None else resumed_plan(run, self.settings)
        objective = make_objective(plan)
        if self.settings.init_from is not None and run is None:
            load_generators(objective, self.settings.init_from, plan)
        source = find_source(
            self.settings.data, self.settings.data_a, self.settings.data_b, self.settings.domains, on_progress=self._loading
        )
        banks = load_banks(plan, source, self._loading)
        self._note_broken(banks)
        trainer = make_trainer(plan, banks, objective, device, Habits.of(self.settings).log_every)
        if run is None:
            run = self._create(plan, banks, source, trainer, device)
        elif run.config["data_fingerprint"] != banks.fingerprint:
            raise DataError(f"{run.path}: the training images are not those of the run; resume with the same images")
        return _Loop(self, run, plan, source, banks, trainer).go()

    def _loading(self, label: str, done: int, total: int) -> None:
        self.tell(Loading(label, done, total))

    def _note_broken(self, banks: Banks) -> None:
        for bank in (banks.a, banks.b):
            if bank.broken:
                path, reason = bank.broken[0]
                count = len(bank.broken)
                self.notes.append(f"{count} unreadable image{'s' * (count > 1)} left out; the first: {path}: {reason}")

    def _create(self, plan: Plan, banks: Banks, source: Source, trainer: Trainer, device: torch.device) -> Run:
        name = self.settings.name or _free_name(self.settings.out, f"{source.name}-{plan.recipe_name}")
        asked = dataclasses.replace(
            self.settings,
            recipe=plan.recipe_name,
            image_size=plan.recipe.image_size_px,
            batch_size=plan.recipe.batch_size,
            precision=plan.precision,
            seed=plan.seed,
            data=absolute(self.settings.data),
            **dataclasses.asdict(Habits.of(self.settings)),
            data_a=self.settings.data_a and self.settings.data_a.resolve(),
            data_b=self.settings.data_b and self.settings.data_b.resolve(),
        )
        config = {
            "format": 1,
            "settings": to_json(asked),
            "plan": to_json(plan),
            "total_steps": trainer.total_steps,
            "steps_per_epoch": trainer.steps_per_epoch,
            "domains": [source.a.name, source.b.name],
            "training_images": [len(banks.a), len(banks.b)],
            "data_fingerprint": banks.fingerprint,
        }
        return Run.create(self.settings.out / name, config, environment(device))


@dataclass
class _Loop:
    """One sitting: from the newest checkpoint to wherever it gets."""

    job: _Job
    run: Run
    plan: Plan
    source: Source
    banks: Banks
    trainer: Trainer
    last_losses: Mapping[str, float] = field(default_factory=dict)
    seconds_before: float = 0.0
    saved_step: int | None = None

    def go(self) -> TrainGanResult:
        settings, run, trainer = self.job.settings, self.run, self.trainer
        run.reopen()
        self.habits = Habits.of(settings)
        self.checkpoints = Checkpoints(run.path / "checkpoints", self.habits.keep)
        first, problems = self.checkpoints.restore_newest(trainer.stateful())
        trainer.step = first
        if trainer.total_steps < first:
            raise UsageError(f"{run.path}: has done {first} steps already, more than the {trainer.total_steps} now asked for")
        if run.config["total_steps"] != trainer.total_steps:
            length = {"total_steps": trainer.total_steps, "plan": to_json(self.plan), "settings": to_json(settings)}
            run.write_config(run.config | length)
        kept = run.forget_after(first)
        if kept:
            self.last_losses, self.seconds_before = kept[-1]["losses"], kept[-1]["seconds"]
        self.sources = self._sample_sources()
        self.job.tell(Started(run.path, first, trainer.total_steps, (*problems, *self.job.notes)))
        self.began = time.monotonic()
        self.first = first
        for report in trainer.steps(trainer.total_steps):
            self._after(report)
            over = settings.max_seconds is not None and time.monotonic() - self.began >= settings.max_seconds
            if self.job.stopped or over:
                break
        return self._end()

    def _after(self, report: StepReport) -> None:
        if report.losses is not None:
            self.last_losses = report.losses
            self.run.log(
                {
                    "step": report.step,
                    "images": report.step * self.plan.recipe.batch_size,
                    "seconds": round(self._seconds(), 3),
                    "images_per_second": round(self._rate(), 3),
                    "losses": dict(report.losses),
                    "learning_rate": report.learning_rate,
                }
            )
        if report.step % self.habits.sample_every == 0:
            self._sample()
        if report.step % self.habits.save_every == 0:
            self._save()
        images_left = (self.trainer.total_steps - report.step) * self.plan.recipe.batch_size
        self.job.tell(Stepped(report, self._rate(), images_left / self._rate()))

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def _rate(self) -> float:
        done = (self.trainer.step - self.first) * self.plan.recipe.batch_size
        return done / max(1e-9, time.monotonic() - self.began)

    def _save(self) -> None:
        self.trainer.confirm()
        path = self.checkpoints.save(self.trainer.step, self.trainer.stateful())
        bundles.save(self._bundle(), self.run.path / bundles.FILE_NAME)
        self.saved_step = self.trainer.step
        self.job.tell(Saved(self.trainer.step, path))

    def _end(self) -> TrainGanResult:
        trainer, run = self.trainer, self.run
        if self.saved_step != trainer.step:
            self._save()  # also where no step was left to do: a kill may have come between the last checkpoint and its bundle
        self._sample()
        finished = trainer.step >= trainer.total_steps
        result = TrainGanResult(
            run=run.path,
            step=trainer.step,
            finished=finished,
            images=trainer.step * self.plan.recipe.batch_size,
            seconds=round(self._seconds(), 3),
            images_per_second=round(self._rate(), 3),
            bundle=run.path / bundles.FILE_NAME,
            final_losses=self.last_losses,
            weights_sha256=bundles.weights_sha256(self._bundle()),
        )
        rows = {direction: len(images) for direction, images in self.sources.items()}
        page = training_report(run.path, run.config, run.entries(), to_json(result), rows)
        write_atomically(run.path / "report.html", page.encode())
        if finished:
            run.finish(result)
        return result

    def _sample_sources(self) -> dict[str, list[Pixels]]:
        """The first test images of each domain that can be read, or training images where there are none."""
        return {
            direction: _first_images(domain.test or domain.train, self.plan.recipe.image_size_px)
            for direction, domain in (("a2b", self.source.a), ("b2a", self.source.b))
            if direction in self.trainer.objective.generators
        }

    def _sample(self) -> None:
        generators = {direction: self.trainer.generator(direction) for direction in self.trainer.objective.generators}
        rows = sample_rows(generators, self.sources, self.trainer.device)
        write_atomically(self.run.path / "samples" / f"step-{self.trainer.step:08d}.png", png_bytes(grid(rows)))

    def _bundle(self) -> bundles.Bundle:
        return make_bundle(self.run.path.name, self.trainer, self.plan, self.source, self.banks.fingerprint)


def _be_deterministic(device: torch.device) -> None:
    """Allow torch only kernels that give the same bits every time.

    Raises:
        EnvironmentProblem: not on a GPU, where the gradient of reflected padding has no such kernel.
    """
    if device.type != "cpu":
        raise EnvironmentProblem(f"--deterministic: torch has not all that it takes on {device.type}; use --gpu none with it")
    torch.use_deterministic_algorithms(True)


def _first_images(paths: tuple[Path, ...], size_px: int) -> list[Pixels]:
    images: list[Pixels] = []
    for path in paths:
        if len(images) == SAMPLES_PER_DOMAIN:
            break
        try:
            images.append(fit_square(decode(path).pixels, size_px))
        except DataError:
            continue
    return images


def _free_name(out: Path, stem: str) -> str:
    numbers = (f"{stem}-{number}" for number in range(1, 10_000))
    return next(name for name in (stem, *numbers) if not (out / name).exists())
