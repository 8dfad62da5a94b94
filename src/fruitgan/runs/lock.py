"""One process at a time in a folder; the kernel takes the lock back when its holder dies, however it dies."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fruitgan.errors import FruitganError
from fruitgan.files import try_lock

LOCK = "run.lock"
"""There while somebody works in the folder; a dead process leaves the file behind, but not its lock."""
CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""A run may come from a stranger: no link leads to a file that would then be emptied, no pipe is waited for."""


class RunInUse(FruitganError):
    """Another process works in the folder."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder}: in use by {holder}; wait for its end, or stop it, and try again")
        self.folder = folder
        self.holder = holder


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Keep other processes out of a folder while inside; yields False where the file system has no locks.

    Raises:
        RunInUse: another process is inside; nothing was changed.
        FruitganError: the folder cannot be written to.
    """
    path = folder / LOCK
    descriptor, is_locked = _acquired(folder, path)
    try:
        yield is_locked
    finally:
        with suppress(OSError):
            path.unlink()  # while it is locked, so that it is nobody else's
        os.close(descriptor)


def holder(folder: Path) -> str | None:
    """Who works in the folder, in words; None: nobody, as far as can be known."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | CAREFULLY)
    except OSError:
        return None
    try:
        return _who(descriptor) if try_lock(descriptor) is False else None
    finally:
        os.close(descriptor)


def _acquired(folder: Path, path: Path) -> tuple[int, bool]:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | CAREFULLY, 0o666)
        except OSError as error:
            raise FruitganError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from error
        is_locked = try_lock(descriptor)
        if is_locked is False:
            who = _who(descriptor)
            os.close(descriptor)
            raise RunInUse(folder, who)
        # The holder before removes the file when it is done: what was locked may have lost its name since it was opened.
        with suppress(FileNotFoundError):
            if is_locked is None or os.path.samestat(os.fstat(descriptor), path.stat()):
                with suppress(OSError):  # on a full disk the lock holds as well without a name in it
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode())
                return descriptor, is_locked is True
        os.close(descriptor)


def _who(descriptor: int) -> str:
    words = os.pread(descriptor, 300, 0).decode(errors="replace").split()
    if not words or not words[0].isdecimal():  # between its locking and its writing
        return "another process"
    elsewhere = f" on {words[1]}" if len(words) > 1 and words[1] != platform.node() else ""
    return f"process {words[0]}{elsewhere}"
