"""Being asked to stop: Ctrl-C, SIGTERM and SIGUSR1 finish the step and save; a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from fruitgan.distributed import ranks
from fruitgan.errors import Stopped

# What the process says of itself afterwards; SIGUSR1 is how batch systems announce the end of the time.
INTERRUPTED = 130
EXIT_CODES = {"SIGINT": INTERRUPTED, "SIGTERM": 143, "SIGUSR1": 0}
ANSWER = "finishing the step and saving; Ctrl-C again stops at once"


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], names: Iterable[str] = EXIT_CODES) -> Iterator[None]:
    """Give these signals, where the system has them, to the handler, and afterwards to what had them before."""
    numbers = [number for name in names if (number := getattr(signal, name, None)) is not None]  # Windows has no SIGUSR1
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


class PoliteStop:
    """Remembers the first signal instead of dying of it, and answers it on stderr: a step may last."""

    signal: str | None = None

    def asked(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        is_first = self.signal is None
        if not is_first and name == "SIGINT":
            raise KeyboardInterrupt
        self.signal = name  # before the answer, on which the next Ctrl-C may follow at once
        if is_first and ranks().is_first:  # another process may speak for this one
            _say_amid_other_work(ANSWER)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.signal] if self.signal else 0


def _say_amid_other_work(text: str) -> None:
    """On stderr, past Python's file: a signal may come while that is being written to, which it does not forgive."""
    with suppress(OSError):
        os.write(2, f"{chr(10) if os.isatty(2) else ''}{text}\n".encode())  # on a terminal a bar stands in the line


@contextmanager
def polite_stop(at_once: Callable[[], str]) -> Iterator[PoliteStop]:
    """For work that saves where it is asked to stop.

    Raises:
        Stopped: at a second Ctrl-C; `at_once` tells then what is there and how to go on.
    """
    stop = PoliteStop()
    with handled(stop.asked):
        try:
            yield stop
        except KeyboardInterrupt:
            raise Stopped(f"stopped at once; {at_once()}", INTERRUPTED) from None


@contextmanager
def stopped_at_once(message: str) -> Iterator[None]:
    """For work whose results are whole or absent: Ctrl-C and SIGTERM end it where it is.

    Raises:
        Stopped: with the message, which says what is there and how to go on.
    """
    asked = []

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    with handled(on_sigterm, ["SIGTERM"]):
        try:
            yield
        except KeyboardInterrupt:
            raise Stopped(message, EXIT_CODES["SIGTERM" if asked else "SIGINT"]) from None
