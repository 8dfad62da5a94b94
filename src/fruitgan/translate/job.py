"""Images through a bundle's generator, each into a file of its own: settings, job and result."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from fruitgan.bundle import DEFAULT_SHIPPED, RUNS, Bundle, Card, load, locate, weights_sha256
from fruitgan.data.decode import NotAnImage, decode_frames
from fruitgan.data.finder import Found, Remark, bare_reason
from fruitgan.data.parallel import Shard, in_order
from fruitgan.data.preprocessing import parse_value_range
from fruitgan.engines.contracts import Engine, Precision, worker_count
from fruitgan.engines.onnx_engine import AUTO, check_engine, open_engine
from fruitgan.engines.padding import translate_pixels
from fruitgan.errors import DataError, FruitganError, UsageError, reason_of
from fruitgan.files import NotAFile, check_writable, write_atomically
from fruitgan.progress import Note, OnProgress, Progress
from fruitgan.registry import suggestion
from fruitgan.settings import to_json
from fruitgan.translate.pictures import TRAINED_AGAINST, Format, Kept, blended, contact_sheet, encode, lacks, restored, unit_of
from fruitgan.translate.plan import STREAM, Task, make_plan, place_of_sheet, without_results

LARGEST_SCALE_PX = 8192
SHEET_PAIRS = 40
"""On a contact sheet; of more results those at even distances."""
FEW_STEPS = 1000
"""A training with fewer is warned of."""
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
    strength: float = 1.0
    """From 0 to 1: how much of the generator's change a result has."""
    compare: bool = False
    """Whether the source stands on the left of the result."""
    contact_sheet: bool = False
    """Whether a page of sources and results is written beside the results."""
    frames: Literal["first", "all"] = "first"
    """Of animations and stacks of pages; all of them go into the container that they came in."""
    keep_metadata: Kept = "basic"
    value_range: str | None = None
    """LOW,HIGH: the values of deep grey pictures that are black and white to the generator; None, or auto: the bundle's."""
    engine: str = AUTO
    """A registered name, or `auto` for the fastest."""
    gpu: str | None = None
    device: str | None = None
    precision: Precision = "auto"
    shard: Shard | None = None
    """The part of the images that is translated here; None is all of them."""
    runs: Path = RUNS

    def __post_init__(self) -> None:
        if not self.sources:
            raise UsageError("nothing to translate: give files, folders, or - for standard input")
        if STREAM in self.sources and len(self.sources) > 1:
            raise UsageError("- is standard input and holds one image; give it alone")
        if self.contact_sheet and self.shard is not None:
            raise UsageError("--contact-sheet shows all pictures: ask for it once more without --shard, when all jobs are done")
        if not 0 <= self.strength <= 1:
            raise UsageError(f"--strength {self.strength:g}: expected a number from 0, the source, to 1, all of the change")
        is_number = self.scale.isascii() and self.scale.isdigit() and len(self.scale) <= len(str(LARGEST_SCALE_PX))
        if self.scale not in ("auto", "native") and not (is_number and 1 <= int(self.scale) <= LARGEST_SCALE_PX):
            raise UsageError(f"--scale {self.scale}: expected auto, native, or a number of pixels from 1 to {LARGEST_SCALE_PX}")

    @property
    def scale_px(self) -> str | int:
        return int(self.scale) if self.scale.isdigit() else self.scale


@dataclass(frozen=True, kw_only=True)
class TranslateResult:
    """What became of every image; each is in exactly one of the lists `skipped`, `failed` and `outputs`."""

    bundle: str
    """The file of the generator."""
    direction: str
    step: int
    """How many steps the generator was trained."""
    translated: int
    """How many were made now; `outputs` also holds those that were there already."""
    skipped: tuple[Remark, ...]
    failed: tuple[Remark, ...]
    outputs: tuple[str, ...]
    contact_sheet: str | None
    """The page of sources and results, where it was asked for and there is a result."""
    notes: tuple[Remark, ...]
    """What single results lack: frames, values, bits."""
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
    check_engine(settings.engine)  # an unknown name is refused even where nothing is left to do
    planned, found = make_plan(settings, stdin)
    path = locate(settings.bundle, settings.runs)
    bundle = load(path)
    if (values := parse_value_range(settings.value_range)) is not None:
        bundle = replace(bundle, card=replace(bundle.card, value_range=values))
    card = bundle.card
    direction = choose_direction(card, settings.to, settings.direction)
    mark = _mark(settings, bundle, direction)
    tasks = without_results(planned, mark, settings.overwrite)
    sheet = place_of_sheet(planned, settings.overwrite) if settings.contact_sheet else None
    check_writable(*{task.output.parent for task in tasks if task.output is not None})
    done: dict[Task, FruitganError | None] = {}
    name = None
    notes: dict[Task, list[str]] = {}
    if tasks:
        machine = {"gpu": settings.gpu, "device": settings.device, "precision": settings.precision}
        weights, scale = bundle.weights[direction], settings.scale_px
        name, engine = open_engine(settings.engine, card.generator, weights, len(tasks), scale=scale, tell=tell, **machine)
        tell(Note(f"{card.name} ({path}) to {card.target(direction)}, {direction}, trained for {card.steps:,} steps"))
        if card.resolved_recipe is not None and card.steps < FEW_STEPS:
            other = "" if settings.bundle else f"; --bundle {DEFAULT_SHIPPED} takes the one that ships"
            tell(Note(f"{card.name} was trained for {card.steps:,} steps: expect little of it{other}", is_warning=True))
        pipeline = _Pipeline(engine, card, settings, mark, stdout, notes)
        with closing(pipeline.results(tasks)) as results:
            for task, error in results:
                done[task] = error
                details = {"path": task.source_name, "reason": None if error is None else bare_reason(error)}
                if tell(Progress("translating", len(done), len(tasks), details)):
                    break
    used = {"bundle": str(path), "direction": direction, "step": card.steps, "engine": name}
    noted = tuple(Remark(task.source_name, text) for task in done for text in notes.get(task, ()))
    undone = set(tasks) - done.keys()
    there = [task for task in planned if task not in undone and done.get(task) is None]
    if sheet is not None and there:
        places = np.linspace(0, len(there) - 1, min(len(there), SHEET_PAIRS)).round().astype(int)
        shown = [there[place] for place in places]
        write_atomically(sheet, contact_sheet([(task.read(), task.output) for task in shown if task.output is not None], mark))
        tell(Note(f"{sheet}: {len(shown)} of {len(there)} sources with their results"))
    page = str(sheet) if sheet is not None and there else None
    return _result(settings, found, there, done, time.monotonic() - begin, notes=noted, contact_sheet=page, **used)


