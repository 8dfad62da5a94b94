from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["main-command", "test-command"])
def test_the_readme_marks_the_command_that_is_proven(name: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"^<!-- {name} -->\n```sh\n(.+)\n```\n<!-- /{name} -->$", text, flags=re.MULTILINE)
    assert len(found) == 1


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_link_to_a_file_of_ours_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_stands_in_the_navigation_of_the_site() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]

    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for inner in (entry if isinstance(entry, list) else entry.values()) for page in pages(inner)]  # type: ignore[attr-defined]

    assert sorted(pages(nav)) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", ["README.md", "docs/installation.md"])
def test_every_extra_is_named_where_a_user_installs(page: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [extra for extra in extras if f"`{extra}`" not in text] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_reads_the_same_on_github_and_on_the_site(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    outside = re.findall(r"\]\((\.\./[^)]+)", text)
    assert not outside, "the site has no pages outside of docs/: give the file's address on GitHub"
    glued = re.findall(r"^(?![-*>|#]|\d+\. |  ).+\n(?:[-*] |1\. ).*$", text, flags=re.MULTILINE)
    assert not glued, "the site needs an empty line between a paragraph and a list"
    bars = [code for code in re.findall(r"`[^`\n]*`", text) if "\\|" in code]
    assert not bars, "within backticks the site shows the backslash: write <code>a&#124;b</code>"
