"""Line plots: well formed, in the page's colours, the same bytes each time, and thinned without losing a spike."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np

from fruitgan.report.plots import POINTS_AT_MOST, Line, line_plot, smoothed, thinned

STEPS = list(range(25, 1025, 25))
LINES = [
    Line(x=STEPS, y=[1 / step for step in STEPS], colour=1, style="raw"),
    Line(x=STEPS, y=[2 / step for step in STEPS], colour=2),
]


def test_a_plot_is_well_formed_and_described_and_takes_width_and_every_colour_from_the_page() -> None:
    svg = line_plot("a", LINES, description='loss of <b> & "c"', x_end=1000, level=0.02)
    element = ET.fromstring(svg)
    assert element.get("role") == "img"
    assert element.get("aria-label") == 'loss of <b> & "c"'
    assert element.get("width") is None
    assert re.findall(r"#[0-9a-fA-F]{6}\b", svg) == []
    for variable in ("--line-1", "--line-2", "--plot-ink", "--plot-grid"):
        assert f"var({variable})" in svg
    assert "<style" not in svg


def test_the_same_numbers_are_the_same_bytes_whatever_a_person_set_in_matplotlib() -> None:
    first = line_plot("a", LINES, description="", x_end=1000)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        second = line_plot("a", LINES, description="", x_end=1000)
        assert dict(matplotlib.rcParams) == before
    assert first == second


def test_two_plots_of_a_page_share_no_id_and_refer_to_their_own() -> None:
    plots = [line_plot(name, LINES, description="", x_end=1000) for name in ("a", "b")]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in plots]
    assert not ids[0] & ids[1]
    targets = set(re.findall(r'(?:url\(#|href="#)([^")]+)', plots[0]))
    assert targets
    assert targets <= ids[0]


def test_one_point_no_line_all_zeros_and_losses_below_zero_make_a_plot() -> None:
    for lines in ([Line(x=[25], y=[0.5], colour=1)], [], [Line(x=[1, 2], y=[0.0, 0.0], colour=1)]):
        ET.fromstring(line_plot("a", lines, description="", x_end=0))
    svg = line_plot("a", [Line(x=[1, 2], y=[-3.0, -1.0], colour=1)], description="", x_end=2)
    assert ">-3</text>" in svg


def test_smoothing_is_the_mean_of_the_neighbours() -> None:
    for count in (1, 3, 8, 30):  # fewer values than the window has places, too
        values = np.random.default_rng(0).normal(size=count)
        naive = [values[max(0, i - 4) : i + 5].mean() for i in range(count)]
        np.testing.assert_allclose(smoothed(values, 4), naive)
    np.testing.assert_array_equal(smoothed(values, 0), values)


def test_thinning_keeps_both_ends_and_every_spike() -> None:
    x = np.arange(50_000.0)
    y = np.sin(x)
    y[12_345], y[40_000] = 99.0, -99.0
    thin_x, thin_y = thinned(x, y)
    assert len(thin_x) <= POINTS_AT_MOST + 2
    assert (thin_x[0], thin_x[-1]) == (0, 49_999)
    assert (thin_y.max(), thin_y.min()) == (99, -99)
    assert (np.diff(thin_x) > 0).all()
