"""What is done for one picture, wherever that is: read, decoded, translated, encoded, and written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from fruitgan.addresses import place_of, write_whole
from fruitgan.bundle import Card
from fruitgan.data.decode import NotAnImage, decode_frames
from fruitgan.data.finder import Remark, bare_reason, reason_no_image
from fruitgan.data.remote import Member, is_shard, packed, samples
from fruitgan.engines.contracts import Engine, Weights, engines, worker_count
from fruitgan.engines.padding import translate_pixels
from fruitgan.errors import DataError, FruitganError, reason_of
from fruitgan.files import NotAFile
from fruitgan.parallel import in_order
from fruitgan.settings import to_json
from fruitgan.translate.pictures import Format, blended, encode, lacks, restored, unit_of
from fruitgan.translate.plan import Task, kept_mark

if TYPE_CHECKING:
    from fruitgan.translate.job import TranslateSettings

UNNAMEABLE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
"""How a file system says that it is just this name that it does not take."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a task: of one picture, or of all in a shard."""

    made: int = 0
    """How many pictures were translated now."""
    is_there: bool = True
    """Whether the result is, made now or before."""
    skipped: tuple[Remark, ...] = ()
    failed: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()
    """What results lack."""
    exit_code: int = 0
    """Of what failed."""

    @classmethod
    def of_error(cls, name: str, error: FruitganError) -> Outcome:
        remark = (Remark(name, bare_reason(error)),)
        if isinstance(error, NotAnImage):
            return cls(is_there=False, skipped=remark)
        return cls(is_there=False, failed=remark, exit_code=error.exit_code)


