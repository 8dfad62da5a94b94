"""What of the data is exported: the images that may be used, the chosen ones, and the names of their files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fruitgan.data.groups import near_groups
from fruitgan.data.labelled import LABELS, ORIGINS, PREDICTED
from fruitgan.data.sources import Domain, Source
from fruitgan.data.survey import BrokenFile, Picture, Survey, pictures_of
from fruitgan.errors import DataError

DIGITS = 6
UNLIKE = 1.5
"""How many times the usual size of one class's images the other's may be before it is worth a word."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files of the data that cannot be decoded or must not be used, whether or not they were wanted."""

    unreadable: tuple[BrokenFile, ...]
    in_both_splits: int
    """Test images that are copies of training images, and those: the generator has seen them."""
    repeated: int
    """Further copies of an image within its split."""


@dataclass(frozen=True, kw_only=True)
class Usable:
    """The images that may be exported, by domain and split, each content once in each."""

    pictures: Mapping[tuple[str, str], Sequence[Picture]]
    groups: Mapping[str, str]
    """The group of every content, near-duplicates having one in common; also of what may not be used."""
    trained_groups: frozenset[str]
    """The groups that a training image is in."""
    left_out: LeftOut

    def of(self, domain: Domain, *splits: str) -> list[Picture]:
        """Those of a domain in these splits, within a split in the order of their hashes, so that names decide nothing."""
        return [p for split in splits for p in sorted(self.pictures[domain.name, split], key=lambda p: p.content)]


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


def usable(found: Survey) -> Usable:
    """What may be exported: an image that the training split of either domain shares with the test split of either is left
    out of both, since it would count as unseen and is not.
    """
    everything = [picture for files in found.values() for picture in pictures_of(files)]
    trained, tested = ({picture.content for picture in everything if picture.split == split} for split in ("train", "test"))
    in_both_splits = repeated = 0
    kept = {}
    for key, files in found.items():
        pictures = pictures_of(files)
        unseen = [picture for picture in pictures if picture.content not in trained & tested]
        once = {picture.content: picture for picture in reversed(unseen)}  # of copies the first is kept
        in_both_splits += len(pictures) - len(unseen)
        repeated += len(unseen) - len(once)
        kept[key] = tuple(once.values())
    groups = near_groups([picture.content for picture in everything], [picture.look for picture in everything])
    broken = tuple(file for files in found.values() for file in files if isinstance(file, BrokenFile))
    return Usable(
        pictures=kept,
        groups=groups,
        trained_groups=frozenset(groups[content] for content in trained),
        left_out=LeftOut(unreadable=broken, in_both_splits=in_both_splits, repeated=repeated),
    )


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


def choose(found: Usable, source: Domain, real: Domain, wanted: int | None) -> tuple[list[Picture], list[Picture]]:
    """The images to translate and the real ones, equally many; test images first.

    Raises:
        DataError: fewer than wanted, saying how many there are; or no test images and no count.
    """
    for domain in (source, real):
        test, train = len(found.of(domain, "test")), len(found.of(domain, "train"))
        if wanted is None and not test:
            raise DataError(
                f"{domain.name}: has no test image that can be used; --count N takes training images too ({train} there are)"
            )
        if wanted is not None and wanted > test + train:
            most = min(len(found.of(domain, "test", "train")) for domain in (source, real))
            raise DataError(
                f"{domain.name}: {wanted} images are wanted, {test} test and {train} training images "
                f"can be used; give --count {most} at most, or more data"
            )
    count = wanted or min(len(found.of(domain, "test")) for domain in (source, real))
    sources, reals = (found.of(domain, "test", "train")[:count] for domain in (source, real))
    return sources, reals


def name_items(data: Source, sources: Sequence[Picture], reals: Sequence[Picture], found: Usable, suffix: str) -> list[Item]:
    """Both classes numbered alike from 0, each in an order that only hashes decide: so neither a name nor its place tells the
    class, the split or the source. Generated and real by turns."""
    # The folder that holds all of the data: for a folder in the CycleGAN layout it is that folder.
    root = os.path.commonpath([os.path.abspath(path.parent) for path in data.files])
    items = []
    for generated, folder, pictures in ((True, PREDICTED, sources), (False, ORIGINS, reals)):
        # With the label in the hash, a fake and its source have unlike numbers where --origins is source.
        order = sorted(pictures, key=lambda picture: hashlib.sha256(f"{LABELS[generated]} {picture.content}".encode()).digest())
        for number, picture in enumerate(order):
            source = Path(os.path.abspath(picture.path)).relative_to(root).as_posix()
            file = f"{folder}/{number:0{DIGITS}}.{suffix}"
            items.append(Item(file, generated, picture, source, found.groups[picture.content]))
    return sorted(items, key=lambda item: (item.file.partition("/")[2], not item.generated))


def warnings_of(items: Sequence[Item], found: Usable, size_px: int, trained_on: str, data: Source) -> list[str]:
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
    if known := sum(item.group in found.trained_groups for item in tested):
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
