"""The folders of the cache: what was not used for longest makes room, and what a process uses stays."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fruitgan import locks
from fruitgan.files import PART_PREFIX, remove_abandoned, remove_if_free, size_bytes
from fruitgan.machine import cache_folder

CACHE_LIMITS_BYTES = {"addresses": 32 << 30, "decoded": 32 << 30, "features": 1 << 30}
"""Of what is copied, decoded and computed; folders of the cache, in which what was not used for longest makes room."""


def make_room(newest: Path) -> None:
    """Remove from a folder of the cache what was not used for longest, until all there takes no more than the limit.

    `newest` stays, which lies as deep as the others; so does what a process holds, and where nothing can be locked what is
    younger than a day.
    """
    remove_abandoned(newest.parent)
    kind, *below = newest.relative_to(cache_folder()).parts
    taken = 0
    with suppress(OSError):  # another process may be at the same work
        found = (cache_folder() / kind).glob("/".join("*" * len(below)))
        by_age = [(path == newest, path.stat().st_mtime, path) for path in found if not path.name.startswith(PART_PREFIX)]
        for is_newest, _, path in sorted(by_age, reverse=True):
            size = size_bytes(path)
            taken += size
            if taken > CACHE_LIMITS_BYTES[kind] and not is_newest and remove_if_free(path):
                taken -= size


def hold(folder: Path) -> bool:
    """Whether a folder of the cache is there; if so, it counts as used now, and stays there until this process ends."""
    with suppress(OSError):  # a cache that can only be read is one all the same
        os.utime(folder)
    if locks.fcntl is None:
        return folder.is_dir()
    try:
        descriptor = os.open(folder, os.O_RDONLY)  # closed by the end
        with suppress(OSError):  # such a file system has no locks
            locks.fcntl.flock(descriptor, locks.fcntl.LOCK_SH)
        if not os.path.samestat(os.fstat(descriptor), folder.stat()):  # it was removed while this one waited
            os.close(descriptor)
            return False
    except FileNotFoundError:
        return False
    return True
