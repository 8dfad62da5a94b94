"""A step's work on the device, repeated without being launched anew: CUDA graphs, where there is a GPU that has them.

At small batches a step is hundreds of short kernels, and launching them takes longer than running them. What is captured reads
its inputs from, and leaves its results in, tensors that stay in their places; what changes with the step is filled in before.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch

WARM_UP_STEPS = 3
"""Steps of a variant that run as they are before it is captured: kernels are chosen and memory is laid out in them."""

Variant = frozenset[str]
Work = Callable[[Variant], None]


class Capture(Protocol):
    """What makes work repeatable."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work as it is."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work without doing it; what is returned does it.

        Raises:
            RuntimeError: the work waits for the device, or does something else that cannot be recorded.
        """


class CudaGraphs:
    """torch.cuda.CUDAGraph; all graphs share their memory, since they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = cast(Any, torch.cuda.Stream)(device)  # typed in some versions of torch alone
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], None]) -> None:
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):  # not on the default one: autograd remembers the stream of its first accumulation
            work()
        current.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # thread_local: what another thread does on the GPU meanwhile is no reason to fail.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


class StepRunner:
    """Does the work of a step in a variant: as it is, or with a `Capture` a few times as it is and from then on repeated.

    Args:
        recover: called after a failed recording, which may have left half a step in Python objects.
    """

    def __init__(self, work: Work, capture: Capture | None, recover: Callable[[], None]) -> None:
        self.note: str | None = None
        """Why nothing is captured although it was to be; one sentence."""
        self._work = work
        self._capture = capture
        self._recover = recover
        self._warm: collections.Counter[Variant] = collections.Counter()
        self._recorded: dict[Variant, Callable[[], None]] = {}

    @property
    def keeps_inputs_in_place(self) -> bool:
        """Whether the work's inputs must stay in the same tensors."""
        return self._capture is not None

    def __call__(self, variant: Variant) -> None:
        if self._capture is None:
            self._work(variant)
        elif self._warm[variant] < WARM_UP_STEPS:
            self._warm[variant] += 1
            self._capture.warm_up(lambda: self._work(variant))
        else:
            if variant not in self._recorded and not self._record(self._capture, variant):
                self._work(variant)
                return
            self._recorded[variant]()

    def _record(self, capture: Capture, variant: Variant) -> bool:
        try:
            self._recorded[variant] = capture.capture(lambda: self._work(variant))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._capture = None
            self._recover()
            reason = str(error).splitlines()[0]
            self.note = f"training without CUDA graphs, more slowly: this step cannot be captured ({reason})"
            return False
        return True

    def forget(self) -> None:
        """Record anew from here on: tensors were put into other places."""
        self._warm.clear()
        self._recorded.clear()
