"""The jobs of `fruitgan data`: check what a data set holds, cut a test split off, fetch a named set."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fruitgan.data.finder import NAMED_FILES, Remark
from fruitgan.data.groups import near_groups
from fruitgan.data.preprocessing import AS_USUAL, Picture, Preprocessing, Split, Tally, survey, with_found_range
from fruitgan.data.sources import SPLITS, Source, find_source, loose_source, must_be_folder, registry
from fruitgan.errors import DataError, FruitganError, UsageError, reason_of
from fruitgan.files import new_folder
from fruitgan.progress import OnProgress, silent
from fruitgan.settings import Settings

TINY_PX = 64
"""Images whose shorter side is below this hold little to learn from."""
FEW_IMAGES = 20


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """What to look at: `data` is a name or a folder, or else `data_a` and `data_b` are two folders."""

    data: str | None = None
    data_a: str | Path | None = None
    data_b: str | Path | None = None
    domains: tuple[str, str] | None = None
    preprocessing: Preprocessing = AS_USUAL
    """Without a range of values that of the data is found."""


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What one split of one domain holds; sizes are of the upright pictures, None where there is none."""

    domain: str
    split: str
    files: int
    images: int
    """Files that can be decoded."""
    broken: tuple[Remark, ...]
    distinct: int
    """Different pictures, by their pixels."""
    width_px: tuple[int, int] | None
    """Smallest and largest."""
    height_px: tuple[int, int] | None
    formats: dict[str, int]
    modes: dict[str, int]
    """Colour modes of the files in Pillow's words."""
    tally: Tally
    tiny: tuple[Path, ...]
    greyscale: tuple[Path, ...]
    not_finite: tuple[Path, ...]
    """Images of floats with NaN or infinities in them."""

    @property
    def name(self) -> str:
        return f"{self.split} {self.domain}"


