"""The terminal: results on stdout, everything else on stderr. Nothing below this line of the house knows either.

What takes long to import is imported where it is used, so that a command that needs none of it starts without.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from fruitgan.progress import Event, Note, OnProgress, duration

if TYPE_CHECKING:
    from tqdm import tqdm


LINE_SECONDS = 30
"""Off a terminal: how often a line says how far the work is."""
OWN_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
"""Of a bar whose job knows how long it will take."""


class Bar:
    """How far one part of the work is: a bar that goes when the part ends, or off a terminal a line every half minute.

    Args:
        drawn: None where there is no terminal.
        say: prints a line; None where nobody wants to read.
    """

    def __init__(self, label: str, total: int | None, start: int, drawn: tqdm[Any] | None, say: Callable[[str], None] | None):
        self._label, self._total, self._start = label, total, start
        self._drawn = drawn
        self._say = say
        self._began = self._said = time.monotonic()

    def update(self, done: int, seconds_left: float | None = None, **beside: Any) -> None:
        """`done` is the count so far, not the increment; `seconds_left` is what the job expects, `beside` stands behind it."""
        words = [f"{name.replace('_', ' ')} {value}" for name, value in beside.items()]
        if self._drawn is not None:
            if seconds_left is not None:
                self._drawn.bar_format = OWN_FORMAT
                words = [f"{duration(seconds_left)} left", *words]
            self._drawn.set_postfix_str(", ".join(words), refresh=False)
            self._drawn.update(done - self._drawn.n)
        elif self._say is not None and (now := time.monotonic()) - self._said >= LINE_SECONDS:
            self._said = now
            self._say(", ".join([f"{self._label}: {self._how_far(done)}", *self._time_left(done, seconds_left, now), *words]))

    def _how_far(self, done: int) -> str:
        return f"{done:,}" if not self._total else f"{done:,} of {self._total:,} ({done / self._total:.0%})"

    def _time_left(self, done: int, seconds: float | None, now: float) -> list[str]:
        if seconds is None and self._total and done > self._start:
            seconds = (now - self._began) * (self._total - done) / (done - self._start)
        return [] if seconds is None else [f"{duration(seconds)} left"]


class Console:
    """What one command says.

    Args:
        json: the result is one JSON object; lines and tables for people are dropped.
        quiet: no progress; warnings stay.
    """

    def __init__(self, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self._bar: tqdm[Any] | None = None

    def result(self, value: Any) -> None:
        """The result as exactly one JSON object on stdout, in JSON mode; a number that is not finite becomes null."""
        if self.json:
            import json as json_module

            from fruitgan.settings import finite, to_json

            print(json_module.dumps(finite(to_json(value)), indent=2, allow_nan=False))

    def out(self, text: str) -> None:
        """A line of the result for people, on stdout; not in JSON mode."""
        if not self.json:
            print(_encodable(text, sys.stdout))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table for people on stdout; not in JSON mode. Numbers stand right, None is an empty cell."""
        if self.json:
            return
        cells = [list(row) for row in rows]
        numeric = [bool(cells) and all(isinstance(row[place], (int, float)) for row in cells) for place in range(len(columns))]
        texts = [["" if cell is None else _encodable(str(cell), sys.stdout) for cell in row] for row in cells]
        draw = _draw_table if sys.stdout.isatty() else _print_columns
        draw(_encodable(title, sys.stdout), [_encodable(column, sys.stdout) for column in columns], texts, numeric)

    def say(self, text: str) -> None:
        """A line of progress on stderr; not when quiet."""
        if not self.quiet:
            self._to_stderr(text)

    def warn(self, text: str) -> None:
        """A line on stderr, always."""
        self._to_stderr(f"warning: {text}")

    @contextmanager
    def bar(self, total: int | None, label: str, unit: str = "it", start: int = 0) -> Iterator[Bar]:
        """A bar with the time left on stderr, or lines where that is no terminal; `start` is what was done before."""
        if self.quiet or not sys.stderr.isatty():
            yield Bar(label, total, start, None, None if self.quiet else self.say)
            return
        from tqdm import tqdm

        with tqdm(
            total=total,
            desc=_encodable(label, sys.stderr),
            unit=unit,
            initial=start,
            file=sys.stderr,
            dynamic_ncols=True,
            smoothing=0.1,
            miniters=1,  # else it waits for as many as came at once before, however long they take now
            leave=False,
        ) as drawn:
            self._bar = drawn
            try:
                yield Bar(label, total, start, drawn, None)
            finally:
                self._bar = None

    @contextmanager
    def events(self, unit: str = "it") -> Iterator[OnProgress]:
        """A callback for a job's events: a bar for each part of its work, one after the other, and a line for each note.

        Of a part's details these are shown: `seconds_to_stop`, `images_per_second`, and the table `shown`.
        """
        with ExitStack() as stack:
            shown: dict[str, Bar] = {}

            def on_event(event: Event) -> None:
                if isinstance(event, Note):
                    (self.warn if event.is_warning else self.say)(event.text)
                    return
                if event.what not in shown:
                    stack.close()  # the bar before
                    shown.clear()
                    shown[event.what] = stack.enter_context(self.bar(event.total or None, event.what, unit, event.done))
                rate = event.details.get("images_per_second")
                beside = {**event.details.get("shown", {}), **({"images/s": f"{rate:.2f}"} if rate else {})}
                shown[event.what].update(event.done, event.details.get("seconds_to_stop"), **beside)

            yield on_event

    def _to_stderr(self, text: str) -> None:
        text = _encodable(text, sys.stderr)
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)


def _draw_table(title: str, columns: Sequence[str], rows: list[list[str]], numeric: list[bool]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column, right in zip(columns, numeric, strict=True):
        table.add_column(Text(column), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as Text: a cell is no markup
    RichConsole(file=sys.stdout, no_color=bool(os.environ.get("NO_COLOR")), highlight=False, emoji=False).print(table)


def _print_columns(title: str, columns: Sequence[str], rows: list[list[str]], numeric: list[bool]) -> None:
    """Off a terminal a table is for programs and files: plain text, and no cell is ever folded."""
    lines = [list(columns), *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    if title:
        print(title)
    for line in lines:
        padded = [
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        print("  ".join(padded).rstrip())


def _encodable(text: str, stream: TextIO) -> str:
    """The text with what the stream's encoding lacks written as escapes (a file name need not be valid UTF-8).

    On a terminal also what cannot be seen: a name must not move the cursor, and no card of a bundle clears the screen.
    """
    if stream.isatty():
        text = "".join(sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text)
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)
