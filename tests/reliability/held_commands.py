"""A process that has trained once, so that everything is imported, and is forked for each of many commands.

    PYTHONPATH=tests/shared python tests/reliability/held_commands.py    # a list of orders as JSON a line; what was found, too

Those of a line run at once. An order: {"arguments": [...], "folder": FOLDER, "environment": {...}, "script": FILE, "hold_at":
STEP, "then": [[WHAT, WITH], ...], "unprivileged": true}; all but the first may be left out. With a script that gets the
arguments, else `fruitgan` does. When so many steps are done the next one waits. Then one thing after another happens: `signal`
with a name, each after the first once the command has answered the one before, or `chmod` with a path, which takes the right to
write there; and then the step goes on, behind the end of those that were ordered before. Without privileges not even root may
write where the mode of a folder forbids it. Found: `code` (as `os.waitstatus_to_exitcode`), `stdout`, `stderr`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import json
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sklearn.linear_model  # noqa: F401 - here once, and not in every fork
from picture_files import write_ramp_domains

from fruitgan.cli import main as fruitgan
from fruitgan.data.loader import Batch, BatchLoader
from fruitgan.train_detector import job as detector_job
from fruitgan.train_gan import segment

HELD = "held"
ANSWER = "finishing the step"
WARM_UP = "--recipe fast --image-size 48 --batch-size 1 --steps 1 --gpu none --generator-option base_channels=4"


def give_up_privileges() -> None:
    """Linux's capset(2), with nothing in the sets."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def hold(at: int, release: int) -> None:
    """Make the step after so many wait until there is something to read."""
    batch = BatchLoader.batch

    def held(feed: BatchLoader, step: int, draws: Mapping[str, int]) -> Batch:
        if step == at:
            os.write(2, f"{HELD}\n".encode())
            os.read(release, 1)
        return batch(feed, step, draws)

    BatchLoader.batch = held  # type: ignore[method-assign]


def obeyed(order: Mapping[str, Any], release: int) -> int:
    """In a fork: do it, and give the exit code."""
    os.chdir(order.get("folder", "."))
    os.environ.update(order.get("environment", {}))
    if order.get("unprivileged"):
        give_up_privileges()
    if "hold_at" in order:
        hold(order["hold_at"], release)
    if "script" in order:
        sys.argv = [order["script"], *order["arguments"]]
        runpy.run_path(order["script"], run_name="__main__")
        return 0
    return fruitgan(order["arguments"])


def begun(order: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    """Begin it in a fork; what is given waits for its end, and gives what was found."""
    (out, stdout), (err, stderr), (release, go) = (os.pipe() for _ in range(3))
    process = os.fork()
    if process == 0:
        code = 70
        try:
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            code = obeyed(order, release)
            sys.stdout.flush()
        finally:
            os._exit(code)
    for end in (stdout, stderr, release):
        os.close(end)

    def found() -> dict[str, Any]:
        then, said = list(order.get("then", ())), []
        with os.fdopen(err) as lines:
            for line in lines:
                is_held = line.strip() == HELD
                if not is_held:
                    said.append(line)
                if is_held or (then and line.startswith(ANSWER)):
                    act(then, process)
                    if not then:
                        os.write(go, b".")
        with os.fdopen(out) as lines:
            printed = lines.read()
        os.close(go)
        return {"code": os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), "stdout": printed, "stderr": "".join(said)}

    return found


def act(then: list[list[str]], process: int) -> None:
    """Do what comes next, up to a signal that must be answered before another can follow."""
    while then:
        what, subject = then.pop(0)
        if what == "chmod":
            Path(subject).chmod(0o555)
            continue
        os.kill(process, getattr(signal, subject))
        return


def main() -> None:
    segment.training_report = lambda *_: "a page"  # it takes longer than all the rest
    detector_job.write_report = lambda *_: None
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        data = write_ramp_domains(Path(folder, "ramps"))
        assert fruitgan(["train-gan", "--data", str(data), "--out", folder, "--quiet", *WARM_UP.split()]) == 0
    gc.collect()
    gc.freeze()  # so that no fork copies what it only counts
    for line in sys.stdin:
        waiting = [begun(order) for order in json.loads(line)]
        print(json.dumps([found() for found in waiting]), flush=True)


if __name__ == "__main__":
    main()
