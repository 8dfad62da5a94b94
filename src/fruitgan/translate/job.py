"""Images through a bundle's generator, each into a file of its own: settings, job and result."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from fruitgan.addresses import write_whole
from fruitgan.bundle import DEFAULT_SHIPPED, Bundle, Card, load, locate, pinned, weights_sha256
from fruitgan.data.finder import Found, Remark
from fruitgan.data.preprocessing import AS_USUAL
from fruitgan.data.remote import is_shard
from fruitgan.engines.contracts import Weights, engines
from fruitgan.engines.onnx_engine import AUTO, engine_name, open_engine
from fruitgan.errors import DataError, FruitganError, UsageError
from fruitgan.files import check_writable, remove_abandoned, write_atomically
from fruitgan.parallel import Shard, connected
from fruitgan.progress import Note, OnProgress, Progress, silent
from fruitgan.registry import suggestion
from fruitgan.settings import RUNS, Precision, Settings, to_json, typed
from fruitgan.translate.pictures import ADDRESS, TRAINED_AGAINST, Format, Kept, contact_sheet
from fruitgan.translate.pipeline import Outcome, Pipeline, built, given_up, row_of
from fruitgan.translate.plan import STREAM, Task, make_plan, place_of_failures, place_of_sheet, without_results

LARGEST_SCALE_PX = 8192
SHEET_PAIRS = 40
"""On a contact sheet; of more results those at even distances."""


@dataclass(frozen=True, kw_only=True)
class BundleSettings(Settings):
    """Which bundle, and in which direction."""

    bundle: str | None = None
    """A file, a run, a name or an address of the Hub; None for the newest run, else the bundle that ships."""
    to: str | None = None
    """The domain to arrive at; None leaves it to `direction`."""
    direction: Literal["a2b", "b2a"] | None = None
    """None is the bundle's first."""
    runs: Path = RUNS


