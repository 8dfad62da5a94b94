"""Files and folders that are whole or absent, whatever happens while they are written.

What a killed process or a power cut left half-written goes with `remove_abandoned`. Parts that another process is writing now
stay: their writer holds a lock on them, which the kernel takes back when the writer dies.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from fruitgan import locks
from fruitgan.errors import DataError, FruitganError, reading, reason_of, writing

PART_PREFIX = ".fruitgan-"
"""What the name of a file still being written begins with; one that stays behind after a power cut may be deleted."""
PART_SUFFIX = ".part"
LONGEST_WRITING_SECONDS = 24 * 3600
"""Where nothing can be locked, age alone tells an abandoned part from one that is being written."""
REAL_TROUBLE = (errno.EIO, errno.ENOSPC, errno.EDQUOT)


class NotAFile(DataError):
    """A folder, a pipe or a device where a file should be."""


def open_regular(path: Path) -> io.BufferedReader:
    """A file, open for reading; a pipe or a device in its place, even one put there just now, is not waited for.

    Raises:
        NotAFile: it is no regular file.
        OSError: it is missing or cannot be opened.
    """
    # Looked at twice: a device may do something when it is opened, and between looking and opening another may come.
    if not stat.S_ISREG(path.stat().st_mode):
        raise NotAFile(f"{path}: not a regular file")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotAFile(f"{path}: not a regular file")
    return file


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes in hex, read piece by piece.

    Raises:
        DataError: it is no regular file, or cannot be read.
    """
    with reading(path), open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write the file beside its place, bring it to the disk, give it its name, and bring that to the disk; folders are made.

    Raises:
        FruitganError: it cannot be written (no permission, a full disk); nothing is left behind. Its cause is the OSError.
    """
    with writing(path):
        _make_folder(path.parent)
        part, descriptor = _new_part(path.parent, is_folder=False)
        try:
            with os.fdopen(cast(int, descriptor), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if locks.fcntl is None:  # such systems rename no open file; where parts are locked, the lock lasts until here
                    file.close()
                part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        _to_disk(path.parent)


def check_writable(*folders: Path) -> None:
    """Before long work: whether files can be made in these folders, which need not be there yet. Nothing stays behind.

    Raises:
        FruitganError: in one they cannot; names it.
    """
    for folder in folders:
        there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        with writing(folder):
            # One that died here before may have left its part in a folder where nothing else is written.
            remove_abandoned(there)
            part, descriptor = _new_part(there, is_folder=False)
            os.close(cast(int, descriptor))
            part.unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside its place; it gets its name when the block ends well, with all its files on the disk.

    Raises:
        FruitganError: something is there already, or it cannot be written; nothing is left behind.
    """
    if os.path.lexists(path):  # the renaming would take an empty folder's place without a word
        raise FruitganError(f"{path}: cannot be written (it exists)")
    with writing(path):
        _make_folder(path.parent)
        part, descriptor = _new_part(path.parent, is_folder=True)
        try:
            yield part
            for inner in part.rglob("*"):
                _to_disk(inner)
            _to_disk(part)
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        finally:
            if descriptor is not None:
                os.close(descriptor)
        _to_disk(path.parent)


def make_once(path: Path, fill: Callable[[Path], object]) -> None:
    """Make a folder that any process would make the same, as `new_folder`; where another one is quicker, its folder it is."""
    try:
        with new_folder(path) as part:
            fill(part)
    except FruitganError:
        if not path.is_dir():
            raise


def remove_file(path: Path) -> None:
    """Remove a file, if it is there. Raises: FruitganError if it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FruitganError(f"{path}: cannot be removed ({reason_of(error)})") from error


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it; killed on the way, it leaves an abandoned part and never half the folder.

    Of a link to a folder the link alone is removed.

    Raises:
        FruitganError: it cannot be removed.
    """
    part = path.parent / _part_name()
    try:
        if path.is_symlink():
            path.unlink()
            return
        path.rename(part)
        shutil.rmtree(part)
    except OSError as error:
        raise FruitganError(f"{path}: cannot be removed ({reason_of(error)})") from error


def remove_abandoned(folder: Path, *, deep: bool = False) -> list[Path]:
    """Remove the unfinished files and folders that dead writers left in this folder, and with `deep` in those below it.

    Where the file system has no locks, what is younger than a day stays; so does what cannot be removed. Returns: what was.
    """
    pattern = f"{PART_PREFIX}*{PART_SUFFIX}"
    found = sorted(folder.rglob(pattern) if deep else folder.glob(pattern))
    return [part for part in found if remove_if_free(part)]


def size_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder; 0 where nothing is."""
    size = 0
    for file in (path, *path.rglob("*")):
        with suppress(OSError):  # another process may be at work there
            size += about.st_size if stat.S_ISREG((about := file.lstat()).st_mode) else 0
    return size


def _part_name() -> str:
    return f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"


def _new_part(folder: Path, *, is_folder: bool) -> tuple[Path, int | None]:
    """A part that no other process will take for abandoned, and what holds its lock: open until the part has its name."""
    while True:
        part = folder / _part_name()
        descriptor = None
        if is_folder:
            part.mkdir()
        else:
            # Not tempfile: its files are private to the user, and this one must have the permissions of any other new file.
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with suppress(FileNotFoundError):  # another's clean-up may come before our lock
            if is_folder and locks.fcntl is not None:
                descriptor = os.open(part, os.O_RDONLY)
            locked = None if descriptor is None else locks.try_lock(descriptor)
            if locked is None or (locked and os.path.samestat(os.fstat(descriptor or 0), part.stat())):
                return part, descriptor
        if descriptor is not None:
            os.close(descriptor)


def remove_if_free(part: Path) -> bool:
    """Remove a file or a folder that no process holds, or where nothing can be locked one older than a day; whether it was."""
    try:
        about = part.lstat()
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            return False  # none of ours
        descriptor = None if locks.fcntl is None else os.open(part, os.O_RDONLY)
        try:
            locked = None if descriptor is None else locks.try_lock(descriptor)
            if locked is False or (locked is None and time.time() - about.st_mtime < LONGEST_WRITING_SECONDS):
                return False
            if stat.S_ISDIR(about.st_mode):
                remove_folder(part)
            else:
                part.unlink()
        finally:
            if descriptor is not None:
                os.close(descriptor)
    except (OSError, FruitganError):
        return False
    return True


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, and bring the names of the new ones to the disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _to_disk(folder.parent)


def _to_disk(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk; some mounted cloud drives and Windows refuse that for a folder.

    Windows also refuses it for a file that is open for reading alone, or cannot be opened for more.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY if locks.fcntl is not None else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in REAL_TROUBLE or not (path.is_dir() or (locks.fcntl is None and isinstance(error, PermissionError))):
            raise
