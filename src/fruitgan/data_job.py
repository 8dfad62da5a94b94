"""The jobs of `fruitgan data`: check what a data set or a folder holds, fetch a named set, list the named sets."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fruitgan.data.decode import decode
from fruitgan.data.download import OnStep
from fruitgan.data.groups import content_sha256
from fruitgan.data.parallel import in_order
from fruitgan.data.sources import Source, find_source, registry
from fruitgan.errors import DataError, EnvironmentProblem, UsageError
from fruitgan.images import Pixels
from fruitgan.progress import OnProgress, Progress

TINY_PX = 64
"""Images whose shorter side is below this hold little to learn from."""
GREY_DIFFERENCE = 3.0
"""Mean difference of the colour channels, of 255, up to which a picture is greyscale (JPEG adds about 1)."""
FEW_IMAGES = 20


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What to look at: `data` is a name or a folder, or else `data_a` and `data_b` are two folders."""

    data: str | None = None
    data_a: Path | None = None
    data_b: Path | None = None
    domains: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class BrokenFile:
    path: Path
    reason: str


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
    transparent: int
    tiny: tuple[Path, ...]
    greyscale: tuple[Path, ...]


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
    leaks: int
    """Test images that are copies of training images, of either domain."""
    in_both_domains: int
    """Pictures that both domains hold."""
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
    source = find_source(settings.data, settings.data_a, settings.data_b, settings.domains, _steps(on_progress))
    looked = {key: _look_at(source, key, on_progress) for key in _splits(source)}
    for (domain, split), pictures in looked.items():
        if split == "train" and not any(isinstance(picture, _Picture) for picture in pictures.values()):
            path, first = next(iter(pictures.items()))
            raise DataError(f"the domain {domain!r} has no image that can be decoded; {path}: {first}")
    splits = tuple(_report(domain, split, pictures) for (domain, split), pictures in looked.items())
    duplicates, leaks, in_both = _duplicates(looked)
    return CheckResult(
        source=source.name,
        domains=(source.a.name, source.b.name),
        splits=splits,
        duplicates=duplicates,
        leaks=leaks,
        in_both_domains=in_both,
        problems=tuple(_problems(splits, leaks, in_both)),
        seconds=time.monotonic() - begin,
    )


@dataclass(frozen=True)
class _Picture:
    """What is kept of a decoded file."""

    digest: str
    width: int
    height: int
    format: str
    mode: str
    is_transparent: bool
    is_greyscale: bool


_Key = tuple[str, str]
"""The domain and "train" or "test"."""
_Looked = dict[_Key, dict[Path, _Picture | str]]
"""The pictures of each split, or why a file is none."""


def _splits(source: Source) -> dict[_Key, tuple[Path, ...]]:
    domains = (source.a, source.b)
    trains = {(domain.name, "train"): domain.train for domain in domains}
    return trains | {(domain.name, "test"): domain.test for domain in domains}


def _look_at(source: Source, key: _Key, on_progress: OnProgress | None) -> dict[Path, _Picture | str]:
    files = _splits(source)[key]
    label = f"looking at {key[1]} {key[0]}"
    looked: dict[Path, _Picture | str] = {}
    for done, (path, picture) in enumerate(in_order(_picture, files), start=1):
        looked[path] = picture
        if on_progress is not None:
            on_progress(Progress(label, done, len(files)))
    return looked


def _picture(path: Path) -> _Picture | str:
    try:
        decoded = decode(path)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    height, width = decoded.pixels.shape[:2]
    return _Picture(
        digest=content_sha256(decoded.pixels),
        width=width,
        height=height,
        format=decoded.format,
        mode=decoded.mode,
        is_transparent=decoded.alpha is not None,
        is_greyscale=_is_greyscale(decoded.pixels),
    )


def _is_greyscale(pixels: Pixels) -> bool:
    values = pixels.astype(np.int16)
    return float((values.max(axis=2) - values.min(axis=2)).mean()) <= GREY_DIFFERENCE


def _report(domain: str, split: str, looked: dict[Path, _Picture | str]) -> SplitReport:
    pictures = {path: picture for path, picture in looked.items() if isinstance(picture, _Picture)}
    widths = [picture.width for picture in pictures.values()]
    heights = [picture.height for picture in pictures.values()]
    return SplitReport(
        domain=domain,
        split=split,
        files=len(looked),
        images=len(pictures),
        broken=tuple(BrokenFile(path=path, reason=reason) for path, reason in looked.items() if isinstance(reason, str)),
        distinct=len({picture.digest for picture in pictures.values()}),
        width_px=(min(widths), max(widths)) if widths else None,
        height_px=(min(heights), max(heights)) if heights else None,
        formats=dict(Counter(picture.format for picture in pictures.values()).most_common()),
        modes=dict(Counter(picture.mode for picture in pictures.values()).most_common()),
        transparent=sum(picture.is_transparent for picture in pictures.values()),
        tiny=tuple(path for path, picture in pictures.items() if min(picture.width, picture.height) < TINY_PX),
        greyscale=tuple(path for path, picture in pictures.items() if picture.is_greyscale),
    )


def _duplicates(looked: _Looked) -> tuple[tuple[Duplicates, ...], int, int]:
    """Pictures that are there twice or more; test images among them that training knows; pictures in both domains."""
    places: dict[str, list[tuple[Path, _Key]]] = {}
    for key, pictures in looked.items():
        for path, picture in pictures.items():
            if isinstance(picture, _Picture):
                places.setdefault(picture.digest, []).append((path, key))
    several = [found for found in places.values() if len(found) > 1]
    duplicates = tuple(
        Duplicates(files=tuple(path for path, _ in found), splits=tuple(f"{split} {domain}" for _, (domain, split) in found))
        for found in several
    )
    trained = [found for found in several if any(split == "train" for _, (_, split) in found)]
    leaks = sum(split == "test" for found in trained for _, (_, split) in found)
    in_both = sum(len({domain for _, (domain, _) in found}) > 1 for found in several)
    return duplicates, leaks, in_both


def _problems(splits: tuple[SplitReport, ...], leaks: int, in_both_domains: int) -> list[str]:
    found = []
    for report in splits:
        name = f"{report.split} {report.domain}"
        if report.broken:
            found.append(f"{name}: {_count(len(report.broken), 'file')} cannot be decoded and will be left out")
        if report.split == "train" and report.images < FEW_IMAGES:
            found.append(f"{name}: {_count(report.images, 'image')}, too few to learn a domain from")
        if report.images and report.distinct < report.images:
            found.append(f"{name}: {_count(report.images - report.distinct, 'duplicate image')}")
        if report.tiny:
            found.append(f"{name}: {_count(len(report.tiny), 'image')} with a side below {TINY_PX} px")
        if report.images and 0 < len(report.greyscale) < report.images:
            found.append(f"{name}: {_count(len(report.greyscale), 'image')} in greyscale among coloured ones")
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
    """Have a named set in the cache.

    Raises:
        UsageError: an unknown name.
        DataError: it cannot be had.
    """
    begin = time.monotonic()
    source = registry.get(name).source(_steps(on_progress))
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


def _steps(on_progress: OnProgress | None) -> OnStep:
    """The callback of a source, which becomes events."""

    def step(what: str, done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(Progress(what, done, total))

    return step
