"""Drawn fruit as data: the job `fruitgan data draw` and the named set `demo`."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from PIL import Image

from fruitgan.data.download import folder_of
from fruitgan.data.sources import Dataset, Source, folder_source
from fruitgan.demo import fruit
from fruitgan.errors import UsageError
from fruitgan.files import make_once, new_folder
from fruitgan.progress import Note, OnProgress, Progress, silent
from fruitgan.settings import Settings

LARGEST_DRAWN_PX = 4096
FIRST_TEST_INDEX = 1_000_000_000
"""Test images are numbered from here, so that they are the same whatever the number of training images."""


@dataclass(frozen=True, kw_only=True)
class DrawSettings(Settings):
    """Drawn apples and oranges: so many of each for training and for test."""

    out: Path = Path("fruit")
    train_count: int = 200
    test_count: int = 50
    size_px: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
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
    """Draw apples into trainA and testA and oranges into trainB and testB of a new folder, as PNG; it appears whole.

    Raises:
        UsageError: something is at the folder's place already.
        FruitganError: it cannot be written.
    """
    begin, tell = time.monotonic(), on_progress or silent
    if settings.out.exists() or settings.out.is_symlink():
        raise UsageError(f"{settings.out} exists already: choose another folder, or remove it")
    with new_folder(settings.out) as part:
        images = _draw_into(part, settings, tell)
    return DrawResult(
        folder=settings.out,
        images=images,
        size_px=settings.size_px,
        seed=settings.seed,
        seconds=time.monotonic() - begin,
    )


def _draw_into(folder: Path, settings: DrawSettings, tell: OnProgress) -> dict[str, int]:
    """Draw all pictures; how many by split."""
    drawn = [
        (f"{split}{letter}", kind, first + number)
        for split, count, first in (("train", settings.train_count, 0), ("test", settings.test_count, FIRST_TEST_INDEX))
        for letter, kind in zip("AB", fruit.KINDS, strict=True)
        for number in range(count)
    ]
    for done, (split, kind, index) in enumerate(drawn, start=1):
        (folder / split).mkdir(exist_ok=True)
        picture = Image.fromarray(fruit.draw(kind, settings.size_px, settings.seed, index))
        picture.save(folder / split / f"{kind}-{index % FIRST_TEST_INDEX:05}.png")
        tell(Progress("drawing", done, len(drawn)))
    return dict(Counter(split for split, *_ in drawn))


@dataclass(frozen=True)
class DrawnSet(Dataset):
    """Fruit drawn into the cache on first use."""

    settings: DrawSettings = field(default_factory=DrawSettings)
    """What is drawn; the folder is chosen by the cache."""
    edition: int = 3
    """Counts the changes of what is drawn, so that an old version's pictures are not taken for ours."""
    name: str = "demo"
    domains: tuple[str, str] = ("apple", "orange")
    summary: str = ""

    @property
    def _folder(self) -> Path:
        return folder_of(f"{self.name}-{self.edition}")

    def source(self, tell: OnProgress = silent) -> Source:
        if not self.is_present():
            tell(Note("drawing fruit into the cache, once"))
            make_once(self._folder, partial(_draw_into, settings=self.settings, tell=tell))
        return replace(folder_source(self._folder, self.domains), name=self.name)

    def is_present(self) -> bool:
        return self._folder.is_dir()


demo = DrawnSet(summary="drawn fruit, no network: 200 and 200 for training, 50 and 50 for test, 128 px")  # `list` reads it here
