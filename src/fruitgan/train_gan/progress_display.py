"""What the commands that train a generator share: options of a run's length, and what a person sees while it goes on."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fruitgan.console import Bar, Console, duration
from fruitgan.console.signals import PoliteStop
from fruitgan.errors import Stopped

if TYPE_CHECKING:
    from fruitgan.train_gan.settings import Event

NETWORKS_PANEL = "Recipe and networks"
LENGTH_PANEL = "Length, saving, resuming"
LONG_SECONDS = 24 * 3600
STEPS_BEFORE_A_FORECAST = 5

Steps = Annotated[
    int | None, typer.Option(min=1, help="How long, in steps.", show_default="the recipe's", rich_help_panel=LENGTH_PANEL)
]
MaxTime = Annotated[
    str | None,
    typer.Option(metavar="10m|1h30m", help="Save and stop after this time; resume later.", rich_help_panel=LENGTH_PANEL),
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="[RUN]", help="Go on with a run; without a name with the newest unfinished.", rich_help_panel=LENGTH_PANEL
    ),
]
SaveEvery = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="STEPS",
        help="A checkpoint and a bundle this often.",
        show_default="500",
        rich_help_panel=LENGTH_PANEL,
    ),
]


class Telling:
    """What a person sees while it trains: a bar for each stage, a line for what is saved."""

    def __init__(self, console: Console, stop: PoliteStop, stack: ExitStack) -> None:
        self.console = console
        self.stop = stop
        self.stack = stack
        self.bar: Bar | None = None
        self.stage = ""
        self.run: Path | None = None
        self.first_step = 0
        self.total_steps = 0

    def __call__(self, event: Event) -> bool:
        from fruitgan.train_gan.settings import Loading, Noted, Saved, Started, Stepped

        match event:
            case Loading(label, done, total):
                if self.stop.signal is not None:
                    raise Stopped("stopped before the first step; nothing was changed", self.stop.exit_code)
                self._show(label, total, "").update(done)
            case Started(run, step, total_steps, notes, threads):
                for note in notes:
                    self.console.warn(note)
                self.console.say(f"{run}: step {step} of {total_steps}{f', {threads}' if threads else ''}")
                self.run, self.first_step, self.total_steps = run, step, total_steps
                self._show("training", total_steps, "step", step)
            case Stepped(report, rate):
                postfix: dict[str, Any] = {"img/s": f"{rate:.2f}"} if rate else {}
                self._show("training", self.total_steps, "step", self.first_step).update(report.step, **postfix)
                if report.step - self.first_step == STEPS_BEFORE_A_FORECAST:
                    self._forecast(event.seconds_left)
            case Saved(step, checkpoint):
                self.console.say(f"saved {checkpoint}")
            case Noted(step, text):
                self.console.warn(f"step {step}: {text}")
        return self.stop.signal is not None

    def _forecast(self, seconds: float) -> None:
        """A word in time: the reference recipes take weeks on a CPU."""
        if seconds > LONG_SECONDS:
            self.console.warn(
                f"at this pace it takes {duration(seconds)}; --recipe fast is made for machines without a GPU, "
                "--dry-run says what to expect"
            )

    def measured(self, label: str, done: int, total: int) -> None:
        """Something beside the training comes along."""
        self._show(label, total, "").update(done)

    def _show(self, stage: str, total: int, unit: str, start: int = 0) -> Bar:
        if self.bar is None or stage != self.stage:
            self.stack.close()
            self.bar = self.stack.enter_context(self.console.bar(total, stage, unit, start))
            self.stage = stage
        return self.bar
