"""`--processes N` and `--gpu 0,1`: torchrun's agent starts the command once for each process, all on this machine.

Nothing listens at the network: the processes find each other by a file, and talk over loopback.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from fruitgan.console.signals import EXIT_CODES, handled
from fruitgan.distributed import LAUNCH, RankLost, is_started_as_rank, ranks
from fruitgan.errors import EnvironmentProblem, FruitganError, Stopped, UsageError

RESTARTS = 10
"""Of a training that may go on for weeks; what ends for a reason is not started anew."""
OUTCOME, LEADER = "exit-code", "process-0"
"""Files of the launch's folder: how it ended, and who is to be told of a signal."""
SET_SIGNAL_OF_PARENTS_DEATH = 1  # of Linux' prctl


def processes_wanted(gpu: str | None, device: str | None, processes: int | None) -> int:
    """How many processes these options ask to start here; 1 in a process that was started as one of several.

    Raises:
        UsageError: they do not go together.
        EnvironmentProblem: `--gpu all`, and there is none.
    """
    named = len(gpu.split(",")) if gpu and gpu[0].isdecimal() else None
    if processes and (device not in (None, "cpu") or gpu == "all" or named not in (None, processes)):
        asked = f"--gpu {gpu}" if gpu else f"--device {device}"
        raise UsageError(f"--processes {processes} with {asked}: --gpu 0,1 starts a process for each GPU, --processes for CPUs")
    if is_started_as_rank():
        if processes and int(os.environ["WORLD_SIZE"]) != processes and LAUNCH not in os.environ:
            raise UsageError(f"--processes {processes}: torchrun has started {os.environ['WORLD_SIZE']}; leave it out")
        return 1
    if gpu == "all":
        import torch

        if not (count := torch.cuda.device_count()):
            raise EnvironmentProblem("--gpu all: no CUDA GPU found; --processes N starts several on the CPU")
        return count
    return processes or named or 1


def launch(number: int, arguments: Sequence[str]) -> int:
    """Run `fruitgan ARGUMENTS` in so many processes, again from the last checkpoint where one dies; the exit code.

    Raises:
        FruitganError: one died too often.
        Stopped: by a signal, before there was anything to stop politely.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # the agent's own store would listen everywhere
    with tempfile.TemporaryDirectory(prefix="fruitgan-") as scratch:
        folder = Path(scratch)
        os.environ[LAUNCH] = scratch
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=number,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=str(folder / "rendezvous"),
            rdzv_configs={"store_type": "file"},
            local_addr="127.0.0.1",
            max_restarts=RESTARTS,
            logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")),
            signals_to_handle="SIGQUIT",  # the others are handed on
        )
        logging.disable(logging.CRITICAL)  # torchrun tells of signals and deaths in its own words
        lost = ""
        try:
            with handled(functools.partial(_handed_on, folder)):
                elastic_launch(config, sys.executable)("-m", "fruitgan", *arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            code = failure.exitcode
            lost = f"process {rank} ended with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
        finally:
            del os.environ[LAUNCH]
        if (folder / OUTCOME).exists():
            return int((folder / OUTCOME).read_text())
        raise FruitganError(f"{lost or 'the processes ended'}, {RESTARTS + 1} times; go on with --resume")


def _handed_on(folder: Path, number: int, frame: FrameType | None) -> None:
    """Give what this process is told to the first of those that it started, by which all stop at the same step."""
    try:
        os.kill(int((folder / LEADER).read_text()), number)
    except (OSError, ValueError):  # not yet, or no longer there
        name = signal.Signals(number).name
        raise Stopped("stopped before the first step; nothing was changed", EXIT_CODES[name]) from None


def begun_by_launch() -> None:
    """In a process that `launch` started: say who it is, and leave at once where all is over."""
    folder = Path(os.environ[LAUNCH])
    if (folder / OUTCOME).exists():
        sys.exit(0)
    if sys.platform == "linux":  # save and stop where the one that started this is killed, rather than stay behind
        ctypes.CDLL(None).prctl(SET_SIGNAL_OF_PARENTS_DEATH, signal.SIGTERM)
    if os.environ["RANK"] == "0":
        (folder / LEADER).write_text(str(os.getpid()))


def left_by_launch(code: int, error: BaseException | None) -> int:
    """In a process that `launch` started: keep the exit code for it; what torchrun gets is 1 where a new start may help."""
    if isinstance(error, RankLost):
        return 1
    if ranks().is_first or code:
        Path(os.environ[LAUNCH], OUTCOME).write_text(str(code))
    return 0
