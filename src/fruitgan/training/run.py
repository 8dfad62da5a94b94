"""The folder of a run: what was asked for, what happened, what came out.

config.json       every setting, resolved        samples/      pictures of fixed images
environment.json  versions and machine           checkpoints/  see checkpoint.py
log.jsonl         a line every so many steps     result.json   when it is finished
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fruitgan.atomic import PART_PREFIX, new_folder, write_atomically
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.registry import suggestion
from fruitgan.settings import to_json

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
LOG = "log.jsonl"
RESULT = "result.json"


class Run:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: Any, environment: Mapping[str, Any]) -> Run:
        """Make the folder, whole with its config.

        Raises:
            UsageError: it exists.
            FruitganError: it cannot be written.
        """
        refuse_existing(path)
        with new_folder(path) as folder:
            (folder / CONFIG).write_text(json.dumps(to_json(config), indent=1, allow_nan=False), encoding="utf-8")
            (folder / ENVIRONMENT).write_text(json.dumps(to_json(environment), indent=1), encoding="utf-8")
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        return self._read(CONFIG)

    @property
    def result(self) -> dict[str, Any] | None:
        """What the finished run gave; None while it is not finished."""
        return self._read(RESULT) if (self.path / RESULT).is_file() else None

    @property
    def saved_step(self) -> int:
        """The step of the newest checkpoint, where a resumed run goes on; 0 before the first."""
        names = [path.name for path in (self.path / "checkpoints").glob("step-*")]
        return max((int(name.removeprefix("step-")) for name in names), default=0)

    def finish(self, result: Any) -> None:
        write_atomically(self.path / RESULT, json.dumps(to_json(result), indent=1, allow_nan=False).encode())

    def reopen(self) -> None:
        """Make a finished run an unfinished one again, to extend it."""
        (self.path / RESULT).unlink(missing_ok=True)

    def write_config(self, config: Any) -> None:
        write_atomically(self.path / CONFIG, json.dumps(to_json(config), indent=1, allow_nan=False).encode())

    def log(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the log.

        Raises:
            FruitganError: it cannot be written.
        """
        try:
            with (self.path / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, allow_nan=False) + "\n")
        except OSError as error:
            raise FruitganError(f"{self.path / LOG}: cannot be written ({error.strerror})") from error

    def entries(self) -> list[dict[str, Any]]:
        """The log's lines; one torn by a crash is left out."""
        try:
            lines = (self.path / LOG).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        return entries

    def forget_after(self, step: int) -> list[dict[str, Any]]:
        """Take the log back to the given step, so that a resumed run leaves neither gap nor duplicate; what is left."""
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomically(self.path / LOG, text.encode())
        return kept

    def _read(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path / name}: cannot be read ({error}); is {self.path} a run?") from error
        if not isinstance(value, dict):
            raise DataError(f"{self.path / name}: not a table; is {self.path} a run?")
        return value


def refuse_existing(path: Path) -> None:
    """Raises: UsageError if there is something where a new run is to stand."""
    if path.exists():
        raise UsageError(f"{path} exists; go on with --resume {path.name}, or choose another --name")


def find_run(out: Path, wanted: str) -> Run:
    """The run that `--resume` means: `newest` is the newest that is not finished, else a name under `out`, else a folder.

    Raises:
        UsageError: there is no such run.
    """
    folders = [path.parent for path in out.glob(f"*/{CONFIG}") if not path.parent.name.startswith(PART_PREFIX)]
    known = {folder.name: folder for folder in folders}
    if wanted == "newest":
        unfinished = [path for path in known.values() if not (path / RESULT).exists()]
        if not unfinished:
            raise UsageError(f"no unfinished run under {out}; name one: --resume NAME")
        return Run(max(unfinished, key=_last_change))
    if wanted in known:
        return Run(known[wanted])
    if (Path(wanted) / CONFIG).is_file():
        return Run(Path(wanted))
    raise UsageError(f"no run {wanted!r} under {out}: {suggestion(wanted, sorted(known))}")


def _last_change(path: Path) -> int:
    return max(file.stat().st_mtime_ns for file in (path, path / CONFIG, path / LOG) if file.exists())
