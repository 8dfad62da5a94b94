"""Errors a user can cause: one line that says what, where and what to do, and an exit code each."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SHOWN_LETTERS = 80
LONGEST_REASON = 200
# What CUDA's libraries, Apple's GPUs and torch's and onnxruntime's allocators say where they have no error class of their own.
MEMORY_SIGNS = (
    *("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "failed to allocate memory"),
    *("alloc_failed", "bad_alloc", "bad allocation"),
)


class FruitganError(Exception):
    """The job failed while it ran: unwritable output, full disk, a loss that is not finite, no memory left."""

    exit_code = 1
    is_everywhere = False
    """Whether each of several processes that train together raises it, so that one of them says it for all."""


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

    is_everywhere = True

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Turn an ImportError in the block into `EnvironmentProblem`: what needs which package, and the line that installs it."""
    try:
        yield
    except ImportError as error:
        raise EnvironmentProblem(f'{what} needs {error.name}: pip install "fruitgan[{extra}]"') from error


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn an OSError in the block, and a lack of memory, into `DataError`: "PATH: cannot be read (reason)"."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)})") from error
    except MemoryError as error:
        raise DataError(f"{path}: too large for the memory here") from error


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn an OSError in the block into `FruitganError`: "PATH: cannot be written (reason)"."""
    try:
        yield
    except OSError as error:
        raise FruitganError(f"{path}: cannot be written ({reason_of(error)})") from error


def shown(value: Any) -> str:
    """A value in a message: as Python writes it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits, which Python refuses to write
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN_LETTERS else f"{text[: SHOWN_LETTERS - 4]} ..."


def reason_of(error: BaseException) -> str:
    """Why something failed, in a few words for a message: an OSError's own in lower case, else the error's first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first[:LONGEST_REASON]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of the host or of a device, means that there was no memory left."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in MEMORY_SIGNS)


def about_address(text: str) -> str | None:
    """What to do where a web address stands for a file or a folder; None where it is none."""
    if not re.match(r"(https?|ftp|s3|gs|file)://", text, flags=re.IGNORECASE):
        return None
    how = f" (curl -LO {shlex.quote(text)})" if text.lower()[:4] in ("http", "ftp:") else ""
    return f"an address, which is not opened here; fetch it first{how} and give the file's path"
