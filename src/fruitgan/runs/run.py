"""The folder of a run: its files, its log, and its lock.

config.json       every setting, resolved        samples/      translations of fixed images
environment.json  versions and machine           checkpoints/  see checkpoint.py
log.jsonl         a line every so many steps     result.json   when it is finished
trackers/         what trackers keep, see trackers.py
run.lock          while a process works in it; the kernel releases the lock when that process dies
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fruitgan.distributed import ranks
from fruitgan.errors import DataError, FruitganError, UsageError, writing
from fruitgan.files import check_writable, new_folder, remove_abandoned, write_atomically
from fruitgan.locks import CAREFULLY, locked_file, try_lock
from fruitgan.settings import from_json, parse_json, read_json, to_json

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
LOG = "log.jsonl"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
PLOTS = "plots"
TRACKERS = "trackers"
LATER = "later"
LAUNCH = "launch"
"""In the config, which start of several processes works, or last worked, in it."""
LOCK = "run.lock"
"""There while somebody works in the folder; a dead process leaves the file behind, but not its lock."""
NO_NAME = re.compile(r'\.{0,2}|.*[\\/:*?"<>|\0-\x1f].*', flags=re.DOTALL)
"""What no folder can be called on every system."""
STEP_FOLDER = re.compile(r"step-([0-9]{8}|[1-9][0-9]{8,14})")


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """What each entry of `environment.json` must hold."""

    from_step: int
    packages: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Rollback:
    from_step: int
    to_step: int
    terms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _LogLine:
    """What is known here of a line of a training's log."""

    step: int
    seconds: float
    losses: Mapping[str, float]
    learning_rate: float
    outputs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rollbacks: tuple[_Rollback, ...] = ()
    kid: Mapping[str, float] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)
    not_finite: tuple[str, ...] = ()


