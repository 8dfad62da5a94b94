"""The log of a run while it is written: time, losses, what the outputs look like, what went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from fruitgan.report.grid import sample_files
from fruitgan.runs.run import Run
from fruitgan.train_gan.assemble import Plan
from fruitgan.train_gan.curves import undecided_loss
from fruitgan.train_gan.monitor import OBSERVE_STEPS, Watch
from fruitgan.train_gan.trainer import LossNotFinite, StepReport, Trainer


class Diary:
    """Writes the lines of one sitting; those before are taken up, so that neither gap nor duplicate shows where they meet.

    Times are of a clock that never goes back.
    """

    def __init__(self, run: Run, plan: Plan, total_steps: int) -> None:
        self.run = run
        self.plan = plan
        self.total_steps = total_steps
        self.last_losses: Mapping[str, float] = {}
        self.seconds_before = 0.0
        self.steps_done = 0
        """In this sitting, those that were gone back from among them."""
        self.began = time.monotonic()

    def begin(self, step: int) -> None:
        """A sitting begins at this step: time counts from here."""
        kept = self.take_up(step)
        if kept:
            self.last_losses, self.seconds_before = kept[-1]["losses"], kept[-1]["seconds"]
        self.began = time.monotonic()

    def take_up(self, step: int) -> list[dict[str, Any]]:
        """Forget what was written and drawn after this step; the lines that stay."""
        kept = self.run.forget_after(step)
        for later, sheet in sample_files(self.run.path / "samples").items():
            if later > step:
                sheet.unlink(missing_ok=True)
        self.watch = Watch(self.total_steps, undecided_loss(self.plan.objective, self.plan.discriminator))
        self.watch.replay(kept)
        self.rollbacks_told = sum(len(entry.get("rollbacks", ())) for entry in kept)
        return kept

    @property
    def seconds_here(self) -> float:
        """Since this sitting began."""
        return time.monotonic() - self.began

    @property
    def seconds(self) -> float:
        """Of training, all sittings together."""
        return self.seconds_before + self.seconds_here

    @property
    def images_per_second(self) -> float:
        return self.steps_done * self.plan.recipe.batch_size / max(1e-9, self.seconds_here)

    def log(self, report: StepReport, trainer: Trainer, outputs: Callable[[], Mapping[str, Any]]) -> list[str]:
        """Write the step's line, if it has losses; `outputs` is asked now and then. The warnings that there is reason for."""
        if report.losses is None:
            return []
        self.last_losses = report.losses
        entry = self._line(report.step, report.losses, report.learning_rate)
        if report.step % (-(-OBSERVE_STEPS // trainer.log_every) * trainer.log_every) == 0:
            entry["outputs"] = outputs()
        if rollbacks := trainer.rollbacks[self.rollbacks_told :]:
            entry["rollbacks"] = rollbacks
            self.rollbacks_told = len(trainer.rollbacks)
        if warnings := self.watch.see(entry):
            entry["warnings"] = warnings
        self.run.log(entry)
        return list(warnings.values())

    def log_failure(self, error: LossNotFinite, trainer: Trainer) -> None:
        """The last line before the run gives up; one that is resumed forgets it."""
        learning_rate = float(next(iter(trainer.optimizers.values())).learning_rate)
        self.run.log(self._line(error.step, {}, learning_rate) | {"not_finite": list(error.terms)})

    def _line(self, step: int, losses: Mapping[str, float], learning_rate: float) -> dict[str, Any]:
        return {
            "step": step,
            "images": step * self.plan.recipe.batch_size,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 3),
            "losses": dict(losses),
            "learning_rate": learning_rate,
        }
