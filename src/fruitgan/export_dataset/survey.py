"""What of the data is exported: every image looked at once, the chosen ones, and the names of their files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fruitgan.data.decode import decode
from fruitgan.data.groups import content_sha256, near_groups, perceptual_hash
from fruitgan.data.labelled import LABELS, ORIGINS, PREDICTED
from fruitgan.data.parallel import in_order
from fruitgan.data.sources import Domain, Source
from fruitgan.errors import DataError
from fruitgan.progress import OnProgress, Progress
from fruitgan.translate.picture_files import Remark

DIGITS = 6
UNLIKE = 1.5
"""How many times the usual size of one class's images the other's may be before it is worth a word."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file that can be decoded, without its pixels."""

    path: Path
    name: str
    """Relative to the folder that holds all of the data, with `/`."""
    split: str
    """`train` or `test`."""
    content: str
    """The hash of its pixels."""
    look: int
    """64 bits of how it looks."""
    shorter_px: int
    format: str


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Files of the data that cannot be decoded or must not be used, whether or not they were wanted."""

    unreadable: tuple[Remark, ...]
    in_both_splits: int
    """Test images that are copies of training images, and those: the generator has seen them."""
    repeated: int
    """Further copies of an image within its split."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the data hold."""

    pictures: Mapping[str, Mapping[str, tuple[Picture, ...]]]
    """Those that may be used, by domain and split, each content once in each."""
    groups: Mapping[str, str]
    """The group of every content, near-duplicates having one in common; also of what may not be used."""
    trained_groups: frozenset[str]
    """The groups that a training image is in."""
    left_out: LeftOut

    def count(self, domain: Domain, *splits: str) -> int:
        """How many images of a domain may be used in these splits."""
        return sum(len(self.pictures[domain.name][split]) for split in splits)


@dataclass(frozen=True)
class Item:
    """One image of the dataset."""

    file: str
    """Relative to the dataset folder, with `/`."""
    generated: bool
    picture: Picture
    """Its source."""
    group: str


def survey(source: Source, tell: OnProgress = lambda event: None) -> Survey:
    """Decode every image of both domains and splits once.

    An image that the training split of either domain shares with the test split of either is left out of both: it would count
    as unseen and is not.

    Raises:
        DataError: a file that was there is there no more.
    """
    files = [path for domain in (source.a, source.b) for path in (*domain.train, *domain.test)]
    # The folder that holds all of the data: for a folder in the CycleGAN layout it is that folder.
    root = Path(os.path.commonpath([os.path.abspath(path.parent) for path in files]))
    found: dict[tuple[str, str], list[Picture]] = {}
    unreadable: list[Remark] = []
    for domain in (source.a, source.b):
        for split, paths in (("train", domain.train), ("test", domain.test)):
            pictures = found.setdefault((domain.name, split), [])
            looked = in_order(lambda path, split=split: _look(path, root, split), paths)  # type: ignore[misc]
            for done, (path, seen) in enumerate(looked, start=1):
                if isinstance(seen, Picture):
                    pictures.append(seen)
                else:
                    unreadable.append(Remark(str(path), seen))
                tell(Progress(f"looking at {split} {domain.name}", done, len(paths)))
    return _sorted_out(found, tuple(unreadable))


def _look(path: Path, root: Path, split: str) -> Picture | str:
    """The image, or why it cannot be decoded."""
    try:
        decoded = decode(path)
    except DataError as error:
        if not os.path.lexists(path):  # a drive that is gone must not become a smaller dataset
            raise DataError(
                f"{path}: disappeared while the images were looked at; give the command again when it is back"
            ) from error
        return str(error).removeprefix(f"{path}: ")
    return Picture(
        path=path,
        name=Path(os.path.abspath(path)).relative_to(root).as_posix(),
        split=split,
        content=content_sha256(decoded.pixels),
        look=perceptual_hash(decoded.pixels),
        shorter_px=min(decoded.pixels.shape[:2]),
        format=decoded.format,
    )


def _sorted_out(found: Mapping[tuple[str, str], Sequence[Picture]], unreadable: tuple[Remark, ...]) -> Survey:
    everything = [picture for pictures in found.values() for picture in pictures]
    trained, tested = ({picture.content for picture in everything if picture.split == split} for split in ("train", "test"))
    shared = trained & tested
    in_both_splits = repeated = 0
    kept: dict[str, dict[str, tuple[Picture, ...]]] = {domain: {} for domain, _ in found}
    for (domain, split), pictures in found.items():
        unseen = [picture for picture in pictures if picture.content not in shared]
        usable = {picture.content: picture for picture in reversed(unseen)}  # of copies the first is kept
        in_both_splits += len(pictures) - len(unseen)
        repeated += len(unseen) - len(usable)
        kept[domain][split] = tuple(usable.values())
    groups = near_groups([picture.content for picture in everything], [picture.look for picture in everything])
    return Survey(
        pictures=kept,
        groups=groups,
        trained_groups=frozenset(groups[content] for content in trained),
        left_out=LeftOut(unreadable=unreadable, in_both_splits=in_both_splits, repeated=repeated),
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


def choose(found: Survey, source: Domain, real: Domain, wanted: int | None) -> tuple[list[Picture], list[Picture]]:
    """The images to translate and the real ones, equally many; test images first, within a split in the order of their
    hashes, so that names and time of the data decide nothing.

    Raises:
        DataError: fewer than wanted, saying how many there are; or no test images and no count.
    """
    for domain in (source, real):
        test, train = found.count(domain, "test"), found.count(domain, "train")
        if wanted is None and not test:
            raise DataError(
                f"{domain.name}: has no test image that can be used; --count N takes training images too ({train} there are)"
            )
        if wanted is not None and wanted > test + train:
            most = min(found.count(domain, "test", "train") for domain in (source, real))
            raise DataError(
                f"{domain.name}: {wanted} images are wanted, {test} test and {train} training images "
                f"can be used; give --count {most} at most, or more data"
            )
    count = wanted or min(found.count(domain, "test") for domain in (source, real))
    ordered = [
        [
            picture
            for split in ("test", "train")
            for picture in sorted(found.pictures[domain.name][split], key=lambda picture: picture.content)
        ]
        for domain in (source, real)
    ]
    return ordered[0][:count], ordered[1][:count]


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


def warnings_of(items: Sequence[Item], found: Survey, size_px: int) -> list[str]:
    """What a person should know before believing a number made with these images."""
    warnings = []
    tested = [item for item in items if item.picture.split == "test"]
    if known := sum(item.group in found.trained_groups for item in tested):
        warnings.append(f"{known} of the {len(tested)} test images look nearly like a training image, whose group they share")
    generated, real = ([item.picture for item in items if item.generated == label] for label in (True, False))
    trained = [sum(picture.split == "train" for picture in pictures) for pictures in (generated, real)]
    if any(trained):
        warnings.append(
            f"{trained[0]} generated and {trained[1]} real images come from the training split, "
            "which the generator has seen; the manifest flags them"
        )
    usual = [median(picture.shorter_px for picture in pictures) for pictures in (generated, real)]
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
