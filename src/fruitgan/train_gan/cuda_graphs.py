"""A step's work on the device, repeated without being launched anew: CUDA graphs, where there is a GPU that has them.

At small batches a step is hundreds of short kernels, and launching them takes longer than running them. What is captured reads
its inputs from, and leaves its results in, tensors that stay in their places; what changes with the step is filled in before.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch

from fruitgan.errors import reason_of

WARM_UP_STEPS = 3
"""Steps of a variant that run as they are before it is captured: kernels are chosen and memory is laid out in them."""

Variant = frozenset[str]


class CudaGraphs:
    """torch.cuda.CUDAGraph; all graphs share their memory, since they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        torch.cuda.set_device(device)  # recording waits for the current one, which would be the first
        self.device = device
        self._stream = cast(Any, torch.cuda.Stream)(device)  # typed in some versions of torch alone
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work as it is."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        # Not on the default stream: autograd remembers the stream of its first accumulation.
        with torch.cuda.stream(self._stream), _fastest_kernels():
            work()
        current.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work without doing it; what is returned does it.

        Raises:
            RuntimeError: the work waits for the device, or does something else that cannot be recorded.
        """
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self.device)
        try:
            with (
                _fastest_kernels(),
                # thread_local: what another thread does on the GPU meanwhile is no reason to fail.
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                work()
        finally:
            torch.cuda.set_stream(current)  # torch does not come back from a recording that failed
        return graph.replay

    def release(self, recorded: dict[Variant, Callable[[], None]]) -> None:
        """Empty `recorded` when nothing of it runs any more, and give its memory back."""
        torch.cuda.synchronize(self.device)  # a graph that still runs must not be destroyed
        recorded.clear()
        self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.empty_cache()


@contextlib.contextmanager
def _fastest_kernels() -> Iterator[None]:
    """In here cuDNN tries its kernels out when it meets a shape for the first time."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class StepRunner:
    """Does the work of a step in a variant: as it is, or with graphs a few times as it is and from then on repeated.

    Args:
        recover: called with the reason after a failed recording, which may have left half a step in Python objects.
    """

    def __init__(self, work: Callable[[Variant], None], capture: CudaGraphs | None, recover: Callable[[str], None]) -> None:
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
        capture = self._capture
        if capture is None:
            self._as_it_is(variant)
        elif self._warm[variant] < WARM_UP_STEPS:
            if self._recorded and not self._warm[variant]:
                capture.release(self._recorded)  # another variant's memory beside this one's as it is may be too much
            self._warm[variant] += 1
            capture.warm_up(lambda: self._work(variant))
        elif variant in self._recorded or self._record(capture, variant):
            self._recorded[variant]()
        else:
            self._as_it_is(variant)

    def _as_it_is(self, variant: Variant) -> None:
        with _fastest_kernels():
            self._work(variant)

    def _record(self, capture: CudaGraphs, variant: Variant) -> bool:
        """Whether it could be recorded; if not, none is from here on."""
        try:
            self._recorded[variant] = capture.capture(lambda: self._work(variant))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._capture = None
            self._recover(reason_of(error.__context__ or error))  # torch says last only that a recording failed
        return variant in self._recorded

    def forget(self) -> None:
        """Record anew from here on: tensors were put into other places."""
        self._warm.clear()
        if self._capture is not None and self._recorded:
            self._capture.release(self._recorded)
