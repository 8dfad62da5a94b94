"""Checkpoints: a folder each, whole or absent, tensors in safetensors and the rest in JSON.

checkpoints/step-00000500/state.safetensors   tensors, named PART/KEY
checkpoints/step-00000500/state.json          format, step, values by PART/KEY, sha256 of the tensors' file
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fruitgan.atomic import new_folder
from fruitgan.errors import DataError, FruitganError
from fruitgan.objectives.contracts import Stateful

FORMAT = 1
TENSORS = "state.safetensors"
VALUES = "state.json"


class Checkpoints:
    """The checkpoints of one run; keeps the newest `keep`."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def paths(self) -> list[Path]:
        """Those there are, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def save(self, step: int, parts: Mapping[str, Stateful]) -> Path:
        """Write a checkpoint and only then remove what is too old.

        Raises:
            FruitganError: it cannot be written; those before stay.
        """
        tensors: dict[str, torch.Tensor] = {}
        values: dict[str, Any] = {}
        for part, stateful in parts.items():
            for key, value in stateful.state().items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{part}/{key}"] = value.detach().cpu().contiguous()
                else:
                    values[f"{part}/{key}"] = value
        target = self.folder / f"step-{step:08d}"
        if target.exists() and not self._is_whole(target, parts):
            shutil.rmtree(target)  # a run resumed from an older checkpoint passes a damaged one again
        if not target.exists():
            with new_folder(target) as folder:
                try:
                    save_file(tensors, folder / TENSORS)
                except SafetensorError as error:  # a full disk is one
                    raise FruitganError(f"{target}: cannot be written ({error})") from error
                document = {
                    "format": FORMAT,
                    "step": step,
                    "torch": torch.__version__,
                    "parts": sorted(parts),
                    "values": values,
                    "sha256": {TENSORS: _sha256(folder / TENSORS)},
                }
                (folder / VALUES).write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
        # Later ones are damaged, or the run would have gone on from them: they don't count among those that are kept.
        for old in [path for path in self.paths() if path.name <= target.name][: -self.keep]:
            shutil.rmtree(old)
        return target

    def restore_newest(self, parts: Mapping[str, Stateful]) -> tuple[int, list[str]]:
        """Restore the newest checkpoint that is whole; the step it was made at (0: none), and what was passed over and why.

        Raises:
            DataError: there are checkpoints, but not one is whole.
        """
        problems: list[str] = []
        for path in reversed(self.paths()):
            try:
                step, tensors, values = self._read(path, parts)
            except DataError as error:
                problems.append(str(error))
                continue
            for part, stateful in parts.items():
                prefix = f"{part}/"
                own = {key.removeprefix(prefix): value for key, value in (tensors | values).items() if key.startswith(prefix)}
                stateful.restore(own)
            return step, problems
        if problems:
            raise DataError(f"{self.folder}: no checkpoint is whole; the newest: {problems[0]}")
        return 0, problems

    def _is_whole(self, path: Path, parts: Mapping[str, Stateful]) -> bool:
        try:
            self._read(path, parts)
        except DataError:
            return False
        return True

    @staticmethod
    def _read(path: Path, parts: Mapping[str, Stateful]) -> tuple[int, dict[str, Any], dict[str, Any]]:
        try:
            document = json.loads((path / VALUES).read_text(encoding="utf-8"))
            if document["format"] > FORMAT:
                raise DataError(
                    f"{path}: its format {document['format']} is newer than this fruitgan's {FORMAT}; update fruitgan"
                )
            if document["sha256"][TENSORS] != _sha256(path / TENSORS):
                raise DataError(f"{path}: {TENSORS} does not have the sum that {VALUES} records; it is damaged")
            if document["parts"] != sorted(parts):
                raise DataError(f"{path}: holds other parts than this run has; its settings were changed by hand")
            return int(document["step"]), load_file(path / TENSORS), dict(document["values"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(f"{path}: cannot be read: {type(error).__name__}: {error}".splitlines()[0]) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
