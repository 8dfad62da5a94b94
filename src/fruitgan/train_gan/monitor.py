"""The run log, and the monitor: warns of known collapses of adversarial training, each once and with what helps.

The monitor reads nothing but the log's lines: given those of a run that is resumed, it goes on as if that had never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fruitgan.distributed import ranks
from fruitgan.report.page import sample_files
from fruitgan.runs.run import SAMPLES, Run
from fruitgan.runs.trackers import Trackers
from fruitgan.train_gan.settings import read_config

if TYPE_CHECKING:
    from fruitgan.train_gan.trainer import Trainer

OBSERVE_STEPS = 100
"""How often at least the outputs are to be looked at: often against 1,000 steps of patience, seldom against their cost."""

NEAR_ZERO = 0.04  # of what a discriminator loses that cannot tell: it is right, and sure of it, on nearly every patch
SAME = 3 / 255  # the light generator's clipping alone changes white by 2.8 grey levels
ALIKE = 0.1  # outputs that differ a tenth as much as their inputs
OPPOSITE = -0.25  # a generator that forgets its input has 0

WINDOW = 48  # values of a loss in which a swing is looked for
SCALES = (1, 4, 16, 64)  # how many lines of the log make a value: slow swings are seen in means
SLOWEST = 4  # swings in a window; fewer are a drift
FASTEST = WINDOW // 3
REGULAR = 0.6  # share of the variance in one frequency and its neighbours: noise, white or red, has it in 1 window of 200
STRONG = 0.35  # deviation as a share of the mean: swings by half of it
LEAST_SPAN_STEPS = 1000


PATIENCE = {
    "discriminator-won": (0.05, 1000, 5000),
    "unchanged": (0.25, 1000, 20_000),
    "constant": (0.1, 1000, 10_000),
    "inverted": (0.05, 1000, 5000),
}
"""How long something must last before it is said: a share of the training, and the least and the most steps.