@dataclass(frozen=True)
class Pipeline:
    """One generator and what all images of a run share: each is read, translated, encoded and written by one worker.

    Where the engine is concurrent, each call of it gets a part of the cores, which keeps them busier than one call on all of
    them; else the calls queue, and meanwhile the other workers decode and encode.
    """

    engine: Engine
    card: Card
    settings: TranslateSettings
    mark: Mapping[str, Any]
    stdout: BinaryIO | None = None

    def results(self, tasks: Sequence[Task]) -> Generator[tuple[Task, Outcome]]:
        """Each task with what became of it, in their order, as they are done.

        Who stops iterating stops the work: what is begun is written whole or not at all.

        Raises:
            FruitganError: as `attempt`.
        """
        workers = worker_count(len(tasks))
        if workers > 1:
            # One more than there are cores where calls of the engine queue: one generates, and the others are not idle.
            yield from in_order(self.attempt, tasks, workers + (not self.engine.concurrent))
        else:
            yield from ((task, self.attempt(task)) for task in tasks)

    def attempt(self, task: Task) -> Outcome:
        """Make one result, if it is not there; what the outcome calls failed lies with this image alone.

        Raises:
            UsageError: something else is in the place of the result.
            FruitganError: it cannot be written, and neither could any other.
        """
        if task.is_there:
            failed = _failed_of(task, kept_mark(task, self.mark).get("failed", {}))
            return Outcome(failed=failed, exit_code=DataError.exit_code if failed else 0)
        try:
            data = task.read()
            file, outcome = self._shard(task, data) if is_shard(task.path) else self._picture(task.source_name, data, task.form)
        except NotAFile as error:
            return Outcome.of_error(task.source_name, NotAnImage(str(error)))
        except (FruitganError, OSError, MemoryError) as error:
            return Outcome.of_error(task.source_name, _as_ours(error))
        if task.output is None:
            assert self.stdout is not None
            self.stdout.write(file)
            self.stdout.flush()
            return outcome
        try:
            write_whole(task.output, file)
        except FruitganError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in UNNAMEABLE:
                return Outcome.of_error(task.source_name, DataError(str(error)))
            raise
        return outcome

    def _shard(self, task: Task, data: bytes) -> tuple[bytes, Outcome]:
        """A shard of the same samples with their pictures translated; a sample whose picture fails is left out."""
        made: list[Member] = []
        notes: list[Remark] = []
        lost: dict[str, str] = {}
        names: set[str] = set()
        pictures = exit_code = 0
        for sample in samples(data):
            results: list[Member] = []
            told: list[Outcome] = []
            for name, content in sample:
                if reason_no_image(content):  # what belongs to a picture stays with it: a label, a caption
                    results.append((name, content))
                    continue
                new_name = str(PurePosixPath(name).with_suffix(f".{task.form}"))
                new_name = f"{name}.{task.form}" if new_name in names else new_name
                names.add(new_name)
                try:
                    file, outcome = self._picture(f"{task.source_name}/{name}", content, task.form)
                except (FruitganError, MemoryError) as raised:
                    error = _as_ours(raised)
                    lost[name], exit_code = bare_reason(error), max(exit_code, error.exit_code)
                    break
                results.append((new_name, file))
                told.append(outcome)
            else:
                made += results
                notes += (note for outcome in told for note in outcome.notes)
                pictures += len(told)
        file = packed(made, {**self._mark_of(data, task.form), "failed": lost})
        return file, Outcome(made=pictures, failed=_failed_of(task, lost), notes=tuple(notes), exit_code=exit_code)

    def _picture(self, name: str, data: bytes, form: Format) -> tuple[bytes, Outcome]:
        """The file of a result. Raises: FruitganError."""
        is_all = self.settings.frames == "all"
        notes: list[str] = []
        frames: list[Any] = []
        told: list[Mapping[str, Any]] = []
        with closing(decode_frames(data, background=None, still=not is_all)) as sources:
            for source in sources:
                unit = unit_of(source, self.card)
                made = translate_pixels(self.engine, self.card, unit, self.settings.scale_px)
                made = blended(unit, made, self.settings.strength)
                if self.settings.compare:
                    made = np.concatenate([unit, made], axis=1)
                    doubled = None if source.alpha is None else np.concatenate([source.alpha] * 2, axis=1)
                    source = replace(source, alpha=doubled)
                frames.append(restored(made, source, self.card, form))
                told.append(source.about)
                notes += (note for note in lacks(source, frames[-1], self.card, form, is_all) if note not in notes)
                if not is_all:
                    break
        about = {**told[0], "duration": [each.get("duration", 0) for each in told]}
        file = encode(frames, form, self._mark_of(data, form), about, self.settings.keep_metadata)
        return file, Outcome(made=1, notes=tuple(Remark(name, note) for note in notes))

    def _mark_of(self, data: bytes, form: Format) -> dict[str, Any]:
        return {**self.mark, "format": form, "source": hashlib.sha256(data).hexdigest()}


def _failed_of(task: Task, lost: Mapping[str, str]) -> tuple[Remark, ...]:
    """Of the files of a shard, by their names."""
    return tuple(Remark(f"{task.source_name}/{name}", reason) for name, reason in lost.items())


def row_of(task: Task) -> list[Any]:
    """A task as it goes to an actor."""
    return [task.source_name, task.output_name, task.form, task.is_there]


def built(
    engine: str, card: Card, weights: Weights, settings: TranslateSettings, mark: Mapping[str, Any], device: str
) -> Callable[[list[Any]], Any]:
    """What an actor does for each row: the pipeline's `attempt`, with an engine of one thread or one GPU."""
    asked: dict[str, Any] = {"gpu": device, "precision": settings.precision, "threads": 1}
    pipeline = Pipeline(engines.get(engine)(generator=card.generator, weights=weights, **asked), card, settings, mark)

    def attempt(row: list[Any]) -> Any:
        source, output, form, is_there = row
        return to_json(pipeline.attempt(Task(place_of(source), place_of(output), form, is_there=is_there)))

    return attempt


def given_up(row: list[Any]) -> Any:
    """What became of a row that killed each actor that had it."""
    error = DataError("each process that worked on it died: it needs more memory than there is, or a decoder crashes on it")
    return to_json(Outcome.of_error(row[0], error))


def _as_ours(error: Exception) -> FruitganError:
    if isinstance(error, FruitganError):
        return error
    if isinstance(error, MemoryError):
        return FruitganError("not enough memory for an image of this size")
    return DataError(f"cannot be read ({reason_of(error)})")
