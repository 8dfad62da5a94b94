"""Going on with a run, whatever it trains: which run, how far it is, with which settings, and on which machine."""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fruitgan.distributed import ranks
from fruitgan.errors import DataError, UsageError
from fruitgan.files import PART_PREFIX, size_bytes
from fruitgan.machine import cpu_name
from fruitgan.registry import suggestion
from fruitgan.runs.run import CONFIG, ENVIRONMENT, LATER, LAUNCH, LOG, RESULT, Run, RunInUse, holder
from fruitgan.settings import RUNS

if TYPE_CHECKING:
    import torch

DETECTOR = "detector.safetensors"
"""The file of a detector, in its run."""
NEWEST = "newest"
"""What `--resume` says without a name."""
METRICS = "metrics.json"
"""What a finished detector's run has."""
RESULTS = {"train-detector": METRICS}
"""The file that a finished run has, by its kind, where it is not `result.json`."""
NOTHING: tuple[Any, ...] = (None, {}, ())
"""Values of settings that were not given."""
PACKAGES = ("fruitgan", "torch", "torchvision", "kornia", "numpy", "pillow", "safetensors")
# What decides the bits of a result; the decoded images are compared by their fingerprint.
DECIDING = ("system", "cpu", "cpu_capability", "torch_threads", "processes", "device", "gpu", "fp32_convolutions")
DECIDING_PACKAGES = ("fruitgan", "torch", "torchvision", "kornia", "numpy")
T = TypeVar("T")


def find_run(out: Path, wanted: str, result: str = RESULT) -> Run:
    """The run that `--resume` means: `newest` is the newest that lacks its result, else a name under `out`, else a folder.

    The newest is one that no other process has; its notes name those passed over for that.

    Raises:
        UsageError: there is no such run.
        RunInUse: all that are not finished are in use.
    """
    folders = [path.parent for path in out.glob(f"*/{CONFIG}") if not path.parent.name.startswith(PART_PREFIX)]
    known = {folder.name: folder for folder in folders}
    if wanted == NEWEST:
        taken: list[RunInUse] = []
        for path in sorted(known.values(), key=_last_change, reverse=True):
            if not (path / result).exists():
                if (who := holder(path)) is None:
                    return Run(
                        path, [f"{run.folder} is newer, but in use by {run.holder}; going on with {path}" for run in taken]
                    )
                taken.append(RunInUse(path, who))
        raise taken[0] if taken else UsageError(f"no unfinished run under {out}; name one: --resume NAME")
    if wanted in known:
        return Run(known[wanted])
    if (Path(wanted) / CONFIG).is_file():
        return Run(Path(wanted))
    raise UsageError(f"no run {wanted!r} under {out}: {suggestion(wanted, sorted(known))}")


def run_of_launch(out: Path) -> str | None:
    """The folder of the run in which these processes worked before one of them died, and all were started anew."""
    found = None
    if ranks().is_first and ranks().launch is not None:
        for path in sorted(out.glob(f"*/{CONFIG}")):
            with suppress(DataError):
                if Run(path.parent).config.get(LAUNCH) == ranks().launch:
                    found = str(path.parent)
    return cast(str | None, ranks().exchange(found)[0])


def locate_detector(wanted: str | None, runs: Path) -> Path:
    """The detector that is meant by a file, a run's folder or its name under `runs`; without a wish the newest there.

    Raises:
        DataError: there is none.
        UsageError: no run of that name.
    """
    made = sorted(runs.glob(f"*/{DETECTOR}"), key=lambda path: path.stat().st_mtime_ns)
    if wanted is None:
        if not made:
            raise DataError(
                f"no detector in {runs}; train one (fruitgan train-detector --data DIR) or give --detector FILE|RUN"
            )
        return made[-1]
    for path in (Path(wanted), runs / wanted):
        if path.exists():
            return path / DETECTOR if path.is_dir() else path
    if Path(wanted).name != wanted or Path(wanted).suffix:
        raise DataError(f"{wanted}: no such file or run; expected a detector")
    raise UsageError(f"no file or run named {wanted!r}: {suggestion(wanted, sorted(path.parent.name for path in made))}")


def resume_command(run: Path, gpu: str | None = None, device: str | None = None) -> str:
    """What to type, or paste, to go on with a run where it was asked to compute."""
    kind = _kind(run)
    by_name = run.parent == RUNS.parent / kind and run.name != NEWEST
    # A bare name is looked for under the default folder first: any other run is named by a path that looks like one.
    wanted = run.name if by_name else os.path.join(run.parent, run.name)  # noqa: PTH118 - pathlib drops the ./ of ./name
    words = [f"--resume={wanted}"] if wanted.startswith("-") else ["--resume", wanted]
    pairs = [("--gpu", gpu), ("--device", device)]
    if ranks().is_group and gpu == "none":
        pairs = [("--processes", str(ranks().world))]
    where = [word for option, value in pairs if value is not None for word in (option, value)]
    return shlex.join(["fruitgan", kind, *words, *where])


