"""Work in forks of a process that has everything imported."""

from __future__ import annotations

import json
import os
import resource
import signal
import traceback
from collections.abc import Callable
from typing import Any

Tell = Callable[..., None]


def forked(
    work: Callable[[Tell], object], *, limit_bytes: int | None = None, kill_after_steps: int | None = None
) -> dict[str, Any]:
    """Do the work in a fork: its `code` (as `os.waitstatus_to_exitcode`), and the last of each thing that it told.

    Args:
        limit_bytes: of a file, as the kernel keeps it.
        kill_after_steps: SIGKILL comes from here when it has told of so many, each behind its line in the log.
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
    steps = 0
    with os.fdopen(reading) as pipe:
        for line in pipe:
            found |= json.loads(line)
            steps += "step" in json.loads(line)
            if steps == kill_after_steps:
                os.kill(child, signal.SIGKILL)
                break
    return {"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), **found}
