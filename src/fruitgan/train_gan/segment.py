"""One run segment, from the newest checkpoint on: trains, saves, draws samples, and writes the run log."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from fruitgan import bundle as bundles
from fruitgan.data.sources import Source
from fruitgan.device import Threads
from fruitgan.distributed import ranks
from fruitgan.errors import UsageError
from fruitgan.files import new_folder, remove_folder, write_atomically
from fruitgan.progress import Listener, Note, Progress
from fruitgan.report.page import png_bytes
from fruitgan.runs.checkpoint import Checkpoints, SaveClock, Snapshot, snapshot
from fruitgan.runs.run import CHECKPOINTS, RESULT, SAMPLES, Run
from fruitgan.runs.trackers import Trackers
from fruitgan.settings import to_json
from fruitgan.train_gan.assemble import Datasets, make_bundle, make_trainer
from fruitgan.train_gan.estimate import faster_threads
from fruitgan.train_gan.monitor import OBSERVE_STEPS, RunLog, went_back
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.page import training_report
from fruitgan.train_gan.samples import HeldOutKid, SampleImages
from fruitgan.train_gan.settings import DEFAULTS, TRAINING, Plan, TrainGanResult, TrainGanSettings, read_config
from fruitgan.train_gan.trainer import STAGE, LossNotFinite, StepReport, Trainer

MAX_ROLLBACKS = 3
PROFILE, TRACE, SUMMARY = "profile", "trace.json", "summary.txt"
SKIPPED_STEPS = 2
"""The first ones choose kernels and lay out memory."""
PROFILED_STEPS = 6
"""On a GPU the first of them run as they are, or while they are recorded, the others as recorded: those have no stages."""
SHOWN_OPERATIONS = 15
THREADS_CHECK_SECONDS = 600
MUCH_FASTER = 1.5


@dataclass(kw_only=True)
class Segment:
    """Trains from the newest checkpoint on; of several processes all take the steps, and the first one alone writes."""

    settings: TrainGanSettings
    run: Run
    plan: Plan
    source: Source
    datasets: Datasets
    trainer: Trainer
    first_objective: Callable[[], Objective]
    """Makes the objective as it was before the first step, to go back to."""
    threads: Threads | None
    trackers: Trackers
    held_out_kid: HeldOutKid | None
    listener: Listener
    saved_step: int | None = None

    def __post_init__(self) -> None:
        self.threads_check_at: float = THREADS_CHECK_SECONDS
        """Seconds of this segment at which other numbers of threads are tried next."""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._saving: Future[Path] | None = None
        settings = self.settings
        self.checkpoints = Checkpoints(self.run.path / CHECKPOINTS, settings.keep or DEFAULTS["keep"], settings.keep_every)

    def restore(self) -> int:
        """Restore the newest checkpoint that is whole; its step.

        Raises:
            UsageError: more steps are done than are asked for.
            DataError: there are checkpoints, but none is whole.
        """
        first, problems = self.checkpoints.restore_newest(self.trainer.stateful())
        self.trainer.step = first
        total = self.trainer.total_steps
        if total < first:
            raise UsageError(f"{self.run.path}: has done {first} steps already, more than the {total} now asked for")
        self.listener.warn(*problems)
        return first

    def go(self, changes: Mapping[str, str]) -> TrainGanResult:
        """Train until the steps are done, the time is up, or somebody asks to stop; save, and write the report.

        Args:
            changes: fields of the recipe that change with this segment, for the run log.
        """
        first, total = self.trainer.step, self.trainer.total_steps
        self.run.reopen()
        began = read_config(self.run).launch_began if ranks().restarts else None
        limit = math.inf if self.settings.max_seconds is None else self.settings.max_seconds
        self.stop_at = limit - (0.0 if began is None else time.time() - began)
        """Seconds of this segment; those count that went by before processes that were lost."""
        if ranks().is_first:
            self.samples = SampleImages(self.source, self.datasets, self.trainer, self.plan)
            self.listener.warn(*self.samples.notes)
        self.listener.tell(Note(f"{self.run.path}: step {first} of {total}{f', {self.threads}' if self.threads else ''}"))
        self.listener.tell(Progress(TRAINING, first, total, {"run": self.run.path, "recipe": self.plan.recipe_name}))
        self.log = RunLog(self.run, self.trainer, self.trackers)
        seconds = self.checkpoints.about(first).get("seconds")
        try:
            self.log.begin(first, seconds if isinstance(seconds, float) and seconds > 0 else 0.0)
            self.save_clock, self.page_clock = SaveClock(), SaveClock()
            if changes:
                self.log.add(first, changes=dict(changes))
            while (error := self._train()) is not None:
                self._go_back(error)
                if self.listener.stopped and not ranks().is_group:  # of several processes none knows what the others were told
                    break
            ranks().release()
            return self._end()
        finally:
            self._writer.shutdown()  # the folder stays locked until the last file is written
            self.trackers.end()

    @property
    def _is_to_stop(self) -> bool:
        return self.listener.stopped or self.log.seconds_here >= self.stop_at

    def _train(self) -> LossNotFinite | None:
        """Train as long as it goes; what went wrong, if a step was not finite."""
        steps = self.trainer.steps(self.trainer.total_steps)
        if self.settings.profile and ranks().is_first:
            steps = profiled(steps, self.trainer.device, self.run.path / PROFILE)
        try:
            for report in steps:
                if self._after(report):
                    break
            self.trainer.confirm()
        except LossNotFinite as error:
            return error.with_traceback(None)  # which would keep the images of the step alive
        return None

    def _go_back(self, error: LossNotFinite) -> None:
        """Restore the newest checkpoint, or the start, and draw by another seed from there on.

        Raises:
            LossNotFinite: that is not wanted, or was done too often.
        """
        before = self.trainer.rollbacks
        if self.settings.on_nan != "rollback" or len(before) >= MAX_ROLLBACKS:
            self.log.add(error.step, not_finite=list(error.terms))  # a run that is resumed forgets it
            raise error
        self._await_saved()
        ranks().any(False)  # waits for the one that writes, so that all restore the same checkpoint
        parts = self.trainer.stateful()
        step, _ = self.checkpoints.restore_newest(parts)
        if not step:
            fresh = make_trainer(self.plan, self.datasets, self.first_objective(), torch.device("cpu"), 1)
            for part, stateful in fresh.stateful().items():
                parts[part].restore(stateful.state())
        rollback = {"from_step": error.step, "to_step": step, "terms": list(error.terms)}
        self.trainer.draw_anew([*before, rollback])
        self.trackers.take_back()
        self.log.take_back(step)
        self.listener.warn(f"step {step}: {went_back(rollback)} ({len(before) + 1} of {MAX_ROLLBACKS} times)")

    def _after(self, report: StepReport) -> bool:
        """Do what is due after a step; whether it is the last one of this segment."""
        self.log.steps_done += 1
        if self._saving is not None and self._saving.done():
            self._await_saved()
        every, kept = self.settings.save_every, self.settings.keep_every
        is_due = (report.step % every == 0 if every else self.save_clock.is_due) or (kept and report.step % kept == 0)
        first = ranks().is_first
        if first:
            self._record(report)
        stop, save, page = ranks().any(self._is_to_stop, first and bool(is_due), first and self.page_clock.is_due)
        if save or page:
            self.trainer.confirm()  # where every process does: what it finds, all are to find
        if first:
            if save:
                self._save()
            if page:
                with self.page_clock.saving():
                    self._write_page(self._result(round(self.log.seconds, 3)), datetime.now())
            self._tell(report)
        # Of several processes none knows what the others were told since they agreed: they stop a step later.
        return stop if ranks().is_group else self._is_to_stop

    def _record(self, report: StepReport) -> None:
        """Write the step's line, if it has losses, and its samples, where they are due."""
        trainer, step, warnings = self.trainer, report.step, [] if self.trainer.note is None else [self.trainer.note]
        trainer.note = None
        if report.losses is not None:
            more: dict[str, Any] = {}
            if step % self._whole_lines(OBSERVE_STEPS) == 0:
                more["outputs"] = self.samples.outputs(trainer)
            is_due = step % self._whole_lines(self.settings.evaluate_every or 1) == 0 or step == trainer.total_steps
            if self.held_out_kid is not None and is_due:
                more["kid"] = self.held_out_kid(trainer)
            warnings += self.log.add(step, report.losses, report.learning_rate, **more)
        self.listener.warn(*(f"step {step}: {warning}" for warning in warnings))
        if step % (self.settings.sample_every or DEFAULTS["sample_every"]) == 0:
            self._sample()

    def _whole_lines(self, steps: int) -> int:
        """The steps, rounded up to whole lines of the log."""
        return -(-steps // self.trainer.log_every) * self.trainer.log_every

    def _tell(self, report: StepReport) -> None:
        is_fixed = self.settings.deterministic or ranks().is_group
        if self.threads and not is_fixed and self.log.seconds_here >= self.threads_check_at:
            self._check_threads(report.step, self.threads.number)
        total, rate = self.trainer.total_steps, self.log.images_per_second
        seconds_left = (total - report.step) * self.plan.recipe.batch_size / rate
        details = {"losses": report.losses, "images_per_second": rate, "seconds_left": seconds_left}
        details["seconds_to_stop"] = max(0.0, min(seconds_left, self.stop_at - self.log.seconds_here))
        self.listener.tell(Progress(TRAINING, report.step, total, details))

    def _check_threads(self, step: int, number: int) -> None:
        """Warn, once, where another number of CPU threads has become much faster than the run's."""
        self.threads_check_at += THREADS_CHECK_SECONDS
        if (better := faster_threads(self.plan, number, MUCH_FASTER)) is not None:
            self.threads_check_at = math.inf
            self.listener.warn(
                f"step {step}: {better} threads instead of {number} would now be more than {MUCH_FASTER} times as fast: "
                f"stop, then --resume {self.run.path.name} --threads {better} (no longer bit-identical from there on)"
            )

    def _save(self) -> None:
        """Copy the state, and have it written beside the steps that follow; one at a time."""
        self.trainer.confirm()
        self.saved_seconds = round(self.log.seconds, 3)
        about = {"recipe": to_json(self.plan.recipe), "seconds": self.saved_seconds}
        with self.save_clock.saving():
            self._await_saved()
            content = bundles.bundle_bytes(self._bundle())
            state = snapshot(self.trainer.step, self.trainer.stateful(), about)
            self._saving = self._writer.submit(self._write, state, content)
        self.saved_step = self.trainer.step

    def _write(self, state: Snapshot, bundle: bytes) -> Path:
        """In a thread of its own."""
        self.run.log_to_disk()
        path = self.checkpoints.write(state, files={bundles.FILE_NAME: bundle})
        write_atomically(self.run.path / bundles.FILE_NAME, bundle)
        return path

    def _await_saved(self) -> None:
        """Wait for what is being written, if anything is; Raises: FruitganError if it could not be."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            self.listener.tell(Note(f"saved {saving.result()}"))

    def _end(self) -> TrainGanResult:
        trainer, run = self.trainer, self.run
        if not ranks().is_first:
            return self._result(self.log.seconds)
        if self.saved_step != trainer.step:
            self._save()  # also where no step was left to do: a kill may have come between the last checkpoint and its bundle
        self._await_saved()
        self._sample()
        result = self._result(self.saved_seconds)  # those that a resumed run counts on from
        self._write_page(result)
        if result.finished:
            run.write(RESULT, result)
        return result

    def _result(self, seconds: float) -> TrainGanResult:
        """As it stands now."""
        trainer = self.trainer
        return TrainGanResult(
            run=self.run.path,
            step=trainer.step,
            finished=trainer.step >= trainer.total_steps,
            images=trainer.step * self.plan.recipe.batch_size,
            seconds=seconds,
            images_per_second=round(self.log.images_per_second, 3),
            bundle=self.run.path / bundles.FILE_NAME,
            final_losses=self.log.last_losses,
            weights_sha256=bundles.weights_sha256(self._bundle()),
        )

    def _write_page(self, result: TrainGanResult, now: datetime | None = None) -> None:
        """The report; with the time of day one that renews itself, since the training goes on."""
        run, both_ways = self.run, len(self.samples.samples) > 1
        page = training_report(run.path, read_config(run), run.entries(), to_json(result), both_ways, now)
        write_atomically(run.path / "report.html", page.encode())

    def _sample(self) -> None:
        path, sheet = self.run.path / SAMPLES / f"step-{self.trainer.step:08d}.png", self.samples.sheet(self.trainer)
        write_atomically(path, png_bytes(sheet))
        self.trackers.image(self.trainer.step, "samples", sheet)

    def _bundle(self) -> bundles.Bundle:
        return make_bundle(self.run.path.name, self.trainer, self.plan, self.source, self.datasets.fingerprint)


def profiled(steps: Iterator[StepReport], device: torch.device, folder: Path) -> Iterator[StepReport]:
    """The same steps; behind the first few, some are profiled, and what was found is written to the folder.

    Fewer steps than that leave what there is, or nothing.

    Raises:
        FruitganError: the folder cannot be written.
    """
    for _, report in zip(range(SKIPPED_STEPS), steps, strict=False):
        yield report
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else its library tells stderr when it starts, and that there is no GPU
    count = 0
    with torch.profiler.profile() as profiler:
        for _, report in zip(range(PROFILED_STEPS), steps, strict=False):
            count += 1
            yield report
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    if count:
        _write_profile(profiler, count, device, folder)
    yield from steps


def _write_profile(profiler: Any, steps: int, device: torch.device, folder: Path) -> None:
    """The trace, and the share of each stage in a step with a table of the operations that take longest."""
    averages = profiler.key_averages()
    stages_ms = {
        event.key.removeprefix(STAGE): event.cpu_time_total / 1000 / event.count
        for event in averages
        if event.key.startswith(STAGE)
    }
    total_ms = sum(stages_ms.values())
    lines = [f"{steps} steps on {device}, {total_ms:.1f} ms each within the stages", ""]
    if device.type != "cpu":
        lines[1:1] = ["the stages' times are the host's, which launches the work and does not wait for it"]
    for name, spent_ms in sorted(stages_ms.items(), key=lambda item: -item[1]):
        lines.append(f"{name:32} {spent_ms:10.2f} ms {100 * spent_ms / max(total_ms, 1e-9):6.1f}%")
    order = "self_cpu_time_total" if device.type == "cpu" else "self_device_time_total"
    table = averages.table(sort_by=order, row_limit=SHOWN_OPERATIONS, max_name_column_width=50)
    if folder.exists():  # of an earlier segment
        remove_folder(folder)
    with new_folder(folder) as part:
        profiler.export_chrome_trace(str(part / TRACE))
        (part / SUMMARY).write_text("\n".join([*lines, "", table]), encoding="utf-8")
