"""Locks between processes, by a file or a folder that is open: the kernel takes them back when the holder dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fruitgan.errors import writing

fcntl: Any
msvcrt: Any
try:
    import fcntl

    msvcrt = None
except ImportError:  # Windows
    import msvcrt

    fcntl = None

CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""How a lock's file is opened: a stranger's link in its place leads to no file that is then emptied, no pipe is waited for."""
LOCKED_BYTE = 1 << 30
"""Windows lets nobody else read a byte that is locked, so that one behind every content is."""


@contextmanager
def locked_file(path: Path, on_taken: Callable[[int], None]) -> Iterator[tuple[int, bool]]:
    """Hold a lock by a file that is removed at the end; yields it, open, and False where the file system has no locks.

    While another process holds it, `on_taken` is called with the open file: it waits a while, or raises.

    Raises:
        FruitganError: the file cannot be made.
    """
    while True:
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | CAREFULLY, 0o666)
        is_locked = try_lock(descriptor)
        # The holder before removes the file when it is done: what was locked may have lost its name since it was opened.
        with suppress(FileNotFoundError):
            if is_locked is None or (is_locked and os.path.samestat(os.fstat(descriptor), path.stat())):
                break
        try:
            if is_locked is False:
                on_taken(descriptor)
        finally:
            os.close(descriptor)
    try:
        yield descriptor, is_locked is True
    finally:
        with suppress(OSError):
            path.unlink()  # while it is locked, so that it is nobody else's
        os.close(descriptor)


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder against other processes until it is closed, at the latest when this process dies.

    Returns: False if another holds it, None if this system or file system has no such locks.
    """
    if fcntl is None:
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES) else None
    return True
