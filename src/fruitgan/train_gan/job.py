"""The job: train on two folders of images until done, asked to stop, or out of time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fruitgan import bundle as bundles
from fruitgan.data.sources import Source, find_source
from fruitgan.device import be_deterministic, choose_device
from fruitgan.errors import DataError, UsageError
from fruitgan.files import write_atomically
from fruitgan.runs.checkpoint import Checkpoints
from fruitgan.runs.resume import environment, find_run
from fruitgan.runs.run import RESULT, Run, refuse_existing
from fruitgan.settings import to_json, typed
from fruitgan.threads import Threads, using_threads
from fruitgan.train_gan.assemble import Banks, Plan, load_banks, make_objective, make_plan, make_trainer
from fruitgan.train_gan.compilation import compile_networks
from fruitgan.train_gan.export_bundle import give_teacher, load_generators, make_bundle
from fruitgan.train_gan.incidents import went_back
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.out_of_memory import memory_told
from fruitgan.train_gan.page import training_report
from fruitgan.train_gan.pictures import Pictures
from fruitgan.train_gan.profile import profiled
from fruitgan.train_gan.resume import absolute, extends, merged_settings, resumed_plan, take_up
from fruitgan.train_gan.run_log import Diary
from fruitgan.train_gan.settings import (
    Event,
    Habits,
    Loading,
    Noted,
    OnProgress,
    Saved,
    Started,
    Stepped,
    TrainGanResult,
    TrainGanSettings,
)
from fruitgan.train_gan.thread_trial import faster_threads, training_threads
from fruitgan.train_gan.trainer import LossNotFinite, StepReport, Trainer

MAX_ROLLBACKS = 3
PROFILE = "profile"
THREADS_CHECK_SECONDS = 600
MUCH_FASTER = 1.5


def train_gan(settings: TrainGanSettings, on_progress: OnProgress | None = None) -> TrainGanResult:
    """Train an unpaired translation, or go on with a run.

    Returns when the steps are done, when `max_seconds` are over, or when `on_progress` returns True; in each case everything
    is saved. A finished run that is resumed without more steps gives its result again.

    Raises:
        UsageError, DataError, EnvironmentProblem: as cli.md's table of exit codes says.
        LossNotFinite, OutOfMemory: the last checkpoint stays.
    """
    job = _Job(settings, on_progress)
    return job.run()


@dataclass
class _Job:
    settings: TrainGanSettings
    on_progress: OnProgress | None
    stopped: bool = False
    notes: list[str] = field(default_factory=list)
    threads: Threads | None = None

    def tell(self, event: Event) -> None:
        if self.on_progress is not None and self.on_progress(event):
            self.stopped = True

    def run(self) -> TrainGanResult:
        with ExitStack() as mine:
            if self.settings.resume is None:
                if self.settings.name is not None:
                    refuse_existing(self.settings.out / self.settings.name)
                return self._train(None, mine)
            run = find_run(self.settings.out, self.settings.resume)
            asked = self.settings
            self.settings = merged_settings(asked, run)
            if (result := self._finished(run)) is not None:  # such a run need not be writable
                return result
            self.notes += (*run.notes, *mine.enter_context(run.taken()))
            self.settings = merged_settings(asked, run)  # another process may have gone on with it until now
            return self._finished(run) or self._train(run, mine)

    def _finished(self, run: Run) -> TrainGanResult | None:
        """What the run gave, if no more is asked of it."""
        if (kept := run.result) is None:
            return None
        result = typed(TrainGanResult, kept, run.path / RESULT)
        if extends(run, self.settings, result):
            return None
        return dataclasses.replace(result, run=run.path, bundle=run.path / bundles.FILE_NAME)  # wherever it lay at its end

    def _train(self, run: Run | None, mine: ExitStack) -> TrainGanResult:
        device = choose_device(self.settings.gpu, self.settings.device)
        if self.settings.deterministic:
            be_deterministic(device)
        plan = make_plan(self.settings, device) if run is None else resumed_plan(run, self.settings)
        self.threads = self._threads(plan, run) if device.type == "cpu" else None
        if self.threads is not None:
            mine.enter_context(using_threads(self.threads.number))
            self.settings = dataclasses.replace(self.settings, threads=self.threads.number)
        objective = self._objective(plan, run is None or not run.saved_step)
        source = find_source(
            self.settings.data, self.settings.data_a, self.settings.data_b, self.settings.domains, on_progress=self._loading
        )
        banks = load_banks(plan, source, self._loading)
        self._note_broken(banks)
        log_every = Habits.of(self.settings).log_every
        with memory_told(plan, device, lambda: run.saved_step if run is not None else 0):
            trainer = make_trainer(plan, banks, objective, device, log_every)
            if self.settings.compile:
                compile_networks(objective.networks, device)
            if run is None:
                run = self._create(plan, banks, source, trainer, device)
                self.notes += mine.enter_context(run.taken())
            elif run.config["data_fingerprint"] != banks.fingerprint:
                raise DataError(f"{run.path}: the training images are not those of the run; resume with the same images")

            def at_step_0() -> Trainer:
                return make_trainer(plan, banks, self._objective(plan, True), torch.device("cpu"), log_every)

            return _Loop(self, run, plan, source, banks, trainer, at_step_0).go()

    def _threads(self, plan: Plan, run: Run | None) -> Threads:
        if run is None:
            return training_threads(plan, self.settings.threads, self.settings.deterministic)
        if self.settings.threads is None:  # a run of a version that kept no number
            return Threads(torch.get_num_threads(), "torch's own number")
        return Threads(self.settings.threads, "as the run was, or as asked")

    def _objective(self, plan: Plan, is_start: bool) -> Objective:
        """With the weights that a training starts from, or such as a checkpoint is to be read into."""
        objective = make_objective(plan)
        if self.settings.init_from is not None and is_start:
            load_generators(objective, self.settings.init_from, plan)
        give_teacher(objective, self.settings.teacher)
        return objective

    def _loading(self, label: str, done: int, total: int) -> None:
        self.tell(Loading(label, done, total))

    def _note_broken(self, banks: Banks) -> None:
        self.notes += banks.notes
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
    at_step_0: Callable[[], Trainer]
    saved_step: int | None = None
    note_told: str | None = None
    threads_checked: float = 0.0
    """In seconds of this run segment; infinite once there is nothing more to say of them."""

    def go(self) -> TrainGanResult:
        settings, run, trainer = self.job.settings, self.run, self.trainer
        self.habits = Habits.of(settings)
        self.checkpoints = Checkpoints(run.path / "checkpoints", self.habits.keep)
        first, problems = self.checkpoints.restore_newest(trainer.stateful())
        trainer.step = first
        if trainer.total_steps < first:
            raise UsageError(f"{run.path}: has done {first} steps already, more than the {trainer.total_steps} now asked for")
        run.reopen()
        problems += take_up(run, settings, self.plan, trainer.total_steps, first, environment(trainer.device))
        self.pictures = Pictures(self.source, self.banks, trainer, self.plan.recipe.image_size_px)
        notes = (*problems, *self.job.notes, *self.pictures.notes)
        threads = None if self.job.threads is None else str(self.job.threads)
        self.job.tell(Started(run.path, first, trainer.total_steps, notes, threads))
        self.diary = Diary(run, self.plan, trainer.total_steps)
        self.diary.begin(first)
        while (error := self._train()) is not None:
            self._go_back(error)
            if self.job.stopped:
                break
        return self._end()

    def _train(self) -> LossNotFinite | None:
        """Until the steps are done, the time is up or somebody asks to stop; what went wrong, if a step was not finite."""
        limit = self.job.settings.max_seconds
        try:
            for report in self._steps():
                self._after(report)
                if self.job.stopped or (limit is not None and self.diary.seconds_here >= limit):
                    break
            self.trainer.confirm()
        except LossNotFinite as error:
            return error.with_traceback(None)  # which would keep the images of the step alive
        return None

    def _steps(self) -> Iterator[StepReport]:
        steps = self.trainer.steps(self.trainer.total_steps)
        return profiled(steps, self.trainer.device, self.run.path / PROFILE) if self.job.settings.profile else steps

    def _go_back(self, error: LossNotFinite) -> None:
        """Restore the newest checkpoint, or the start, and draw by another seed from there on.

        Raises:
            LossNotFinite: that is not wanted, or was done too often.
        """
        before = self.trainer.rollbacks
        if self.habits.on_nan == "stop" or len(before) >= MAX_ROLLBACKS:
            self.diary.log_failure(error, self.trainer)
            raise error
        parts = self.trainer.stateful()
        step, _ = self.checkpoints.restore_newest(parts)
        if not step:
            for part, stateful in self.at_step_0().stateful().items():
                parts[part].restore(stateful.state())
        rollback = {"from_step": error.step, "to_step": step, "terms": list(error.terms)}
        self.trainer.draw_anew([*before, rollback])
        self.diary.take_up(step)
        self.job.tell(Noted(step, f"{went_back(rollback)} ({len(before) + 1} of {MAX_ROLLBACKS} times)"))

    def _after(self, report: StepReport) -> None:
        self.diary.steps_done += 1
        if (note := self.trainer.note) is not None and note != self.note_told:
            self.note_told = note
            self.job.tell(Noted(report.step, note))
        self._check_threads(report.step)
        for warning in self.diary.log(report, self.trainer, lambda: self.pictures.outputs(self.trainer)):
            self.job.tell(Noted(report.step, warning))
        if report.step % self.habits.sample_every == 0:
            self._sample()
        if report.step % self.habits.save_every == 0:
            self._save()
        images_left = (self.trainer.total_steps - report.step) * self.plan.recipe.batch_size
        rate = self.diary.images_per_second
        self.job.tell(Stepped(report, rate, images_left / rate))

    def _check_threads(self, step: int) -> None:
        """Say it, once, if another number of CPU threads has become much faster than the one that the run keeps."""
        threads, seconds = self.job.threads, self.diary.seconds_here
        if threads is None or self.job.settings.deterministic or seconds - self.threads_checked < THREADS_CHECK_SECONDS:
            return
        self.threads_checked = seconds
        if (better := faster_threads(self.plan, threads.number, MUCH_FASTER)) is not None:
            self.threads_checked = math.inf
            self.job.tell(Noted(step, _much_faster(better, threads.number, self.run.path)))

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
            seconds=round(self.diary.seconds, 3),
            images_per_second=round(self.diary.images_per_second, 3),
            bundle=run.path / bundles.FILE_NAME,
            final_losses=self.diary.last_losses,
            weights_sha256=bundles.weights_sha256(self._bundle()),
        )
        rows = {direction: len(images) for direction, images in self.pictures.samples.items()}
        page = training_report(run.path, run.config, run.entries(), to_json(result), rows)
        write_atomically(run.path / "report.html", page.encode())
        if finished:
            run.finish(result)
        return result

    def _sample(self) -> None:
        path = self.run.path / "samples" / f"step-{self.trainer.step:08d}.png"
        write_atomically(path, self.pictures.sheet(self.trainer))

    def _bundle(self) -> bundles.Bundle:
        return make_bundle(self.run.path.name, self.trainer, self.plan, self.source, self.banks.fingerprint)


def _free_name(out: Path, stem: str) -> str:
    numbers = (f"{stem}-{number}" for number in range(1, 10_000))
    return next(name for name in (stem, *numbers) if not (out / name).exists())


def _much_faster(better: int, now: int, run: Path) -> str:
    return (
        f"--threads {better} instead of {now} would now be more than {MUCH_FASTER} times as fast: stop it and give that with "
        f"--resume {run.name} (bit for bit it is another run from there on)"
    )
