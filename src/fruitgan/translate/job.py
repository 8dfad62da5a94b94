"""Images through a bundle's generator, each into a file of its own: settings, job and result."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Generator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from fruitgan.bundle import RUNS, Bundle, Card, load, locate, weights_sha256
from fruitgan.data.decode import NotAnImage, decode
from fruitgan.data.finder import Remark, bare_reason
from fruitgan.data.parallel import in_order
from fruitgan.engines.contracts import Engine, Precision, worker_count
from fruitgan.engines.onnx_engine import AUTO, check_engine, open_engine
from fruitgan.engines.padding import translate_pixels
from fruitgan.errors import DataError, FruitganError, UsageError, reason_of
from fruitgan.files import NotAFile, write_atomically
from fruitgan.progress import OnProgress, Progress
from fruitgan.registry import suggestion
from fruitgan.settings import to_json
from fruitgan.translate.picture_files import TRAINED_AGAINST, Format, encode
from fruitgan.translate.plan import STREAM, Plan, Task, format_of, make_plan, without_results

LARGEST_SCALE_PX = 8192
UNNAMEABLE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL)
"""How a file system says that it is just this name that it does not take."""


@dataclass(frozen=True, kw_only=True)
class TranslateSettings:
    """What to translate, with what, and where to."""

    sources: tuple[str, ...]
    """Files, folders, glob patterns; or `-` alone, standard input."""
    bundle: str | None = None
    """A file, a run or a name; None for the newest run, else the bundle that ships."""
    to: str | None = None
    """The domain to arrive at; None leaves it to `direction`."""
    direction: Literal["a2b", "b2a"] | None = None
    """None is the bundle's first."""
    output: str | None = None
    """A file for one image, a folder, or `-`; None is the folder `translated`, and standard output for standard input."""
    format: Format | None = None
    """None is the output file's, else png."""
    scale: str = "auto"
    """`auto`, `native`, or the shorter side in px at which the generator sees the images."""
    recursive: bool = False
    overwrite: bool = False
    compare: bool = False
    """Whether the source stands on the left of the result."""
    engine: str = AUTO
    """A registered name, or `auto` for the fastest."""
    gpu: str | None = None
    device: str | None = None
    precision: Precision = "auto"
    runs: Path = RUNS

    def __post_init__(self) -> None:
        if not self.sources:
            raise UsageError("nothing to translate: give files, folders, or - for standard input")
        if STREAM in self.sources and len(self.sources) > 1:
            raise UsageError("- is standard input and holds one image; give it alone")
        is_number = self.scale.isascii() and self.scale.isdigit() and len(self.scale) <= len(str(LARGEST_SCALE_PX))
        if self.scale not in ("auto", "native") and not (is_number and 1 <= int(self.scale) <= LARGEST_SCALE_PX):
            raise UsageError(f"--scale {self.scale}: expected auto, native, or a number of pixels from 1 to {LARGEST_SCALE_PX}")

    @property
    def scale_px(self) -> str | int:
        return int(self.scale) if self.scale.isdigit() else self.scale


@dataclass(frozen=True, kw_only=True)
class TranslateResult:
    """What became of every image; each is in exactly one of the lists."""

    translated: int
    """How many were made now; `outputs` also holds those that were there already."""
    skipped: tuple[Remark, ...]
    failed: tuple[Remark, ...]
    outputs: tuple[str, ...]
    seconds: float
    images_per_second: float
    engine: str | None
    """What ran the generator; None where nothing was left to do."""
    exit_code: int
    """0, or 3 if an image failed or there was none, or 1 if images failed for want of memory alone."""

    def as_json(self) -> dict[str, Any]:
        values: dict[str, Any] = to_json(self)
        del values["exit_code"]
        return values


