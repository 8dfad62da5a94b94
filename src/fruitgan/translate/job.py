"""Pictures through a bundle's generator, each to a file of its own."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from fruitgan.bundle import RUNS, Bundle, Card, load, locate, weights_sha256
from fruitgan.data.decode import NotAnImage
from fruitgan.engines.catalog import engines
from fruitgan.engines.choosing import AUTO, check_engine, choose_engine
from fruitgan.engines.contracts import Engine
from fruitgan.engines.queued import for_threads
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.registry import suggestion
from fruitgan.settings import to_json
from fruitgan.translate.picture_marks import FORMATS, TRAINED_AGAINST, Format
from fruitgan.translate.picture_sources import Remark, bare_reason
from fruitgan.translate.pipeline import Job, carry_out, threads_of_a_call
from fruitgan.translate.plan import STREAM, Plan, Task, format_of, plan_files, plan_stream, without_results
from fruitgan.translate.rounding import Rounding, measured_rounding

LARGEST_SCALE_PX = 8192


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
    """A file for one picture, a folder, or `-`; None is the folder `translated`, and standard output for standard input."""
    format: Format | None = None
    """None is the output file's, else png."""
    scale: str = "auto"
    """`auto`, `native`, or the shorter side in px at which the generator sees the pictures."""
    recursive: bool = False
    overwrite: bool = False
    compare: bool = False
    """Whether the source stands on the left of the result."""
    engine: str = AUTO
    """A registered name, or `auto` for the one that is through first."""
    gpu: str | None = None
    device: str | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    runs: Path = RUNS

    def __post_init__(self) -> None:
        if not self.sources:
            raise UsageError("nothing to translate: give files, folders, or - for standard input")
        if STREAM in self.sources and len(self.sources) > 1:
            raise UsageError("- is standard input and holds one picture; give it alone")
        is_number = self.scale.isascii() and self.scale.isdigit() and len(self.scale) <= len(str(LARGEST_SCALE_PX))
        if self.scale not in ("auto", "native") and not (is_number and 1 <= int(self.scale) <= LARGEST_SCALE_PX):
            raise UsageError(f"--scale {self.scale}: expected auto, native, or a number of pixels from 1 to {LARGEST_SCALE_PX}")
        if self.format not in (None, *FORMATS):
            raise UsageError(f"--format {self.format}: {suggestion(self.format or '', FORMATS)}")
        if self.direction not in (None, "a2b", "b2a"):
            raise UsageError(f"--direction {self.direction}: expected a2b or b2a")


@dataclass(frozen=True, kw_only=True)
class TranslateResult:
    """What became of every picture; each is in exactly one of the lists."""

    translated: int
    """How many were made now; `outputs` also holds those that were there already."""
    skipped: tuple[Remark, ...]
    failed: tuple[Remark, ...]
    outputs: tuple[str, ...]
    seconds: float
    images_per_second: float
    engine: str | None
    """What ran the generator; None where nothing was left to do."""
    rounding: Rounding | None
    """What bf16 did to the first picture made; None where the arithmetic was fp32."""
    exit_code: int
    """0, or 3 if a picture failed or there was none, or 1 if pictures failed for want of memory alone."""

    def as_json(self) -> dict[str, Any]:
        values: dict[str, Any] = to_json(self)
        del values["exit_code"]
        return values


@dataclass(frozen=True)
class TranslateProgress:
    """One more picture is dealt with."""

    done: int
    total: int
    path: str
    reason: str | None = None
    """Why it came to nothing; None if it is translated."""


