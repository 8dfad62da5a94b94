"""A dataset of real and generated images, made by one path to one kind of file: settings, job and result."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from fruitgan import __version__
from fruitgan.bundle import Bundle, Card, load, locate, pinned, weights_sha256
from fruitgan.data.groups import content_sha256
from fruitgan.data.labelled import ORIGINS, PREDICTED
from fruitgan.data.preprocessing import Preprocessing, survey, with_found_range
from fruitgan.data.sources import Source, find_source
from fruitgan.engines.contracts import Engine, Images, Weights, engines, worker_count
from fruitgan.engines.onnx_engine import AUTO, engine_name, open_engine
from fruitgan.engines.padding import translate_pixels
from fruitgan.errors import DataError, Stopped, UsageError
from fruitgan.export_dataset.folder import FORMAT, DatasetFolder
from fruitgan.export_dataset.selection import Item, LeftOut, Selection, counts_of, select
from fruitgan.files import check_writable, write_atomically
from fruitgan.images import Fit, Pixels, signed_from_unit, unit_from_signed
from fruitgan.parallel import Cluster, connected, in_order
from fruitgan.progress import OnProgress, Progress, silent
from fruitgan.settings import from_json, to_json
from fruitgan.translate.job import BatchSettings, choose_direction

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
class ExportSettings(BatchSettings):
    """What to export, and where to; of a part the manifest is left to the same export of all."""

    data: str | None = None
    data_a: Path | str | None = None
    data_b: Path | str | None = None
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
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
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
    Image.fromarray(pixels).save(file, **SAVE_OPTIONS[form])
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
    address = pinned(settings.bundle)
    bundle = load(locate(address or settings.bundle, settings.runs))
    card = bundle.card
    direction = choose_direction(card, settings.to, settings.direction)
    how = card.preprocessing.asked(settings.background, settings.value_range, settings.fit)
    folder = DatasetFolder(settings.out)
    folder.refuse_file()
    check_writable(settings.out)
    data = find_source(settings.data, settings.data_a, settings.data_b, settings.domains, tell, card.data)
    _keep_apart(settings.out, data)
    how = with_found_range(how, data.files, tell)
    made_of = _made_of(settings, bundle, direction, how)
    if not settings.overwrite:
        folder.refuse_others(made_of)  # before the long look at the images
    chosen = select(data, how, survey(data, how, tell, cluster), card, direction, settings)
    items = chosen.items
    lines = [[item.file, item.source, item.picture.split, item.picture.look.content, item.group] for item in items]
    made_of |= {"count": len(items) // 2, "pictures": hashlib.sha256(json.dumps(lines).encode()).hexdigest()}
    is_same = folder.unfinished.is_file() and folder.made_of() == made_of  # and goes on after a stop
    replaces = settings.overwrite and not is_same
    mine = [item for item in items if settings.shard is None or settings.shard.has(item.file)]
    todo = items if replaces else _todo(folder, made_of, items, mine)
    finished = not todo and folder.is_finished(items)
    maker = _Maker(settings, card, bundle.weights[direction], how, made_of["image_size_px"])
    if todo or not (finished or settings.shard):
        if any(item.generated for item in todo):  # else no network is built; one that cannot be built must leave nothing
            maker = maker.opened(len(items), tell, cluster)
        with folder.taken(alone=settings.shard is None):
            if replaces:
                folder.clear()
            else:
                todo = _todo(folder, made_of, items, mine)  # another process may have been at work until now
            folder.begin(made_of, todo)
            _make(maker, todo, worker_count(len(items)), tell, cluster)
            if settings.shard is None:
                folder.finish(items, made_of["bundle"], _card(chosen, card, address, made_of, data.name))
                finished = True
    return ExportResult(
        dataset=settings.out,
        **counts_of(mine),
        made=len(todo),
        kept=len(mine) - len(todo),
        image_size_px=maker.side_px,
        format=settings.format,
        direction=direction,
        engine=maker.engine,
        target=chosen.target,
        bundle=card.name,
        weights_sha256=made_of["bundle"],
        left_out=chosen.left_out,
        warnings=(*chosen.warnings, *filter(None, [card.doubt])),
        finished=finished,
        seconds=round(time.monotonic() - begin, 3),
    )


def _todo(folder: DatasetFolder, made_of: Mapping[str, Any], items: Sequence[Item], mine: Sequence[Item]) -> Sequence[Item]:
    """What of `mine` is missing in a folder that may be gone on with."""
    folder.refuse_others(made_of)
    folder.refuse_strangers({folder.path / item.file for item in items})
    return folder.missing(mine)


def _keep_apart(out: Path, source: Source) -> None:
    """What is exported must not become data of the next export."""
    folders = {path.parent.resolve() for path in source.files}
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


def _card(chosen: Selection, card: Card, address: str | None, made_of: Mapping[str, Any], data: str) -> dict[str, Any]:
    """dataset.json: the same for the same export, wherever and whenever it is made; no path of this machine is in it."""
    about = to_json(card)
    kept = ("name", "generator", "image_size_px", "recipe", "steps", "data", "licence", "trained_against")
    return {
        "format": FORMAT,
        "image_size_px": made_of["image_size_px"],
        "settings": {key: made_of[key] for key in ("direction", "format", "origins", "count", *OF_IMAGES)},
        "counts": counts_of(chosen.items),
        "data": {"name": data, "source": chosen.source, "target": chosen.target},
        "bundle": {**{key: about[key] for key in kept}, "weights_sha256": made_of["bundle"], "address": address},
        "left_out": {**to_json(chosen.left_out), "unreadable": len(chosen.left_out.unreadable)},
        "warnings": list(chosen.warnings),
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
    weights: Weights
    how: Preprocessing
    side_px: int
    engine: str | None = None
    """What runs the generator; None where no fake is missing."""
    generator: Engine | None = None

    def opened(self, images: int, tell: OnProgress, cluster: Cluster | None) -> _Maker:
        """With the engine for so many images; of a cluster each actor has one of its own."""
        of: dict[str, Any] = {"generator": self.card.generator, "weights": self.weights, "tell": tell}
        of["scale"] = "native" if self.side_px > WHOLE_SIDE_PX else AUTO
        if cluster is not None:
            return replace(self, engine=engine_name(self.settings.engine, gpu=cluster.device, **of))
        name, engine = open_engine(
            self.settings.engine, images=images, gpu=self.settings.gpu, device=self.settings.device, **of
        )
        return replace(self, engine=name, generator=engine)

    def file_of(self, item: Item) -> bytes:
        engine = self.generator if item.generated else Unchanged()
        if engine is None:  # no fake was missing when it was decided what to build
            raise DataError(f"{self.settings.out / item.file}: disappeared meanwhile; give the command again")
        pixels = self.how.decode(item.picture.path).pixels
        if content_sha256(pixels) != item.picture.look.content:
            raise DataError(f"{item.picture.path}: changed while the export was at work; give the command again")
        # One image a call: with other batches, as after a stop, some devices give other last digits.
        made = translate_pixels(engine, self.card, self.how.squared(pixels, self.side_px), "native")
        return encode(made, self.settings.format)


def _making(maker: _Maker, device: str) -> Callable[[Any], None]:
    """What an actor does for each item: its file, written."""
    if maker.engine is not None:
        asked: dict[str, Any] = {"generator": maker.card.generator, "weights": maker.weights, "gpu": device, "threads": 1}
        maker = replace(maker, generator=engines.get(maker.engine)(**asked))

    def make(row: Any) -> None:
        item = from_json(Item, row)
        write_atomically(maker.settings.out / item.file, maker.file_of(item))

    return make


def _make(maker: _Maker, todo: Sequence[Item], workers: int, tell: OnProgress, cluster: Cluster | None) -> None:
    """Make these items, here in their order, or by actors, who write the files themselves."""
    made: Generator[bytes | None]
    if cluster is None:
        made = (file for _, file in in_order(maker.file_of, todo, workers))
    else:
        made = cluster.each(partial(_making, maker), to_json(todo))
    with closing(made):
        for done, (item, file) in enumerate(zip(todo, made, strict=True), start=1):
            if file is not None:
                write_atomically(maker.settings.out / item.file, file)
            if tell(Progress("exporting", done, len(todo))):
                raise Stopped("stopped; every image is whole, and the same export does the rest", exit_code=130)
