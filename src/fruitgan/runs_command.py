"""`fruitgan runs`: the runs here, how far each is and how to go on with it; removes those that one names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from fruitgan.console import Console, names, options
from fruitgan.console.options import argument, option
from fruitgan.errors import FruitganError, UsageError
from fruitgan.progress import duration
from fruitgan.registry import suggestion

RUNS = Path("runs")


def runs(
    wanted: list[str] | None = argument("RUN", "These alone, by name or folder.", **names.completed(names.runs())),
    out: Path = option("--out DIR", "Where the kinds' folders of runs lie.", default=RUNS),
    remove: bool = option("--remove", "Remove the named runs with all that is in them.", default=False),
    yes: bool = option("--yes", "Remove without asking.", default=False),
    json: options.Json = False,
) -> None:
    """List the runs here: state, step, time, size, and how to go on; remove them on request.

    Example: fruitgan runs
    """
    from fruitgan.data.sources import must_be_folder
    from fruitgan.runs.resume import look_at
    from fruitgan.runs.run import CONFIG

    if remove and not wanted:
        raise UsageError("--remove: which runs? Name them, as in fruitgan runs apple2orange-fast --remove")
    if out != RUNS or out.exists():  # where nothing was made yet, no run is no error
        must_be_folder(out)
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


def _named(name: str, folders: list[Path]) -> list[Path]:
    """The runs of a name, in whichever kind's folder, or the folder itself. Raises: UsageError if there is none."""
    found = [folder for folder in folders if name in (folder.name, str(folder))] or [
        folder for folder in (Path(name),) if (folder / "config.json").is_file()
    ]
    if not found:
        raise UsageError(f"no run named {name!r}: {suggestion(name, [folder.name for folder in folders])}")
    return found


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