@dataclass(frozen=True)
class Duplicates:
    """Files with the same pixels; `splits[i]` is the split of `files[i]`."""

    files: tuple[Path, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    source: str
    domains: tuple[str, str]
    splits: tuple[SplitReport, ...]
    duplicates: tuple[Duplicates, ...]
    """Every picture that is there more than once."""
    skipped: tuple[Remark, ...]
    """What lies in the folders and is no image."""
    leaks: int
    """Test images that are copies of training images, of either domain."""
    in_both_domains: int
    """Pictures that both domains hold."""
    preprocessing: Preprocessing
    notes: tuple[str, ...]
    """How transparent, deep and rectangular images become training images, a sentence each."""
    problems: tuple[str, ...]
    """What a person should know before training on this, a sentence each."""
    seconds: float


def check(settings: CheckSettings, on_progress: OnProgress | None = None) -> CheckResult:
    """Decode every image once; report what the data hold and what is wrong with them.

    Raises:
        DataError: no images, or a domain without a single image for training that can be decoded.
        UsageError: an unknown name.
    """
    begin, tell = time.monotonic(), on_progress or silent
    source = find_source(settings.data, settings.data_a, settings.data_b, settings.domains, tell)
    how = with_found_range(settings.preprocessing, source.files, tell)
    looked = survey(source, how, tell)
    places: dict[str, list[Picture]] = {}
    for (domain, part), files in looked.items():
        if part == "train" and files.broken and not files.pictures:
            first = files.broken[0]
            raise DataError(f"the domain {domain!r} has no image that can be decoded; {first.path}: {first.reason}")
        for picture in files.pictures:
            places.setdefault(picture.look.content, []).append(picture)
    splits = tuple(_report(domain, part, files) for (domain, part), files in looked.items())
    several = [found for found in places.values() if len(found) > 1]
    trained = [found for found in several if any(picture.split == "train" for picture in found)]
    leaks = sum(picture.split == "test" for found in trained for picture in found)
    in_both = sum(len({picture.domain for picture in found}) > 1 for found in several)
    return CheckResult(
        source=source.name,
        domains=(source.a.name, source.b.name),
        splits=splits,
        duplicates=tuple(
            Duplicates(
                tuple(picture.path for picture in found), tuple(f"{picture.split} {picture.domain}" for picture in found)
            )
            for found in several
        ),
        skipped=source.a.skipped + source.b.skipped,
        leaks=leaks,
        in_both_domains=in_both,
        preprocessing=how,
        notes=tuple(note for report in splits for note in (*report.tally.notes(report.name, how), *_grey_ones(report))),
        problems=tuple(source.notes + _problems(splits, leaks, in_both)),
        seconds=time.monotonic() - begin,
    )


def _report(domain: str, split: str, files: Split) -> SplitReport:
    pictures = files.pictures

    def paths(is_odd: Callable[[Picture], bool]) -> tuple[Path, ...]:
        return tuple(picture.path for picture in pictures if is_odd(picture))

    def sides(lengths: Iterable[int]) -> tuple[int, int] | None:
        return (min(found), max(found)) if (found := list(lengths)) else None

    return SplitReport(
        domain=domain,
        split=split,
        files=len(pictures) + len(files.broken),
        images=len(pictures),
        broken=tuple(files.broken),
        distinct=len({picture.look.content for picture in pictures}),
        width_px=sides(picture.width_px for picture in pictures),
        height_px=sides(picture.height_px for picture in pictures),
        formats=dict(Counter(picture.format for picture in pictures).most_common()),
        modes=dict(Counter(picture.mode for picture in pictures).most_common()),
        tally=Tally.of([picture.traits for picture in pictures]),
        tiny=paths(lambda picture: min(picture.width_px, picture.height_px) < TINY_PX),
        greyscale=paths(lambda picture: picture.is_greyscale),
        not_finite=paths(lambda picture: picture.traits.not_finite),
    )


def _grey_ones(report: SplitReport) -> list[str]:
    """Grey photographs among coloured ones are usual in collections, and no reason to clean one up."""
    grey = len(report.greyscale)
    return [f"{report.name}: {_count(grey, 'image')} in greyscale among coloured ones"] if 0 < grey < report.images else []


def _problems(splits: tuple[SplitReport, ...], leaks: int, in_both_domains: int) -> list[str]:
    found = []
    for report in splits:
        is_training = report.split == "train"
        names = ", ".join(path.name for path in report.not_finite[:NAMED_FILES])
        problems = [
            (report.broken, f"{_count(len(report.broken), 'file')} cannot be decoded and will be left out"),
            (is_training and not report.files, "no images, so nothing can be trained on these data"),
            (
                is_training and report.files > 0 and report.images < FEW_IMAGES,
                f"{_count(report.images, 'image')}, too few to learn a domain from",
            ),
            (report.distinct < report.images, _count(report.images - report.distinct, "duplicate image")),
            (report.tiny, f"{_count(len(report.tiny), 'image')} with a side below {TINY_PX} px"),
            (names, f"{_count(len(report.not_finite), 'image')} with NaN or infinite values, such as {names}"),
            (not (is_training or report.images), "no images, so nothing can be measured on it"),
        ]
        found += [f"{report.name}: {problem}" for is_there, problem in problems if is_there]
    if leaks:
        found.append(f"{_count(leaks, 'test image')} are copies of training images: leave them out of every measurement")
    if in_both_domains:
        found.append(f"{_count(in_both_domains, 'picture')} in both domains")
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True, kw_only=True)
class SplitSettings(Settings):
    """Which images to cut a test split off, and where to; `folder` holds a folder a domain, or else there are the two."""

    out: Path
    folder: Path | None = None
    data_a: Path | None = None
    data_b: Path | None = None
    test_fraction: float = 0.1
    copy: bool = False
    """Whether the files are copied and not linked to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.test_fraction < 1:
            raise UsageError(f"--test-fraction {self.test_fraction}: expected a number between 0 and 1")
        if self.folder is not None and (self.data_a or self.data_b):
            raise UsageError(f"{self.folder}: give a folder, or --data-a and --data-b, not both")
        if self.folder is None and not (self.data_a and self.data_b):
            raise UsageError("which images? Give a folder, or --data-a and --data-b")


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    out: Path
    domains: tuple[str, str]
    images: dict[str, int]
    """By split, such as trainA."""
    groups: int
    """How many groups of near-duplicates there are."""
    grouped: int
    """How many images are in them."""
    broken: tuple[Remark, ...]
    """Files that cannot be decoded, which are left out."""
    seconds: float


def split(settings: SplitSettings, on_progress: OnProgress | None = None) -> SplitResult:
    """Make a folder with trainA, trainB, testA and testB of links to the images, or of copies.

    Images that look nearly alike, of both domains, are on one side. Which it is depends on their pixels alone.

    Raises:
        UsageError: something is in the way.
        DataError: no images, too few to split, or a test split is there already.
        FruitganError: the folder cannot be written, or links cannot be made there.
    """
    begin, tell = time.monotonic(), on_progress or silent
    if os.path.lexists(settings.out) and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise UsageError(f"{settings.out}: is there already; give another folder with --out")
    for folder in filter(None, (settings.folder, settings.data_a, settings.data_b)):
        if folder.resolve() in settings.out.resolve().parents:
            raise UsageError(f"{settings.out}: would lie among its own sources in {folder}; give another folder with --out")
    source = _unsplit(settings)
    looked = survey(source, AS_USUAL, tell)
    domains = [
        [picture for part in ("train", "test") for picture in looked[domain.name, part].pictures]
        for domain in (source.a, source.b)
    ]
    every = [picture for pictures in domains for picture in pictures]
    groups = near_groups(picture.look for picture in every)
    tested = _tested([{groups[picture.look.content] for picture in pictures} for pictures in domains], settings.test_fraction)
    images = dict.fromkeys(SPLITS, 0)
    with suppress(OSError):
        settings.out.rmdir()  # an empty one may stand there
    with new_folder(settings.out) as folder:
        for letter, pictures in zip("AB", domains, strict=True):
            top = os.path.commonpath([picture.path.parent for picture in pictures])
            for picture in pictures:
                part = f"{'test' if groups[picture.look.content] in tested else 'train'}{letter}"
                images[part] += 1
                _put(picture.path, folder / part / picture.path.relative_to(top), settings.copy)
    sizes = Counter(groups[picture.look.content] for picture in every)
    several = [count for count in sizes.values() if count > 1]
    return SplitResult(
        out=settings.out,
        domains=(source.a.name, source.b.name),
        images=images,
        groups=len(several),
        grouped=sum(several),
        broken=tuple(remark for files in looked.values() for remark in files.broken),
        seconds=time.monotonic() - begin,
    )


def _unsplit(settings: SplitSettings) -> Source:
    root = settings.folder
    if root is None:
        return find_source(None, settings.data_a, settings.data_b)
    must_be_folder(root)
    if any((root / name).exists() for name in SPLITS[2:]):
        raise DataError(f"{root}: has a test split already, in testA and testB")
    inner = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(inner) != 2:
        raise DataError(f"{root}: holds {_count(len(inner), 'folder')}, not one for each domain; or give --data-a and --data-b")
    return loose_source(inner[0], inner[1]) if root / SPLITS[0] not in inner else find_source(str(root.absolute()))


def _tested(domains: Iterable[set[str]], fraction: float) -> set[str]:
    """The groups whose hash is in the lowest `fraction` of all; in each domain there is one that is, and one that is not."""
    # A group's name is the least hash in it, which is low for large groups: its own hash is not.
    place = {name: hashlib.sha256(name.encode()).digest() for names in domains for name in names}
    tested = {name for name, digest in place.items() if int.from_bytes(digest[:4], "big") < fraction * 2**32}
    for names in domains:
        ordered = sorted(names, key=lambda name: place[name])
        if len(ordered) < 2:
            raise DataError("all images of a domain look nearly alike, so that none can be held out for a test")
        tested = tested | {ordered[0]} if not tested & names else tested
        tested = tested - {ordered[-1]} if tested >= names else tested
    return tested


def _put(path: Path, place: Path, copy: bool) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        shutil.copy2(path, place)
        return
    try:
        place.symlink_to(path.resolve())
    except OSError as error:  # Windows asks for a privilege, some file systems have none
        raise FruitganError(f"{place.name}: no link can be made there ({reason_of(error)}); --copy copies the files") from error


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    name: str
    domains: tuple[str, str]
    folder: Path
    images: dict[str, int]
    """By split, such as trainA."""
    seconds: float


def fetch(name: str, on_progress: OnProgress | None = None) -> FetchResult:
    """Have a named set, or a repository of the Hub, in the cache.

    Raises:
        UsageError: an unknown name.
        DataError: it cannot be had.
    """
    begin, tell = time.monotonic(), on_progress or silent
    source = find_source(name, tell=tell) if name.startswith("hf:") else registry.get(name).source(tell)
    splits = dict(zip(SPLITS, (source.a.train, source.b.train, source.a.test, source.b.test), strict=True))
    return FetchResult(
        name=name,
        domains=(source.a.name, source.b.name),
        folder=Path(os.path.commonpath([path.parent for files in splits.values() for path in files])),
        images={split: len(files) for split, files in splits.items()},
        seconds=time.monotonic() - begin,
    )
