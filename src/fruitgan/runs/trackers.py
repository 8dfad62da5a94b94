"""Trackers: dashboards that show a run's numbers and sample sheets beside those of other runs (TensorBoard, Weights & Biases).

trackers/NAME         what a tracker keeps in the run's folder
trackers/state.json   the run's id there, and up to which step they had its numbers when it last went back
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fruitgan.errors import DataError, FruitganError, needing
from fruitgan.files import write_atomically
from fruitgan.images import Pixels
from fruitgan.machine import is_offline
from fruitgan.progress import Listener, Note
from fruitgan.registry import Registry
from fruitgan.runs.run import TRACKERS, Run
from fruitgan.settings import from_json, read_json

STATE = "state.json"
CLOCKS = ("step", "epoch", "trial", "images", "seconds")
"""Numbers of a log line that say when it was written: curves are drawn over the first three."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is told of a run. `id` is its own, 16 hex digits, and stays the same when it is resumed."""

    name: str
    id: str
    folder: Path
    """For the tracker alone, inside the run's folder."""
    config: Mapping[str, Any]
    """JSON values; no paths."""


class Tracker(ABC):
    """One dashboard of one run; each step is given once, in order. Registered are builders.

    What a method raises is told in a warning, and the run goes on without the tracker.
    """

    @abstractmethod
    def begin(self, run: TrackedRun) -> str:
        """Start, or continue the run of that id. Returns: where to look, in a sentence, or nothing."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a line of the log by name, such as `losses/cycle_a`."""

    @abstractmethod
    def image(self, step: int, name: str, pixels: Pixels) -> None:
        """A picture, uint8 [H, W, 3]."""

    @abstractmethod
    def end(self) -> None:
        """The run is done, or stops and may be resumed later."""


trackers: Registry[Callable[..., Tracker]] = Registry("trackers")


class TensorBoard(Tracker):
    """TensorBoard's event files, by the extra `tensorboard`."""

    def __init__(self) -> None:
        with needing("tensorboard", "--track tensorboard"):
            self._module = importlib.import_module("torch.utils.tensorboard")

    def begin(self, run: TrackedRun) -> str:
        self._writer = self._module.SummaryWriter(str(run.folder))
        self._writer.add_text("config", "    " + json.dumps(run.config, indent=1).replace("\n", "\n    "))
        return f"tensorboard --logdir {run.folder.parents[2]}"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # what is not in the file dies with the process

    def image(self, step: int, name: str, pixels: Pixels) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def end(self) -> None:
        self._writer.close()


class Wandb(Tracker):
    """Weights & Biases, by the extra `wandb`.

    WANDB_MODE=offline or FRUITGAN_OFFLINE=1 keeps it from the network.
    """

    def __init__(self) -> None:
        with needing("wandb", "--track wandb"):
            self._module = importlib.import_module("wandb")

    def begin(self, run: TrackedRun) -> str:
        run.folder.mkdir(parents=True, exist_ok=True)
        # What it would send by itself: code, packages, and the names of people and machines.
        off = {**dict.fromkeys(("save_code", "x_save_requirements"), False), "console": "off", "silent": True}
        off |= dict.fromkeys(("disable_git", "x_disable_meta", "x_disable_machine_info", "x_disable_stats"), True)
        off["x_transaction_log_flush_interval"] = 1.0  # seconds: what is in no file dies with the process
        self._run = self._module.init(
            project=os.environ.get("WANDB_PROJECT", "fruitgan"),
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
            allow_val_change=True,  # a resumed run may have more steps
            mode="offline" if is_offline() else None,
            settings=self._module.Settings(init_timeout=30, finish_timeout=60, **off),
        )
        self._run.define_metric("*", step_metric="step")  # its own count keeps a step open until the next one comes
        return f"wandb sync {Path(self._run.dir).parent}" if self._run.offline else str(self._run.url)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def image(self, step: int, name: str, pixels: Pixels) -> None:
        self._run.log({name: self._module.Image(pixels), "step": step})

    def end(self) -> None:
        self._run.finish()


@dataclass(frozen=True, kw_only=True)
class _State:
    id: str
    step: int


class Trackers:
    """All trackers of a run; one that fails is told of once and left out from there on.

    A run that is resumed or rolled back takes some steps again, which the trackers are not given again.
    """

    def __init__(self, names: Sequence[str], listener: Listener, is_new: bool) -> None:
        """Raises: UsageError, EnvironmentProblem if a new run cannot have one of them; a resumed one goes on without it."""
        self._listener = listener
        self._using: dict[str, Tracker] = {}
        self._had_step = self._step = self._image_step = 0
        for name in dict.fromkeys(names):
            try:
                self._using[name] = trackers.build(trackers.choose(name))
            except FruitganError as error:
                if is_new:
                    raise
                listener.warn(f"{error}; the run goes on without it")

    def begin(self, run: Run, logged_step: int) -> None:
        """Begin or continue; the run's log went up to `logged_step`, though the run may go on from an earlier one."""
        self._folder = run.path / TRACKERS
        config = {name: value for name, value in run.config.items() if name != "settings"}  # which have paths
        state = _State(id=secrets.token_hex(8), step=0)
        with contextlib.suppress(FruitganError):  # missing, or damaged: then the trackers do not know the run
            state = from_json(_State, read_json(self._folder / STATE), STATE)
        self._id, self._had_step = state.id, max(state.step, logged_step)
        self.take_back()

        def begin(name: str, tracker: Tracker) -> None:
            if (folder := self._folder / name).is_symlink():
                raise DataError(f"{folder}: a link")
            where = tracker.begin(TrackedRun(name=run.path.name, id=state.id, folder=folder, config=config))
            if where:
                self._listener.tell(Note(f"{name}: {where}"))

        self._each(begin)

    def line(self, step: int, entry: Mapping[str, Any]) -> None:
        """A line of the log."""
        if step > max(self._had_step, self._step) and (values := dict(_numbers(entry))):
            self._step = step
            self._each(lambda _, tracker: tracker.scalars(step, values))

    def image(self, step: int, name: str, pixels: Pixels) -> None:
        """A picture, uint8 [H, W, 3]."""
        if step > max(self._had_step, self._image_step):
            self._image_step = step
            self._each(lambda _, tracker: tracker.image(step, name, pixels))

    def take_back(self) -> None:
        """The run goes back, and will take steps again that the trackers had."""
        self._had_step = max(self._had_step, self._step, self._image_step)
        if self._using:
            write_atomically(self._folder / STATE, json.dumps({"id": self._id, "step": self._had_step}).encode())

    def end(self) -> None:
        self._each(lambda _, tracker: tracker.end())

    def _each(self, call: Callable[[str, Tracker], None]) -> None:
        for name, tracker in list(self._using.items()):
            try:
                with contextlib.redirect_stdout(sys.stderr):  # some libraries greet; stdout is for results
                    call(name, tracker)
            except Exception as error:  # another's library may raise anything, and the training matters more
                del self._using[name]
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                self._listener.warn(f"--track {name} failed, and the run goes on without it: {reason}")


def _numbers(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a log line, those of an inner table as `table/name`."""
    for key, value in entry.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and key not in CLOCKS:
            yield f"{prefix}{key}", float(value)
