"""Errors a user can cause: one line that says what, where and what to do, and an exit code each."""

from __future__ import annotations

from typing import Any

SHOWN_LETTERS = 80


class FruitganError(Exception):
    """The job failed while it ran: unwritable output, full disk, a loss that is not finite, no memory left."""

    exit_code = 1


class UsageError(FruitganError):
    """What was asked for cannot be: an unknown name or option, a wrong value, an output in the way."""

    exit_code = 2


class DataError(FruitganError):
    """What was given cannot be used: a folder without images, an unreadable file, a wrong checksum."""

    exit_code = 3


class EnvironmentProblem(FruitganError):
    """This machine lacks something: the GPU asked for, an extra, the package of a plug-in."""

    exit_code = 4


class GateFailed(FruitganError):
    """A number is on the wrong side of a bound that the user set."""

    exit_code = 5


class Stopped(FruitganError):
    """Somebody asked the job to stop (Ctrl-C or SIGTERM); what it had reached is saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def shown(value: Any) -> str:
    """A value in a message: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits, which Python refuses to write
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN_LETTERS else f"{text[: SHOWN_LETTERS - 4]} ..."