class Run:
    """One run's folder."""

    def __init__(self, path: Path, notes: Sequence[str] = (), is_followed: bool = False) -> None:
        self.path = path
        self.notes = tuple(notes)
        """What to know about how it was found."""
        self.is_followed = is_followed
        """Whether another process of the same training works in it: then it is read here, and nothing is written."""

    @classmethod
    def create(cls, path: Path, config: Any, environment: Mapping[str, Any]) -> Run:
        """Make the folder, whole with its config.

        Raises:
            UsageError: it exists.
            FruitganError: it cannot be written.
        """
        refuse_existing(path)
        remove_abandoned(path.parent)
        with new_folder(path) as folder:
            (folder / CONFIG).write_bytes(_json(config))
            (folder / ENVIRONMENT).write_bytes(_json(environment))
        return cls(path)

    def forked(self, step: int, path: Path) -> Run:
        """A new run that begins at this one's checkpoint of that step, with its settings and its log up to there.

        Raises:
            UsageError: there is no such checkpoint, or something lies where the new run is to stand.
        """
        checkpoints = step_folders(self.path / CHECKPOINTS)
        if step not in checkpoints:
            there = ", ".join(map(str, checkpoints)) or "none yet"
            raise UsageError(
                f"{self.path}: has no checkpoint of step {step}; there are: {there} (--keep-every keeps some for good)"
            )
        refuse_existing(path)
        with new_folder(path) as folder:
            for name in (CONFIG, ENVIRONMENT, LOG):
                if (self.path / name).is_file():
                    (folder / name).write_bytes((self.path / name).read_bytes())
            shutil.copytree(checkpoints[step], folder / CHECKPOINTS / checkpoints[step].name)
        return Run(path)

    @contextmanager
    def taken(self) -> Iterator[list[str]]:
        """Have the folder to oneself, cleared of what dead processes left half-written in it; yields what is to be noted.

        Raises:
            RunInUse: another process has it; nothing was changed.
            FruitganError: the folder cannot be written to.
            DataError: a folder in it is a link, behind which it would write and remove.
        """
        if self.is_followed:
            yield []
            return
        for name in (CHECKPOINTS, SAMPLES, PLOTS, TRACKERS):
            if (self.path / name).is_symlink():
                raise DataError(f"{self.path / name}: a link; a run keeps all it has in its own folder, so put a folder there")
        with locked(self.path) as is_locked:
            remove_abandoned(self.path, deep=True)
            yield [] if is_locked else [f"{self.path}: cannot be locked here; see to it that no other process works in it"]

    @property
    def config(self) -> dict[str, Any]:
        return self.read(CONFIG)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions and machine of the first run segment, and `later` ones; empty where the file is missing or damaged."""
        try:
            found = self.read(ENVIRONMENT)
            later = found.get(LATER, [])
            for segment in ({"from_step": 0, "packages": {}, **found}, *(later if isinstance(later, list) else [later])):
                _check_known_part(_Segment, segment)
        except (DataError, UsageError):
            return {}
        return found

    @property
    def result(self) -> dict[str, Any] | None:
        """What the finished run gave; None while it is not finished."""
        return self.read(RESULT) if (self.path / RESULT).is_file() else None

    @property
    def saved_step(self) -> int:
        """The step of the newest checkpoint, where a resumed run goes on; 0 before the first."""
        return max(step_folders(self.path / CHECKPOINTS), default=0)

    def write(self, name: str, value: Any) -> None:
        """Write one of its files of JSON; a result makes it a finished run."""
        if not self.is_followed:
            write_atomically(self.path / name, _json(value))

    def reopen(self) -> None:
        """Make a finished run an unfinished one again, to extend it."""
        if not self.is_followed:
            (self.path / RESULT).unlink(missing_ok=True)

    def log(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the log; Raises: FruitganError if it cannot be written."""
        if self.is_followed:
            return
        with writing(self.path / LOG), (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")

    def log_to_disk(self) -> None:
        """Bring the log to the disk: a checkpoint that follows must not outlive its past."""
        with writing(self.path / LOG), (self.path / LOG).open("a") as file:
            os.fsync(file.fileno())

    def entries(self) -> list[dict[str, Any]]:
        """The log's lines; what a crash has torn, or what is no such line, is left out."""
        if not (self.path / LOG).is_file():
            return []
        lines = (self.path / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        return [entry for line in lines if (entry := _log_line(line)) is not None]

    def forget_after(self, step: int) -> list[dict[str, Any]]:
        """Take the log back to the given step, so that a resumed run leaves neither gap nor duplicate; what is left."""
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        if not self.is_followed:
            write_atomically(self.path / LOG, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
        return kept

    def read(self, name: str) -> dict[str, Any]:
        """The table in one of its files. Raises: DataError if it is missing, damaged, or none."""
        value = read_json(self.path / name)
        if not isinstance(value, dict):
            raise DataError(f"{self.path / name}: not a table; is {self.path} a run?")
        return value


def of_first(work: Callable[[], Run]) -> Run:
    """The run that the first of several processes finds or makes, which the others follow."""
    run = work() if ranks().is_first else None
    path = ranks().exchange(None if run is None else str(run.path))[0]
    return run or Run(Path(path), is_followed=True)


def _json(value: Any) -> bytes:
    return json.dumps(to_json(value), indent=1, allow_nan=False).encode()


def _log_line(text: str) -> dict[str, Any] | None:
    """A line of the log; None if it is none. What it says beside what is known here stays as it is."""
    try:
        entry: dict[str, Any] = parse_json(text)
        _check_known_part(_LogLine, entry)
    except (ValueError, UsageError):
        return None
    return entry


def _check_known_part(kind: type[Any], value: Any, where: str = "") -> None:
    """Raises: UsageError if it is no table, or what the dataclass knows is missing or of another type."""
    known = {entry.name for entry in fields(kind)}
    from_json(kind, {k: v for k, v in value.items() if k in known} if isinstance(value, Mapping) else value, where)


def check_new(out: Path, name: str | None) -> None:
    """Before long work: whether a new run can be made there; Raises: UsageError, FruitganError."""
    if ranks().is_first:
        if name is not None:
            refuse_existing(out / name)
        check_writable(out)


def free_name(out: Path, stem: str) -> str:
    """`stem`, or the first of `stem-1`, `stem-2` and so on that no run there has."""
    names = (stem, *(f"{stem}-{number}" for number in range(1, 10_000)))
    return next(name for name in names if not (out / name).exists())


def check_name(name: str | None) -> None:
    """Raises: UsageError if a run cannot be called so."""
    if name is not None and NO_NAME.fullmatch(name):
        raise UsageError(f'--name {name!r}: a name, not a path, and without any of :*?"<>|; the folder above it is --out')


def refuse_existing(path: Path) -> None:
    """Raises: UsageError if there is something where a new run is to stand."""
    if path.exists():
        raise UsageError(f"{path} exists; go on with --resume {path.name}, or choose another --name")


def step_name(step: int) -> str:
    """The name of a checkpoint's folder."""
    return f"step-{step:08d}"


def step_folders(checkpoints: Path) -> dict[int, Path]:
    """The folders that bear the name of a checkpoint, whole or not, by step and in order."""
    folders = [path for path in checkpoints.glob("step-*") if path.is_dir() and not path.is_symlink()]
    return dict(sorted((int(match[1]), path) for path in folders if (match := STEP_FOLDER.fullmatch(path.name))))


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

    def refuse(descriptor: int) -> None:
        raise RunInUse(folder, _who(descriptor))

    with locked_file(folder / LOCK, refuse) as (descriptor, is_locked):
        with suppress(OSError):  # on a full disk the lock holds as well without a name in it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode())
        yield is_locked


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


def _who(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    words = os.read(descriptor, 300).decode(errors="replace").split()
    if not words or not words[0].isdecimal():  # between its locking and its writing
        return "another process"
    elsewhere = f" on {words[1]}" if len(words) > 1 and words[1] != platform.node() else ""
    return f"process {words[0]}{elsewhere}"
