"""Whatever files, domains and plug-ins are called: in every report it is text, and the page is built as for any other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from named_reports import BUILDERS, Page, detector_inputs

from fruitgan.report.page import visible
from fruitgan.train_detector.page import plot_files

PLAIN = "plum"
MATHEMATICS = "$\\frac{1}{0}$ \\undefined"
HOSTILE = {
    "attributes": '"><img src="//evil.example/x" onerror="alert(2)"><a b="\' onmouseover=\'alert(3)\' x=\'',
    "elements": "<script>alert(1)</script>]]><!-- --!><![CDATA[<?php ?>{{ 7 * 7 }}{% raw %}{# #}${7*7}" + MATHEMATICS,
    "ends": "</title></style></text></svg></pre></code></table><script src=//evil.example></script>&lt;b&gt;&amp;&#60;a&#62;",
    "addresses": "javascript:alert(4)//https://evil.example/;url(//evil.example/x);}</style><style>*{display:none}",
    "signs": "one\ntwo\r\nthree\t<b>caf\udce9\udcff\x1b]0;title\x07\x1b[2J\x08\x85\x00\u05ea\u05e4\u05d5\u05d7",
    "unseen": "apple\u202egpj.exe\u2066\u200f\u061ca\u200b\u00ad\u2060\ufeff\U000e0041b",
    "long": "<" * 3000,
}
LOADING = ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href")


@pytest.fixture(scope="module", params=BUILDERS)
def builder(request: pytest.FixtureRequest) -> Callable[[str, Path], str]:
    return BUILDERS[request.param]


@pytest.fixture(scope="module")
def plain(builder: Callable[[str, Path], str], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page where everything is called plum."""
    return Page(builder(PLAIN, tmp_path_factory.mktemp("plain")))


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_name_is_text_and_nothing_else_in_every_report(
    name: str, builder: Callable[[str, Path], str], plain: Page, tmp_path: Path
) -> None:
    html = builder(name, tmp_path)
    assert html.encode().decode() == html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]", html)
    page = Page(html)
    assert [(tag, *given) for tag, given in page.elements] == [(tag, *given) for tag, given in plain.elements]
    assert page.values("style", *LOADING) == plain.values("style", *LOADING)
    assert page.oddities == plain.oddities
    assert len([word for word in (*page.words, *page.values()) if visible(name) in word]) >= 5


def test_no_request_leaves_a_report_every_picture_is_described_and_no_id_stands_twice(plain: Page) -> None:
    assert all(value.startswith(("data:", "#", "runs/", "evaluation/")) for value in plain.values(*LOADING))
    assert not plain.all("script")
    assert not [css for css in plain.words + plain.values("style") if re.search(r"@import|url\((?!#)", css)]
    policy = next(each for each in plain.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy["content"]
    assert plain.all("img")
    assert all(image["alt"] for image in plain.all("img"))
    assert plain.all("svg")
    assert all(plot["aria-label"] for plot in plain.all("svg"))
    ids = plain.values("id")
    assert len(ids) == len(set(ids))


def test_a_detectors_plots_are_the_same_pictures_whatever_its_name() -> None:
    assert plot_files(*detector_inputs(MATHEMATICS)) == plot_files(*detector_inputs(PLAIN))
