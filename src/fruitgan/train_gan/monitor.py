"""Monitor: warns of known collapses of adversarial training, found in the run log, each once and with what helps.

It reads nothing but the log's lines: given those of a run that is resumed, it continues as if the run had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruitgan.images import Pixels, unit_from_bytes

OBSERVE_STEPS = 100
"""How often at least the outputs are to be looked at: often against 1,000 steps of patience, seldom against their cost."""

NEAR_ZERO = 0.04  # of what a discriminator loses that cannot tell: it is right, and sure of it, on nearly every patch
SAME = 3 / 255  # the light generator's clipping alone changes white by 2.8 grey levels
ALIKE = 0.1  # outputs that differ a tenth as much as their inputs
OPPOSITE = -0.25  # a generator that forgets its input has 0
LEAST_CONTRAST = 2 / 255  # less than that among the inputs says nothing of the outputs

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
    "more or more varied images help, or a new run with a weaker one (--discriminator-option base_channels=32)",
    "unchanged": "{where}: for {steps} steps the outputs have been the inputs; a new run with a lower --cycle-weight "
    "and --set weights.identity=0 lets more change",
    "constant": "{where}: for {steps} steps all inputs have given nearly one output, the generator has collapsed; a new run "
    "with another --seed, a larger --batch-size or a higher weight of cycle helps",
    "inverted": "{where}: for {steps} steps light has come out dark and colours as their opposites; a new run with another "
    "--seed, or by --recipe fast, which starts as the identity, helps, unless that is what the domains are",
    "oscillating": "{where} has swung up and down for {steps} steps, once in {period}: the networks chase each other; a larger "
    "--batch-size, a lower --learning-rate or EMA weights (--set ema_decay=0.999) help",
}


def describe(sources: Sequence[Pixels], fakes: Sequence[Pixels]) -> dict[str, float]:
    """What can be told from some inputs and their outputs, all uint8 [S, S, 3].

    - `changed`: mean absolute difference of an output from its input, on [0, 1].
    - `variety`: how much outputs differ from one another, as a multiple of how much inputs do (deviation over the images,
      mean over pixels); absent where the inputs are alike.
    - `likeness`: correlation of all values of the outputs with those of the inputs; absent where either are one colour.
    """
    x, y = (unit_from_bytes(np.stack(images).astype(np.float64)) for images in (sources, fakes))
    found = {"changed": float(np.abs(y - x).mean())}
    if (among := x.std(axis=0).mean()) >= LEAST_CONTRAST:
        found["variety"] = float(y.std(axis=0).mean() / among)
    if min(x.std(), y.std()) >= LEAST_CONTRAST:
        found["likeness"] = float(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    return {name: round(value, 4) for name, value in found.items()}


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
