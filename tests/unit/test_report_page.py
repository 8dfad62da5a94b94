from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from picture_files import noise
from PIL import Image

from fruitgan.progress import duration
from fruitgan.report.page import inline_images, number, render, thousands


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (3.21, "3.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (75, "1 min 15 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_have_three_significant_digits_and_no_powers_of_ten_above_one() -> None:
    assert [number(value) for value in (0.028911, 3.7189, 0.5, 1234.4, 0)] == ["0.0289", "3.72", "0.5", "1,234", "0"]
    assert thousands(4000) == "4,000"


def test_a_picture_that_fits_the_limit_is_exact() -> None:
    picture = noise(32, 32)
    (uri,) = inline_images([picture], 100_000)
    assert uri.startswith("data:image/png;base64,")
    assert np.array_equal(np.array(decoded(uri)), picture)


def test_pictures_that_are_too_heavy_become_jpeg_and_then_smaller() -> None:
    pictures = [noise(160, 160)] * 4
    lossless = inline_images(pictures, 1_000_000)
    lossy = inline_images(pictures, 250_000)
    small = inline_images(pictures, 60_000)
    assert lossless[0].startswith("data:image/png")
    assert lossy[0].startswith("data:image/jpeg")
    assert decoded(lossy[0]).size == (160, 160)
    assert sum(map(len, lossy)) <= 250_000
    assert decoded(small[0]).width < 160
    assert len(lossless) == len(lossy) == len(small) == 4


def test_the_last_resort_gives_every_picture_whatever_it_weighs() -> None:
    assert len(inline_images([noise(64, 64)] * 3, 10)) == 3


def test_what_a_template_needs_and_does_not_get_is_an_error() -> None:
    with pytest.raises(Exception, match="undefined"):
        render("training.html")
