"""Image data: looking at them, fetching them, drawing them."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fruitgan.data.decode import decode
from fruitgan.data.parallel import in_order
from fruitgan.data.sources import Source, find_source, registry
from fruitgan.demo.fruit import MINIMUM_SIZE_PX, draw_folder
from fruitgan.errors import DataError, EnvironmentProblem, UsageError
from fruitgan.images import Pixels

__all__ = [
    "CheckResult",
    "CheckSettings",
    "DrawResult",
    "DrawSettings",
    "FetchResult",
    "KnownSet",
    "check",
    "draw",
    "fetch",
    "known_sets",
]

LARGEST_DRAWN_PX = 4096


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    name: str
    domains: tuple[str, str]
    folder: Path
    images: dict[str, int]
    """By split, such as trainA."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """Drawn apples and oranges: so many of each for training and for test."""

    out: Path
    train_count: int = 200
    test_count: int = 50
    size_px: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train_count < 1 or self.test_count < 0:
            raise UsageError(f"cannot draw {self.train_count} training and {self.test_count} test images: use 1 and 0 or more")
        if not MINIMUM_SIZE_PX <= self.size_px <= LARGEST_DRAWN_PX:
            raise UsageError(f"cannot draw at {self.size_px} px: use {MINIMUM_SIZE_PX} to {LARGEST_DRAWN_PX}")


@dataclass(frozen=True, kw_only=True)
class DrawResult:
    folder: Path
    images: dict[str, int]
    size_px: int
    seed: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A registered data set; what its package would say is None where that cannot be imported, and `problem` says why."""

    name: str
    package: str
    domains: tuple[str, str] | None
    summary: str | None
    is_present: bool | None
    problem: str | None


def fetch(name: str, on_progress: OnProgress | None = None) -> FetchResult:
    """Have a named set in the cache.

    Raises:
        UsageError: an unknown name.
        DataError: it cannot be had.
    """
    begin = time.monotonic()
    source = registry.get(name).source(on_progress)
    splits = {"trainA": source.a.train, "trainB": source.b.train, "testA": source.a.test, "testB": source.b.test}
    return FetchResult(
        name=name,
        domains=(source.a.name, source.b.name),
        folder=Path(os.path.commonpath([path.parent for files in splits.values() for path in files])),
        images={split: len(files) for split, files in splits.items()},
        seconds=time.monotonic() - begin,
    )


def draw(settings: DrawSettings, on_progress: OnProgress | None = None) -> DrawResult:
    """Draw apples and oranges into a new folder in the CycleGAN layout; the folder appears whole.

    Raises:
        UsageError: something is at the folder's place already.
        FruitganError: it cannot be written.
    """
    begin = time.monotonic()
    if settings.out.exists() or settings.out.is_symlink():
        raise UsageError(f"{settings.out} exists already: choose another folder, or remove it")
    draw_folder(
        settings.out,
        train_count=settings.train_count,
        test_count=settings.test_count,
        size_px=settings.size_px,
        seed=settings.seed,
        on_progress=None if on_progress is None else lambda done, total: on_progress("drawing", done, total),
    )
    counts = {"train": settings.train_count, "test": settings.test_count}
    return DrawResult(
        folder=settings.out,
        images={f"{split}{letter}": count for split, count in counts.items() for letter in "AB" if count},
        size_px=settings.size_px,
        seed=settings.seed,
        seconds=time.monotonic() - begin,
    )


def known_sets() -> list[KnownSet]:
    """Every registered data set; one that cannot be imported does not hide the others."""
    found = []
    for entry in registry.entries():
        try:
            dataset = registry.get(entry.name)
        except (EnvironmentProblem, UsageError) as error:
            found.append(
                KnownSet(
                    name=entry.name, package=entry.package, domains=None, summary=None, is_present=None, problem=str(error)
                )
            )
            continue
        found.append(
            KnownSet(
                name=entry.name,
                package=entry.package,
                domains=dataset.domains,
                summary=dataset.summary,
                is_present=dataset.is_present(),
                problem=None,
            )
        )
    return found


OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

