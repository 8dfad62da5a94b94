"""Checkpoints: a folder each, whole or absent, tensors in safetensors and the rest in JSON.

checkpoints/step-00000500/state.safetensors   tensors, named PART/KEY
checkpoints/step-00000500/state.json          format, step, values by PART/KEY, sha256 of the tensors' file and of itself
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fruitgan.errors import DataError, FruitganError, is_out_of_memory, reason_of
from fruitgan.files import file_sha256, new_folder, remove_folder
from fruitgan.runs.run import step_folders, step_name
from fruitgan.settings import read_json
from fruitgan.tensorfile import open_tensors

FORMAT = 2
ABOUT = "about"
"""Values beside the state, for which no sum is recorded: the state of equal runs has equal sums."""
MOST_TIME_SHARE = 0.02
MOST_LOST_SECONDS = 60.0
TENSORS = "state.safetensors"
VALUES = "state.json"
SUMS = "sha256"
WHAT = "checkpoint's file of tensors"

DTYPES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
}
"""Types of tensors by their names in safetensors."""

State = dict[str, Any]
"""A flat dict of tensors and JSON values."""


class Stateful(Protocol):
    """Something that influences the next step, and so stands in every checkpoint."""

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is to hold, copied to the host's memory: training goes on while another thread writes it."""

    step: int
    parts: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]
    values: Mapping[str, Any]
    about: Mapping[str, Any]


def snapshot(step: int, parts: Mapping[str, Stateful], about: Mapping[str, Any] | None = None) -> Snapshot:
    """The state of all parts as it is now; `about` are JSON values beside it."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for part, stateful in parts.items():
        for key, value in stateful.state().items():
            if isinstance(value, torch.Tensor):
                tensors[f"{part}/{key}"] = value.detach().to("cpu", copy=True)
            else:
                values[f"{part}/{key}"] = copy.deepcopy(value)
    return Snapshot(step, tuple(sorted(parts)), tensors, values, about or {})


class _Newer(DataError):
    """Of a format that this program does not know."""


class SaveClock:
    """When a run saves: once a minute, or more seldom where saving would take more than `MOST_TIME_SHARE` of the time."""

    def __init__(self, every_seconds: float = MOST_LOST_SECONDS) -> None:
        self.every_seconds = every_seconds
        self._saved_at = time.monotonic()
        self._took_seconds = 0.0

    @property
    def is_due(self) -> bool:
        """Whether enough time has passed since the last save."""
        return time.monotonic() - self._saved_at >= max(self.every_seconds, self._took_seconds / MOST_TIME_SHARE)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure a save."""
        began = time.monotonic()
        yield
        self._saved_at = time.monotonic()
        self._took_seconds = self._saved_at - began


class Checkpoints:
    """The checkpoints of one run; keeps the newest `keep` that are whole, and those of every `keep_every` steps for good."""

    def __init__(self, folder: Path, keep: int = 2, keep_every: int | None = None) -> None:
        self.folder = folder
        self.keep = keep
        self.keep_every = keep_every
        self._seen_whole: set[Path] = set()
        """Whose sums need not be computed again."""

    def save(self, step: int, parts: Mapping[str, Stateful], about: Mapping[str, Any] | None = None) -> Path:
        """Write the state as it is now; as `write`."""
        return self.write(snapshot(step, parts, about))

    def write(self, what: Snapshot, files: Mapping[str, bytes] | None = None) -> Path:
        """Write a checkpoint, read it again, and only then remove what is too old.

        `files` are whole files by name, which restoring passes over.

        Raises:
            FruitganError: it cannot be written, or does not read as it was written; those before stay.
        """
        target = self.folder / step_name(what.step)
        if target.exists() and not self._is_whole(target):
            remove_folder(target)  # a run resumed from an older checkpoint passes a damaged one again
        if not target.exists():
            _write(target, what, files or {})
        try:
            _checked(target)
        except DataError as error:
            raise FruitganError(f"{error}, and was just written: this disk is not to be trusted") from error
        self._seen_whole.add(target)
        self._prune(what.step)
        return target

    def restore_newest(self, parts: Mapping[str, Stateful]) -> tuple[int, list[str]]:
        """Restore the newest checkpoint that is whole.

        Returns: the step it was made at (0: there is none), and notes: what was passed over and why.

        Raises:
            DataError: there are checkpoints, but not one is whole.
        """
        problems: list[str] = []
        for path in reversed(step_folders(self.folder).values()):
            try:
                step = _restore(path, parts)
            except DataError as error:
                problems.append(str(error))
                continue
            self._seen_whole.add(path)
            return step, [f"{problem}; passed over for the checkpoint of step {step}" for problem in problems]
        if problems:
            raise DataError(
                f"{self.folder}: no checkpoint is whole; the newest: {problems[0]}; remove the folder to start at step 0 again"
            )
        return 0, []

    def about(self, step: int) -> dict[str, Any]:
        """The values beside the state of a whole checkpoint; empty where it has none, or there is no checkpoint."""
        path = self.folder / step_name(step)
        found = read_json(path / VALUES).get(ABOUT) if path.is_dir() else None
        return found if isinstance(found, dict) else {}

    def _is_whole(self, path: Path, or_newer: bool = False) -> bool:
        """With `or_newer` one of a newer format passes for whole: this program cannot tell."""
        try:
            _checked(path)
        except DataError as error:
            return or_newer and isinstance(error, _Newer)
        self._seen_whole.add(path)
        return True

    def _prune(self, step: int) -> None:
        """Remove what is older than the newest `keep` whole ones, and the damaged ones that the run went back behind.

        None after this step counts among those that are kept: the run did not go on from them.
        """
        kept = 0
        for at, path in reversed(step_folders(self.folder).items()):
            if at > step:
                is_over = not self._is_whole(path, or_newer=True)
            elif kept < self.keep:
                kept += path in self._seen_whole or self._is_whole(path)
                is_over = False
            else:
                is_over = not self.keep_every or at % self.keep_every > 0
            if is_over:
                remove_folder(path)


