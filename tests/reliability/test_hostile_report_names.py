"""Whatever files, domains and plug-ins are called: in every report it is text, and the page is built as for any other."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from named_reports import BUILDERS, detector_inputs

from fruitgan.report.page import visible
from fruitgan.train_detector.page import plot_files

PLAIN = "plum"
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src="//evil.example/x" onerror="alert(2)"><a b="',
    "single quotes": "' onmouseover='alert(3)' x='",
    "ends": "</title></style></text></svg></pre></code></table><script src=//evil.example></script>",
    "comment": "]]><!-- --!><![CDATA[<?php ?>",
    "entities": "&lt;b&gt;&amp;&#60;script&#62;&quot;&apos;",
    "template": "{{ 7 * 7 }}{% raw %}{# #}${7*7}",
    "lines": "one\ntwo\r\nthree\t<b>four",
    "bytes": "caf\udce9\udcff",
    "direction": "apple\u202egpj.exe\u2066\u200f\u061c",
    "controls": "\x1b]0;title\x07\x1b[2J\x08\x85\x00",
    "nothing seen": "a\u200b\u00ad\u2060\ufeff\U000e0041b",
    "address": "javascript:alert(4)//https://evil.example/",
    "style": "url(//evil.example/x);}</style><style>*{display:none}",
    "mathematics": "$\\frac{1}{0}$ \\undefined",
    "hebrew": "\u05ea\u05e4\u05d5\u05d7",
    "long": "<" * 3000,
}


class Page(HTMLParser):
    """What a browser would build: elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.oddities: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.words += [value for _, value in attrs if value]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "style", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.oddities.append(data)

    def handle_pi(self, data: str) -> None:
        self.oddities.append(data)

    def unknown_decl(self, data: str) -> None:
        self.oddities.append(data)


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
    assert page.elements == plain.elements
    assert page.links == plain.links
    assert page.oddities == plain.oddities
    shown = visible(name)
    told = [word for word in page.words if shown in word]
    assert len(told) >= 5


def test_a_detectors_plots_are_the_same_pictures_whatever_its_name() -> None:
    assert plot_files(*detector_inputs(HOSTILE["mathematics"])) == plot_files(*detector_inputs(PLAIN))
