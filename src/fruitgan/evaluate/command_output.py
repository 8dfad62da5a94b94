"""What `fruitgan evaluate` tells a person: a bar for each part of the work, then the numbers with their meaning."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from fruitgan.console import Bar, Console

if TYPE_CHECKING:
    from fruitgan.evaluate.settings import EvaluateProgress, EvaluateResult


class Progress:
    """A bar for each part of the work."""

    def __init__(self, console: Console, stack: ExitStack) -> None:
        self.console = console
        self.stack = stack
        self.what = ""
        self.bar: Bar | None = None

    def __call__(self, progress: EvaluateProgress) -> None:
        if progress.what != self.what:
            self.stack.close()
            self.what = progress.what
            self.bar = self.stack.enter_context(self.console.bar(progress.total, progress.what, unit="step"))
        assert self.bar is not None
        self.bar.update(progress.done)


def show(console: Console, result: EvaluateResult, values: dict[str, Any]) -> None:
    """The result for people: leaks first, since they change what the numbers mean."""
    from fruitgan.evaluate.wording import claim_sentence, detector_meaning, figure, meaning, number_rows

    for warning in result.warnings:
        console.warn(warning)
    for leak in result.leaks:
        console.warn(f"leak ({leak.kind}): {leak.detail}")
    for note in result.notes:
        console.say(note)
    rows = number_rows(values)
    cells = [
        (
            row.title,
            figure(row.value),
            f"{figure(row.low)} to {figure(row.high)}",
            "" if row.floor is None else f"{figure(row.floor[1])} to {figure(row.floor[2])}",
            row.features,
            row.images,
        )
        for row in rows
    ]
    if result.detector is not None:
        low, high = result.detector.interval
        cells.append(
            (
                "detector accuracy",
                f"{result.detector.accuracy:.1%}",
                f"{low:.1%} to {high:.1%}",
                f"{result.detector.chance:.0%}",
                result.detector.name,
                f"{result.detector.n:,} judged",
            )
        )
    console.table("", ("number", "value", "95% interval", "real against real", "features", "images"), cells)
    for row in rows:
        if row.says_more:
            console.out(meaning(row))
    for claim in values["claims"]:
        console.out(claim_sentence(claim))
    for name, reason in result.not_measured.items():
        console.say(f"no {name}: it {reason}" if reason.startswith("needs") else f"no {name}: {reason}")
    if result.r_withheld:
        console.out(f"No R: {result.r_withheld}.")
    if values["detector"]:
        console.out(detector_meaning(values["detector"]))
    else:
        console.out(f"No detector: {result.withheld}.")
    for comparison in values["compare"]:
        _show_comparison(console, comparison)
    console.out(str(result.report))


def _show_comparison(console: Console, comparison: dict[str, Any]) -> None:
    from fruitgan.evaluate.wording import claim_sentence, compare_rows

    first, run = comparison["first"], comparison["run"]
    for note in comparison["notes"]:
        console.say(note)
    heads = ("number", first, run, "difference", "95% interval", "p", "test")
    console.table(f"{run} against {first}, {comparison['n_sources']:,} sources", heads, compare_rows(comparison))
    console.out(claim_sentence(comparison["claim"]))