def _write(target: Path, what: Snapshot, files: Mapping[str, bytes]) -> None:
    with new_folder(target) as folder:
        sums = {TENSORS: write_tensors(folder / TENSORS, what.tensors)}
        document = {"format": FORMAT, "step": what.step, "torch": torch.__version__, "parts": [*what.parts]}
        document["values"] = dict(what.values)
        sums[VALUES] = _own_sha256(document)
        text = json.dumps({**document, ABOUT: dict(what.about), SUMS: sums}, indent=1, allow_nan=False)
        (folder / VALUES).write_text(text, encoding="utf-8")
        for name, content in files.items():
            (folder / name).write_bytes(content)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write a safetensors file; its sha256, computed on the way and so of what was meant to be written.

    The library would copy all tensors again, and keep Python's lock from the training that goes on meanwhile.

    Raises:
        OSError: it cannot be written.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # so that all are aligned
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    contents: Iterator[Any] = (tensor.contiguous().view(-1).view(torch.uint8).numpy() for _, tensor in ordered)
    with path.open("wb") as file:
        for piece in itertools.chain((struct.pack("<Q", len(text)), text), contents):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _restore(path: Path, parts: Mapping[str, Stateful]) -> int:
    """Give every part what it had; the step. Where it fails, some parts may have taken theirs.

    Raises:
        DataError: damaged, of a newer format, of another run, or not of the kind that the parts take.
    """
    document = _checked(path)
    if sorted(document["parts"]) != sorted(parts):
        raise DataError(f"{path}: holds other parts than this run has; its settings were changed by hand")
    open_tensors(path / TENSORS, WHAT)  # torch is not given a file with a giant header
    try:
        kept = {**load_file(path / TENSORS), **document["values"]}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read: {type(error).__name__}: {reason_of(error)}") from error
    states: dict[str, State] = {part: {} for part in parts}
    for name, value in kept.items():
        part, _, key = name.partition("/")
        states.setdefault(part, {})[key] = value
    for part, stateful in parts.items():
        try:
            _check_kinds(states[part], stateful.state())
            stateful.restore(states[part])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise DataError(f"{path}: does not fit this run's {part} ({reason_of(error)})") from error
    return int(document["step"])


def _checked(path: Path) -> dict[str, Any]:
    """The content of `state.json`, where the sums of both files are as recorded.

    Raises:
        DataError: they are not, or it is of a newer format.
    """
    document = read_json(path / VALUES)
    if not isinstance(document, dict) or type(document.get("format")) is not int:
        raise DataError(f"{path}: {VALUES} is none of a checkpoint; it is damaged")
    if document["format"] > FORMAT:
        raise _Newer(f"{path}: its format {document['format']} is newer than this fruitgan's {FORMAT}; update fruitgan")
    sums = document.pop(SUMS, None)
    document.pop(ABOUT, None)
    if not isinstance(sums, dict) or set(sums) != {TENSORS, VALUES}:
        raise DataError(f"{path}: {VALUES} does not have the sums that it should; it is damaged")
    if sums[VALUES] != _own_sha256(document):
        raise DataError(f"{path}: {VALUES} does not have the sum that it records; it is damaged")
    if (
        type(document.get("step")) is not int
        or not isinstance(document.get("values"), dict)
        or not isinstance(document.get("parts"), list)
        or not all(isinstance(part, str) for part in document["parts"])
    ):
        raise DataError(f"{path}: {VALUES} lacks what a checkpoint has; it is damaged")
    if path.name != step_name(document["step"]):
        raise DataError(f"{path}: was made at step {document['step']}, as {VALUES} says; its name was changed")
    if sums[TENSORS] != file_sha256(path / TENSORS):
        raise DataError(f"{path}: {TENSORS} does not have the sum that {VALUES} records; it is damaged")
    return document


def _check_kinds(kept: State, now: State) -> None:
    """Raises: ValueError where a value is of another kind or shape than the part has now, or not finite."""
    for key, value in kept.items():
        current = now.get(key, value)  # some parts hold more once they have begun
        if isinstance(value, torch.Tensor):
            if not isinstance(current, torch.Tensor) or value.shape != current.shape or value.dtype != current.dtype:
                raise ValueError(f"{key} has another shape or other numbers")
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise ValueError(f"{key} holds numbers that are not finite")
        elif type(value) is not type(current):
            raise ValueError(f"{key} is of another kind")


def _own_sha256(document: Mapping[str, Any]) -> str:
    """Of what `state.json` says, the sums apart, however it is laid out."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
