"""Drawn fruit as data: the job `fruitgan data draw` and the named set `demo`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from fruitgan.data.download import folder_of
from fruitgan.data.sources import Dataset, Source, folder_source
from fruitgan.demo import fruit
from fruitgan.errors import UsageError
from fruitgan.files import new_folder
from fruitgan.progress import OnProgress, Progress, silent

LARGEST_DRAWN_PX = 4096
FIRST_TEST_INDEX = 1_000_000_000
"""Test images are numbered from here, so that they are the same whatever the number of training images."""


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
        if not fruit.MINIMUM_SIZE_PX <= self.size_px <= LARGEST_DRAWN_PX:
            raise UsageError(f"cannot draw at {self.size_px} px: use {fruit.MINIMUM_SIZE_PX} to {LARGEST_DRAWN_PX}")


@dataclass(frozen=True, kw_only=True)
class DrawResult:
    folder: Path
    images: dict[str, int]
    """By split, such as trainA."""
    size_px: int
    seed: int
    seconds: float


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
        tell=on_progress or silent,
    )
    counts = {"train": settings.train_count, "test": settings.test_count}
    return DrawResult(
        folder=settings.out,
        images={f"{split}{letter}": count for split, count in counts.items() for letter in "AB" if count},
        size_px=settings.size_px,
        seed=settings.seed,
        seconds=time.monotonic() - begin,
    )


def draw_folder(
    folder: Path,
    *,
    train_count: int,
    test_count: int,
    size_px: int,
    seed: int,
    what: str = "drawing",
    tell: OnProgress = silent,
) -> None:
    """Draw so many apples into trainA and testA and so many oranges into trainB and testB, as PNG; whole or not at all.

    Raises:
        UsageError: a size below 16 px.
        FruitganError: the folder is there already or cannot be written.
    """
    jobs = [
        (f"{split}{letter}", kind, first + number)
        for split, count, first in (("train", train_count, 0), ("test", test_count, FIRST_TEST_INDEX))
        for letter, kind in zip("AB", fruit.KINDS, strict=True)
        for number in range(count)
    ]
    with new_folder(folder) as part:
        for done, (split, kind, index) in enumerate(jobs, start=1):
            (part / split).mkdir(exist_ok=True)
            picture = Image.fromarray(fruit.draw(kind, size_px, seed, index))
            picture.save(part / split / f"{kind}-{index % FIRST_TEST_INDEX:05}.png")
            tell(Progress(what, done, len(jobs)))


@dataclass(frozen=True)
class DrawnSet(Dataset):
    """Fruit drawn into the cache on first use."""

    name: str
    summary: str
    train_count: int
    test_count: int
    size_px: int
    seed: int
    edition: int
    """Counts the changes of what is drawn, so that an old version's pictures are not taken for ours."""
    domains: tuple[str, str] = field(default=("apple", "orange"))

    @property
    def _folder(self) -> Path:
        return folder_of(f"{self.name}-{self.edition}")

    def source(self, tell: OnProgress = silent) -> Source:
        if not self.is_present():
            draw_folder(
                self._folder,
                train_count=self.train_count,
                test_count=self.test_count,
                size_px=self.size_px,
                seed=self.seed,
                what=f"drawing {self.name}",
                tell=tell,
            )
        return replace(folder_source(self._folder, self.domains), name=self.name)

    def is_present(self) -> bool:
        return self._folder.is_dir()


demo = DrawnSet("demo", "drawn fruit, no network: 200 and 200 for training, 50 and 50 for test, 128 px", 200, 50, 128, 0, 2)
