"""A process that has everything imported and is forked for each of many runs, which die, or fail to write, at a given moment.

    PYTHONPATH=tests/shared python tests/reliability/forked_runs.py < ORDER.json > FOUND.json

What such a run leaves is gone on with in another fork, and must end as the run that nothing happened to. An order:

    {"out": FOLDER, "data": FOLDER, "work": [{"what": WHAT, "scenario": NAME, "share": [k, n]}, ...]}

WHAT is one of die, power-cut, power-cut-unsynced (no fsync does anything), full, limit and kill; of the cases every n-th from
the k-th on is tried. What was found, of each: `changes`, those to the file system that were counted in the run that nothing
happened to; `whole`, how that ended; `cases`, each with its number (of the change, or the limit in bytes), how the run stopped
(`first`), what it left unfinished, how it went on (`again`), how it `ended`, and what was left unfinished then.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from counted_disk import cases, disk, watch_the_disk
from forks import Tell, forked
from training_events import is_saved, start_of, step_of

from fruitgan.cli import explained
from fruitgan.data import decoded_cache
from fruitgan.progress import Event, Note
from fruitgan.train_gan import segment
from fruitgan.train_gan.assemble import make_plan
from fruitgan.train_gan.job import train_gan
from fruitgan.train_gan.settings import TrainGanSettings

TINY: dict[str, Any] = {
    "recipe": "fast",
    "image_size": 48,
    "batch_size": 1,
    "generator_options": {"base_channels": "4", "blocks": "1"},
    "discriminator": "patch-multiscale",
    "discriminator_options": {"base_channels": "4", "scales": "1"},
    "gpu": "none",
    "precision": "fp32",
    "seed": 3,
    "name": "run",
}
OFTEN: dict[str, Any] = {"log_every": 1, "save_every": 1, "sample_every": 2}
GOING_ON: dict[str, Any] = {"resume": "run", "gpu": "none"}
MANY = {**TINY, "log_every": 1, "save_every": 3, "sample_every": 50, "keep": 1, "steps": 100}
KILLS = 20
# What is there before, what is then run, and with what that is gone on with once its folder is there.
SCENARIOS: dict[str, tuple[dict[str, Any] | None, dict[str, Any], dict[str, Any]]] = {
    "begun": (None, {**TINY, **OFTEN, "steps": 3, "keep": 1}, {**GOING_ON, **OFTEN, "keep": 1}),
    # A finished run with two checkpoints gets longer, keeps fewer, and goes on under another torch.
    "extended": (
        {**TINY, **OFTEN, "steps": 2, "keep": 2},
        {**GOING_ON, **OFTEN, "steps": 4, "keep": 1},
        {**GOING_ON, **OFTEN, "steps": 4, "keep": 1},
    ),
    "long": (None, MANY, GOING_ON),
}
LIMITS_BYTES = (100, 10_000, 40_000)


class Runs:
    """Those of one scenario, each in a folder of its own."""

    def __init__(self, out: Path, data: str, scenario: str) -> None:
        self.out = out
        self.data = data
        self.base, self.tested, self.going_on = SCENARIOS[scenario]
        self.start = out / "start"
        self.caches = out / "caches"
        self.start.mkdir(parents=True)
        self.caches.mkdir()  # now, so that no case has it to make, and the changes of all are the same
        if self.base is not None:
            base = self.base
            forked(lambda tell: self.train(base, self.start, tell))
            environment = self.start / "run" / "environment.json"
            environment.write_text(environment.read_text().replace('"torch": "', '"torch": "1.'))
        out = self.folder("whole")
        self.changes: list[str] = forked(lambda tell: self.counted(out, tell))["changes"]
        self.whole = self.end(out)

    def folder(self, name: str) -> Path:
        shutil.copytree(self.start, self.out / name)
        return self.out / name

    def train(self, settings: Mapping[str, Any], out: Path, tell: Tell) -> None:
        """Tells where it starts, of each step, what is saved, and the exit code and the message of a command that did this."""

        def on_progress(event: Event) -> None:
            if start_of(event) >= 0:
                tell(started=start_of(event))
            elif step_of(event) > 0:
                tell(step=step_of(event))
            elif isinstance(event, Note) and is_saved(event):
                tell(saved=int(event.text[-8:]))

        os.environ["FRUITGAN_CACHE"] = str(self.caches / out.name)  # of decoded images: each case decodes them anew
        given = {**settings} if "resume" in settings else {**settings, "data": self.data}
        tell(saved=0, said=None)
        try:
            train_gan(TrainGanSettings(**given, out=out), on_progress)
            said = [0, ""]
        except Exception as error:
            said = list(explained(error))
        tell(said=said)

    def counted(self, out: Path, tell: Tell, **told: Any) -> None:
        """Train as the scenario says, with the disk told what to do; tells of the changes too."""
        vars(disk).update(told, changes=[])
        self.train(self.tested, out, tell)
        tell(changes=disk.changes)

    def going_on_in(self, out: Path) -> Mapping[str, Any]:
        return self.going_on if (out / "run" / "config.json").exists() else self.tested

    def tried(self, number: int, limit_bytes: int | None = None, **told: Any) -> dict[str, Any]:
        """One case: of a disk that was told something, or of a limit."""
        out = self.folder(str(number))
        if limit_bytes is None:
            first = forked(lambda tell: self.counted(out, tell, **told))
        else:
            first = forked(lambda tell: self.train(self.tested, out, tell), limit_bytes=limit_bytes)
        first.pop("changes", None)
        left = unfinished(out)
        found = {"number": number, "first": first, "left": left, **self.gone_on_with(out)}
        for folder in (out, self.caches / out.name):
            shutil.rmtree(folder, ignore_errors=True)
        return found

    def gone_on_with(self, out: Path) -> dict[str, Any]:
        again = forked(lambda tell: self.train(self.going_on_in(out), out, tell))
        return {"again": again, "ended": self.end(out), "left_at_the_end": unfinished(out)}

    def killed_often(self) -> dict[str, Any]:
        """The kills of one run, and how it ended."""
        out = self.folder("killed")
        drawn = random.Random(0)
        kills = []
        for _ in range(KILLS):
            settings, steps = self.going_on_in(out), drawn.randint(1, 7)
            kills.append(forked(lambda tell, given=settings: self.train(given, out, tell), kill_after_steps=steps))  # type: ignore[misc]
        return {"kills": kills, **self.gone_on_with(out)}

    def end(self, out: Path) -> dict[str, Any] | None:
        """All of a finished run but its times; None where there is none."""
        run = out / "run"
        if not (run / "result.json").is_file():
            return None
        result = json.loads((run / "result.json").read_text())
        checkpoints = sorted((run / "checkpoints").iterdir())
        state = json.loads((checkpoints[-1] / "state.json").read_text())
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return {
            "step": result["step"],
            "weights_sha256": result["weights_sha256"],
            "bundle": hashlib.sha256((run / "bundle.safetensors").read_bytes()).hexdigest(),
            "tensors": hashlib.sha256((checkpoints[-1] / "state.safetensors").read_bytes()).hexdigest(),
            "values": state["values"],
            "log": [{key: value for key, value in line.items() if "second" not in key} for line in lines],
            "checkpoints": [path.name for path in checkpoints],
            "samples": sorted(path.name for path in (run / "samples").iterdir()),
        }


def unfinished(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob(".fruitgan-*"))


def done(work: Mapping[str, Any], runs: Runs) -> dict[str, Any]:
    if work["what"] == "kill":
        found = [runs.killed_often()]
    else:
        found = [runs.tried(number, **told) for number, told in cases(work, len(runs.changes), LIMITS_BYTES).items()]
    return {**work, "changes": runs.changes, "whole": runs.whole, "cases": found}


def main() -> None:
    order = json.load(sys.stdin)
    watch_the_disk()
    decoded_cache.RACY_SECONDS = 0.0  # else the first runs, on images just written, have fewer changes than the others
    segment.training_report = lambda *_: "a page"  # it takes longer than all the rest
    make_plan(TrainGanSettings(**TINY, data=order["data"]), torch.device("cpu"))  # which imports what else it takes
    gc.freeze()
    runs: dict[str, Runs] = {}
    found = []
    for work in order["work"]:
        name = work["scenario"]
        runs[name] = runs.get(name) or Runs(Path(order["out"]) / name, order["data"], name)
        found.append(done(work, runs[name]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
