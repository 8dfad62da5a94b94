"""The terminal: results on stdout, everything else on stderr. Nothing below this line of the house knows either.

What takes long to import is imported where it is used, so that a command that needs none of it starts without.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from fruitgan.progress import Event, Note, OnProgress

if TYPE_CHECKING:
    from tqdm import tqdm


class Bar:
    """A running count; silent where there is no terminal to draw on."""

    def __init__(self, drawn: tqdm[Any] | None) -> None:
        self._drawn = drawn

    def update(self, done: int, **postfix: Any) -> None:
        """`done` is the count so far, not the increment; `postfix` stands behind the bar."""
        if self._drawn is None:
            return
        if postfix:
            self._drawn.set_postfix(postfix, refresh=False)
        self._drawn.update(done - self._drawn.n)


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
        """A bar with the time left on stderr, if that is a terminal and not quiet; `start` is what was done before."""
        if self.quiet or not sys.stderr.isatty():
            yield Bar(None)
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
        ) as drawn:
            self._bar = drawn
            try:
                yield Bar(drawn)
            finally:
                self._bar = None

    @contextmanager
    def events(self, unit: str = "it") -> Iterator[OnProgress]:
        """A callback for a job's events: a bar for each part of its work, one after the other, and a line for each note."""
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
                shown[event.what].update(event.done, **({"img/s": f"{rate:.2f}"} if rate else {}))

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
