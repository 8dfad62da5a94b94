"""A process that has everything imported and is forked for each of many runs, which die, or fail to write, at a given moment.

    python forked_runs.py < ORDER.json > FOUND.json

Every change to the file system is counted: Python's own through an audit hook, what is written to files and what is brought to
the disk through wrappers, and the tensors' file, which safetensors writes by itself. A run is told at which of them to die
(by SIGKILL; of a write, half is done), or from which of them on the disk is full. What it leaves is gone on with in another
fork, and must end as the run that nothing happened to.
"""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fruitgan.cli import explained
from fruitgan.training import checkpoint
from fruitgan.workflows.train_gan import TrainGanSettings, job, train_gan
from fruitgan.workflows.train_gan.settings import Event

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "os.utime")
FREEING = ("os.remove", "os.rmdir", "os.truncate", "os.rename")
"""What a full disk allows."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TINY: dict[str, Any] = {
    "recipe": "fast",
    "image_size": 48,
    "batch_size": 1,
    "generator_options": {"base_channels": "4", "blocks": "1"},
    "discriminator_options": {"base_channels": "4", "scales": "1"},
    "gpu": "none",
    "precision": "fp32",
    "seed": 3,
    "name": "run",
}
OFTEN: dict[str, Any] = {"log_every": 1, "save_every": 1, "sample_every": 2}
# What is run, from what it starts, and with what it is gone on with once its folder is there.
SCENARIOS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "begun": ({**TINY, **OFTEN, "steps": 3, "keep": 1}, {"resume": "run", "gpu": "none", **OFTEN, "keep": 1}),
    # A finished run with two checkpoints gets longer, keeps fewer, and goes on under another torch.
    "extended": (
        {**TINY, **OFTEN, "steps": 2, "keep": 2},
        {"resume": "run", "gpu": "none", **OFTEN, "steps": 4, "keep": 1},
    ),
}
MANY_STEPS = 150
MANY: tuple[dict[str, Any], dict[str, Any]] = (
    {**TINY, "log_every": 1, "save_every": 3, "sample_every": 50, "keep": 1, "steps": MANY_STEPS},
    {"resume": "run", "gpu": "none"},
)


class Disk:
    """Counts changes and, at the one it is told, kills the process, or is full from there on."""

    def __init__(self) -> None:
        self.changes: list[str] | None = None
        """Those so far; None while none are counted."""
        self.die_at = -1
        self.full_from = -1
        self.power_cut = False
        self.undo: list[tuple[Path, Callable[[], None]]] = []
        """By folder: names that are not yet on the disk."""
        self.synced: dict[Path, int] = {}
        """By file: how much of it is on the disk, where that is not all."""

    def change(self, label: str, half: Callable[[], None] | None = None) -> None:
        """Something is about to be changed; `half` does half of it."""
        if self.changes is None:
            return
        number = len(self.changes)
        self.changes.append(label)
        if number == self.die_at:
            if half is not None:
                half()
            if self.power_cut:
                self.lose()
            os.kill(os.getpid(), signal.SIGKILL)
        if 0 <= self.full_from <= number and label not in FREEING:
            if half is not None:
                half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lose(self) -> None:
        """What a power cut may do: what was not brought to the disk was never there, what was removed is gone."""
        self.changes = None
        for path, size in self.synced.items():
            if path.exists():
                os.truncate(path, size)
        for _, undo in reversed(self.undo):
            undo()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.changes is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not flags & WRITING or str(path).startswith("/dev/"):
                return
            self.change("open")
            if not os.path.lexists(path):
                self.made(Path(path), lambda: Path(path).unlink(missing_ok=True))
        elif event in CHANGES:
            self.change(event)
            if event == "os.mkdir":
                self.made(Path(arguments[0]), lambda: shutil.rmtree(arguments[0], ignore_errors=True))
            elif event == "os.rename":
                self.renamed(Path(arguments[0]), Path(arguments[1]))

    def made(self, path: Path, undo: Callable[[], None]) -> None:
        if self.power_cut:
            self.undo.append((path.parent, undo))

    def renamed(self, source: Path, target: Path) -> None:
        if not self.power_cut:
            return
        if source in self.synced:
            self.synced[target] = self.synced.pop(source)
        before = target.read_bytes() if target.is_file() else None

        def undo() -> None:
            if target.exists():
                target.rename(source)
            if before is not None:
                target.write_bytes(before)

        self.undo.append((target.parent, undo))

    def fsync(self, descriptor: int) -> None:
        self.change("fsync")
        real_fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            self.undo = [(folder, undo) for folder, undo in self.undo if folder != path]
        else:
            self.synced.pop(path, None)


disk = Disk()
real_fsync = os.fsync
real_open = io.open
real_save_file = checkpoint.save_file
sys.addaudithook(disk.audit)


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


def counted_save_file(tensors: Any, path: Path) -> None:
    def half() -> None:
        real_save_file(tensors, path)
        os.truncate(path, path.stat().st_size // 2)

    changes, disk.changes = disk.changes, None  # what is done halfway in here is no change of its own
    disk.made(path, lambda: path.unlink(missing_ok=True))
    disk.changes = changes
    disk.synced[path] = 0
    try:
        disk.change("tensors", half)
    except OSError as error:
        raise SafetensorError(f"I/O error: {error.strerror}") from error
    real_save_file(tensors, path)


def patch() -> None:
    builtins.open = io.open = counted_open  # type: ignore[assignment]
    os.fsync = disk.fsync
    checkpoint.save_file = counted_save_file
    job.training_report = lambda *_: "a page"  # it takes longer than all the rest


def forked(work: Callable[[], Any], limit: tuple[int, int] | None = None) -> tuple[int, Any]:
    """Do the work in a fork: how that ended (as `os.waitstatus_to_exitcode`), and what it gave, if it came to its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            if limit is not None:
                resource.setrlimit(*limit)
            found = json.dumps(work())
            resource_free = os.write(writing, found.encode())
            code = 0 if resource_free else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), json.loads(found) if found else None


def run(settings: Mapping[str, Any], out: Path, data: str, on_progress: Callable[[Event], None] | None = None) -> list[Any]:
    """Train; the exit code of a command that would do so, and its message."""
    try:
        given = {**settings} if "resume" in settings else {**settings, "data": data}
        train_gan(TrainGanSettings(**given, out=out), on_progress)
    except Exception as error:
        return list(explained(error))
    return [0, ""]
