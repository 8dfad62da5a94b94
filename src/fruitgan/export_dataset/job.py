"""A dataset of real and generated images, made by one path to one kind of file: settings, job and result."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fruitgan import __version__
from fruitgan.bundle import Bundle, Card, load, locate, pinned, weights_sha256
from fruitgan.cluster import Cluster, connected
from fruitgan.data.groups import content_sha256
from fruitgan.data.labelled import ORIGINS, PREDICTED
from fruitgan.data.parallel import Shard, in_order
from fruitgan.data.preprocessing import Preprocessing, Tally, with_found_range
from fruitgan.data.sources import Source, find_source
from fruitgan.data.survey import survey
from fruitgan.engines.contracts import Engine, Images, Weights, engines, worker_count
from fruitgan.engines.onnx_engine import AUTO, check_engine, engine_name, open_engine
from fruitgan.engines.padding import translate_pixels
from fruitgan.errors import DataError, Stopped, UsageError
from fruitgan.export_dataset.folder import FORMAT, DatasetFolder
from fruitgan.export_dataset.selection import Item, LeftOut, choose, name_items, oriented, usable, warnings_of
from fruitgan.files import check_writable, write_atomically
from fruitgan.images import Fit, Pixels, signed_from_unit, to_pillow, unit_from_signed
from fruitgan.progress import OnProgress, Progress, silent
from fruitgan.settings import RUNS, from_json, to_json
from fruitgan.translate.job import choose_direction

Format = Literal["png", "webp", "jpg"]
LARGEST_SIZE_PX = 8192
WHOLE_SIDE_PX = 1024
"""Larger squares may be too large for the memory; torch alone cuts such into tiles."""
OF_IMAGES = ("background", "value_range", "fit")
"""The fields of the preprocessing."""
SAVE_OPTIONS: Mapping[Format, Mapping[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 6},
    "webp": {"format": "WEBP", "lossless": True, "quality": 80, "method": 4},  # lossless: the quality is the effort
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What to export, through which generator, and where to."""

    bundle: str | None = None
    """A file, a run or a name; None for the newest run, else the bundle that ships."""
    to: str | None = None
    """The domain to arrive at; None leaves it to `direction`."""
    direction: Literal["a2b", "b2a"] | None = None
    """None is the bundle's first."""
    data: str | None = None
    data_a: Path | None = None
    data_b: Path | None = None
    domains: tuple[str, str] | None = None
    background: str | None = None
    value_range: str | None = None
    fit: Fit | None = None
    """How images are made of files; None is as the bundle's training images were."""
    out: Path = Path("dataset")
    count: int | None = None
    """Images of each class: test images first, then training images. None is as many test images as both classes have, and
    no others."""
    origins: Literal["target", "source"] = "target"
    """The real images: those of the domain that the fakes imitate, or the very sources of the fakes."""
    image_size: int | None = None
    """Side of the exported squares in px; None is the bundle's training size."""
    format: Format = "png"
    """png and webp keep every bit; jpg loses detail, in both classes alike."""
    engine: str = AUTO
    """A registered name, or `auto` for the fastest."""
    gpu: str | None = None
    device: str | None = None
    overwrite: bool = False
    shard: Shard | None = None
    """The part of the images that is made here, without the manifest, which the same export makes of all parts."""
    ray: str | None = None
    """The cluster whose actors do the work, as `cluster.connected` takes it; None is this process."""
    runs: Path = RUNS

    def __post_init__(self) -> None:
        if self.shard is not None and self.overwrite:
            raise UsageError("--shard shares a folder with other parts, which --overwrite would clear; give another --out")
        if self.count is not None and self.count < 1:
            raise UsageError(f"--count {self.count}: 1 or more is needed")
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST_SIZE_PX:
            raise UsageError(f"--image-size {self.image_size}: expected 1 to {LARGEST_SIZE_PX} px")


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What `--json` prints."""

    dataset: Path
    predicted: int
    """Generated images that are there."""
    origins: int
    """Real images that are there."""
    made: int
    """How many of both were made now."""
    kept: int
    """How many of both were there already."""
    splits: Mapping[str, Mapping[str, int]]
    """By folder, how many sources are of the test and of the training split."""
    image_size_px: int
    format: str
    direction: str
    engine: str | None
    """What ran the generator; None where no fake was missing."""
    target: str
    """The domain that the fakes imitate."""
    bundle: str
    weights_sha256: str
    left_out: LeftOut
    warnings: tuple[str, ...]
    finished: bool
    """Whether the manifest is there: not after a part of the work."""
    seconds: float


class Unchanged(Engine):
    """The generator's stand-in for the real images: the same steps and the same rounding, and no network among them."""

    def translate(self, images: Images) -> Images:
        unit: Images = unit_from_signed(signed_from_unit(images))
        return unit


