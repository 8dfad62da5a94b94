"""Which pictures are exported, and under which names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fruitgan.data.labelled import LABELS, ORIGINS, PREDICTED
from fruitgan.data.sources import Domain
from fruitgan.errors import DataError
from fruitgan.export_dataset.settings import ExportSettings
from fruitgan.export_dataset.survey import Picture, Survey

DIGITS = 6
UNLIKE = 1.5
"""How many times the usual size of one class's pictures the other's may be before it is worth a word."""


@dataclass(frozen=True)
class Item:
    """One picture of the dataset."""

    file: str
    """Relative to the dataset folder, with `/`."""
    generated: bool
    picture: Picture
    """Its source."""
    group: str


def choose(settings: ExportSettings, found: Survey, source: Domain, target: Domain) -> tuple[list[Picture], list[Picture]]:
    """The pictures to translate and the real ones, equally many; test pictures first, within a split in the order of their
    hashes, so that names and time of the data decide nothing.

    Raises:
        DataError: fewer than wanted, saying how many there are; or no test pictures and no count.
    """
    real = target if settings.origins == "target" else source
    for domain in (source, real):
        have = {split: len(found.pictures[domain.name][split]) for split in ("test", "train")}
        if settings.count is None and not have["test"]:
            raise DataError(
                f"{domain.name}: has no test image that can be used; --count N takes training images too "
                f"({have['train']} there are)"
            )
        if settings.count is not None and settings.count > sum(have.values()):
            raise DataError(
                f"{domain.name}: {settings.count} images are wanted, {have['test']} test and {have['train']} training images "
                f"can be used; give --count {min(_available(found, source), _available(found, real))} at most, or more data"
            )
    both = [found.pictures[domain.name] for domain in (source, real)]
    count = settings.count or min(len(pictures["test"]) for pictures in both)
    sources, reals = ([*_by_hash(pictures["test"]), *_by_hash(pictures["train"])][:count] for pictures in both)
    return sources, reals


def _available(found: Survey, domain: Domain) -> int:
    return sum(len(pictures) for pictures in found.pictures[domain.name].values())


def _by_hash(pictures: Sequence[Picture]) -> list[Picture]:
    return sorted(pictures, key=lambda picture: picture.content)


def name_items(sources: Sequence[Picture], reals: Sequence[Picture], groups: Mapping[str, str], suffix: str) -> list[Item]:
    """Both classes numbered alike from 0, each in an order that only hashes decide: so neither a name nor its place tells the
    class, the split or the source. Generated and real by turns."""
    items = []
    for generated, folder, pictures in ((True, PREDICTED, sources), (False, ORIGINS, reals)):
        # With the label in the hash, a fake and its source have unlike numbers where --origins is source.
        order = sorted(pictures, key=lambda picture: hashlib.sha256(f"{LABELS[generated]} {picture.content}".encode()).digest())
        items += [
            Item(f"{folder}/{number:0{DIGITS}}.{suffix}", generated, picture, groups[picture.content])
            for number, picture in enumerate(order)
        ]
    return sorted(items, key=lambda item: (item.file.partition("/")[2], not item.generated))


def remarks(items: Sequence[Item], found: Survey, size_px: int) -> list[str]:
    """What a person should know before believing a number made with these pictures."""
    said = []
    tested = [item for item in items if item.picture.split == "test"]
    if known := sum(item.group in found.trained_groups for item in tested):
        said.append(f"{known} of the {len(tested)} test pictures look nearly like a training picture, whose group they share")
    trained = {generated: _trained(items, generated) for generated in (True, False)}
    if any(trained.values()):
        said.append(
            f"{trained[True]} generated and {trained[False]} real pictures come from the training split, "
            "which the generator has seen; the manifest flags them"
        )
    generated, real = ([item.picture for item in items if item.generated == label] for label in (True, False))
    usual = [median(picture.shorter_px for picture in pictures) for pictures in (generated, real)]
    if max(usual) > UNLIKE * min(usual) and min(usual) < 2 * size_px:
        said.append(
            f"the sources of the fakes are about {usual[0]:.0f} px, the real pictures {usual[1]:.0f} px: at {size_px} px "
            "sharpness alone may tell them apart"
        )
    kinds = [_commonest(pictures) for pictures in (generated, real)]
    if kinds[0] != kinds[1]:
        said.append(
            f"the sources of the fakes are mostly {kinds[0]} files, the real pictures {kinds[1]}: traces of the compression "
            "alone may tell them apart"
        )
    return said


def _trained(items: Sequence[Item], generated: bool) -> int:
    return sum(item.generated == generated and item.picture.split == "train" for item in items)


def _commonest(pictures: Sequence[Picture]) -> str:
    kinds = [picture.format for picture in pictures]
    return max(sorted(set(kinds)), key=kinds.count)
