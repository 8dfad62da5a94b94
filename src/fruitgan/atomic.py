"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fruitgan.errors import FruitganError

PART_PREFIX = ".fruitgan-"
"""What the name of a file still being written begins with; one that stays behind after a power cut may be deleted."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write the file beside its place, bring it to the disk, and only then give it its name.

    The folders above it are made. The name of the unfinished file is short and unlike any other, so that two processes
    never share one and a long name of the target stays within what the file system allows.

    Raises:
        FruitganError: it cannot be written (no permission, a full disk); nothing is left behind. Its cause is the OSError.
    """
    part = path.with_name(f"{PART_PREFIX}{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Not tempfile: its files are private to the user, and this one must have the permissions of any other new file.
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
    except OSError as error:
        raise FruitganError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside its place; it gets its name when the block ends well, with all its files on the disk.

    Raises:
        FruitganError: something is there already, or it cannot be written; nothing is left behind.
    """
    part = path.with_name(f"{PART_PREFIX}{secrets.token_hex(8)}.part")
    if os.path.lexists(path):  # the renaming would take an empty folder's place without a word
        raise FruitganError(f"{path}: cannot be written (it exists)")
    try:
        part.mkdir(parents=True)
        try:
            yield part
            for file in part.rglob("*"):
                _to_disk(file)
            _to_disk(part)
            part.rename(path)
            _to_disk(path.parent)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as error:
        raise FruitganError(f"{path}: cannot be written ({(error.strerror or str(error)).lower()})") from error


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some mounted cloud drives cannot do this for a folder; a file was asked for and must be there.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
