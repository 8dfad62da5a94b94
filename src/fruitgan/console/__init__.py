"""The terminal: results on stdout, everything else on stderr. Nothing below this line of the house knows either.

What takes long to import is imported where it is used, so that a command that needs none of it starts without.
"""

from __future__ import annotations

import json as jsons
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from fruitgan.addresses import named
from fruitgan.console.signals import stopped_at_once
from fruitgan.progress import Event, Note, OnProgress, Progress, duration
from fruitgan.settings import finite, to_json

if TYPE_CHECKING:
    from tqdm import tqdm

Settings = TypeVar("Settings")
Result = TypeVar("Result")

LINE_SECONDS = 30
"""Off a terminal: how often a line says how far the work is."""
OWN_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
"""Of a bar whose job knows how long it will take."""


class Display:
    """Shows a job's events: a bar for each part of its work, one after the other, and a line for each note.

    Off a terminal a line every half minute takes the bar's place. Of a part's details these are shown: `seconds_to_stop`,
    `images_per_second`, and the table `shown`.
    """

    def __init__(self, console: Console, unit: str) -> None:
        self._console, self._unit = console, unit
        self._what: str | None = None
        self._start, self._began, self._said = 0, 0.0, 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            (self._console.warn if event.is_warning else self._console.say)(event.text)
            return
        if event.what != self._what:
            self._begin(event)
        seconds, rate = event.details.get("seconds_to_stop"), event.details.get("images_per_second")
        beside = {**event.details.get("shown", {}), **({"images/s": f"{rate:.2f}"} if rate else {})}
        words = [f"{name.replace('_', ' ')} {value}" for name, value in beside.items()]
        if (bar := self._console.bar) is not None:
            if seconds is not None:
                bar.bar_format = OWN_FORMAT
                words = [f"{duration(seconds)} left", *words]
            bar.set_postfix_str(", ".join(words), refresh=False)
            bar.update(event.done - bar.n)
        elif (now := time.monotonic()) - self._said >= LINE_SECONDS:
            self._said = now
            if seconds is None and event.total and event.done > self._start:
                seconds = (now - self._began) * (event.total - event.done) / (event.done - self._start)
            how_far = (
                f"{event.done:,} of {event.total:,} ({event.done / event.total:.0%})" if event.total else f"{event.done:,}"
            )
            left = [] if seconds is None else [f"{duration(seconds)} left"]
            self._console.say(", ".join([f"{event.what}: {how_far}", *left, *words]))

    def _begin(self, event: Progress) -> None:
        """A part begins, perhaps in its midst; the bar of the one before goes."""
        self.close()
        self._what, self._start = event.what, event.done
        self._began = self._said = time.monotonic()
        if self._console.quiet or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        self._console.bar = tqdm(
            total=event.total or None,
            desc=_encodable(event.what, sys.stderr),
            unit=self._unit,
            initial=event.done,
            file=sys.stderr,
            dynamic_ncols=True,
            smoothing=0.1,
            miniters=1,  # else it waits for as many as came at once before, however long they take now
            leave=False,
        )

    def close(self) -> None:
        if self._console.bar is not None:
            self._console.bar.close()
            self._console.bar = None


class Console:
    """What one command says.

    Args:
        json: the result is one JSON object; lines and tables for people are dropped.
        quiet: no progress; warnings stay.
    """

    def __init__(self, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.bar: tqdm[Any] | None = None
        """What is drawn now."""

    def result(self, value: Any) -> None:
        """The result as exactly one JSON object on stdout, in JSON mode; a number that is not finite becomes null."""
        if self.json:
            values = value.as_json() if hasattr(value, "as_json") else to_json(value)
            print(jsons.dumps(finite(values), indent=2, allow_nan=False))

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
    def events(self, unit: str = "it") -> Iterator[OnProgress]:
        """A callback that shows a job's events, as progress in this unit."""
        display = Display(self, unit)
        try:
            yield display
        finally:
            display.close()

    def run(
        self, job: Callable[[Settings, OnProgress], Result], settings: Settings, stopped: str = "stopped", unit: str = "it"
    ) -> Result:
        """Do a job whose results are whole or absent, its events shown; with --json its result is printed.

        Args:
            stopped: said after Ctrl-C or SIGTERM, which end it where it is: what is there, and how to go on.

        Raises:
            Stopped: by one of the two.
        """
        with stopped_at_once(stopped), self.events(unit) as on_progress:
            result = job(settings, on_progress)
        self.result(result)
        return result

    def _to_stderr(self, text: str) -> None:
        text = _encodable(text, sys.stderr)
        if self.bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self.bar.write(text, file=sys.stderr)


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

    Copies are called what was copied (`addresses.named`). On a terminal what cannot be seen is an escape too: a name must not
    move the cursor, and no card of a bundle clears the screen.
    """
    text = named(text)
    if stream.isatty():
        text = "".join(sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text)
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)
