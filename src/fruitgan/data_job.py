"""The jobs of `fruitgan data`: check what a data set or a folder holds, fetch a named set, list the named sets."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fruitgan.data.finder import NAMED_FILES, Remark
from fruitgan.data.preprocessing import AS_USUAL, Preprocessing, Tally, with_found_range
from fruitgan.data.sources import find_source, registry
from fruitgan.data.survey import BrokenFile, Picture, pictures_of, survey
from fruitgan.errors import DataError, EnvironmentProblem, UsageError
from fruitgan.progress import OnProgress, silent

TINY_PX = 64
"""Images whose shorter side is below this hold little to learn from."""
FEW_IMAGES = 20


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What to look at: `data` is a name or a folder, or else `data_a` and `data_b` are two folders."""

    data: str | None = None
    data_a: Path | None = None
    data_b: Path | None = None
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
    broken: tuple[BrokenFile, ...]
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


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Files with the same pixels, and in which splits they lie; the first split named is the first's, and so on."""

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
    begin = time.monotonic()
    tell = on_progress or silent
    source = find_source(settings.data, settings.data_a, settings.data_b, settings.domains, tell)
    how = with_found_range(settings.preprocessing, source.files, tell)
    looked = survey(source, how, tell)
    for (domain, split), files in looked.items():
        if split == "train" and files and not pictures_of(files):
            first = next(file for file in files if isinstance(file, BrokenFile))
            raise DataError(f"the domain {domain!r} has no image that can be decoded; {first.path}: {first.reason}")
    splits = tuple(_report(domain, split, files) for (domain, split), files in looked.items())
    places: dict[str, list[Picture]] = {}
    for files in looked.values():
        for picture in pictures_of(files):
            places.setdefault(picture.content, []).append(picture)
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
                files=tuple(picture.path for picture in found),
                splits=tuple(f"{picture.split} {picture.domain}" for picture in found),
            )
            for found in several
        ),
        skipped=source.a.skipped + source.b.skipped,
        leaks=leaks,
        in_both_domains=in_both,
        preprocessing=how,
        notes=tuple(note for report in splits for note in report.tally.notes(f"{report.split} {report.domain}", how)),
        problems=tuple(source.notes + _problems(splits, leaks, in_both)),
        seconds=time.monotonic() - begin,
    )


def _report(domain: str, split: str, files: Sequence[Picture | BrokenFile]) -> SplitReport:
    pictures = pictures_of(files)
    widths, heights = ([getattr(picture, side) for picture in pictures] for side in ("width_px", "height_px"))
    return SplitReport(
        domain=domain,
        split=split,
        files=len(files),
        images=len(pictures),
        broken=tuple(file for file in files if isinstance(file, BrokenFile)),
        distinct=len({picture.content for picture in pictures}),
        width_px=(min(widths), max(widths)) if widths else None,
        height_px=(min(heights), max(heights)) if heights else None,
        formats=dict(Counter(picture.format for picture in pictures).most_common()),
        modes=dict(Counter(picture.mode for picture in pictures).most_common()),
        tally=Tally.of([picture.traits for picture in pictures]),
        tiny=tuple(picture.path for picture in pictures if min(picture.width_px, picture.height_px) < TINY_PX),
        greyscale=tuple(picture.path for picture in pictures if picture.is_greyscale),
        not_finite=tuple(picture.path for picture in pictures if picture.traits.not_finite),
    )


def _problems(splits: tuple[SplitReport, ...], leaks: int, in_both_domains: int) -> list[str]:
    found = []
    for report in splits:
        name = f"{report.split} {report.domain}"
        if report.broken:
            found.append(f"{name}: {_count(len(report.broken), 'file')} cannot be decoded and will be left out")
        if report.split == "train" and not report.files:
            found.append(f"{name}: no images, so nothing can be trained on these data")
        elif report.split == "train" and report.images < FEW_IMAGES:
            found.append(f"{name}: {_count(report.images, 'image')}, too few to learn a domain from")
        if report.images and report.distinct < report.images:
            found.append(f"{name}: {_count(report.images - report.distinct, 'duplicate image')}")
        if report.tiny:
            found.append(f"{name}: {_count(len(report.tiny), 'image')} with a side below {TINY_PX} px")
        if report.images and 0 < len(report.greyscale) < report.images:
            found.append(f"{name}: {_count(len(report.greyscale), 'image')} in greyscale among coloured ones")
        if report.not_finite:
            names = ", ".join(path.name for path in report.not_finite[:NAMED_FILES])
            found.append(f"{name}: {_count(len(report.not_finite), 'image')} with NaN or infinite values, such as {names}")
        if report.split == "test" and not report.images:
            found.append(f"{name}: no images, so nothing can be measured on it")
    if leaks:
        found.append(f"{_count(leaks, 'test image')} are copies of training images: leave them out of every measurement")
    if in_both_domains:
        found.append(f"{_count(in_both_domains, 'picture')} in both domains")
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    name: str
    domains: tuple[str, str]
    folder: Path
    images: dict[str, int]
    """By split, such as trainA."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A registered data set; where its package cannot be imported, `problem` says why and the rest is None."""

    name: str
    package: str
    domains: tuple[str, str] | None = None
    summary: str | None = None
    is_present: bool | None = None
    problem: str | None = None


def fetch(name: str, on_progress: OnProgress | None = None) -> FetchResult:
    """Have a named set, or a repository of the Hub, in the cache.

    Raises:
        UsageError: an unknown name.
        DataError: it cannot be had.
    """
    begin = time.monotonic()
    tell = on_progress or silent
    source = find_source(name, tell=tell) if name.startswith("hf:") else registry.get(name).source(tell)
    splits = {"trainA": source.a.train, "trainB": source.b.train, "testA": source.a.test, "testB": source.b.test}
    return FetchResult(
        name=name,
        domains=(source.a.name, source.b.name),
        folder=Path(os.path.commonpath([path.parent for files in splits.values() for path in files])),
        images={split: len(files) for split, files in splits.items()},
        seconds=time.monotonic() - begin,
    )


def known_sets() -> list[KnownSet]:
    """Every registered data set; one that cannot be imported does not hide the others."""
    found = []
    for entry in registry.entries():
        try:
            dataset = registry.get(entry.name)
        except (EnvironmentProblem, UsageError) as error:
            found.append(KnownSet(name=entry.name, package=entry.package, problem=str(error)))
            continue
        found.append(
            KnownSet(
                name=entry.name,
                package=entry.package,
                domains=dataset.domains,
                summary=dataset.summary,
                is_present=dataset.is_present(),
            )
        )
    return found
