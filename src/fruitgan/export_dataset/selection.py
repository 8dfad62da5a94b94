"""What of the data is exported: the images that may be used, the chosen ones, and the names of their files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from fruitgan.bundle import Card
from fruitgan.data.finder import Remark
from fruitgan.data.groups import near_groups
from fruitgan.data.labelled import LABELS, ORIGINS, PREDICTED
from fruitgan.data.preprocessing import Picture, Preprocessing, Survey, Tally
from fruitgan.data.sources import Domain, Source
from fruitgan.errors import DataError

if TYPE_CHECKING:
    from fruitgan.export_dataset.job import ExportSettings

DIGITS = 6
UNLIKE = 1.5
"""How many times the usual size of one class's images the other's may be before it is worth a word."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files of the data that cannot be decoded or must not be used, whether or not they were wanted."""

    unreadable: tuple[Remark, ...]
    in_both_splits: int
    """Test images that are copies of training images, and those: the generator has seen them."""
    repeated: int
    """Further copies of an image within its split."""


@dataclass(frozen=True)
class Item:
    """One image of the dataset."""

    file: str
    """Relative to the dataset folder, with `/`."""
    generated: bool
    picture: Picture
    """Its source."""
    source: str
    """The source's file, relative to the folder that holds all of the data, with `/`."""
    group: str


@dataclass(frozen=True)
class Selection:
    """The images to export, what is left out, and what a person should know of them."""

    items: list[Item]
    left_out: LeftOut
    warnings: tuple[str, ...]
    source: str
    target: str
    """The names of both domains."""


def select(data: Source, how: Preprocessing, found: Survey, card: Card, direction: str, settings: ExportSettings) -> Selection:
    """Choose the images, test images first, and name their files.

    An image that the training split of either domain shares with the test split of either is left out of both, since it would
    count as unseen and is not.

    Raises:
        DataError: fewer than wanted, saying how many there are; or no test images and no count.
    """
    source, target, odd = oriented(data, card.domains, direction)
    everything = [picture for split in found.values() for picture in split.pictures]
    trained, tested = ({picture.look.content for picture in everything if picture.split == name} for name in ("train", "test"))
    groups = near_groups(picture.look for picture in everything)
    usable, in_both_splits, repeated = {}, 0, 0
    for key, split in found.items():
        unseen = [picture for picture in split.pictures if picture.look.content not in trained & tested]
        once = {picture.look.content: picture for picture in reversed(unseen)}  # of copies the first is kept
        in_both_splits += len(split.pictures) - len(unseen)
        repeated += len(unseen) - len(once)
        usable[key] = sorted(once.values(), key=lambda picture: picture.look.content)  # so that names decide nothing
    chosen = _choose(usable, source.name, (target if settings.origins == "target" else source).name, settings.count)
    items = _name_items(data, *chosen, groups, settings.format)
    size_px, trained_groups = settings.image_size or card.image_size_px, {groups[content] for content in trained}
    warnings = ([odd] if odd else []) + data.notes + _warnings_of(items, trained_groups, size_px, card.data, data)
    for name, generated in ((PREDICTED, True), (ORIGINS, False)):
        warnings += Tally.of([item.picture.traits for item in items if item.generated == generated]).notes(name, how)
    if settings.format == "jpg":
        warnings.append(
            "jpg loses detail, and with it traces of the generator, in both classes alike; png and webp keep every bit"
        )
    broken = tuple(remark for split in found.values() for remark in split.broken)
    left_out = LeftOut(unreadable=broken, in_both_splits=in_both_splits, repeated=repeated)
    return Selection(items, left_out, tuple(warnings), source.name, target.name)


def counts_of(items: Sequence[Item]) -> dict[str, Any]:
    """How many images of each class there are, and of which splits their sources."""
    splits = {
        name: dict(sorted(Counter(item.picture.split for item in items if item.generated == generated).items()))
        for name, generated in ((PREDICTED, True), (ORIGINS, False))
    }
    return {**{name: sum(counts.values()) for name, counts in splits.items()}, "splits": splits}


def oriented(source: Source, domains: tuple[str, str], direction: str) -> tuple[Domain, Domain, str | None]:
    """The domain to translate from, the one to arrive at, and what is odd about them.

    `domains` are the bundle's. Where the data call theirs the same they are matched by name, else a with a.
    """
    ours = (source.a, source.b)
    odd = None
    if (source.b.name, source.a.name) == domains:
        ours = (source.b, source.a)
    elif (source.a.name, source.b.name) != domains:
        odd = (
            f"the bundle knows {domains[0]} and {domains[1]}, the data hold {source.a.name} and {source.b.name}: "
            f"taking {source.a.name} for {domains[0]} and {source.b.name} for {domains[1]}"
        )
    return (*ours, odd) if direction == "a2b" else (ours[1], ours[0], odd)