def translate(
    settings: TranslateSettings,
    on_progress: Callable[[TranslateProgress], None] | None = None,
    *,
    stdin: BinaryIO | None = None,
    stdout: BinaryIO | None = None,
) -> TranslateResult:
    """Translate every picture; what cannot be is told in the result and stops none of the others.

    A result that is there already, made from the same picture by the same bundle and options, is left as it is. Results are
    whole or absent, so that a run which was killed is finished by running it again. `stdin` and `stdout` are needed where the
    settings say `-`.

    Raises:
        UsageError: an unknown name or direction; a file of another origin is in a result's place and `overwrite` is off.
        DataError: no picture at all, or what was given as the bundle is none.
        EnvironmentProblem: no such device, or a missing package.
        FruitganError: the results cannot be written.
    """
    begin = time.monotonic()
    form = format_of(settings.output, settings.format)
    check_engine(settings.engine)  # an unknown name is refused even where nothing is left to do
    if settings.sources == (STREAM,):
        if stdin is None:
            raise UsageError("there is no standard input to read the picture from")
        plan = plan_stream(stdin.read(), settings.output, form)
    else:
        plan = plan_files(settings.sources, settings.recursive, settings.output, form)
    bundle = load(locate(settings.bundle, settings.runs))
    direction = choose_direction(bundle.card, settings.to, settings.direction)
    mark = _mark(settings, bundle, direction, form)
    tasks = without_results(plan.tasks, mark, settings.overwrite)
    lost: dict[Task, FruitganError] = {}
    engine_name = rounding = None
    seconds = time.monotonic() - begin
    if tasks:
        scale = int(settings.scale) if settings.scale.isdigit() else settings.scale
        engine_name = name = _engine_name(settings, bundle.card, scale)
        engine = _engine(settings, name, bundle, direction, len(tasks))
        job = Job(engine, bundle.card, scale, settings.compare, form, mark, stdout)
        with closing(carry_out(job, tasks)) as results:
            for done, (task, error) in enumerate(results, start=1):
                if error is not None:
                    lost[task] = error
                if on_progress is not None:
                    reason = None if error is None else bare_reason(error)
                    on_progress(TranslateProgress(done, len(tasks), task.source_name, reason))
        seconds = time.monotonic() - begin
        if settings.precision == "bf16" and len(lost) < len(tasks):
            made, exact = next(task for task in tasks if task not in lost), replace(settings, precision="fp32")
            rounding = measured_rounding(made, bundle.card, scale, engine, lambda: _engine(exact, name, bundle, direction, 1))
    return _result(plan, lost, len(tasks) - len(lost), seconds, engine_name, rounding)


def _result(
    plan: Plan,
    lost: Mapping[Task, FruitganError],
    translated: int,
    seconds: float,
    engine: str | None,
    rounding: Rounding | None,
) -> TranslateResult:
    remarks = {task: Remark(task.source_name, bare_reason(error)) for task, error in lost.items()}
    skipped = [remarks[task] for task, error in lost.items() if isinstance(error, NotAnImage)]
    broken = {task: error.exit_code for task, error in lost.items() if not isinstance(error, NotAnImage)}
    outputs = tuple(task.output_name for task in plan.tasks if task not in lost)
    exit_code = 0
    if plan.failed or any(code != FruitganError.exit_code for code in broken.values()):
        exit_code = DataError.exit_code
    elif broken:
        exit_code = FruitganError.exit_code
    elif not outputs:
        exit_code = DataError.exit_code
    return TranslateResult(
        translated=translated,
        skipped=(*plan.skipped, *skipped),
        failed=(*plan.failed, *(remarks[task] for task in broken)),
        outputs=outputs,
        seconds=round(seconds, 3),
        images_per_second=round(translated / seconds, 3),
        engine=engine,
        rounding=rounding,
        exit_code=exit_code,
    )


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


def _engine_name(settings: TranslateSettings, card: Card, scale: str | int) -> str:
    return choose_engine(
        settings.engine,
        card.generator,
        scale=scale,
        gpu=settings.gpu,
        device=settings.device,
        precision=settings.precision,
    )


def _engine(settings: TranslateSettings, name: str, bundle: Bundle, direction: str, pictures: int) -> Engine:
    engine = engines.get(name)(
        generator=bundle.card.generator,
        weights=bundle.weights[direction],
        gpu=settings.gpu,
        device=settings.device,
        precision=settings.precision,
        threads=threads_of_a_call(pictures),
    )
    return for_threads(engine)