TINY_PX = 64
"""Images whose shorter side is below this hold little to learn from."""
GREY_DIFFERENCE = 3.0
"""Mean difference of the colour channels, of 255, up to which a picture looks grey (JPEG adds about 1)."""
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
    grey: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Files with the same pixels, and in which splits they lie; the first split named is the first's, and so on."""

    files: tuple[Path, ...]
    splits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    source: str
    domains: tuple[str, str]
    splits: tuple[SplitReport, ...]
    copies: tuple[Copies, ...]
    """Every picture that is there more than once."""
    leaks: int
    """Test images that are copies of training images, of either domain."""
    in_both_domains: int
    """Pictures that both domains hold."""
    problems: tuple[str, ...]
    """What a person should know before training on this, a sentence each."""
    seconds: float


def check(settings: CheckSettings, on_progress: OnProgress | None = None) -> CheckResult:
    """Decode every image once and say what the data hold and what is wrong with them.

    Raises:
        DataError: no images, or a domain without a single image for training that can be decoded.
        UsageError: an unknown name.
    """
    begin = time.monotonic()
    source = find_source(settings.data, settings.data_a, settings.data_b, settings.domains, on_progress)
    looked = {key: _look_at(source, key, on_progress) for key in _splits(source)}
    for (domain, split), pictures in looked.items():
        if split == "train" and not any(isinstance(picture, _Picture) for picture in pictures.values()):
            path, first = next(iter(pictures.items()))
            raise DataError(f"the domain {domain!r} has no image that can be decoded; {path}: {first}")
    splits = tuple(_report(domain, split, pictures) for (domain, split), pictures in looked.items())
    copies, leaks, in_both = _copies(looked)
    return CheckResult(
        source=source.name,
        domains=(source.a.name, source.b.name),
        splits=splits,
        copies=copies,
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
    is_grey: bool


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
            on_progress(label, done, len(files))
    return looked


def _picture(path: Path) -> _Picture | str:
    try:
        decoded = decode(path)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")
    height, width = decoded.pixels.shape[:2]
    digest = hashlib.sha256(f"{height} {width} ".encode() + decoded.pixels.tobytes()).hexdigest()
    return _Picture(digest, width, height, decoded.format, decoded.mode, decoded.alpha is not None, _is_grey(decoded.pixels))


def _is_grey(pixels: Pixels) -> bool:
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
        grey=tuple(path for path, picture in pictures.items() if picture.is_grey),
    )


def _copies(looked: _Looked) -> tuple[tuple[Copies, ...], int, int]:
    """Pictures that are there twice or more; test images among them that training knows; pictures in both domains."""
    places: dict[str, list[tuple[Path, _Key]]] = {}
    for key, pictures in looked.items():
        for path, picture in pictures.items():
            if isinstance(picture, _Picture):
                places.setdefault(picture.digest, []).append((path, key))
    several = [found for found in places.values() if len(found) > 1]
    copies = tuple(
        Copies(files=tuple(path for path, _ in found), splits=tuple(f"{split} {domain}" for _, (domain, split) in found))
        for found in several
    )
    trained = [found for found in several if any(split == "train" for _, (_, split) in found)]
    leaks = sum(split == "test" for found in trained for _, (_, split) in found)
    in_both = sum(len({domain for _, (domain, _) in found}) > 1 for found in several)
    return copies, leaks, in_both


def _problems(splits: tuple[SplitReport, ...], leaks: int, in_both_domains: int) -> list[str]:
    found = []
    for report in splits:
        name = f"{report.split} {report.domain}"
        if report.broken:
            found.append(f"{name}: {_count(len(report.broken), 'file')} cannot be decoded and will be left out")
        if report.split == "train" and report.images < FEW_IMAGES:
            found.append(f"{name}: {_count(report.images, 'image')}, too few to learn a domain from")
        if report.images and report.distinct < report.images:
            found.append(f"{name}: {_count(report.images - report.distinct, 'image')} more than there are different ones")
        if report.tiny:
            found.append(f"{name}: {_count(len(report.tiny), 'image')} with a side below {TINY_PX} px")
        if report.images and 0 < len(report.grey) < report.images:
            found.append(f"{name}: {_count(len(report.grey), 'image')} without colour among coloured ones")
        if report.split == "test" and not report.images:
            found.append(f"{name}: no images, so nothing can be measured on it")
    if leaks:
        found.append(f"{_count(leaks, 'test image')} are copies of training images: leave them out of every measurement")
    if in_both_domains:
        found.append(f"{_count(in_both_domains, 'picture')} in both domains")
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
