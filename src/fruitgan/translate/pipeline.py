"""Many pictures through one generator: reading, decoding, generating, encoding and writing overlapped, in bounded memory.

Several workers each take a few pictures all the way. Where the engine is concurrent, each call of it gets a part of the cores,
which keeps them busier than one call on all of them; else the calls queue, and meanwhile the other workers decode and encode.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fruitgan.bundle import Card
from fruitgan.data.decode import NotAnImage, decode
from fruitgan.engines.contracts import Engine
from fruitgan.engines.padding import Canvas, lay_out
from fruitgan.errors import DataError, FruitganError, reason_of
from fruitgan.files import NotAFile, write_atomically
from fruitgan.images import Pixels
from fruitgan.machine import cores
from fruitgan.translate.picture_marks import Format, encode
from fruitgan.translate.plan import Task

UNNAMEABLE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
"""How a file system says that it is just this name that it does not take."""
FEW_PICTURES = 12
"""Fewer than these go one after the other, each with all cores: threads would not make good what they cost."""
MOST_WORKERS = 8
BATCH_PICTURES = 4
"""How many of one size the generator gets together. A UNet's weights are then read once for all; memory forbids many."""
BATCH_PIXELS = BATCH_PICTURES * 256 * 256
LARGE_PIXELS = 1 << 22
"""A picture of more than these is not held together with others."""


def worker_count(pictures: int) -> int:
    """How many pictures are worked on at the same time."""
    return 1 if pictures < FEW_PICTURES else min(cores(), MOST_WORKERS)


def threads_of_a_call(pictures: int) -> int | None:
    """How many threads a call of a concurrent engine may take; None is all."""
    workers = worker_count(pictures)
    return None if workers == 1 else max(1, cores() // workers)


@dataclass(frozen=True)
class _Picture:
    """A picture on its way."""

    place: int
    """Which of the tasks it is."""
    sha256: str
    canvas: Canvas
    alpha: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Job:
    """What all pictures of a run share."""

    engine: Engine
    """One that several threads may call."""
    card: Card
    scale: str | int
    compare: bool
    form: Format
    mark: Mapping[str, Any]
    stdout: BinaryIO | None
    stopping: threading.Event = field(default_factory=threading.Event)

    def attempt(self, tasks: Sequence[Task]) -> list[FruitganError | None]:
        """Make some results, pictures of one size together; for each what kept it from being made, if that lies with it.

        Raises:
            FruitganError: one cannot be written, and neither could any other.
        """
        errors: list[FruitganError | None] = [None] * len(tasks)
        held: list[_Picture] = []
        for place, task in enumerate(tasks):
            read = self._read(place, task)
            if isinstance(read, FruitganError):
                errors[place] = read
                continue
            held.append(read)
            if sum(picture.canvas.original.size for picture in held) > 3 * LARGE_PIXELS:
                self._make(held, tasks, errors)
                held = []
        self._make(held, tasks, errors)
        return errors

    def _read(self, place: int, task: Task) -> _Picture | FruitganError:
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
        return _Picture(place, hashlib.sha256(data).hexdigest(), canvas, source.alpha)

    def _make(self, held: Sequence[_Picture], tasks: Sequence[Task], errors: list[FruitganError | None]) -> None:
        for batch in _of_one_size(held):
            if self.stopping.is_set():
                return
            for picture, made in zip(batch, self._generate(batch), strict=True):
                errors[picture.place] = (
                    made if isinstance(made, FruitganError) else self._write(tasks[picture.place], picture, made)
                )

    def _generate(self, batch: Sequence[_Picture]) -> Sequence[Pixels | FruitganError]:
        """The generator's picture for each; where a batch fails, each is tried alone, so that the others do not suffer."""
        try:
            return list(self.engine.translate(np.stack([picture.canvas.padded for picture in batch])))
        except FruitganError as error:
            failed = error
        except MemoryError:
            failed = _too_large()
        if len(batch) == 1:
            return [failed]
        return [made for picture in batch for made in self._generate([picture])]

    def _write(self, task: Task, picture: _Picture, made: Pixels) -> FruitganError | None:
        try:
            file = self._file(picture, made)
        except FruitganError as error:
            return error
        except MemoryError:
            return _too_large()
        if task.output is None:
            assert self.stdout is not None
            self.stdout.write(file)
            self.stdout.flush()
            return None
        try:
            write_atomically(task.output, file)
        except FruitganError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in UNNAMEABLE:
                return DataError(str(error))
            raise
        return None

    def _file(self, picture: _Picture, made: Pixels) -> bytes:
        """The bytes of the result."""
        pixels, alpha = picture.canvas.finished(made), picture.alpha
        if self.compare:
            pixels = np.concatenate([picture.canvas.original, pixels], axis=1)
            alpha = None if alpha is None else np.concatenate([alpha, alpha], axis=1)
        return encode(pixels, alpha, self.form, {**self.mark, "source": picture.sha256})


def _too_large() -> FruitganError:
    return FruitganError("not enough memory for a picture of this size")


def _of_one_size(held: Sequence[_Picture]) -> Iterator[list[_Picture]]:
    """Batches of equal canvases, none with more pictures or pixels than the constants say."""
    groups: dict[tuple[int, ...], list[_Picture]] = {}
    for picture in held:
        groups.setdefault(picture.canvas.padded.shape, []).append(picture)
    for (height, width, _), pictures in groups.items():
        count = max(1, min(BATCH_PICTURES, BATCH_PIXELS // (height * width)))
        for start in range(0, len(pictures), count):
            yield pictures[start : start + count]


def carry_out(job: Job, tasks: Sequence[Task]) -> Generator[tuple[Task, FruitganError | None]]:
    """Each task with what kept its result from being made, in their order, as they are done.

    Who stops iterating stops the work: what is begun is written whole or not at all.

    Raises:
        FruitganError: as `Job.attempt`.
    """
    workers = worker_count(len(tasks))
    if workers == 1:
        for task in tasks:
            yield task, job.attempt([task])[0]
        return
    size = max(1, min(BATCH_PICTURES, len(tasks) // (2 * workers)))
    chunks = (tasks[start : start + size] for start in range(0, len(tasks), size))
    waiting: deque[tuple[Sequence[Task], Future[list[FruitganError | None]]]] = deque()
    # One more than there are cores where calls of the engine queue: one generates, and the others are not idle.
    with ThreadPoolExecutor(workers + (not job.engine.concurrent), "translate") as pool:
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(job.attempt, chunk)))
                if len(waiting) > 2 * workers:
                    yield from _done(*waiting.popleft())
            while waiting:
                yield from _done(*waiting.popleft())
        finally:
            job.stopping.set()
            for _, future in waiting:
                future.cancel()


def _done(chunk: Sequence[Task], future: Future[list[FruitganError | None]]) -> Iterator[tuple[Task, FruitganError | None]]:
    yield from zip(chunk, future.result(), strict=True)