def encode(pixels: Pixels, form: Format) -> bytes:
    """The file: always the same settings, and no metadata."""
    file = io.BytesIO()
    to_pillow(pixels).save(file, **SAVE_OPTIONS[form])
    return file.getvalue()


def export_dataset(settings: ExportSettings, on_progress: OnProgress | None = None) -> ExportResult:
    """Write real and generated images, equally many, that differ in nothing but what they show, and a manifest of them.

    Files are whole or absent. The manifest comes last, so that an export that was stopped has none; the same export makes what
    is missing and nothing again.

    Raises:
        UsageError: an unknown name or direction; another dataset is in the way and `overwrite` is off; or images of others.
        DataError: fewer images than wanted, no data, no bundle.
        EnvironmentProblem: no such device, or a missing package.
        RunInUse: another process is at work in the folder.
        Stopped: `on_progress` asked for it.
        FruitganError: the dataset cannot be written, no memory, or the generator gave numbers that are not finite.
    """
    with connected(settings.ray, settings.gpu, settings.device) if settings.ray else nullcontext() as cluster:
        return _export(settings, on_progress or silent, cluster)


def _export(settings: ExportSettings, tell: OnProgress, cluster: Cluster | None) -> ExportResult:
    begin = time.monotonic()
    check_engine(settings.engine)  # an unknown name is refused even where nothing is left to do
    address = pinned(settings.bundle)
    bundle = load(locate(address or settings.bundle, settings.runs))
    direction = choose_direction(bundle.card, settings.to, settings.direction)
    how = bundle.card.preprocessing.asked(settings.background, settings.value_range, settings.fit)
    folder = DatasetFolder(settings.out)
    folder.refuse_file()
    check_writable(settings.out)
    data = find_source(settings.data, settings.data_a, settings.data_b, settings.domains, tell, bundle.card.data)
    _keep_apart(settings.out, data)
    how = with_found_range(how, data.files, tell)
    made_of = _made_of(settings, bundle, direction, how)
    if not settings.overwrite:
        folder.refuse_others(made_of)  # before the long look at the images
    source, target, items, left_out, warnings = _selection(settings, bundle, direction, data, how, tell, cluster)
    lines = [[item.file, item.source, item.picture.split, item.picture.content, item.group] for item in items]
    made_of |= {"count": len(items) // 2, "pictures": hashlib.sha256(json.dumps(lines).encode()).hexdigest()}
    replaces = settings.overwrite and not folder.is_unfinished(made_of)  # else the same command goes on after a stop
    mine = [item for item in items if settings.shard is None or settings.shard.has(item.file)]
    todo = items if replaces else _todo(folder, made_of, items, mine)
    splits = {
        name: dict(sorted(Counter(item.picture.split for item in mine if item.generated == generated).items()))
        for generated, name in ((True, PREDICTED), (False, ORIGINS))
    }
    result = ExportResult(
        dataset=settings.out,
        predicted=sum(item.generated for item in mine),
        origins=sum(not item.generated for item in mine),
        made=len(todo),
        kept=len(mine) - len(todo),
        splits=splits,
        image_size_px=made_of["image_size_px"],
        format=settings.format,
        direction=direction,
        engine=None,
        target=target,
        bundle=bundle.card.name,
        weights_sha256=made_of["bundle"],
        left_out=left_out,
        warnings=tuple(warnings),
        finished=not todo and folder.is_finished(items),
        seconds=0,
    )
    if todo or not (result.finished or settings.shard):
        engine: str | None = None
        generator: Engine | None = None
        weights = bundle.weights[direction]
        if any(item.generated for item in todo):  # else no network is built; one that cannot be built must leave nothing
            scale = "native" if made_of["image_size_px"] > WHOLE_SIDE_PX else AUTO
            asked: dict[str, Any] = {"scale": scale, "tell": tell}
            if cluster is not None:
                engine = engine_name(settings.engine, bundle.card.generator, weights, gpu=cluster.device, **asked)
            else:
                asked |= {"gpu": settings.gpu, "device": settings.device}
                engine, generator = open_engine(settings.engine, bundle.card.generator, weights, len(items), **asked)
        with folder.taken(alone=settings.shard is None):
            if replaces:
                folder.clear()
            else:
                todo = _todo(folder, made_of, items, mine)  # another process may have been at work until now
            folder.begin(made_of, todo)
            maker = _Maker(settings, bundle.card, how, made_of["image_size_px"], generator)
            made: Generator[bytes | None]
            if cluster is None:
                made = (file for _, file in in_order(maker.file_of, todo, worker_count(len(items))))
            else:
                made = cluster.each(partial(_making, maker, engine, weights), to_json(todo))
            _make(maker, todo, made, tell)
            if settings.shard is None:
                folder.finish(items, made_of["bundle"], _card(result, bundle, address, made_of, data.name, source))
                result = replace(result, finished=True)
        result = replace(result, engine=engine, made=len(todo), kept=len(mine) - len(todo))
    return replace(result, seconds=round(time.monotonic() - begin, 3))


def _selection(
    settings: ExportSettings,
    bundle: Bundle,
    direction: str,
    data: Source,
    how: Preprocessing,
    tell: OnProgress,
    cluster: Cluster | None,
) -> tuple[str, str, list[Item], LeftOut, list[str]]:
    """The names of both domains, the images to export, what is left out, and what a person should know of them."""
    source, target, odd = oriented(data, bundle.card.domains, direction)
    found = usable(survey(data, how, tell, cluster))
    chosen = choose(found, source, target if settings.origins == "target" else source, settings.count)
    items = name_items(data, *chosen, found, settings.format)
    side_px = settings.image_size or bundle.card.image_size_px
    warnings = ([odd] if odd else []) + data.notes + warnings_of(items, found, side_px, bundle.card.data, data)
    for name, generated in ((PREDICTED, True), (ORIGINS, False)):
        warnings += Tally.of([item.picture.traits for item in items if item.generated == generated]).notes(name, how)
    if settings.format == "jpg":
        warnings.append(
            "jpg loses detail, and with it traces of the generator, in both classes alike; png and webp keep every bit"
        )
    return source.name, target.name, items, found.left_out, warnings


def _todo(folder: DatasetFolder, made_of: Mapping[str, Any], items: Sequence[Item], mine: Sequence[Item]) -> Sequence[Item]:
    """What of `mine` is missing in a folder that may be gone on with."""
    folder.refuse_others(made_of)
    folder.refuse_strangers({folder.path / item.file for item in items})
    return folder.missing(mine)


def _keep_apart(out: Path, source: Source) -> None:
    """What is exported must not become data of the next export."""
    folders = {path.parent.resolve() for domain in (source.a, source.b) for path in (*domain.train, *domain.test)}
    for place in (out.resolve() / PREDICTED, out.resolve() / ORIGINS):
        for folder in folders:
            if place == folder or place in folder.parents or folder in place.parents:
                raise UsageError(f"{out}: the dataset would lie among its own sources in {folder}; give another with --out")


def _made_of(settings: ExportSettings, bundle: Bundle, direction: str, how: Preprocessing) -> dict[str, Any]:
    """What decides how the images look, but not where and how fast they are made."""
    card = bundle.card
    return {
        "bundle": weights_sha256(bundle),
        "generator": to_json([card.generator.name, card.generator.options, card.size_minimum_px, card.size_multiple_px]),
        "direction": direction,
        "image_size_px": settings.image_size or card.image_size_px,
        "format": settings.format,
        "origins": settings.origins,
        **to_json(how),
    }


def _card(
    result: ExportResult, bundle: Bundle, address: str | None, made_of: Mapping[str, Any], data: str, source: str
) -> dict[str, Any]:
    """dataset.json: the same for the same export, wherever and whenever it is made; no path of this machine is in it."""
    card = to_json(bundle.card)
    kept = ("name", "generator", "image_size_px", "recipe", "steps", "data", "licence", "trained_against")
    return {
        "format": FORMAT,
        "image_size_px": result.image_size_px,
        "settings": {key: made_of[key] for key in ("direction", "format", "origins", "count", *OF_IMAGES)},
        "counts": {"predicted": result.predicted, "origins": result.origins, "splits": result.splits},
        "data": {"name": data, "source": source, "target": result.target},
        "bundle": {**{key: card[key] for key in kept}, "weights_sha256": made_of["bundle"], "address": address},
        "left_out": {**to_json(result.left_out), "unreadable": len(result.left_out.unreadable)},
        "warnings": list(result.warnings),
        "made_of": dict(made_of),
        "fruitgan_version": __version__,
    }


@dataclass(frozen=True)
class _Maker:
    """The one path of real and generated images, from what all of them share.

    Decoded and made a square as in training (but always by Lanczos), padded to what the generator takes, to floats, the
    generator or nothing, clipped, rounded, cropped, written. No image is stretched to a range of its own.
    """

    settings: ExportSettings
    card: Card
    how: Preprocessing
    side_px: int
    generator: Engine | None

    def file_of(self, item: Item) -> bytes:
        engine = self.generator if item.generated else Unchanged()
        if engine is None:  # no fake was missing when it was decided what to build
            raise DataError(f"{self.settings.out / item.file}: disappeared meanwhile; give the command again")
        pixels = self.how.decode(item.picture.path).pixels
        if content_sha256(pixels) != item.picture.content:
            raise DataError(f"{item.picture.path}: changed while the export was at work; give the command again")
        # One image a call: with other batches, as after a stop, some devices give other last digits.
        made = translate_pixels(engine, self.card, self.how.squared(pixels, self.side_px), "native")
        return encode(made, self.settings.format)


def _making(maker: _Maker, engine: str | None, weights: Weights, device: str) -> Callable[[Any], None]:
    """What an actor does for each item: its file, written."""
    if engine is not None:
        asked: dict[str, Any] = {"gpu": device, "threads": 1}
        maker = replace(maker, generator=engines.get(engine)(generator=maker.card.generator, weights=weights, **asked))

    def make(row: Any) -> None:
        item = from_json(Item, row)
        write_atomically(maker.settings.out / item.file, maker.file_of(item))

    return make


def _make(maker: _Maker, todo: Sequence[Item], made: Generator[bytes | None], tell: OnProgress) -> None:
    """Write the files of these items, as they are made in their order; None was written by an actor."""
    with closing(made):
        for done, (item, file) in enumerate(zip(todo, made, strict=True), start=1):
            if file is not None:
                write_atomically(maker.settings.out / item.file, file)
            if tell(Progress("exporting", done, len(todo))):
                raise Stopped("stopped; every image is whole, and the same export does the rest", exit_code=130)
