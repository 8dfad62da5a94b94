from __future__ import annotations

from pathlib import Path

import numpy as np

from fruitgan.images import Pixels
from fruitgan.report.grid import SHOWN_SHEETS, grid, png_bytes, sample_files, sample_sheets


def pictures(rows: int, columns: int, side_px: int = 8, seed: int = 0) -> list[list[Pixels]]:
    made = np.random.default_rng(seed).integers(0, 256, (rows, columns, side_px, side_px, 3), dtype=np.uint8)
    return [list(row) for row in made]


def write(folder: Path, step: int, rows: list[list[Pixels]]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08d}.png"
    path.write_bytes(png_bytes(grid(rows)))
    return path


def test_sheets_are_found_by_step_and_other_files_are_not(tmp_path: Path) -> None:
    for step in (1000, 5):
        write(tmp_path, step, pictures(1, 2))
    (tmp_path / "step-best.png").touch()
    assert list(sample_files(tmp_path)) == [5, 1000]
    assert sample_files(tmp_path / "missing") == {}
    assert sample_sheets(tmp_path / "missing") == []


def test_a_few_sheets_are_shown_from_the_first_to_the_newest_and_a_torn_one_is_left_out(tmp_path: Path) -> None:
    for step in range(0, 1300, 100):
        path = write(tmp_path, step, pictures(2, 3))
    shown = sample_sheets(tmp_path)
    assert [sheet.step for sheet in shown] == list(range(0, 1300, 200))
    assert len(shown) == SHOWN_SHEETS
    assert all(sheet.uri.startswith("data:image/png;base64,") for sheet in shown)
    path.write_bytes(path.read_bytes()[:60])
    assert [sheet.step for sheet in sample_sheets(tmp_path)] == list(range(0, 1200, 200))
