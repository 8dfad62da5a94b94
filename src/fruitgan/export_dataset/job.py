"""The job: real pictures and translated ones, brought by one path to one kind of file."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fruitgan import __version__
from fruitgan.bundle import Bundle, Card, load, locate, weights_sha256
from fruitgan.data.decode import decode
from fruitgan.data.groups import content_sha256
from fruitgan.data.labelled import ORIGINS, PREDICTED
from fruitgan.data.parallel import in_order
from fruitgan.data.sources import Domain, Source, find_source
from fruitgan.engines.contracts import Engine, Images, engines, for_threads
from fruitgan.engines.onnx_engine import AUTO, check_engine, choose_engine
from fruitgan.engines.padding import translate_pixels
from fruitgan.errors import DataError, UsageError
from fruitgan.export_dataset.folder import FORMAT, DatasetFolder
from fruitgan.export_dataset.plan import Item, choose, name_items, remarks
from fruitgan.export_dataset.settings import ExportResult, ExportSettings, Format, OnProgress
from fruitgan.export_dataset.survey import Survey, oriented, survey
from fruitgan.files import write_atomically
from fruitgan.images import Pixels, resize, signed_from_unit, to_pillow, unit_from_signed
from fruitgan.settings import to_json
from fruitgan.translate.job import choose_direction
from fruitgan.translate.pipeline import threads_of_a_call, worker_count

WHOLE_SIDE_PX = 1024
"""Larger squares may be too large for the memory; torch alone cuts such into tiles."""
SAVE_OPTIONS: Mapping[Format, Mapping[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 6},
    "webp": {"format": "WEBP", "lossless": True, "quality": 80, "method": 4},  # lossless: the quality is the effort
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


class Unchanged(Engine):
    """The generator's stand-in for the real pictures: the same steps and the same rounding, and no network among them."""

    def translate(self, images: Images) -> Images:
        unit: Images = unit_from_signed(signed_from_unit(images))
        return unit


def seen(pixels: Pixels, size_px: int) -> Pixels:
    """The first half of the one path: uint8 [H, W, 3] to a square, squeezed as in training; Lanczos, antialiased."""
    return resize(pixels, size_px, size_px)


def rendered(engine: Engine, card: Card, square: Pixels) -> Pixels:
    """The second half: padded to what the generator takes, to float, the engine, clipped, rounded, cropped. No picture is
    stretched to a range of its own.

    Raises:
        FruitganError: as `Engine.translate`.
    """
    return translate_pixels(engine, card, square, "native")


def encode(pixels: Pixels, form: Format) -> bytes:
    """The file: always the same settings, and no metadata."""
    file = io.BytesIO()
    to_pillow(pixels).save(file, **SAVE_OPTIONS[form])
    return file.getvalue()


