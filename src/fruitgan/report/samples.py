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
from fruitgan.report.page import inline_images, thousands

COLUMNS = ("source", "fake", "cycled")
NEWEST_LIMIT_BYTES = 1_500_000
STRIP_LIMIT_BYTES = 700_000
STRIP_STEPS = 10
STRIP_ROWS_PER_DIRECTION = 2


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


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture as a data URI."""

    uri: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Pictures in rows, under headings."""

    title: str
    headings: list[str]
    rows: list[list[Picture]]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a report shows of a run's sample sheets: the newest whole, and a few of its rows over the steps."""

    step: int
    size_px: int
    newest: list[Table]
    strip: list[Table]

    @classmethod
    def read(
        cls, folder: Path, size_px: int, counts: Mapping[str, int], names: Mapping[str, tuple[str, str]]
    ) -> Samples | None:
        """None without a sheet that can be read; `counts` (of rows) and `names` (of source and target) are by direction."""
        files = sample_files(folder)
        chosen = spread(list(files), STRIP_STEPS)
        sheets = [sheet for step in chosen if (sheet := read_sheet(step, files[step], size_px)) is not None]
        if not sheets:
            return None
        last = sheets[-1]
        parts = list(directions(last, counts)) or [("", range(len(last.rows)))]
        alike = [sheet for sheet in sheets if len(sheet.rows) == len(last.rows)]
        headings = ["source", *(f"step {thousands(sheet.step)}" for sheet in alike)]
        few = [(direction, rows[:STRIP_ROWS_PER_DIRECTION]) for direction, rows in parts]
        over_steps = [[last.rows[row][0], *(sheet.rows[row][1] for sheet in alike)] for row in range(len(last.rows))]
        return cls(
            step=last.step,
            size_px=size_px,
            newest=_tables(last.rows, list(COLUMNS[: len(last.rows[0])]), parts, names, NEWEST_LIMIT_BYTES),
            strip=_tables(over_steps, headings, few, names, STRIP_LIMIT_BYTES) if len(alike) > 1 else [],
        )


def _tables(
    rows: Sequence[Sequence[Pixels]],
    headings: list[str],
    parts: Sequence[tuple[str, range]],
    names: Mapping[str, tuple[str, str]],
    limit_bytes: int,
) -> list[Table]:
    """A table for each part; all their pictures together keep to the limit."""
    uris = iter(inline_images([picture for _, part in parts for index in part for picture in rows[index]], limit_bytes))
    tables = []
    for direction, part in parts:
        source, target = names.get(direction, ("picture", ""))
        named = [
            [Picture(uri=next(uris), alt=f"{source} {number}, {heading}") for heading in headings]
            for number in range(1, len(part) + 1)
        ]
        tables.append(Table(title=f"{source} → {target}" if target else "", headings=headings, rows=named))
    return tables
