"""`fruitgan runs`: the runs here, how far each is and how to go on with it; removes those that one names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from fruitgan.console import Console, names, options
from fruitgan.console.options import argument, option
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.files import size_bytes
from fruitgan.progress import duration
from fruitgan.registry import suggestion

RUNS = Path("runs")
RESULTS = {"train-detector": "metrics.json"}
"""The file that a finished run has, by the folder that its kind's runs lie in."""


def runs(
    wanted: list[str] | None = argument("[RUN]...", "These alone, by name or folder.", **names.completed(names.runs())),
    out: Path = option("--out DIR", "Where the kinds' folders of runs lie.", default=RUNS),
    remove: bool = option("--remove", "Remove the named runs with all that is in them.", default=False),
    yes: bool = option("--yes", "Remove without asking.", default=False),
    json: options.Json = False,
) -> None:
    """List the runs here: state, step, time, size, and how to go on; remove them on request.

    Example: fruitgan runs
    """
    from fruitgan.runs.run import CONFIG

    if remove and not wanted:
        raise UsageError("--remove: which runs? Name them, as in fruitgan runs apple2orange-fast --remove")
    folders = sorted(path.parent for path in out.glob(f"*/*/{CONFIG}") if not path.parent.name.startswith("."))
    if wanted:
        folders = [folder for name in wanted for folder in _named(name, folders)]
    found = [look_at(folder) for folder in dict.fromkeys(folders)]
    console = Console(json=json)
    if remove:
        _remove(found, yes, console)
    console.result({"removed" if remove else "runs": found})
    if remove:
        return
    rows = [
        (
            run["run"],
            run["state"],
            run["step"] if run["total_steps"] is None else f"{run['step']:,} of {run['total_steps']:,}",
            "" if run["seconds"] is None else duration(run["seconds"]),
            f"{run['bytes'] / 1e6:,.0f} MB",
        )
        for run in found
    ]
    if not rows:
        console.out(f"no run under {out}")
        return
    console.table("", ("run", "state", "step", "time", "size"), rows)
    for run in found:
        if run["go_on"] is not None:
            console.out(f"go on: {run['go_on']}")


def look_at(folder: Path) -> dict[str, Any]:
    """What a run's folder says of it; a damaged file tells nothing and hides none of the rest.

    Unknown is None: how many steps there will be, and how long it has trained. `go_on` is what to type where it has stopped.
    """
    from fruitgan.runs.resume import resume_command
    from fruitgan.runs.run import RESULT, Run, holder

    run, kind = Run(folder), folder.parent.name
    result, config = _table(run, RESULTS.get(kind, RESULT)), _table(run, "config.json")
    entries = run.entries()
    state = "finished" if result else "running" if holder(folder) is not None else "stopped"
    kind = str(config.get("kind", kind))
    seconds = result.get("seconds") or (entries[-1]["seconds"] if entries else None)
    total = config.get("total_steps")
    return {
        "run": str(folder),
        "kind": kind,
        "state": state,
        "step": int(result.get("step", run.saved_step)),
        "total_steps": total if isinstance(total, int) else None,
        "seconds": float(seconds) if isinstance(seconds, (int, float)) else None,
        "bytes": size_bytes(folder),
        "go_on": resume_command(folder, runs=RUNS / kind) if state == "stopped" else None,
    }


def _named(name: str, folders: list[Path]) -> list[Path]:
    """The runs of a name, in whichever kind's folder, or the folder itself. Raises: UsageError if there is none."""
    found = [folder for folder in folders if name in (folder.name, str(folder))] or [
        folder for folder in (Path(name),) if (folder / "config.json").is_file()
    ]
    if not found:
        raise UsageError(f"no run named {name!r}: {suggestion(name, [folder.name for folder in folders])}")
    return found


def _table(run: Any, name: str) -> Mapping[str, Any]:
    try:
        table: Mapping[str, Any] = run.read(name) if (run.path / name).is_file() else {}
    except DataError:
        return {}
    return table


def _remove(found: list[dict[str, Any]], yes: bool, console: Console) -> None:
    """Remove them, if nobody works in one and a person says yes.

    Raises:
        UsageError: nobody can be asked.
        FruitganError: a run is in use, or cannot be removed; those after it stay.
    """
    from fruitgan.files import remove_folder
    from fruitgan.runs.run import locked

    listed = ", ".join(f"{run['run']} ({run['bytes'] / 1e6:,.0f} MB)" for run in found)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"--remove {listed}: give --yes where nobody can be asked")
        if not typer.confirm(f"Remove {listed} for good?", err=True):
            raise FruitganError("nothing was removed")
    for run in found:
        with locked(folder := Path(run["run"])):  # which says who works in it
            remove_folder(folder)
        console.out(f"removed {folder}")
