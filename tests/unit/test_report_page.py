"""What every report shares: words for numbers, pictures within a page's limit, sample sheets, and templates."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from picture_files import noise
from PIL import Image

from fruitgan.progress import duration
from fruitgan.report.page import (
    SHOWN_SHEETS,
    grid,
    inline_images,
    number,
    png_bytes,
    render,
    sample_files,
    sample_sheets,
    thousands,
)


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_duration_has_its_two_largest_units() -> None:
    seconds = (0.04, 3.21, 59.4, 59.6, 75, 3599.7, 7500, 273_600)
    texts = ["0.0 s", "3.2 s", "59 s", "1 min", "1 min 15 s", "1 h", "2 h 5 min", "3 d 4 h"]
    assert [duration(value) for value in seconds] == texts


def test_numbers_have_three_significant_digits_and_no_powers_of_ten_above_one() -> None:
    assert [number(value) for value in (0.028911, 3.7189, 0.5, 1234.4, 0)] == ["0.0289", "3.72", "0.5", "1,234", "0"]
    assert [number(value) for value in (999.4, 999.6, -999.6)] == ["999", "1,000", "-1,000"]
    assert thousands(4000) == "4,000"


def test_pictures_that_fit_the_limit_are_exact_and_heavier_ones_become_jpeg_then_smaller_but_all_are_there() -> None:
    pictures = [noise(160, 160)] * 4
    lossless, lossy, small, last = (inline_images(pictures, limit) for limit in (1_000_000, 250_000, 60_000, 10))
    assert lossless[0].startswith("data:image/png")
    assert np.array_equal(np.array(decoded(lossless[0])), pictures[0])
    assert lossy[0].startswith("data:image/jpeg")
    assert decoded(lossy[0]).size == (160, 160)
    assert sum(map(len, lossy)) <= 250_000
    assert decoded(small[0]).width < 160
    assert len(lossless) == len(lossy) == len(small) == len(last) == 4


def test_what_a_template_needs_and_does_not_get_is_an_error() -> None:
    with pytest.raises(Exception, match="undefined"):
        render("training.html")


def test_a_few_sheets_are_shown_by_step_from_the_first_to_the_newest_and_what_is_torn_or_none_is_left_out(
    tmp_path: Path,
) -> None:
    for step in range(1200, -1, -100):
        (tmp_path / f"step-{step:08d}.png").write_bytes(png_bytes(grid([[noise(8, 8)] * 3] * 2)))
    (tmp_path / "step-best.png").touch()
    assert list(sample_files(tmp_path)) == list(range(0, 1300, 100))
    shown = sample_sheets(tmp_path)
    assert [sheet.step for sheet in shown] == list(range(0, 1300, 200))
    assert len(shown) == SHOWN_SHEETS
    assert all(sheet.uri.startswith("data:image/png;base64,") for sheet in shown)
    newest = tmp_path / "step-00001200.png"
    newest.write_bytes(newest.read_bytes()[:60])
    assert [sheet.step for sheet in sample_sheets(tmp_path)] == list(range(0, 1200, 200))
    assert sample_sheets(tmp_path / "missing") == []
