"""Sample sheets of a run, read back: which picture stands where, and which steps are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fruitgan.data.decode import decode
from fruitgan.errors import DataError
from fruitgan.images import Pixels
from fruitgan.report.grid import GAP_PX

COLUMNS = ("source", "fake", "cycled")


@dataclass(frozen=True)
class Sheet:
    """The pictures of one step, uint8 [S, S, 3]: rows of source, fake and, with both directions, cycled."""

    step: int
    rows: tuple[tuple[Pixels, ...], ...]


def sample_files(folder: Path) -> dict[int, Path]:
    """The sheets in a run's `samples/` by step, in order."""
    steps = {path: re.fullmatch(r"step-(\d+)\.png", path.name) for path in folder.glob("step-*.png")}
    return dict(sorted((int(match[1]), path) for path, match in steps.items() if match))


def spread(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` (2 or more) of the steps, evenly, the first and the last among them."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def read_sheet(step: int, path: Path, size_px: int) -> Sheet | None:
    """Cut a sheet into its pictures; None if it cannot be read or holds no pictures of this size."""
    try:
        sheet = decode(path).pixels
    except DataError:
        return None
    pitch = size_px + GAP_PX
    height, width = sheet.shape[:2]
    columns = (width + GAP_PX) // pitch
    if (height + GAP_PX) % pitch or (width + GAP_PX) % pitch or not 2 <= columns <= len(COLUMNS):
        return None
    rows = range(0, height, pitch)
    return Sheet(
        step,
        tuple(tuple(sheet[y : y + size_px, x * pitch : x * pitch + size_px] for x in range(columns)) for y in rows),
    )


def directions(sheet: Sheet, counts: Mapping[str, int]) -> Iterator[tuple[str, range]]:
    """For each direction the numbers of its rows; `counts` says how many rows each has, in the sheet's order.

    Nothing where the counts do not fit the sheet.
    """
    if sum(counts.values()) != len(sheet.rows):
        return
    first = 0
    for direction, count in counts.items():
        if count:
            yield direction, range(first, first + count)
        first += count
