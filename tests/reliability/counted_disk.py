"""Counts what this process changes in the file system and, at the change it is told, dies, or finds the disk full.

Python's own changes are seen through an audit hook, what is written to files and what is brought to the disk through wrappers,
and the file of a checkpoint's tensors, which has hundreds of writes, as one change. Of a write that ends in death half is
done. A death can be one of the whole machine: then what was not brought to the disk is lost.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fruitgan.runs import checkpoint

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "os.utime")
FREEING = ("os.remove", "os.rmdir", "os.truncate", "os.rename")
"""What a full disk allows."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Name:
    """One that is not yet on the disk: what it stands for is new, or came from another name and took an older file's place."""

    path: Path
    came_from: Path | None = None
    before: bytes | None = None


class Disk:
    """Counts changes while `changes` is a list."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """A training's checkpoints are written by another thread than its log."""
        self.here = threading.local()
        """`quiet` in a thread whose changes are not counted now."""
        self.changes: list[str] | None = None
        """Those so far; None while none are counted."""
        self.die_at = -1
        self.fail_from = -1
        self.power_cut = False
        self.syncs = True
        self.names: list[Name] = []
        self.synced: dict[Path, int] = {}
        """By file: how much of it is on the disk, where that is not all."""

    def change(self, label: str, half: Callable[[], object] = lambda: None) -> None:
        """Something is about to be changed; `half` does half of it."""
        with self.lock:
            if self.changes is None or self.is_quiet:
                return
            number = len(self.changes)
            self.changes.append(label)
            if number == self.die_at:
                half()
                if self.power_cut:
                    self.lose()
                os.kill(os.getpid(), signal.SIGKILL)
            if 0 <= self.fail_from <= number and label not in FREEING:
                half()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @property
    def is_quiet(self) -> bool:
        return getattr(self.here, "quiet", False)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        before, self.here.quiet = self.is_quiet, True
        yield
        self.here.quiet = before

    def lose(self) -> None:
        """What a power cut may do: what was not brought to the disk was never there, what was removed is gone."""
        self.changes = None
        for path, size in self.synced.items():
            if path.exists():
                os.truncate(path, size)
        while self.names:
            name = self.names.pop()
            if name.came_from is None:
                if name.path.is_dir():
                    shutil.rmtree(name.path)
                else:
                    name.path.unlink(missing_ok=True)
                continue
            if name.path.exists():
                name.path.rename(name.came_from)
                self._move(name.path, name.came_from)
            if name.before is not None:
                name.path.write_bytes(name.before)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.changes is None or self.is_quiet:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not flags & WRITING or str(path).startswith("/dev/"):
                return
            self.change("open")
            if not os.path.lexists(path):
                self.names.append(Name(Path(path)))
        elif event in CHANGES:
            self.change(event)
            if event == "os.mkdir" and not os.path.lexists(arguments[0]):  # the event comes where there is a folder, too
                self.names.append(Name(Path(arguments[0])))
            elif event == "os.rename":
                self.renamed(Path(arguments[0]), Path(arguments[1]))

    def renamed(self, source: Path, target: Path) -> None:
        before = target.read_bytes() if target.is_file() else None
        self._move(source, target)
        self.names.append(Name(target, source, before))

    def _move(self, source: Path, target: Path) -> None:
        """What is noted of a file or folder, and of all in it, follows it to its new name."""

        def moved(path: Path) -> Path:
            return target / path.relative_to(source) if path.is_relative_to(source) else path

        self.synced = {moved(path): size for path, size in self.synced.items()}
        for name in self.names:
            name.path = moved(name.path)

    def fsync(self, descriptor: int) -> None:
        """In the place of the real one, which is not needed where power cuts are made up, and slow on a busy disk."""
        self.change("fsync")
        if not self.syncs:
            return
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self.names = [name for name in self.names if name.path.parent != path]
        else:
            self.synced.pop(path, None)


disk = Disk()
real_open = io.open
real_write_tensors = checkpoint.write_tensors


class Counted:
    """A file open for writing, whose writes are counted."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: Any) -> int:
        path = Path(f"/proc/self/fd/{self.file.fileno()}").readlink()
        disk.synced.setdefault(path, path.stat().st_size)

        def half() -> None:
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        disk.change("write", half)
        return int(self.file.write(data))

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def counted_open(file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
    opened = real_open(file, mode, *more, **named)
    return Counted(opened) if disk.changes is not None and set(mode) & set("wax+") else opened


def counted_write_tensors(path: Path, tensors: Any) -> str:
    def half() -> None:
        with disk.quiet():
            real_write_tensors(path, tensors)
            os.truncate(path, path.stat().st_size // 2)

    disk.names.append(Name(path))
    disk.synced[path] = 0
    disk.change("tensors", half)
    with disk.quiet():
        return real_write_tensors(path, tensors)


def watch_the_disk() -> None:
    """From now on `disk` sees what this process changes."""
    sys.addaudithook(disk.audit)
    builtins.open = io.open = counted_open  # type: ignore[assignment]
    os.fsync = disk.fsync
    checkpoint.write_tensors = counted_write_tensors


def cases(work: Mapping[str, Any], changes: int, limits_bytes: Sequence[int]) -> dict[int, dict[str, Any]]:
    """By number of the change, or by limit, what the disk is told: `work` has a `what`, and of the changes its `share`."""
    if work["what"] == "limit":
        return {limit: {"limit_bytes": limit} for limit in limits_bytes}
    first, step = work["share"]
    numbers = range(changes)[first::step]
    match work["what"]:
        case "die":
            return {number: {"die_at": number} for number in numbers}
        case "full":
            return {number: {"fail_from": number} for number in numbers}
        case cut:
            return {number: {"die_at": number, "power_cut": True, "syncs": cut == "power-cut"} for number in numbers}