def _result(
    settings: TranslateSettings,
    found: Found,
    there: Sequence[Task],
    done: Mapping[Task, FruitganError | None],
    seconds: float,
    **used: Any,
) -> TranslateResult:
    skipped, failed, codes = [*found.skipped], [*found.failed], set()
    lost = {task: error for task, error in done.items() if error is not None}
    for task, error in lost.items():
        is_image = not isinstance(error, NotAnImage)
        (failed if is_image else skipped).append(Remark(task.source_name, bare_reason(error)))
        codes |= {error.exit_code} if is_image else set()
    exit_code = 0
    if failed or not (there or settings.shard):  # a part may be empty
        exit_code = FruitganError.exit_code if codes == {FruitganError.exit_code} and not found.failed else DataError.exit_code
    return TranslateResult(
        translated=len(done) - len(lost),
        skipped=tuple(skipped),
        failed=tuple(failed),
        outputs=tuple(task.output_name for task in there),
        seconds=round(seconds, 3),
        images_per_second=round((len(done) - len(lost)) / seconds, 3),
        exit_code=exit_code,
        **used,
    )


@dataclass(frozen=True)
class _Pipeline:
    """One generator and what all images of a run share: each is read, translated, encoded and written by one worker.

    Where the engine is concurrent, each call of it gets a part of the cores, which keeps them busier than one call on all of
    them; else the calls queue, and meanwhile the other workers decode and encode.
    """

    engine: Engine
    card: Card
    settings: TranslateSettings
    mark: Mapping[str, Any]
    stdout: BinaryIO | None
    notes: dict[Task, list[str]]
    """What results lack is noted here."""

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
            file = self._file(task, task.read())
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

    def _file(self, task: Task, data: bytes) -> bytes:
        is_all, notes = self.settings.frames == "all", self.notes.setdefault(task, [])
        frames: list[Any] = []
        told: list[Mapping[str, Any]] = []
        with closing(decode_frames(data, background=None)) as sources:
            for source in sources:
                unit = unit_of(source, self.card)
                made = translate_pixels(self.engine, self.card, unit, self.settings.scale_px)
                made = blended(unit, made, self.settings.strength)
                if self.settings.compare:
                    made = np.concatenate([unit, made], axis=1)
                    doubled = None if source.alpha is None else np.concatenate([source.alpha] * 2, axis=1)
                    source = replace(source, alpha=doubled)
                frames.append(restored(made, source, self.card, task.form))
                told.append(source.about)
                notes += (note for note in lacks(source, frames[-1], self.card, task.form, is_all) if note not in notes)
                if not is_all:
                    break
        about = {**told[0], "duration": [each.get("duration", 0) for each in told]}
        mark = {**self.mark, "format": task.form, "source": hashlib.sha256(data).hexdigest()}
        return encode(frames, task.form, mark, about, self.settings.keep_metadata)


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


def _mark(settings: TranslateSettings, bundle: Bundle, direction: str) -> dict[str, Any]:
    """What makes a result: all that changes how it looks, but not where and how fast the same is computed."""
    card = bundle.card
    strength = {} if settings.strength == 1 else {"strength": settings.strength}  # as results had it before there was a choice
    sizes = [card.image_size_px, card.size_minimum_px, card.size_multiple_px]
    made_of = [weights_sha256(bundle), card.generator.name, to_json(card.generator.options), sizes]
    return {
        "bundle": hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest(),
        "direction": direction,
        "scale": settings.scale,
        **strength,
        "compare": settings.compare,
        "frames": settings.frames,
        "metadata": settings.keep_metadata,
        "value_range": to_json(card.value_range),
        "background": card.background,
        TRAINED_AGAINST: None if card.trained_against is None else list(card.trained_against),
    }