def export_dataset(settings: ExportSettings, on_progress: OnProgress | None = None) -> ExportResult:
    """Write real and generated pictures, equally many, that differ in nothing but what they show, and a manifest of them.

    Files are whole or absent. The manifest comes last, so that an export that was stopped has none; the same export makes what
    is missing and nothing again.

    Raises:
        UsageError: an unknown name or direction; another dataset is in the way and `overwrite` is off; or images of others.
        DataError: fewer pictures than wanted, no data, no bundle.
        EnvironmentProblem: no such device, or a missing package.
        RunInUse: another process is at work in the folder.
        FruitganError: the dataset cannot be written, no memory, or the generator gave numbers that are not finite.
    """
    begin = time.monotonic()
    check_engine(settings.engine)  # an unknown name is refused even where nothing is left to do
    bundle = load(locate(settings.bundle, settings.runs))
    direction = choose_direction(bundle.card, settings.to, settings.direction)
    source = find_source(settings.data, settings.data_a, settings.data_b, settings.domains, on_progress)
    folder = DatasetFolder(settings.out)
    _keep_apart(settings.out, source)
    made_of = _made_of(settings, bundle, direction)
    if not settings.overwrite:
        folder.refuse_others(made_of)  # before the long look at the pictures
    plan = _plan(settings, bundle, direction, source, on_progress)
    made_of |= {"count": len(plan.items) // 2, "pictures": _pictures_sha256(plan.items)}
    replaces = settings.overwrite and not folder.is_unfinished(made_of)  # else the same command goes on after a stop
    todo = plan.items if replaces else _todo(folder, made_of, plan.items)
    if todo or not folder.is_finished(plan.items):
        # Where no fake is missing no network is built; where it cannot be built nothing has been written yet.
        name = _engine_name(settings, bundle, direction) if any(item.generated for item in todo) else None
        generator = None if name is None else _engine(settings, name, bundle, direction, plan)
        with folder.taken():
            if replaces:
                folder.clear()
            else:
                todo = _todo(folder, made_of, plan.items)  # another process may have been at work until now
            folder.begin(made_of, todo)
            _make(settings, bundle.card, generator, plan, todo, on_progress)
            folder.finish(plan.items, made_of["bundle"], _card(made_of, bundle, plan))
    else:
        name = None
        folder.tidy()
    result = _result(settings, bundle, direction, plan, len(todo), name)
    return dataclasses.replace(result, seconds=round(time.monotonic() - begin, 3))


def _todo(folder: DatasetFolder, made_of: Mapping[str, Any], items: Sequence[Item]) -> Sequence[Item]:
    """What is missing in a folder that may be gone on with."""
    folder.refuse_others(made_of)
    folder.refuse_strangers({folder.path / item.file for item in items})
    return folder.missing(items)


def _keep_apart(out: Path, source: Source) -> None:
    """What is exported must not become data of the next export."""
    folders = {path.parent.resolve() for domain in (source.a, source.b) for path in (*domain.train, *domain.test)}
    for place in (out.resolve() / PREDICTED, out.resolve() / ORIGINS):
        for folder in folders:
            if place == folder or place in folder.parents or folder in place.parents:
                raise UsageError(f"{out}: the dataset would lie among its own sources in {folder}; give another with --out")


def _size(settings: ExportSettings, card: Card) -> int:
    return settings.image_size or card.image_size_px


def _made_of(settings: ExportSettings, bundle: Bundle, direction: str) -> dict[str, Any]:
    """What decides how the pictures look, but not where and how fast they are made."""
    card = bundle.card
    return {
        "bundle": weights_sha256(bundle),
        "generator": to_json([card.generator.name, card.generator.options, card.size_minimum_px, card.size_multiple_px]),
        "direction": direction,
        "image_size_px": _size(settings, card),
        "format": settings.format,
        "origins": settings.origins,
    }


@dataclass(frozen=True)
class _Plan:
    """What is exported."""

    items: Sequence[Item]
    source: Domain
    target: Domain
    data: str
    found: Survey
    warnings: tuple[str, ...]

    @property
    def splits(self) -> dict[str, dict[str, int]]:
        """By folder, how many sources are of which split."""
        return {
            folder: dict(sorted(Counter(item.picture.split for item in self.items if item.generated == generated).items()))
            for generated, folder in ((True, PREDICTED), (False, ORIGINS))
        }


def _plan(settings: ExportSettings, bundle: Bundle, direction: str, data: Source, on_progress: OnProgress | None) -> _Plan:
    source, target, odd = oriented(data, bundle.card.domains, direction)
    found = survey(data, on_progress)
    sources, reals = choose(settings, found, source, target)
    items = name_items(sources, reals, found.groups, settings.format)
    said = [] if odd is None else [odd]
    said += remarks(items, found, _size(settings, bundle.card))
    if settings.format == "jpg":
        said.append("jpg loses detail, and with it traces of the generator, in both classes alike; png and webp keep every bit")
    return _Plan(items, source, target, data.name, found, tuple(said))


def _pictures_sha256(items: Sequence[Item]) -> str:
    lines = [[item.file, item.picture.name, item.picture.split, item.picture.content, item.group] for item in items]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def _engine_name(settings: ExportSettings, bundle: Bundle, direction: str) -> str:
    return choose_engine(
        settings.engine,
        bundle.card.generator,
        bundle.weights[direction],
        scale="native" if _size(settings, bundle.card) > WHOLE_SIDE_PX else AUTO,
        gpu=settings.gpu,
        device=settings.device,
    )


def _engine(settings: ExportSettings, name: str, bundle: Bundle, direction: str, plan: _Plan) -> Engine:
    engine = engines.get(name)(
        generator=bundle.card.generator,
        weights=bundle.weights[direction],
        gpu=settings.gpu,
        device=settings.device,
        threads=threads_of_a_call(len(plan.items)),
    )
    return for_threads(engine)


def _make(
    settings: ExportSettings,
    card: Card,
    generator: Engine | None,
    plan: _Plan,
    todo: Sequence[Item],
    on_progress: OnProgress | None,
) -> None:
    size_px = _size(settings, card)
    unchanged = Unchanged()

    def file_of(item: Item) -> bytes:
        engine = generator if item.generated else unchanged
        if engine is None:  # no fake was missing when it was decided what to build
            raise DataError(f"{settings.out / item.file}: disappeared meanwhile; give the command again")
        # One picture a call: with other batches, as after a stop, some devices give other last digits.
        return encode(rendered(engine, card, seen(_pixels(item), size_px)), settings.format)

    with closing(in_order(file_of, todo, worker_count(len(plan.items)))) as made:
        for done, (item, file) in enumerate(made, start=1):
            write_atomically(settings.out / item.file, file)
            if on_progress is not None:
                on_progress("exporting", done, len(todo))


def _pixels(item: Item) -> Pixels:
    pixels = decode(item.picture.path).pixels
    if content_sha256(pixels) != item.picture.content:
        raise DataError(f"{item.picture.path}: changed while the export was at work; give the command again")
    return pixels


def _result(
    settings: ExportSettings, bundle: Bundle, direction: str, plan: _Plan, missing: int, engine: str | None
) -> ExportResult:
    return ExportResult(
        dataset=settings.out,
        predicted=len(plan.items) // 2,
        origins=len(plan.items) // 2,
        made=missing,
        kept=len(plan.items) - missing,
        splits=plan.splits,
        image_size_px=_size(settings, bundle.card),
        format=settings.format,
        direction=direction,
        engine=engine,
        target=plan.target.name,
        bundle=bundle.card.name,
        weights_sha256=weights_sha256(bundle),
        left_out=plan.found.left_out,
        warnings=plan.warnings,
        seconds=0.0,
    )


def _card(made_of: Mapping[str, Any], bundle: Bundle, plan: _Plan) -> dict[str, Any]:
    """dataset.json: the same for the same export, wherever and whenever it is made; no path of this machine is in it."""
    card, count, left_out = bundle.card, made_of["count"], plan.found.left_out
    return {
        "format": FORMAT,
        "image_size_px": made_of["image_size_px"],
        "settings": {key: made_of[key] for key in ("direction", "format", "origins", "count")},
        "counts": {"predicted": count, "origins": count, "splits": plan.splits},
        "data": {"name": plan.data, "source": plan.source.name, "target": plan.target.name},
        "bundle": {
            "name": card.name,
            "weights_sha256": made_of["bundle"],
            "generator": to_json(card.generator),
            "image_size_px": card.image_size_px,
            "recipe": card.recipe,
            "steps": card.steps,
            "data": card.data,
            "licence": card.licence,
            "trained_against": None if card.trained_against is None else list(card.trained_against),
        },
        "left_out": {
            "unreadable": len(left_out.unreadable),
            "in_both_splits": left_out.in_both_splits,
            "repeated": left_out.repeated,
        },
        "warnings": list(plan.warnings),
        "made_of": dict(made_of),
        "fruitgan_version": __version__,
    }
