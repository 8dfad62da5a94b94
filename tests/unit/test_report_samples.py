from __future__ import annotations

from pathlib import Path

import numpy as np

from fruitgan.images import Pixels
from fruitgan.report.grid import grid, png_bytes
from fruitgan.report.samples import Samples, directions, read_sheet, sample_files, spread

NAMES = {"a2b": ("apple", "orange"), "b2a": ("orange", "apple")}


def pictures(rows: int, columns: int, side_px: int = 8, seed: int = 0) -> list[list[Pixels]]:
    made = np.random.default_rng(seed).integers(0, 256, (rows, columns, side_px, side_px, 3), dtype=np.uint8)
    return [list(row) for row in made]


def write(folder: Path, step: int, rows: list[list[Pixels]]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08d}.png"
    path.write_bytes(png_bytes(grid(rows)))
    return path


def test_a_sheet_is_cut_into_the_pictures_it_was_made_of(tmp_path: Path) -> None:
    rows = pictures(3, 3)
    sheet = read_sheet(7, write(tmp_path, 7, rows), 8)
    assert sheet is not None
    assert sheet.step == 7
    np.testing.assert_array_equal(np.array(sheet.rows), np.array(rows))


def test_a_torn_sheet_and_one_of_another_size_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, 1, pictures(2, 3))
    assert read_sheet(1, path, 9) is None
    path.write_bytes(path.read_bytes()[:60])
    assert read_sheet(1, path, 8) is None


def test_sheets_are_found_by_step_and_other_files_are_not(tmp_path: Path) -> None:
    for step in (1000, 5):
        write(tmp_path, step, pictures(1, 2))
    (tmp_path / "step-best.png").touch()
    assert list(sample_files(tmp_path)) == [5, 1000]
    assert sample_files(tmp_path / "missing") == {}


def test_a_few_steps_are_spread_from_the_first_to_the_last() -> None:
    assert spread(range(0, 1000, 10), 4) == [0, 330, 660, 990]
    assert spread([3, 9], 4) == [3, 9]
    assert spread([], 4) == []


def test_rows_belong_to_directions_only_where_the_counts_fit(tmp_path: Path) -> None:
    sheet = read_sheet(1, write(tmp_path, 1, pictures(3, 3)), 8)
    assert sheet is not None
    assert list(directions(sheet, {"a2b": 1, "b2a": 2})) == [("a2b", range(1)), ("b2a", range(1, 3))]
    assert list(directions(sheet, {"a2b": 0, "b2a": 3})) == [("b2a", range(3))]
    assert list(directions(sheet, {"a2b": 4, "b2a": 4})) == []


def test_the_newest_sheet_is_shown_whole_and_a_few_rows_over_the_steps(tmp_path: Path) -> None:
    for step in range(100, 3100, 100):
        write(tmp_path, step, pictures(6, 3, seed=step))
    samples = Samples.read(tmp_path, 8, {"a2b": 3, "b2a": 3}, NAMES)
    assert samples is not None
    assert samples.step == 3000
    assert [(table.title, len(table.rows)) for table in samples.newest] == [("apple → orange", 3), ("orange → apple", 3)]
    assert samples.newest[0].headings == ["source", "fake", "cycled"]
    assert samples.newest[1].rows[2][1].alt == "orange 3, fake"
    assert [len(table.rows) for table in samples.strip] == [2, 2]
    assert samples.strip[0].headings[:2] == ["source", "step 100"]
    assert samples.strip[0].headings[-1] == "step 3,000"
    assert len(samples.strip[0].headings) == 11
    # the newest fakes stand at the end of the strip
    assert samples.strip[1].rows[0][-1].uri == samples.newest[1].rows[0][1].uri


def test_one_sheet_makes_no_strip_and_none_makes_no_samples(tmp_path: Path) -> None:
    assert Samples.read(tmp_path, 8, {}, NAMES) is None
    write(tmp_path, 1, pictures(2, 2))
    samples = Samples.read(tmp_path, 8, {}, NAMES)
    assert samples is not None
    assert samples.strip == []
    assert [table.title for table in samples.newest] == [""]
    assert samples.newest[0].headings == ["source", "fake"]
