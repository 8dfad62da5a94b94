"""Out of memory, in one line that says what takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from fruitgan.errors import FruitganError, is_out_of_memory
from fruitgan.train_gan.assemble import Plan


class OutOfMemory(FruitganError):
    """A step takes more memory than there is."""


@contextmanager
def memory_told(plan: Plan, device: torch.device, saved_step: Callable[[], int]) -> Iterator[None]:
    """Say what takes the memory, whoever runs out of it inside; `saved_step` gives that of the newest checkpoint, or 0.

    Raises:
        OutOfMemory: naming batch size, image size and precision with their values.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        step = saved_step()
        kept = (
            f"the checkpoint of step {step} stays, and --resume goes on from it where there is more"
            if step
            else "nothing was saved yet"
        )
        raise OutOfMemory(
            f"out of memory on {device} with --batch-size {plan.recipe.batch_size}, --image-size {plan.recipe.image_size_px} "
            f"and --precision {plan.precision}: a new run with one of them lower (bf16 takes less than fp32) needs less; {kept}"
        ) from error
