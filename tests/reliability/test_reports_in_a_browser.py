"""Every report in a real browser: it loads alone, shows everything, fits a phone, and can be read with the keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, browser, executable
from named_reports import BUILDERS

pytestmark = pytest.mark.skipif(
    executable() is None, reason="no Chromium is installed (Debian: apt-get install chromium); the pages were not looked at"
)

LONG_NAME = "a-name-that-goes-on-and-on-without-a-single-space-in-it-" * 4
PHONE_PX = 360
PICTURES = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 0, () => false)))"
TEXT = "p, li, dt, dd, th, td, h1, h2, h3, figcaption, summary, a, small, svg text"
CONTRAST = f"""(() => {{
  const linear = value => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const light = colour => {{
    const [red, green, blue] = colour.match(/[\\d.]+/g).map(value => linear(value / 255));
    return .2126 * red + .7152 * green + .0722 * blue;
  }};
  const behind = element => {{
    for (; element; element = element.parentElement) {{
      const colour = getComputedStyle(element).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }}
  }};
  const contrast = element => {{
    const style = getComputedStyle(element);
    const ink = light(element.tagName === "text" ? style.fill : style.color), paper = light(behind(element));
    return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  }};
  const shown = [...document.querySelectorAll("{TEXT}")].filter(e => e.textContent.trim() && !e.closest(".hidden, .skip"));
  return Math.min(...shown.map(contrast));
}})()"""
FOCUS = """(element => [...document.querySelectorAll("*")].indexOf(element) + " " + getComputedStyle(element).outlineStyle)(
  document.activeElement)"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module", params=BUILDERS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    file = folder / "report.html"
    file.write_text(BUILDERS[request.param](LONG_NAME, folder), encoding="utf-8")
    return file


def test_a_page_loads_alone_and_without_a_complaint_and_shows_every_picture(chromium: Chromium, page: Path) -> None:
    chromium.open(page)
    pictures = chromium.value(PICTURES)
    assert pictures
    assert all(pictures)
    assert chromium.value("document.querySelectorAll('img:not([alt]), img[alt=\"\"]').length") == 0
    assert chromium.requests() == [page.as_uri()]
    assert chromium.complaints() == []


def test_a_page_fits_a_phone(chromium: Chromium, page: Path) -> None:
    chromium.open(page, width_px=PHONE_PX, height_px=740)
    assert chromium.value("document.documentElement.scrollWidth") <= PHONE_PX
    heads = "[...document.querySelectorAll('th:not(.hidden)')].map(head => head.offsetWidth)"
    assert min(chromium.value(heads), default=PHONE_PX) >= 24  # no word runs down the page letter by letter


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_plots_stand_out_of_their_ground(chromium: Chromium, page: Path, dark: bool) -> None:
    chromium.open(page, dark=dark)
    ground = chromium.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] * 1")
    assert (ground < 128) == dark
    assert chromium.value(CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3


def test_the_keyboard_reaches_everything_that_can_be_used(chromium: Chromium, page: Path) -> None:
    chromium.open(page)
    wanted = chromium.value("document.querySelectorAll('a[href], summary, [tabindex=\"0\"]').length")
    reached: list[str] = []
    for _ in range(wanted):
        chromium.press_tab()
        reached.append(chromium.value(FOCUS))
    assert len(set(reached)) == wanted
    assert all(place.endswith((" solid", " auto")) for place in reached)


def test_a_request_and_an_error_would_be_noticed(chromium: Chromium, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<body style="width: 500px"><img src="http://127.0.0.1:9/x.png"><script>throw new Error("no")</script>')
    chromium.open(bad, width_px=PHONE_PX)
    assert not all(chromium.value(PICTURES))
    assert "http://127.0.0.1:9/x.png" in chromium.requests()
    assert chromium.complaints()
    assert chromium.value("document.documentElement.scrollWidth") > PHONE_PX
