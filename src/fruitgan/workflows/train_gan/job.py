"""The job: train on two folders of images until done, asked to stop, or out of time."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fruitgan
from fruitgan import bundle as bundles
from fruitgan.atomic import write_atomically
from fruitgan.data.decode import decode
from fruitgan.data.sources import Source, find_source
from fruitgan.device import choose_device
from fruitgan.errors import DataError, UsageError
from fruitgan.images import Pixels
from fruitgan.models.contracts import Generator
from fruitgan.report.grid import fit_square, grid, png_bytes
from fruitgan.report.training import training_report
from fruitgan.settings import from_json, to_json
from fruitgan.training.checkpoint import Checkpoints
from fruitgan.training.run import Run, find_run
from fruitgan.training.samples import sample_rows
from fruitgan.training.trainer import StepReport, Trainer
from fruitgan.workflows.environment import environment
from fruitgan.workflows.train_gan.assemble import Banks, Plan, load_banks, make_objective, make_plan, make_trainer
from fruitgan.workflows.train_gan.settings import (
    FIXED,
    Event,
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
            self.settings, stored = _merged(self.settings, run)
            result = run.result
            if result is not None and not _extends(stored, self.settings, result):
                return from_json(TrainGanResult, result)
        device = choose_device(self.settings.gpu, self.settings.device)
        torch.use_deterministic_algorithms(self.settings.deterministic)
        plan = make_plan(self.settings, device) if run is None else _resumed_plan(run, self.settings)
        objective = make_objective(plan)
        if self.settings.init_from is not None and run is None:
            _load_generators(objective.networks, self.settings.init_from, plan)
        source = find_source(self.settings.data, self.settings.data_a, self.settings.data_b, self.settings.domains)
        banks = load_banks(plan, source, lambda domain, done, total: self.tell(Loading(domain, done, total)))
        self._note_broken(banks)
        trainer = make_trainer(plan, banks, objective, device, self.settings.log_every)
        if run is None:
            run = self._create(plan, banks, source, trainer, device)
        elif run.config["data_fingerprint"] != banks.fingerprint:
            raise DataError(f"{run.path}: the training images are not those of the run; resume with the same images")
        return _Loop(self, run, plan, source, banks, trainer).go()

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
            data=str(Path(self.settings.data).resolve())
            if self.settings.data and Path(self.settings.data).exists()
            else self.settings.data,
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
    path_run: Run
    plan: Plan
    source: Source
    banks: Banks
    trainer: Trainer
    last_losses: Mapping[str, float] = field(default_factory=dict)
    seconds_before: float = 0.0

    def go(self) -> TrainGanResult:
        settings, run, trainer = self.job.settings, self.path_run, self.trainer
        run.reopen()
        self.checkpoints = Checkpoints(run.path / "checkpoints", settings.keep)
        first, problems = self.checkpoints.restore_newest(trainer.stateful())
        trainer.step = first
        kept = run.forget_after(first)
        if kept:
            self.last_losses, self.seconds_before = kept[-1]["losses"], kept[-1]["seconds"]
        self.sources = self._sample_sources()
        self.job.tell(Started(run.path, first, trainer.total_steps, tuple([*problems, *self.job.notes])))
        self.began = time.monotonic()
        self.first = first
        for report in trainer.steps(trainer.total_steps):
            self._after(report)
            over = settings.max_seconds is not None and time.monotonic() - self.began >= settings.max_seconds
            if self.job.stopped or over:
                break
        return self._end()

    def _after(self, report: StepReport) -> None:
        settings = self.job.settings
        if report.losses is not None:
            self.last_losses = report.losses
            self.path_run.log(
                {
                    "step": report.step,
                    "images": report.step * self.plan.recipe.batch_size,
                    "seconds": round(self._seconds(), 3),
                    "images_per_second": round(self._rate(), 3),
                    "losses": dict(report.losses),
                    "learning_rate": report.learning_rate,
                }
            )
        if report.step % settings.sample_every == 0:
            self._sample()
        if report.step % settings.save_every == 0:
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
        bundles.save(self._bundle(), self.path_run.path / bundles.FILE_NAME)
        self.job.tell(Saved(self.trainer.step, path))

    def _end(self) -> TrainGanResult:
        trainer, run = self.trainer, self.path_run
        if trainer.step > self.first or not (run.path / bundles.FILE_NAME).is_file():
            self._save()
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
        write_atomically(
            run.path / "report.html", training_report(run.path, run.config, run.entries(), to_json(result)).encode()
        )
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
        write_atomically(self.path_run.path / "samples" / f"step-{self.trainer.step:08d}.png", png_bytes(grid(rows)))

    def _bundle(self) -> bundles.Bundle:
        trainer, plan = self.trainer, self.plan
        rule = next(iter(self._generators().values())).size_rule
        card = bundles.Card(
            name=self.path_run.path.name,
            domains=(self.source.a.name, self.source.b.name),
            generator=plan.generator,
            directions=tuple(trainer.objective.generators),
            image_size_px=plan.recipe.image_size_px,
            size_minimum_px=rule.minimum_px,
            size_multiple_px=rule.multiple_of_px,
            recipe=plan.recipe_name,
            steps=trainer.step,
            images=trainer.step * plan.recipe.batch_size,
            data=self.source.name,
            data_fingerprint=self.banks.fingerprint,
            licence="that of the training images",
            fruitgan_version=fruitgan.__version__,
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        weights = {
            direction: {name: value.detach().cpu().numpy().copy() for name, value in generator.state_dict().items()}
            for direction, generator in self._generators().items()
        }
        return bundles.Bundle(card, weights)

    def _generators(self) -> dict[str, Generator]:
        found = {direction: self.trainer.generator(direction) for direction in self.trainer.objective.generators}
        return {direction: generator for direction, generator in found.items() if isinstance(generator, Generator)}


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


def _merged(settings: TrainGanSettings, run: Run) -> tuple[TrainGanSettings, TrainGanSettings]:
    """The run's settings with what may change taken from the new ones; and the run's own.

    Raises:
        UsageError: something that decides the mathematics was given another value.
    """
    stored = from_json(TrainGanSettings, run.config["settings"], f"{run.path}/config.json")
    for name in FIXED:
        new, old = getattr(settings, name), getattr(stored, name)
        if name == "data" and new is not None and Path(new).exists():
            new = str(Path(new).resolve())
        if new not in (None, {}) and new != old:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} cannot change in a resumed run ({run.path} has {old}); start a new one for {new}")
    fixed = {name: getattr(stored, name) for name in FIXED}
    asked_length = settings.steps is not None or settings.epochs is not None
    length = settings if asked_length else stored
    return dataclasses.replace(settings, **fixed, steps=length.steps, epochs=length.epochs), stored


def _extends(stored: TrainGanSettings, settings: TrainGanSettings, result: Mapping[str, Any]) -> bool:
    if settings.steps is not None:
        return settings.steps > int(result["step"])
    return settings.epochs is not None and settings.epochs != stored.epochs


def _resumed_plan(run: Run, settings: TrainGanSettings) -> Plan:
    """The plan of the run, so that a recipe that changed since does not change it; its length may be the new one's."""
    plan = from_json(Plan, run.config["plan"], f"{run.path}/config.json")
    if settings.steps is None and settings.epochs is None:
        return plan
    recipe = dataclasses.replace(plan.recipe, steps=settings.steps, epochs=settings.epochs)
    changed = dataclasses.replace(plan, recipe=recipe)
    run.write_config({**run.config, "settings": to_json(settings), "plan": to_json(changed)})
    return changed


def _load_generators(networks: Any, name: str, plan: Plan) -> None:
    """Start from a bundle's weights.

    Raises:
        UsageError: its generator is another than the plan's.
    """
    found = bundles.load(bundles.locate(name))
    if (found.card.generator.name, dict(found.card.generator.options)) != (plan.generator.name, dict(plan.generator.options)):
        raise UsageError(
            f"--init-from {name}: its generator is {found.card.generator.name} {dict(found.card.generator.options)}, this training's "
            f"{plan.generator.name} {dict(plan.generator.options)}; give the same with --generator and --generator-option"
        )
    for direction, weights in found.weights.items():
        network = networks[{"a2b": "generator_ab", "b2a": "generator_ba"}[direction]]
        network.load_state_dict({key: torch.from_numpy(np.asarray(value, np.float32)) for key, value in weights.items()})
