"""A process that has `fruitgan train-gan` imported and is forked for each of many uses of it, which may be held in a step.

    python held_commands.py        # an order as JSON a line; what was found, the same way

An order: {"arguments": [...], "hold_at": STEP, "then": [[WHAT, WITH], ...], "unprivileged": true}. When so many steps are done
the next one waits. Then one thing after another happens: `signal` with a name, each after the first once the command has
answered the one before, or `chmod` with a path, which takes the right to write there; and then the step goes on. Without
privileges not even root may write where the mode of a folder forbids it. Found: `code` (as `os.waitstatus_to_exitcode`),
`stdout`, `stderr`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fruitgan.cli import main as fruitgan
from fruitgan.data.loader import Batch, BatchLoader
from fruitgan.train_gan import segment
from fruitgan.train_gan.assemble import make_plan
from fruitgan.train_gan.settings import TrainGanSettings

HELD = "held"
ANSWER = "finishing the step"


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


def child(order: Mapping[str, Any], stdout: int, stderr: int, release: int) -> int:
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    if order.get("unprivileged"):
        give_up_privileges()
    if "hold_at" in order:
        hold(order["hold_at"], release)
    return fruitgan(order["arguments"])


def found(order: Mapping[str, Any]) -> dict[str, Any]:
    pipes = [os.pipe() for _ in range(3)]
    (out, stdout), (err, stderr), (release, go) = pipes
    process = os.fork()
    if process == 0:
        code = 70
        try:
            code = child(order, stdout, stderr, release)
            sys.stdout.flush()
        finally:
            os._exit(code)
    for end in (stdout, stderr, release):
        os.close(end)
    then = list(order.get("then", ()))
    said = []
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
    tiny = TrainGanSettings(data="demo", recipe="fast", gpu="none")
    make_plan(tiny, torch.device("cpu"))  # which imports what else it takes
    for line in sys.stdin:
        print(json.dumps(found(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