def look_at(folder: Path) -> dict[str, Any]:
    """What a run's folder says of it; a damaged file tells nothing and hides none of the rest.

    Unknown is None: how many steps there will be, and how long it has trained. `go_on` is what to type where it has stopped.
    """
    run = Run(folder)
    config, kind = _table(run, CONFIG), _kind(folder)
    result, entries = _table(run, RESULTS.get(kind, RESULT)), run.entries()
    state = "finished" if result else "running" if holder(folder) is not None else "stopped"
    seconds = result.get("seconds") or (entries[-1]["seconds"] if entries else None)
    step, total = result.get("step"), config.get("total_steps")
    return {
        "run": str(folder),
        "kind": kind,
        "state": state,
        "step": step if isinstance(step, int) else run.saved_step,
        "total_steps": total if isinstance(total, int) else None,
        "seconds": float(seconds) if isinstance(seconds, (int, float)) else None,
        "bytes": size_bytes(folder),
        "go_on": resume_command(folder) if state == "stopped" else None,
    }


def _kind(folder: Path) -> str:
    """The command that made a run, wherever it lies; of a run without a config by the folder around it."""
    config = _table(Run(folder), CONFIG)
    if not config:
        return folder.parent.name
    settings = config.get("settings")
    has_teacher = isinstance(settings, dict) and settings.get("teacher") is not None
    return Path(str(config.get("kind", "distill" if has_teacher else "train-gan"))).name  # a stranger's may be anything


def _table(run: Run, name: str) -> Mapping[str, Any]:
    try:
        table: Mapping[str, Any] = run.read(name) if (run.path / name).is_file() else {}
    except DataError:
        return {}
    return table


def _last_change(path: Path) -> int:
    return max(file.stat().st_mtime_ns for file in (path, path / CONFIG, path / LOG) if file.exists())


def merged_settings(run: Run, asked: T, stored: T, *, fixed: Iterable[str], kept: Iterable[str]) -> T:
    """The settings that a resumed run goes on with: those asked for, with the run's own where they cannot or do not change.

    Args:
        fixed: names of settings that decide the mathematics so far, and cannot change.
        kept: names of settings that stay the run's own unless they are given anew.

    Raises:
        UsageError: a fixed setting was given another value, or the run another name.
    """
    given: Any = asked
    if given.name not in (None, run.path.name):
        raise UsageError(f"--name {given.name} with --resume: {run.path} keeps its name; leave out one of the two")
    merged = {}
    for name in fixed:
        new, merged[name] = getattr(asked, name), getattr(stored, name)
        if new not in NOTHING and new != merged[name]:
            has = "none" if merged[name] in NOTHING else merged[name]
            raise UsageError(
                f"--{name.replace('_', '-')} cannot change in a resumed run ({run.path} has {has}); start a new one for {new}"
            )
    for name in kept:
        merged[name] = getattr(stored, name) if getattr(asked, name) in (*NOTHING, False) else getattr(asked, name)
    return cast(T, dataclasses.replace(given, **merged))


def changed_settings(now: Any, before: Any, names: Iterable[str]) -> list[str]:
    """`--keep 3 instead of 2` for each of the named settings that is another than before."""
    pairs = ((name.replace("_", "-"), getattr(now, name), getattr(before, name)) for name in names)
    return [f"--{name} {new} instead of {old}" for name, new, old in pairs if new != old]


def environment(device: torch.device) -> dict[str, Any]:
    """Versions of what computes, and the machine's kind; nothing that names a person or a place."""
    import torch  # not needed to find a run

    gpu = convolutions = None
    if device.type == "cuda":
        gpu, cudnn = torch.cuda.get_device_name(device), cast(Any, torch.backends.cudnn)  # its parts have no declared types
        has_tf32 = torch.cuda.get_device_capability(device) >= (8, 0) and cudnn.conv.fp32_precision == "tf32"
        convolutions = "tf32" if has_tf32 else "fp32"  # by torch's default TF32 where the GPU has it
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "processes": ranks().world,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "gpu": gpu,
        "fp32_convolutions": convolutions,
    }


def keep_environment(run: Run, step: int, here: Mapping[str, Any]) -> list[str]:
    """Add this run segment's environment to the run's history if it is another than that of the segment before; notes on it."""
    history = run.environment
    if not history or not step:  # nothing of an earlier segment is left
        if history != here:
            run.write(ENVIRONMENT, here)
        return []
    # A segment that left no checkpoint does not count.
    later = [entry for entry in history.get(LATER, []) if entry["from_step"] < step]
    before = later[-1] if later else history
    old, new = {**before, **before.get("packages", {})}, {**here, **here["packages"]}
    differences = [
        f"{name.replace('_', ' ')} {new[name] or 'none'}, was {old[name] or 'none'}"
        for name in (*DECIDING, *DECIDING_PACKAGES)
        if name in old and old[name] != new[name]  # what is not known of before counts as the same
    ]
    if differences:
        later.append({"from_step": step, **here})
    if later != history.get(LATER, []):
        run.write(ENVIRONMENT, {**history, LATER: later})
    if not differences:
        return []
    return [f"resumed in a different environment ({'; '.join(differences)}): no longer bit-identical"]