A beginning is no collapse: one generator starts as the identity, another with grey for everything.
"""
SENTENCES = {
    "discriminator-won": "{where} has lost next to nothing for {steps} steps: the discriminator has won and teaches little; "
    "more or more varied images help, or a new run with a weaker one (--discriminator-option base_channels=16)",
    "unchanged": "{where}: for {steps} steps the outputs have been the inputs; a new run with a lower --cycle-weight "
    "and --set weights.identity=0 lets more change",
    "constant": "{where}: for {steps} steps all inputs have given nearly one output, the generator has collapsed; a new run "
    "with another --seed, a larger --batch-size or a higher weight of cycle helps",
    "inverted": "{where}: for {steps} steps light has come out dark and colours as their opposites; a new run with another "
    "--seed, or by --recipe fast, which starts as the identity, helps, unless that is what the domains are",
    "oscillating": "{where} has swung up and down for {steps} steps, once in {period}: the networks chase each other; a larger "
    "--batch-size, a lower --learning-rate or EMA weights (--set ema_decay=0.999) help",
}


class Monitor:
    """Takes the log's lines in their order and gives the warnings that each is the first to justify.

    Args:
        total_steps: of the whole training.
        undecided: what a discriminator loses that cannot tell; None where the objective's terms are not known.
    """

    def __init__(self, total_steps: int, undecided: float | None) -> None:
        self.total_steps = total_steps
        self.undecided = undecided
        self._said: set[str] = set()
        self._since: dict[tuple[str, str], int] = {}
        self._losses: dict[str, tuple[list[int], list[float]]] = {}
        """Steps and losses, by term."""
        self._swinging: dict[tuple[str, int], int] = {}
        """Since which step, by term and scale."""
        self._line_before = 0

    def replay(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take in the lines of the run so far; what their `warnings` say is not said again."""
        for entry in entries:
            self._take(entry)
            self._said |= set(entry.get("warnings", ()))

    def see(self, entry: Mapping[str, Any]) -> dict[str, str]:
        """The warnings that a new line gives reason to, by kind; each kind once."""
        found: dict[str, str] = {}
        for kind, where, steps, period in self._take(entry):
            if kind not in self._said:
                self._said.add(kind)
                found[kind] = SENTENCES[kind].format(where=where, steps=f"{steps:,}", period=f"{period:,}")
        return found

    def _take(self, entry: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        """Kind, term or direction, for how many steps, and the steps of a period, of all that holds by now."""
        step = int(entry["step"])
        swinging = []
        for term, loss in entry["losses"].items():
            kind = term.rpartition("_")[0]
            if kind == "discriminator" and self.undecided is not None:
                self._note("discriminator-won", term, loss < NEAR_ZERO * self.undecided, self._line_before)
            if kind in ("discriminator", "adversarial"):
                swinging += [("oscillating", term, *found) for found in self._swings(term, step, loss)]
        for direction, output in entry.get("outputs", {}).items():
            self._note("unchanged", direction, output["changed"] < SAME, step)
            self._note("constant", direction, output.get("variety", 1.0) < ALIKE, step)
            self._note("inverted", direction, output.get("likeness", 0.0) < OPPOSITE, step)
        self._line_before = step
        lasting = []
        for (kind, where), since in self._since.items():
            share, least, most = PATIENCE[kind]
            if step - since >= min(max(round(share * self.total_steps), least), most):
                lasting.append((kind, where, step - since, 0))
        return lasting + swinging

    def _note(self, kind: str, where: str, holds: bool, since: int) -> None:
        if holds:
            self._since.setdefault((kind, where), since)
        else:
            self._since.pop((kind, where), None)

    def _swings(self, term: str, step: int, loss: float) -> Iterator[tuple[int, int]]:
        """For how many steps a loss has swung, and the steps of a period, once two windows on end have swung throughout."""
        steps, losses = self._losses.setdefault(term, ([], []))
        steps.append(step)
        losses.append(loss)
        for scale in SCALES:
            if len(losses) % scale or len(losses) < WINDOW * scale:
                continue
            cycles = swings(np.reshape(losses[-WINDOW * scale :], (WINDOW, scale)).mean(axis=1))
            if cycles is None:
                self._swinging.pop((term, scale), None)
                continue
            length = step - steps[-WINDOW * scale + scale - 1]
            lasted = step - self._swinging.setdefault((term, scale), step)
            if lasted >= length >= LEAST_SPAN_STEPS:
                yield length + lasted, round(length / cycles)


class RunLog:
    """Writes the run log's lines of one segment, without gap or duplicate where it meets those before.

    Times are of a clock that never goes back.
    """

    def __init__(self, run: Run, trainer: Trainer, trackers: Trackers) -> None:
        self.run = run
        self.trainer = trainer
        self.trackers = trackers
        self.last_losses: Mapping[str, float] = {}
        self.seconds_before = 0.0
        self.steps_done = 0
        """In this segment, those that were rolled back among them."""
        self.began = time.monotonic()

    def begin(self, step: int, seconds: float) -> None:
        """A segment begins at this step; time counts from here; `seconds` are the checkpoint's, perhaps more than the log's."""
        self.trackers.begin(self.run, max((entry["step"] for entry in self.run.entries()), default=0))
        kept = self.take_back(step)
        self.seconds_before = seconds
        if kept:
            self.last_losses = next((entry["losses"] for entry in reversed(kept) if entry["losses"]), {})
            self.seconds_before = max(seconds, kept[-1]["seconds"])
        self.began = time.monotonic()

    def take_back(self, step: int) -> list[dict[str, Any]]:
        """Remove lines and sample sheets after this step; the lines that stay."""
        from fruitgan.train_gan.curves import UNDECIDED, Story  # which need torch, and `incidents` does not

        kept = self.run.forget_after(step)
        for later, sheet in sample_files(self.run.path / SAMPLES).items():
            if later > step and ranks().is_first:
                sheet.unlink(missing_ok=True)
        story = Story(read_config(self.run))  # of a discriminator of another package's one map is assumed
        self.monitor = Monitor(story.total_steps, story.undecided or UNDECIDED.get(story.gan_mode))
        self.monitor.replay(kept)
        self.rollbacks_logged = sum(len(entry.get("rollbacks", ())) for entry in kept)
        return kept

    @property
    def seconds_here(self) -> float:
        """Since this segment began."""
        return time.monotonic() - self.began

    @property
    def seconds(self) -> float:
        """Of training, all segments together."""
        return self.seconds_before + self.seconds_here

    @property
    def images_per_second(self) -> float:
        return self.steps_done * self.trainer.recipe.batch_size / max(1e-9, self.seconds_here)

    def add(
        self, step: int, losses: Mapping[str, float] | None = None, learning_rate: float | None = None, **more: Any
    ) -> list[str]:
        """Write a line: of a step's losses, or else of what `more` says has happened. Returns the monitor's warnings."""
        entry = {
            "step": step,
            "images": step * self.trainer.recipe.batch_size,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 3),
            "losses": dict(losses or {}),
            "learning_rate": self.trainer.learning_rate if learning_rate is None else learning_rate,
            **more,
        }
        if losses is None:
            self.run.log(entry)
            return []
        self.last_losses = losses
        if rollbacks := self.trainer.rollbacks[self.rollbacks_logged :]:
            entry["rollbacks"] = rollbacks
            self.rollbacks_logged = len(self.trainer.rollbacks)
        if warnings := self.monitor.see(entry):
            entry["warnings"] = warnings
        self.run.log(entry)
        self.trackers.line(step, entry)
        return list(warnings.values())


def swings(values: NDArray[np.float64]) -> int | None:
    """How often a loss went up and down, if it did so regularly and by much; None if it did not."""
    if not (deviation := values.std()) or deviation < STRONG * values.mean():
        return None
    times = np.arange(len(values)) - (len(values) - 1) / 2
    level = values - values.mean() - times * (times @ values) / (times @ times)  # without its straight drift
    power = np.abs(np.fft.rfft(level))[1:] ** 2
    peak = int(power.argmax())
    # Three neighbours hold what lies between two frequencies.
    regular = power[max(0, peak - 1) : peak + 2].sum() >= REGULAR * power.sum()
    return peak + 1 if regular and SLOWEST <= peak + 1 <= FASTEST else None


def incidents(entries: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Rollbacks, warnings, changed settings and the final failure by a training's log, each with the step of its line."""
    found = []
    for entry in entries:
        found += [(entry["step"], f"from here on {field} {change}") for field, change in entry.get("changes", {}).items()]
        found += [(entry["step"], went_back(rollback)) for rollback in entry.get("rollbacks", ())]
        found += [(entry["step"], text) for text in entry.get("warnings", {}).values()]
        if "not_finite" in entry:
            found.append((entry["step"], f"not finite: {', '.join(entry['not_finite'])}; the run gave up"))
    return found


def went_back(rollback: Mapping[str, Any]) -> str:
    """A rollback of the log in words."""
    terms = ", ".join(rollback["terms"])
    return f"not finite before step {rollback['from_step']}: {terms}; back to step {rollback['to_step']}, on with another seed"