def translate(
    settings: TranslateSettings,
    on_progress: OnProgress | None = None,
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> TranslateResult:
    """Translate every image; what cannot be is told in the result and stops none of the others.

    A result that is there already, made from the same image by the same bundle and options, is left as it is. Results are
    whole or absent, so that a run which was killed is finished by running it again. `stdin` and `stdout` are needed where the
    settings say `-`.

    Raises:
        UsageError: an unknown name or direction; a file of another origin is in a result's place and `overwrite` is off.
        DataError: no image at all, or what was given as the bundle is none.
        EnvironmentProblem: no such device, or a missing package.
        FruitganError: the results cannot be written.
    """
    begin = time.monotonic()
    tell = on_progress or (lambda event: None)
    form = format_of(settings.output, settings.format)
    check_engine(settings.engine)  # an unknown name is refused even where nothing is left to do
    plan = make_plan(settings.sources, settings.recursive, settings.output, form, stdin)
    bundle = load(locate(settings.bundle, settings.runs))
    direction = choose_direction(bundle.card, settings.to, settings.direction)
    mark = _mark(settings, bundle, direction, form)
    tasks = without_results(plan.tasks, mark, settings.overwrite)
    done: dict[Task, FruitganError | None] = {}
    name = None
    if tasks:
        name, engine = open_engine(
            settings.engine,
            bundle.card.generator,
            bundle.weights[direction],
            len(tasks),
            scale=settings.scale_px,
            tell=tell,
            gpu=settings.gpu,
            device=settings.device,
            precision=settings.precision,
        )
        pipeline = _Pipeline(engine, bundle.card, settings.scale_px, settings.compare, form, mark, stdout)
        with closing(pipeline.results(tasks)) as results:
            for task, error in results:
                done[task] = error
                details = {"path": task.source_name, "reason": None if error is None else bare_reason(error)}
                if tell(Progress("translating", len(done), len(tasks), details)):
                    break
    return _result(plan, set(tasks) - done.keys(), done, time.monotonic() - begin, name)


def _result(
    plan: Plan, undone: Set[Task], done: Mapping[Task, FruitganError | None], seconds: float, engine: str | None
) -> TranslateResult:
    lost = {task: error for task, error in done.items() if error is not None}
    outputs = tuple(task.output_name for task in plan.tasks if task not in undone and task not in lost)
    remarks = [(Remark(task.source_name, bare_reason(error)), error) for task, error in lost.items()]
    failed = [*plan.failed, *(remark for remark, error in remarks if not isinstance(error, NotAnImage))]
    codes = {error.exit_code for error in lost.values() if not isinstance(error, NotAnImage)}
    exit_code = 0
    if failed or not outputs:
        exit_code = FruitganError.exit_code if codes == {FruitganError.exit_code} and not plan.failed else DataError.exit_code
    return TranslateResult(
        translated=len(done) - len(lost),
        skipped=(*plan.skipped, *(remark for remark, error in remarks if isinstance(error, NotAnImage))),
        failed=tuple(failed),
        outputs=outputs,
        seconds=round(seconds, 3),
        images_per_second=round((len(done) - len(lost)) / seconds, 3),
        engine=engine,
        exit_code=exit_code,
    )


@dataclass(frozen=True)
class _Pipeline:
    """One generator and what all images of a run share: each is read, translated, encoded and written by one worker.

    Where the engine is concurrent, each call of it gets a part of the cores, which keeps them busier than one call on all of
    them; else the calls queue, and meanwhile the other workers decode and encode.
    """

    engine: Engine
    card: Card
    scale: str | int
    compare: bool
    form: Format
    mark: Mapping[str, Any]
    stdout: BinaryIO | None

    def results(self, tasks: Sequence[Task]) -> Generator[tuple[Task, FruitganError | None]]:
        """Each task with what kept its result from being made, in their order, as they are done.

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

    def attempt(self, task: Task) -> FruitganError | None:
        """Make one result; an error that is returned lies with this image alone.

        Raises:
            FruitganError: it cannot be written, and neither could any other.
        """
        try:
            file = self._file(task.read())
        except NotAFile as error:
            return NotAnImage(str(error))
        except FruitganError as error:
            return error
        except OSError as error:
            return DataError(f"cannot be read ({reason_of(error)})")
        except MemoryError:
            return FruitganError("not enough memory for an image of this size")
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

    def _file(self, data: bytes) -> bytes:
        source = decode(data, background=None)
        pixels, alpha = translate_pixels(self.engine, self.card, source.pixels, self.scale), source.alpha
        if self.compare:
            pixels = np.concatenate([source.pixels, pixels], axis=1)
            alpha = None if alpha is None else np.concatenate([alpha, alpha], axis=1)
        return encode(pixels, alpha, self.form, {**self.mark, "source": hashlib.sha256(data).hexdigest()})


def choose_direction(card: Card, to: str | None, direction: str | None) -> str:
    """`a2b` or `b2a`, from the domain to arrive at, or the direction, or neither.

    Raises:
        UsageError: the bundle has no such domain or direction, or the two contradict each other.
    """
    ways = {card.target(way): way for way in card.directions}
    if to is None:
        if direction is not None and direction not in card.directions:
            raise UsageError(f"--direction {direction}: the bundle {card.name} only has {' and '.join(card.directions)}")
        return direction or card.directions[0]
    if to not in card.domains:
        raise UsageError(f"--to {to}: no domain of the bundle {card.name}: {suggestion(to, card.domains)}")
    if to not in ways:
        raise UsageError(f"--to {to}: the bundle {card.name} only leads to {' and '.join(ways)}")
    if direction not in (None, ways[to]):
        raise UsageError(f"--to {to} is the direction {ways[to]}, not {direction}; give one of the two")
    return ways[to]


def _mark(settings: TranslateSettings, bundle: Bundle, direction: str, form: Format) -> dict[str, Any]:
    """What makes a result: all that changes how it looks, but not where and how fast the same is computed."""
    card = bundle.card
    sizes = [card.image_size_px, card.size_minimum_px, card.size_multiple_px]
    made_of = [weights_sha256(bundle), card.generator.name, to_json(card.generator.options), sizes]
    return {
        "bundle": hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest(),
        "direction": direction,
        "scale": settings.scale,
        "compare": settings.compare,
        "format": form,
        TRAINED_AGAINST: None if card.trained_against is None else list(card.trained_against),
    }
