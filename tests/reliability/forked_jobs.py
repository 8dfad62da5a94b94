"""A process that has everything imported and is forked for each of many jobs, which die, or fail to write, at a given moment.

    PYTHONPATH=tests/shared python tests/reliability/forked_jobs.py < ORDER.json > FOUND.json

The jobs train, make datasets and evaluate. What is left of one is looked at, then the same job is asked for again in another
fork, and must end as the one that nothing happened to. An order:

    {"out": FOLDER, "work": [{"what": WHAT, "job": NAME, "share": [k, n]}, ...]}

WHAT is one of die, power-cut, power-cut-unsynced (no fsync does anything), full and limit; of the cases every n-th from the
k-th on is tried. What was found, of each: `changes`, those to the file system that were counted where nothing happened;
`whole`, how that ended; `cases`, each with its number (of the change, or the limit in bytes), how the job stopped (`first`),
what it `left` unfinished, what was `wrong` with the rest, how it went again (`again`), what was `redone` that was whole, how it
`ended`, and what was left unfinished then.
"""

from __future__ import annotations

import functools
import gc
import json
import math
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from counted_disk import cases, disk, watch_the_disk
from dying_jobs import Job, Tell, comparable, draw, jobs
from toy_bundles import Negative

from fruitgan.cli import explained
from fruitgan.engines.contracts import engines
from fruitgan.errors import FruitganError
from fruitgan.evaluate import job as evaluation_job
from fruitgan.runs import checkpoint
from fruitgan.train_detector import page as detector_page
from fruitgan.train_gan import segment

LIMITS_BYTES = (100, 10_000)


def forked(work: Callable[[Tell], object], *, limit_bytes: int | None = None) -> dict[str, Any]:
    """Do the work in a fork: its `code` (as `os.waitstatus_to_exitcode`), and the last of each thing that it told.

    `limit_bytes` is that of a file, as the kernel keeps it.
    """
    reading, writing = os.pipe()

    def tell(**told: Any) -> None:
        os.write(writing, json.dumps(told).encode() + b"\n")

    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            if limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
            work(tell)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    found: dict[str, Any] = {}
    with os.fdopen(reading) as pipe:
        for line in pipe:
            found |= json.loads(line)
    return {"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), **found}


def do(job: Job, folder: Path, tell: Tell) -> None:
    """Tells the exit code and the message of a command that did it, and more."""
    try:
        tell(said=[0, ""], **job.run(folder, tell))
    except Exception as error:
        if not isinstance(error, (FruitganError, OSError)):
            raise
        tell(said=list(explained(error)))


class Trial:
    """All cases of one job."""

    def __init__(self, out: Path, job: Job) -> None:
        self.out = out
        self.job = job
        self.start = out / "start"
        self.start.mkdir(parents=True)
        job.before(self.start)
        whole = self.folder("whole")
        # In here, and so is a look at the results: what that imports and warms up no fork need do again, and the changes of
        # all are the same.
        job.run(whole, lambda **_: None)
        self.whole = job.end(whole)
        job.whole(whole)
        list(job.wrong(whole))
        gc.collect()
        gc.freeze()  # so that no fork copies what it only counts

    @functools.cached_property
    def changes(self) -> list[str]:
        """Those to the file system where nothing happens."""
        folder = self.folder("counted")
        return list(forked(lambda tell: self.counted(folder, tell))["changes"])

    def folder(self, name: str) -> Path:
        shutil.copytree(self.start, self.out / name)
        return self.out / name

    def counted(self, folder: Path, tell: Tell, **told: Any) -> None:
        vars(disk).update(told, changes=[])
        do(self.job, folder, tell)
        tell(changes=disk.changes)

    def tried(self, number: int, limit_bytes: int | None = None, **told: Any) -> dict[str, Any]:
        """One case: of a disk that was told something, or of a limit."""
        folder = self.folder(str(number))
        if limit_bytes is None:
            first = forked(lambda tell: self.counted(folder, tell, **told))
        else:
            first = forked(lambda tell: do(self.job, folder, tell), limit_bytes=limit_bytes)
        first.pop("changes", None)
        try:
            wrong = list(self.job.wrong(folder))
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        rounds = folder / "run" / "log.jsonl"
        first["rounds"] = rounds.read_bytes().count(b"\n") if rounds.exists() else 0
        before = {path: path.stat().st_ino for path in self.job.whole(folder)}
        found = {"number": number, "first": first, "wrong": wrong, "left": unfinished(folder), "whole_before": len(before)}
        found["again"] = again = forked(lambda tell: do(self.job, folder, tell))
        found["ended"] = self.job.end(folder) if again["code"] == 0 and again["said"][0] == 0 else None
        found["left_at_the_end"] = unfinished(folder) + [path.name for path in folder.rglob("run.lock")]
        found["redone"] = [str(path) for path, inode in before.items() if path.stat().st_ino != inode]
        shutil.rmtree(folder)
        shutil.rmtree(self.job.cache(folder), ignore_errors=True)
        return found


def unfinished(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".fruitgan-*"))


def main() -> None:
    order = json.load(sys.stdin)
    watch_the_disk()
    # Each round is saved, however slow the disk is, so that the changes of all cases are the same.
    checkpoint.MOST_TIME_SHARE = math.inf
    # Plots and pages take longer than all the rest.
    segment.training_report = lambda *_: "a page"
    engines.get = lambda name: Negative  # type: ignore[assignment,method-assign]
    detector_page.plot_files = lambda *_: {"loss.png": b"a plot"}
    detector_page.detector_report = lambda *_: "a page"
    evaluation_job.evaluation_report = lambda values, _: json.dumps(comparable(json.loads(json.dumps(values))))
    torch.set_num_threads(1)
    out = Path(order["out"])
    draw(out / "data")
    known = jobs(out / "data")
    trials: dict[str, Trial] = {}
    found = []
    for work in order["work"]:
        name = work["job"]
        trial = trials[name] = trials.get(name) or Trial(out / name, known[name])
        tried = [trial.tried(number, **told) for number, told in cases(work, len(trial.changes), LIMITS_BYTES).items()]
        found.append({**work, "changes": trial.changes, "whole": trial.whole, "cases": tried})
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
