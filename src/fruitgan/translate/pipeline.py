"""Many images through one generator: reading, decoding, generating, encoding and writing overlapped, in bounded memory.

Several workers each take a few images all the way. Where the engine is concurrent, each call of it gets a part of the cores,
which keeps them busier than one call on all of them; else the calls queue, and meanwhile the other workers decode and encode.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fruitgan.bundle import Card
from fruitgan.data.decode import NotAnImage, decode
from fruitgan.data.parallel import in_order
from fruitgan.engines.contracts import Engine
from fruitgan.engines.padding import Canvas, lay_out, translate_canvases
from fruitgan.errors import DataError, FruitganError, reason_of
from fruitgan.files import NotAFile, write_atomically
from fruitgan.images import Pixels
from fruitgan.machine import cores
from fruitgan.translate.picture_files import Format, encode
from fruitgan.translate.plan import Task

UNNAMEABLE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
"""How a file system says that it is just this name that it does not take."""
FEW_IMAGES = 12
"""Fewer than these go one after the other, each with all cores: threads would not make good what they cost."""
MOST_WORKERS = 8
BATCH_IMAGES = 4
"""How many of one size the generator gets together. A UNet's weights are then read once for all; memory forbids many."""
BATCH_PIXELS = BATCH_IMAGES * 256 * 256
LARGE_PIXELS = 1 << 22
"""An image of more than these is not held together with others."""


def worker_count(images: int) -> int:
    """How many images are worked on at the same time."""
    return 1 if images < FEW_IMAGES else min(cores(), MOST_WORKERS)


def threads_of_a_call(images: int) -> int | None:
    """How many threads a call of a concurrent engine may take; None is all."""
    workers = worker_count(images)
    return None if workers == 1 else max(1, cores() // workers)


@dataclass(frozen=True)
class _Image:
    """An image on its way."""

    task: Task
    sha256: str
    canvas: Canvas
    alpha: NDArray[np.uint8] | None


Errors = dict[Task, FruitganError | None]
"""Of tasks that are done: what kept the result from being made, if anything."""


@dataclass(frozen=True)
class Pipeline:
    """What all images of a run share."""

    engine: Engine
    """One that several threads may call."""
    card: Card
    scale: str | int
    compare: bool
    form: Format
    mark: Mapping[str, Any]
    stdout: BinaryIO | None
    stopping: threading.Event = field(default_factory=threading.Event)

    def attempt(self, tasks: Sequence[Task]) -> Errors:
        """Make some results, images of one size together; an error is here what lies with one image alone.

        Raises:
            FruitganError: one cannot be written, and neither could any other.
        """
        errors: Errors = {}
        held: list[_Image] = []
        for task in tasks:
            read = self._read(task)
            if isinstance(read, FruitganError):
                errors[task] = read
                continue
            held.append(read)
            if sum(image.canvas.original.size for image in held) > 3 * LARGE_PIXELS:
                errors |= self._make(held)
                held = []
        return errors | self._make(held)

    def _read(self, task: Task) -> _Image | FruitganError:
        try:
            data = task.read()
            source = decode(data)
            canvas = lay_out(source.pixels, self.card, self.scale)
        except NotAFile as error:
            return NotAnImage(str(error))
        except FruitganError as error:
            return error
        except OSError as error:
            return DataError(f"cannot be read ({reason_of(error)})")
        except MemoryError:
            return _too_large()
        return _Image(task, hashlib.sha256(data).hexdigest(), canvas, source.alpha)

    def _make(self, held: Sequence[_Image]) -> Errors:
        errors: Errors = {}
        for batch in _of_one_size(held):
            if self.stopping.is_set():
                break
            for image, made in zip(batch, self._generate(batch), strict=True):
                errors[image.task] = made if isinstance(made, FruitganError) else self._write(image, made)
        return errors

    def _generate(self, batch: Sequence[_Image]) -> Sequence[Pixels | FruitganError]:
        """The result of each; where a batch fails, each is tried alone, so that the others do not suffer."""
        try:
            return translate_canvases(self.engine, [image.canvas for image in batch])
        except FruitganError as error:
            failed = error
        except MemoryError:
            failed = _too_large()
        if len(batch) == 1:
            return [failed]
        return [made for image in batch for made in self._generate([image])]

    def _write(self, image: _Image, made: Pixels) -> FruitganError | None:
        try:
            alpha = image.alpha
            if self.compare:
                made = np.concatenate([image.canvas.original, made], axis=1)
                alpha = None if alpha is None else np.concatenate([alpha, alpha], axis=1)
            file = encode(made, alpha, self.form, {**self.mark, "source": image.sha256})
        except FruitganError as error:
            return error
        except MemoryError:
            return _too_large()
        if image.task.output is None:
            assert self.stdout is not None
            self.stdout.write(file)
            self.stdout.flush()
            return None
        try:
            write_atomically(image.task.output, file)
        except FruitganError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in UNNAMEABLE:
                return DataError(str(error))
            raise
        return None


def _too_large() -> FruitganError:
    return FruitganError("not enough memory for an image of this size")


def _of_one_size(held: Sequence[_Image]) -> Iterator[list[_Image]]:
    """Batches of equal canvases, none with more images or pixels than the constants say."""
    groups: dict[tuple[int, ...], list[_Image]] = {}
    for image in held:
        groups.setdefault(image.canvas.padded.shape, []).append(image)
    for (height, width, _), images in groups.items():
        count = max(1, min(BATCH_IMAGES, BATCH_PIXELS // (height * width)))
        for start in range(0, len(images), count):
            yield images[start : start + count]


def carry_out(pipeline: Pipeline, tasks: Sequence[Task]) -> Generator[tuple[Task, FruitganError | None]]:
    """Each task with what kept its result from being made, in their order, as they are done.

    Who stops iterating stops the work: what is begun is written whole or not at all.

    Raises:
        FruitganError: as `Pipeline.attempt`.
    """
    workers = worker_count(len(tasks))
    if workers == 1:
        for task in tasks:
            yield from pipeline.attempt([task]).items()
        return
    size = max(1, min(BATCH_IMAGES, len(tasks) // (2 * workers)))
    chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    # One more than there are cores where calls of the engine queue: one generates, and the others are not idle.
    with closing(in_order(pipeline.attempt, chunks, workers + (not pipeline.engine.concurrent))) as results:
        try:
            for chunk, errors in results:
                yield from ((task, errors[task]) for task in chunk)
        finally:
            pipeline.stopping.set()
