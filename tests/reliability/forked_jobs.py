"""A process that has everything imported and is forked for each of many jobs, which die, or fail to write, at a given moment.

    python forked_jobs.py < ORDER.json > FOUND.json

The jobs make datasets, train detectors and judge. What is left of one is looked at, then the same job is asked for again in
another fork, and must end as the one that nothing happened to. An order:

    {"out": FOLDER, "work": [{"what": WHAT, "job": NAME, "share": [k, n]}, ...]}

WHAT is one of die, power-cut, full and limit; of the cases every n-th from the k-th on is tried. What was found, of each:
`changes`, those to the file system that were counted where nothing happened; `whole`, how that ended; `cases`, each with its
number (of the change, or the limit in bytes), how the job stopped (`first`), what was `wrong` with what it left, how it went
again (`again`), what was `redone` that was whole, how it `ended`, and what was left unfinished then.
"""

from __future__ import annotations

import builtins
import gc
import io
import json
import math
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sklearn.linear_model  # noqa: F401 - here once, and not in every fork
import torch
from counted_disk import counted_open, counted_save_file, disk
from dying_jobs import Job, comparable, draw, jobs

from fruitgan.cli import explained
from fruitgan.errors import FruitganError
from fruitgan.training import checkpoint
from fruitgan.training.detection import keeping
from fruitgan.workflows.evaluate import job as evaluation_job
from fruitgan.workflows.train_detector import outcome

LIMITS_BYTES = (100, 1500, 10_000)


def forked(work: Callable[[], Any], limit_bytes: int | None = None) -> dict[str, Any]:
    """Do the work in a fork: its `code` (as `os.waitstatus_to_exitcode`), and what it gave: exit code, message and more."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            if limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
            os.write(writing, json.dumps(work()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    return {"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), **(json.loads(found) if found else {})}


def done(job: Job, folder: Path) -> dict[str, Any]:
    """The exit code and the message of a command that did it."""
    try:
        return {"said": [0, ""], **job.run(folder)}
    except Exception as error:
        if not isinstance(error, (FruitganError, OSError)):
            raise
        return {"said": list(explained(error))}


class Trial:
    """All cases of one job."""

    def __init__(self, out: Path, job: Job) -> None:
        self.out = out
        self.job = job
        self.start = out / "start"
        self.start.mkdir(parents=True)
        forked(lambda: job.before(self.start) or {})
        whole, counted = self.folder("whole"), self.folder("counted")
        forked(lambda: done(job, whole))
        self.whole = job.end(whole)
        # To look at results imports what no fork need import then, so that the changes of all are the same.
        job.whole(whole)
        list(job.wrong(whole))
        self.changes: list[str] = forked(lambda: self.counted(counted))["changes"]

    def folder(self, name: str) -> Path:
        shutil.copytree(self.start, self.out / name)
        return self.out / name

    def counted(self, folder: Path, **told: Any) -> dict[str, Any]:
        vars(disk).update(told, changes=[])
        found = done(self.job, folder)
        changes, disk.changes = disk.changes, None
        return {**found, "changes": changes}

    def tried(self, number: int, limit_bytes: int | None = None, **told: Any) -> dict[str, Any]:
        """One case: of a disk that was told something, or of a limit."""
        folder = self.folder(str(number))
        if limit_bytes is None:
            first = forked(lambda: self.counted(folder, **told))
        else:
            first = forked(lambda: done(self.job, folder), limit_bytes)
        first.pop("changes", None)
        try:
            wrong = list(self.job.wrong(folder))
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        rounds = folder / "run" / "log.jsonl"
        first["rounds"] = rounds.read_bytes().count(b"\n") if rounds.exists() else 0
        before = {path: path.stat().st_ino for path in self.job.whole(folder)}
        again = forked(lambda: done(self.job, folder))
        found = {
            "number": number,
            "first": first,
            "wrong": wrong,
            "again": again,
            "whole_before": len(before),
            "redone": [str(path) for path, inode in before.items() if path.stat().st_ino != inode],
            "ended": self.job.end(folder) if again["code"] == 0 and again["said"][0] == 0 else None,
            "left_at_the_end": sorted(
                path.name for path in folder.rglob("*") if path.name.startswith((".fruitgan-", "run.lock"))
            ),
        }
        shutil.rmtree(folder)
        return found

    def cases(self, work: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
        """By number of the change, or by limit, what the disk is told."""
        if work["what"] == "limit":
            return {limit: {"limit_bytes": limit} for limit in LIMITS_BYTES}
        first, step = work["share"]
        numbers = range(len(self.changes))[first::step]
        if work["what"] == "full":
            return {number: {"fail_from": number} for number in numbers}
        return {number: {"die_at": number, "power_cut": work["what"] == "power-cut"} for number in numbers}


def main() -> None:
    order = json.load(sys.stdin)
    sys.addaudithook(disk.audit)
    builtins.open = io.open = counted_open  # type: ignore[assignment]
    os.fsync = disk.fsync
    checkpoint.save_file = counted_save_file
    # Plots and pages take longer than all the rest.
    keeping.COST_OF_SAVING = (
        math.inf
    )  # each round is saved, however slow the disk is, and the changes of all cases are the same
    outcome.plot_files = lambda _: {"loss.png": b"a plot"}
    outcome.detector_report = lambda _: "a page"
    evaluation_job.evaluation_report = lambda values, _: json.dumps(comparable(json.loads(json.dumps(values))))
    torch.set_num_threads(1)
    out = Path(order["out"])
    draw(out / "data")
    known = jobs(out / "data")
    gc.freeze()
    trials: dict[str, Trial] = {}
    found = []
    for work in order["work"]:
        name = work["job"]
        trials[name] = trials.get(name) or Trial(out / name, known[name])
        cases = [trials[name].tried(number, **told) for number, told in trials[name].cases(work).items()]
        found.append({**work, "changes": trials[name].changes, "whole": trials[name].whole, "cases": cases})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