def _choose(
    usable: Mapping[tuple[str, str], Sequence[Picture]], source: str, real: str, wanted: int | None
) -> tuple[Sequence[Picture], Sequence[Picture]]:
    """The images to translate and the real ones, equally many; raises as `select`."""
    tests = [len(usable[name, "test"]) for name in (source, real)]
    all_of = [[*usable[name, "test"], *usable[name, "train"]] for name in (source, real)]
    for name, test, every in zip((source, real), tests, all_of, strict=True):
        train = len(every) - test
        if wanted is None and not test:
            raise DataError(
                f"{name}: has no test image that can be used; --count N takes training images too ({train} there are)"
            )
        if wanted is not None and wanted > len(every):
            raise DataError(
                f"{name}: {wanted} images are wanted, {test} test and {train} training images "
                f"can be used; give --count {min(map(len, all_of))} at most, or more data"
            )
    count = wanted or min(tests)
    return all_of[0][:count], all_of[1][:count]


def _name_items(
    data: Source, sources: Sequence[Picture], reals: Sequence[Picture], groups: Mapping[str, str], suffix: str
) -> list[Item]:
    """Both classes numbered alike from 0, each in an order that only hashes decide: so neither a name nor its place tells the
    class, the split or the source. Generated and real by turns."""
    # The folder that holds all of the data: for a folder in the CycleGAN layout it is that folder.
    root = os.path.commonpath([os.path.abspath(path.parent) for path in data.files])
    items = []
    for generated, folder, pictures in ((True, PREDICTED, sources), (False, ORIGINS, reals)):
        # With the label in the hash, a fake and its source have unlike numbers where --origins is source.
        order = sorted(
            pictures, key=lambda picture: hashlib.sha256(f"{LABELS[generated]} {picture.look.content}".encode()).digest()
        )
        for number, picture in enumerate(order):
            source = Path(os.path.abspath(picture.path)).relative_to(root).as_posix()
            file = f"{folder}/{number:0{DIGITS}}.{suffix}"
            items.append(Item(file, generated, picture, source, groups[picture.look.content]))
    return sorted(items, key=lambda item: (item.file.partition("/")[2], not item.generated))


def _warnings_of(
    items: Sequence[Item], trained_groups: Collection[str], size_px: int, trained_on: str, data: Source
) -> list[str]:
    """What a person should know before believing a number made with these images.

    `trained_on` is the name of the data that the generator was trained on.
    """
    warnings = []
    if not (data.a.train and data.b.train):
        warnings.append(
            f"no training images are at hand, so it cannot be checked that the generator, which was trained on {trained_on}, "
            "has not seen these images; they are taken for unseen"
        )
    tested = [item for item in items if item.picture.split == "test"]
    if known := sum(item.group in trained_groups for item in tested):
        warnings.append(f"{known} of the {len(tested)} test images look nearly like a training image, whose group they share")
    generated, real = ([item.picture for item in items if item.generated == label] for label in (True, False))
    trained = [sum(picture.split == "train" for picture in pictures) for pictures in (generated, real)]
    if any(trained):
        seen = "" if data.name == trained_on else f" if it was trained on these data (its bundle says {trained_on})"
        warnings.append(
            f"{trained[0]} generated and {trained[1]} real images come from the training split, "
            f"which the generator has seen{seen}; the manifest flags them"
        )
    usual = [median(min(picture.width_px, picture.height_px) for picture in pictures) for pictures in (generated, real)]
    if max(usual) > UNLIKE * min(usual) and min(usual) < 2 * size_px:
        warnings.append(
            f"the sources of the fakes are about {usual[0]:.0f} px, the real images {usual[1]:.0f} px: at {size_px} px "
            "sharpness alone may tell them apart"
        )
    kinds = [Counter(sorted(picture.format for picture in pictures)).most_common(1)[0][0] for pictures in (generated, real)]
    if kinds[0] != kinds[1]:
        warnings.append(
            f"the sources of the fakes are mostly {kinds[0]} files, the real images {kinds[1]}: traces of the compression "
            "alone may tell them apart"
        )
    return warnings