@dataclass(frozen=True, kw_only=True)
class BatchSettings(BundleSettings):
    """What runs the bundle's generator on many images."""

    engine: str = AUTO
    """A registered name, or `auto` for the fastest."""
    gpu: str | None = None
    device: str | None = None
    shard: Shard | None = None
    """The part of the images that is made here; None is all of them."""
    ray: str | None = None
    """The cluster whose actors do the work, as `parallel.connected` takes it; None is this process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine != AUTO:
            engines.owner(self.engine)  # an unknown name is refused even where nothing is left to do


@dataclass(frozen=True, kw_only=True)
class TranslateSettings(BatchSettings):
    """What to translate, with what, and where to."""

    sources: tuple[str, ...]
    """Files, folders, glob patterns, addresses of them, shards; or `-` alone, standard input."""
    output: str | None = None
    """A file for one image, a folder, an address, or `-`; None is the folder `translated`, and `-` for standard input."""
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
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise UsageError("nothing to translate: give files, folders, or - for standard input")
        if STREAM in self.sources and len(self.sources) > 1:
            raise UsageError("- is standard input and holds one image; give it alone")
        if self.ray and any(text == STREAM or text.startswith("memory:") for text in (*self.sources, self.output or "")):
            raise UsageError(
                "--ray: actors see neither standard input and output nor memory://; give folders or other addresses"
            )
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
    """The file of the generators, or their address with the commit, where they came from the Hub."""
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
    tell = on_progress or silent
    planned, found = make_plan(settings, stdin)
    address = pinned(settings.bundle)
    path = locate(address or settings.bundle, settings.runs)
    bundle = load(path)
    if (values := AS_USUAL.asked(None, settings.value_range, None).value_range) is not None:
        bundle = replace(bundle, card=replace(bundle.card, value_range=values))
    card = bundle.card
    direction = choose_direction(card, settings.to, settings.direction)
    mark = mark_of(settings, bundle, direction, address)
    tasks = without_results(planned, mark, settings)
    sheet = place_of_sheet(planned, settings.overwrite) if settings.contact_sheet else None
    folders = {task.output.parent for task in tasks if isinstance(task.output, Path)}
    failures = place_of_failures(settings)
    check_writable(*folders, *([failures.parent] if isinstance(failures, Path) else []))
    done: dict[Task, Outcome] = {}
    name = None
    if tasks:
        with _at_work(settings, card, bundle.weights[direction], mark, tasks, stdout, tell) as (name, results):
            training = f"trained for {card.steps:,} steps" if card.steps else card.recipe
            tell(Note(f"{card.name} ({path}) to {card.target(direction)}, {direction}, {training}"))
            if card.doubt is not None:
                other = "" if settings.bundle else f"; --bundle {DEFAULT_SHIPPED} takes the one that ships"
                tell(Note(f"{card.doubt}{other}", is_warning=True))
            for task, outcome in results:
                done[task] = outcome
                reasons = [remark.reason for remark in (*outcome.failed, *outcome.skipped)]
                details = {"path": task.source_name, "reason": reasons[0] if reasons else None}
                if tell(Progress("translating", len(done), len(tasks), details)):
                    break
        for folder in folders if settings.ray else ():  # actors that were killed left what they were writing
            remove_abandoned(folder)
    used = {"bundle": address or str(path), "direction": direction, "step": card.steps, "engine": name}
    undone = set(tasks) - done.keys()
    there = [task for task in planned if task not in undone and (task not in done or done[task].is_there)]
    if sheet is not None and there:
        places = np.linspace(0, len(there) - 1, min(len(there), SHEET_PAIRS)).round().astype(int)
        shown = [there[place] for place in places]
        write_atomically(
            sheet, contact_sheet([(task.read(), task.output) for task in shown if isinstance(task.output, Path)], mark)
        )
        tell(Note(f"{sheet}: {len(shown)} of {len(there)} sources with their results"))
    page = str(sheet) if sheet is not None and there else None
    result = _result(settings, found, there, done, time.monotonic() - begin, contact_sheet=page, **used)
    if failures is not None:
        write_whole(failures, "".join(json.dumps(to_json(remark)) + "\n" for remark in result.failed).encode())
    return result


@contextmanager
def _at_work(
    settings: TranslateSettings,
    card: Card,
    weights: Weights,
    mark: Mapping[str, Any],
    tasks: Sequence[Task],
    stdout: BinaryIO | None,
    tell: OnProgress,
) -> Iterator[tuple[str, Iterator[tuple[Task, Outcome]]]]:
    """The name of the engine, and each task with what became of it, here or by actors; at the end the work is given up."""
    asked: dict[str, Any] = {"scale": settings.scale_px, "precision": settings.precision, "tell": tell}
    if settings.ray is None:
        asked |= {"gpu": settings.gpu, "device": settings.device}
        name, engine = open_engine(settings.engine, card.generator, weights, len(tasks), **asked)
        with closing(Pipeline(engine, card, settings, mark, stdout).results(tasks)) as here:
            yield name, here
        return
    with connected(settings.ray, settings.gpu, settings.device) as cluster:
        name = engine_name(settings.engine, card.generator, weights, gpu=cluster.device, **asked)
        build = partial(built, name, card, weights, settings, mark)
        at_once = 1 if any(is_shard(task.path) for task in tasks) else 64
        with closing(cluster.each(build, [row_of(task) for task in tasks], at_once=at_once, given_up=given_up)) as there:
            yield name, ((task, typed(Outcome, outcome, "an actor")) for task, outcome in zip(tasks, there, strict=True))


def _result(
    settings: TranslateSettings,
    found: Found,
    there: Sequence[Task],
    done: Mapping[Task, Outcome],
    seconds: float,
    **used: Any,
) -> TranslateResult:
    skipped = (*found.skipped, *(remark for outcome in done.values() for remark in outcome.skipped))
    failed = (*found.failed, *(remark for outcome in done.values() for remark in outcome.failed))
    codes = {outcome.exit_code for outcome in done.values() if outcome.failed}
    translated = sum(outcome.made for outcome in done.values())
    exit_code = 0
    if failed or not (there or settings.shard):  # a part may be empty
        exit_code = FruitganError.exit_code if codes == {FruitganError.exit_code} and not found.failed else DataError.exit_code
    return TranslateResult(
        translated=translated,
        skipped=skipped,
        failed=failed,
        outputs=tuple(task.output_name for task in there),
        seconds=round(seconds, 3),
        notes=tuple(remark for outcome in done.values() for remark in outcome.notes),
        images_per_second=round(translated / seconds, 3),
        exit_code=exit_code,
        **used,
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


def mark_of(settings: TranslateSettings, bundle: Bundle, direction: str, address: str | None) -> dict[str, Any]:
    """What makes a result: all that changes how it looks, but not where and how fast the same is computed."""
    card = bundle.card
    sizes = [card.image_size_px, card.size_minimum_px, card.size_multiple_px]
    made_of = [weights_sha256(bundle), card.generator.name, to_json(card.generator.options), sizes]
    return {
        "bundle": hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest(),
        "direction": direction,
        "scale": settings.scale,
        "strength": settings.strength,
        "compare": settings.compare,
        "frames": settings.frames,
        "metadata": settings.keep_metadata,
        "value_range": to_json(card.value_range),
        "background": card.background,
        TRAINED_AGAINST: None if card.trained_against is None else list(card.trained_against),
        ADDRESS: address,
    }
