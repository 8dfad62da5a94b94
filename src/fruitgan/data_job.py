"""Image data: looking at them, fetching them, drawing them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from fruitgan.data.check import CheckResult, CheckSettings, OnProgress, check
from fruitgan.data.datasets import registry
from fruitgan.demo.drawing import draw_folder
from fruitgan.demo.fruit import MINIMUM_SIZE_PX
from fruitgan.errors import EnvironmentProblem, UsageError

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
